//! CVE-2026-7598: a length that wraps a 32-bit sum.

use anyhow::Result;
use upatch_tests::child::Answer;
use upatch_tests::samples::{Scratch, Site, apply, libssh2_driver};

use crate::{expect, package};

const CRASH: Answer = Answer::Signal(libc::SIGSEGV);
const WRAPPING: &str = "call 0xfffffff0";

#[test]
fn crashes_without_patch() -> Result<()> {
    let Some(package) = package("libssh2::crashes_without_patch", "libssh2") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = libssh2_driver(&package, &scratch)?;
    expect(&mut driver, "call 5", &Answer::line("rc -7"))?;
    expect(&mut driver, WRAPPING, &CRASH)
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("libssh2::story", "libssh2") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = libssh2_driver(&package, &scratch)?;
    let site = Site::function(
        &package.library("libssh2.so.1"),
        "libssh2_userauth_password_ex",
    )?;
    // A session without a connection: -7, LIBSSH2_ERROR_SOCKET_SEND.
    expect(&mut driver, "call 5", &Answer::line("rc -7"))?;

    let patch = apply("libssh2", driver.pid(), site, &scratch)?;
    expect(&mut driver, "call 5", &Answer::line("rc -7"))?;
    expect(&mut driver, WRAPPING, &Answer::line("rc -14"))?;
    expect(&mut driver, "call 0x10001", &Answer::line("rc -14"))?;
    expect(&mut driver, "password 0xfffffff0", &Answer::line("rc -14"))?;
    expect(&mut driver, "version", &Answer::line("1.10.0"))?;
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (4, 3));

    patch.revert()?;
    expect(&mut driver, "call 5", &Answer::line("rc -7"))?;
    expect(&mut driver, WRAPPING, &CRASH)
}
