//! The small C programs that load a real library and call it on command (tests/victims/sample_*.c).

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::Scratch;
use crate::child::Driver;
use crate::packages::Package;

/// How Modbus requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Over TCP, with a header of seven bytes.
    Tcp,
    /// Over a serial line, with a unit address in front and a checksum behind.
    Rtu,
}

/// A process that has loaded the fetched libssh2 and calls it on command.
///
/// # Errors
/// No C compiler, or the library doesn't load.
pub fn libssh2_driver(package: &Package, scratch: &Scratch) -> Result<Driver> {
    library_driver(package, scratch, "sample_libssh2", "libssh2.so.1", &[])
}

/// A process that has loaded the fetched libssh and calls it on command.
///
/// # Errors
/// No C compiler, or the library doesn't load.
pub fn libssh_driver(package: &Package, scratch: &Scratch) -> Result<Driver> {
    library_driver(package, scratch, "sample_libssh", "libssh.so.4", &[])
}

/// A process that answers Modbus requests with the fetched libmodbus.
///
/// # Errors
/// No C compiler, or the library doesn't load.
pub fn libmodbus_driver(
    package: &Package,
    scratch: &Scratch,
    transport: Transport,
) -> Result<Driver> {
    let arguments: &[&str] = match transport {
        Transport::Tcp => &[],
        Transport::Rtu => &["rtu"],
    };
    library_driver(
        package,
        scratch,
        "sample_libmodbus",
        "libmodbus.so.5",
        arguments,
    )
}

/// A process that calls functions of the C library on command.
///
/// # Errors
/// No C compiler.
pub fn libc_driver(scratch: &Scratch) -> Result<Driver> {
    Driver::spawn(&mut Command::new(scratch.compile("sample_libc")?))
}

/// The C library that this process itself runs with, and so do the programs that it starts.
///
/// # Errors
/// This process maps no libc.so.6.
pub fn libc_file() -> Result<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let path = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.ends_with("/libc.so.6"));
    Ok(PathBuf::from(
        path.context("this process maps no libc.so.6")?,
    ))
}

fn library_driver(
    package: &Package,
    scratch: &Scratch,
    driver: &str,
    soname: &str,
    arguments: &[&str],
) -> Result<Driver> {
    let mut command = Command::new(scratch.compile(driver)?);
    command
        .arg(package.library(soname))
        .args(arguments)
        .env("LD_LIBRARY_PATH", package.library_path());
    Driver::spawn(&mut command)
}
