//! CVE-2024-10918: a request that is longer than the buffer that it is copied to.

use anyhow::Result;
use upatch_tests::child::Answer;
use upatch_tests::samples::{Scratch, Site, Transport, apply, libmodbus_driver};

use crate::{expect, package};

const ABORT: Answer = Answer::Signal(libc::SIGABRT);

#[test]
fn aborts_without_patch() -> Result<()> {
    let Some(package) = package("libmodbus::aborts_without_patch", "libmodbus") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    for transport in [Transport::Tcp, Transport::Rtu] {
        for command in ["reply 5 400", "reply 6 400"] {
            let mut driver = libmodbus_driver(&package, &scratch, transport)?;
            expect(&mut driver, command, &ABORT)?;
        }
    }
    Ok(())
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("libmodbus::story", "libmodbus") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = libmodbus_driver(&package, &scratch, Transport::Tcp)?;
    let site = Site::function(&package.library("libmodbus.so.5"), "modbus_reply")?;
    expect(
        &mut driver,
        "reply 6 12",
        &Answer::line("rc 12 reply 000100000006010600021234"),
    )?;

    let patch = apply("libmodbus", driver.pid(), site, &scratch)?;
    // Function code with the high bit, then 3, illegal data value: what the fixed library answers.
    expect(
        &mut driver,
        "reply 6 400",
        &Answer::line("rc 9 reply 000200000003018603"),
    )?;
    expect(
        &mut driver,
        "reply 5 400",
        &Answer::line("rc 9 reply 000300000003018503"),
    )?;
    expect(
        &mut driver,
        "reply 6 13",
        &Answer::line("rc 9 reply 000400000003018603"),
    )?;
    expect(
        &mut driver,
        "reply 6 12",
        &Answer::line("rc 12 reply 000500000006010600021234"),
    )?;
    expect(
        &mut driver,
        "reply 3 12",
        &Answer::line("rc 11 reply 0006000000050103021234"),
    )?;
    expect(&mut driver, "register 2", &Answer::line("1234"))?;
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (5, 3));

    patch.revert()?;
    expect(
        &mut driver,
        "reply 6 12",
        &Answer::line("rc 12 reply 000700000006010600021234"),
    )?;
    expect(&mut driver, "reply 6 400", &ABORT)
}

#[test]
fn covers_the_serial_line() -> Result<()> {
    let Some(package) = package("libmodbus::covers_the_serial_line", "libmodbus") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = libmodbus_driver(&package, &scratch, Transport::Rtu)?;
    let site = Site::function(&package.library("libmodbus.so.5"), "modbus_reply")?;
    let patch = apply("libmodbus", driver.pid(), site, &scratch)?;
    expect(
        &mut driver,
        "reply 6 400",
        &Answer::line("rc 5 reply 0186030261"),
    )?;
    expect(
        &mut driver,
        "reply 6 8",
        &Answer::line("rc 8 reply 010600021234257d"),
    )?;
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (2, 1));
    patch.revert()?;
    Ok(())
}
