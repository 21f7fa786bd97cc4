//! One character set is refused, however it is spelled, and no other.

use anyhow::Result;
use upatch_tests::child::{Answer, Driver};
use upatch_tests::samples::{Scratch, Site, apply, libc_driver, libc_file};

use crate::expect;

const UNWANTED: [&str; 8] = [
    "iconv ISO-2022-CN-EXT UTF-8",
    "iconv UTF-8 ISO-2022-CN-EXT",
    "iconv iso-2022-cn-ext UTF-8",
    "iconv Iso-2022-CN-ext//TRANSLIT UTF-8",
    "iconv ISO2022CNEXT UTF-8",
    "iconv ~ISO-20!22-CN-EXT UTF-8",
    "iconv ISO-2022-CN-EXT ISO-2022-CN-EXT",
    "iconv ISO-2022-CN-EXT/ UTF-8",
];

const WANTED: [&str; 5] = [
    "iconv ISO-2022-CN UTF-8",
    "iconv UTF-8 ISO-2022-JP-2",
    "iconv UTF-16LE//IGNORE iso-8859-15",
    "iconv KOI8-R //",
    "iconv ASCII ISO_8859-1:1987",
];

fn expect_wanted(driver: &mut Driver) -> Result<()> {
    for command in WANTED {
        expect(driver, command, &Answer::line("ok"))?;
    }
    expect(driver, "convert", &Answer::line("e974e9"))
}

/// A name that glibc accepts, because it drops every `~`, and that is too long for the patch to judge.
fn padded() -> String {
    format!("iconv {}ISO-2022-CN-EXT UTF-8", "~".repeat(120))
}

fn expect_all_accepted(driver: &mut Driver) -> Result<()> {
    for command in UNWANTED {
        expect(driver, command, &Answer::line("ok"))?;
    }
    expect(driver, &padded(), &Answer::line("ok"))?;
    expect_wanted(driver)
}

#[test]
fn accepts_without_patch() -> Result<()> {
    let scratch = Scratch::new()?;
    expect_all_accepted(&mut libc_driver(&scratch)?)
}

#[test]
fn story() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut driver = libc_driver(&scratch)?;
    expect_all_accepted(&mut driver)?;

    let patch = apply(
        "iconv_open",
        driver.pid(),
        Site::function(&libc_file()?, "iconv_open")?,
        &scratch,
    )?;
    let refused = Answer::line(&format!("failed {}", libc::EINVAL));
    for command in UNWANTED {
        expect(&mut driver, command, &refused)?;
    }
    expect_wanted(&mut driver)?;
    expect(&mut driver, &padded(), &refused)?;
    // `convert` opens once.
    let hits = u64::try_from(UNWANTED.len() + WANTED.len())? + 2;
    assert_eq!(
        (patch.counter("hits")?, patch.counter("refused")?),
        (hits, u64::try_from(UNWANTED.len())? + 1)
    );

    patch.revert()?;
    expect_all_accepted(&mut driver)
}
