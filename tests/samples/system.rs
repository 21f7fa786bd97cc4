//! No shell for a program, though its neighbour popen(3) keeps working.

use anyhow::Result;
use upatch_tests::child::{Answer, Driver};
use upatch_tests::samples::{Scratch, Site, apply, libc_driver, libc_file};

use crate::expect;

fn expect_shell(driver: &mut Driver) -> Result<()> {
    expect(driver, "shell", &Answer::line("1"))?;
    expect(driver, "system true", &Answer::line("status 0 errno 0"))?;
    // wait(2): the exit code is in the second byte.
    expect(driver, "system exit 3", &Answer::line("status 768 errno 0"))?;
    expect(driver, "popen echo hi", &Answer::line("hi"))
}

#[test]
fn runs_commands_without_patch() -> Result<()> {
    let scratch = Scratch::new()?;
    expect_shell(&mut libc_driver(&scratch)?)
}

#[test]
fn story() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut driver = libc_driver(&scratch)?;
    expect_shell(&mut driver)?;

    let patch = apply(
        "system",
        driver.pid(),
        Site::function(&libc_file()?, "system")?,
        &scratch,
    )?;
    let refused = Answer::line(&format!("status -1 errno {}", libc::EPERM));
    let mark = scratch.path().join("mark");
    expect(
        &mut driver,
        &format!("system touch {}", mark.display()),
        &refused,
    )?;
    expect(&mut driver, "system true", &refused)?;
    expect(&mut driver, "shell", &Answer::line("0"))?;
    expect(&mut driver, "popen echo hi", &Answer::line("hi"))?;
    assert!(!mark.exists(), "the command ran");
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (3, 2));

    patch.revert()?;
    expect_shell(&mut driver)
}
