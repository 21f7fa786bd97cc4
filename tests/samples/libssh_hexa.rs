//! CVE-2026-0966: no bytes to print, and a write in front of the buffer.

use anyhow::Result;
use upatch_tests::child::Answer;
use upatch_tests::samples::{Scratch, Site, apply, libssh_driver};

use crate::{expect, package};

/// The driver's allocator puts a page that can't be accessed in front of the buffer.
const CRASH: Answer = Answer::Signal(libc::SIGSEGV);
/// Calls `ssh_get_hexa` itself, and a function that calls it.
const NOTHING: [&str; 2] = ["hexa 0", "fingerprint 0"];

#[test]
fn writes_in_front_without_patch() -> Result<()> {
    let Some(package) = package("libssh_hexa::writes_in_front_without_patch", "libssh") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    for command in NOTHING {
        let mut driver = libssh_driver(&package, &scratch)?;
        expect(&mut driver, command, &CRASH)?;
    }
    Ok(())
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("libssh_hexa::story", "libssh") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = libssh_driver(&package, &scratch)?;
    let site = Site::function(&package.library("libssh.so.4"), "ssh_get_hexa")?;
    expect(&mut driver, "hexa 3", &Answer::line("a0:a1:a2"))?;

    let patch = apply("libssh_hexa", driver.pid(), site, &scratch)?;
    for command in NOTHING {
        expect(&mut driver, command, &Answer::line("null"))?;
    }
    expect(&mut driver, "hexa 1", &Answer::line("a0"))?;
    expect(&mut driver, "fingerprint 3", &Answer::line("MD5:a0:a1:a2"))?;
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (4, 2));

    patch.revert()?;
    expect(&mut driver, "hexa 3", &Answer::line("a0:a1:a2"))?;
    expect(&mut driver, NOTHING[0], &CRASH)
}
