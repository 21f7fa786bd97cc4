//! The samples on the real programs: before, apply, after, revert, as before.
//!
//! Each sample has a test without upatch, which shows that the trigger works on this machine, and one that tells the
//! whole story with the `upatch` program as an operator would use it. Text outside the patched function's first five
//! bytes must never change (upatch_tests::samples::apply checks that, revert likewise).

mod beanstalkd;
mod cryptography_dh;
mod cryptography_labels;
mod getaddrinfo;
mod iconv_open;
mod libmodbus;
mod libssh2;
mod libssh_hexa;
mod libssh_user;
mod libssl;
mod lighttpd;
mod memcached;
mod memcached_udp;
mod postgresql;
mod redis;
mod redis_dir;
mod redis_keys;
mod redis_lockdown;
mod system;
mod writev;

use anyhow::{Result, ensure};
use upatch_tests::child::{Answer, Driver};
use upatch_tests::packages::Package;
use upatch_tests::skip::skip_program;

/// The fetched programs called `name`, unless they are missing: then `test` is noted as skipped.
fn package(test: &str, name: &str) -> Option<Package> {
    Package::find(name)
        .map_err(|missing| skip_program(test, &missing))
        .ok()
}

/// Asks a driver and insists on one answer.
fn expect(driver: &mut Driver, command: &str, expected: &Answer) -> Result<()> {
    let answer = driver.ask(command)?;
    ensure!(
        answer == *expected,
        "`{command}`: expected {expected}, got {answer}"
    );
    Ok(())
}
