//! The fetched Python interpreter with the scripts tests/victims/sample_*.py, which answer commands for as long as they are asked.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::child::Driver;
use crate::packages::Package;
use crate::upatch::repository;

/// Where pip has put the wheels, in their set.
const SITE: &str = "site";

/// A process that shakes hands over TLS, with the libssl of the interpreter's set.
///
/// # Errors
/// The interpreter doesn't start.
pub fn ssl_driver(interpreter: &Package) -> Result<Driver> {
    Driver::spawn(&mut script(interpreter, "sample_ssl"))
}

/// A process that verifies certificates and checks parameters, with the OpenSSL in the wheels.
///
/// # Errors
/// The interpreter doesn't start, or the wheels don't load.
pub fn cryptography_driver(interpreter: &Package, wheels: &Package) -> Result<Driver> {
    let mut command = script(interpreter, "sample_cryptography");
    Driver::spawn(command.env("PYTHONPATH", wheels.file(SITE)))
}

/// The library in the wheels that has OpenSSL in it.
pub fn cryptography_library(wheels: &Package) -> PathBuf {
    wheels
        .file(SITE)
        .join("cryptography/hazmat/bindings/_openssl.abi3.so")
}

fn script(interpreter: &Package, name: &str) -> Command {
    let mut command = Command::new(interpreter.file("usr/bin/python3.11"));
    // -s: nothing from the user's own folder; -B: nothing is written beside the modules.
    command.args(["-B", "-s", "-X", "utf8"]).arg(
        repository()
            .join("tests/victims")
            .join(format!("{name}.py")),
    );
    command
        .env("PYTHONHOME", interpreter.file("usr"))
        .env("LD_LIBRARY_PATH", interpreter.library_path())
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONSTARTUP")
        // The system's settings may raise the least TLS version by themselves.
        .env("OPENSSL_CONF", "/dev/null");
    command
}
