//! Tests that could not run say so here; `cargo xtask test` counts and lists them.
//!
//! A skipped test returns early and looks like a passed one to libtest, so it leaves a line `name<TAB>reason` in the
//! file named by `UPATCH_SKIPS`. With `UPATCH_STRICT=1` (set by .ci/run) a test on a real program must run: a skip
//! is a failure then, unless the archive no longer offers that version.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use crate::packages::Missing;

/// Notes that `test` did not run because of what this machine lacks (a CPU feature, a privilege).
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    let Some(path) = env::var_os("UPATCH_SKIPS") else {
        return;
    };
    let line = format!("{test}\t{}\n", reason.replace(['\n', '\t'], " "));
    // One write of one line in append mode: tests of several threads and processes don't tear each other's lines.
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    assert!(
        written.is_ok(),
        "UPATCH_SKIPS can't be written: {written:?}"
    );
}

/// Notes that `test` did not run because a real program is not there.
///
/// # Panics
/// With `UPATCH_STRICT=1`, unless the archive no longer offers that version.
pub fn skip_program(test: &str, missing: &Missing) {
    match missing {
        Missing::Withdrawn(_) => {}
        Missing::NotFetched(reason) => {
            assert!(
                !is_strict(),
                "{test} could not run, and UPATCH_STRICT=1 is set: {reason}"
            );
        }
    }
    skip(test, &missing.to_string());
}

/// Whether a test on a real program that can't run is a failure.
pub fn is_strict() -> bool {
    env::var_os("UPATCH_STRICT").is_some_and(|value| value == "1")
}
