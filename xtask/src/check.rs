//! `cargo xtask check`: what must hold before anybody runs a test.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process::{cargo, succeed};

/// For each step; a cold build of all dependencies on two cores takes about two minutes.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Formatting, lints, documentation.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "check takes no arguments");
    succeed(cargo().args(["fmt", "--all", "--check"]), LIMIT)?;
    succeed(
        cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
        LIMIT,
    )?;
    succeed(
        cargo()
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
        LIMIT,
    )
}
