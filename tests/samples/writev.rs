//! No writev of more than the rules say, in all or in one piece; what the kernel refuses it still refuses itself.

use anyhow::Result;
use upatch_tests::child::{Answer, Driver};
use upatch_tests::samples::{Scratch, Site, apply, libc_driver, libc_file};
use upatch_tests::upatch::succeed;

use crate::expect;

fn expect_written(driver: &mut Driver, pieces: &[u64]) -> Result<()> {
    let (words, sum) = (words(pieces), pieces.iter().sum::<u64>());
    expect(
        driver,
        &words,
        &Answer::line(&format!("wrote {sum} errno 0")),
    )
}

fn expect_errno(driver: &mut Driver, command: &str, errno: i32) -> Result<()> {
    expect(
        driver,
        command,
        &Answer::line(&format!("wrote -1 errno {errno}")),
    )
}

fn words(pieces: &[u64]) -> String {
    let words: Vec<String> = pieces.iter().map(u64::to_string).collect();
    format!("writev {}", words.join(" "))
}

const LARGE: [&[u64]; 3] = [&[0x10001], &[1, 0x10001, 2], &[0x10000; 8]];
const SMALL: [&[u64]; 4] = [&[0], &[1, 2, 3], &[0x10000], &[5; 8]];

fn expect_everything_written(driver: &mut Driver) -> Result<()> {
    for pieces in SMALL.iter().chain(&LARGE) {
        expect_written(driver, pieces)?;
    }
    expect_refused_by_kernel(driver)
}

fn expect_refused_by_kernel(driver: &mut Driver) -> Result<()> {
    expect_errno(driver, "writev_at 0x10 1", libc::EFAULT)?;
    expect_errno(driver, "writev_at 0x10 -1", libc::EINVAL)?;
    expect_errno(driver, "writev_at 0x10 1025", libc::EINVAL)
}

#[test]
fn writes_without_patch() -> Result<()> {
    let scratch = Scratch::new()?;
    expect_everything_written(&mut libc_driver(&scratch)?)
}

#[test]
fn story() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut driver = libc_driver(&scratch)?;
    expect_everything_written(&mut driver)?;

    let patch = apply(
        "writev",
        driver.pid(),
        Site::function(&libc_file()?, "writev")?,
        &scratch,
    )?;
    let pid = driver.pid().to_string();
    succeed(&["rules", "set", "--pid", &pid, "most=0x70000"])?;
    for pieces in SMALL {
        expect_written(&mut driver, pieces)?;
    }
    expect_written(&mut driver, &[0x10000; 7])?;
    for pieces in LARGE {
        expect_errno(&mut driver, &words(pieces), libc::EMSGSIZE)?;
    }
    // A sum that wraps to 4.
    let half = 1u64 << 63;
    expect_errno(&mut driver, &words(&[half, half, 4]), libc::EMSGSIZE)?;
    expect_refused_by_kernel(&mut driver)?;
    succeed(&["rules", "set", "--pid", &pid, "longest=4"])?;
    expect_errno(&mut driver, &words(&[1, 5]), libc::EMSGSIZE)?;
    expect_written(&mut driver, &[1, 4])?;
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (14, 5));

    patch.revert()?;
    expect_everything_written(&mut driver)
}
