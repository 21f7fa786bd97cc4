//! `cargo xtask demo`: three real programs, each wrong before, mended while it runs, and as it was after.
//!
//! Decides what is shown, and that every sentence is checked before it is printed. Exits with 1 when anything differs
//! from what it would say. A program that could not be fetched is left out, and the demo says so.

mod libssh2;
mod postgresql;
mod redis;
mod teller;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use upatch_tests::packages::Package;
use upatch_tests::skip::is_strict;

use teller::{Label, Teller};

fn main() -> ExitCode {
    match tell(&Teller::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo can't claim what it wanted to: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One line of the closing table.
struct Outcome {
    program: &'static str,
    function: &'static str,
    calls: u64,
    refused: u64,
    took: Duration,
}

/// One program's story, with a title of its own.
type Act = fn(&Teller, &Package) -> Result<Outcome>;

const ACTS: [(&str, Act); 3] = [
    ("libssh2", libssh2::act),
    ("redis", redis::act),
    ("postgresql", postgresql::act),
];

fn tell(teller: &Teller) -> Result<()> {
    let start = Instant::now();
    teller.text("upatch mends a function of a running program: a few lines of C are proven safe, compiled, and");
    teller.text(
        "put in while it runs. Here are three unmodified programs of Debian 12. None is restarted.",
    );
    let mut outcomes = Vec::new();
    for (name, act) in ACTS {
        match Package::find(name) {
            Ok(package) => outcomes.push(act(teller, &package).context(name)?),
            Err(missing) => {
                ensure!(!is_strict(), "{name}: {missing}");
                teller.title(name);
                teller.line(Label::Note, &format!("left out: {missing}"));
            }
        }
    }
    ensure!(!outcomes.is_empty(), "none of the programs is there");
    teller.title("What upatch's counters say");
    teller.text(&format!(
        "  {:<11} {:<29} {:>6} {:>8}   {}",
        "program", "patched function", "calls", "refused", "time to apply"
    ));
    for one in outcomes {
        teller.text(&format!(
            "  {:<11} {:<29} {:>6} {:>8}   {:.0} ms",
            one.program,
            one.function,
            one.calls,
            one.refused,
            one.took.as_secs_f64() * 1e3
        ));
    }
    teller.text(&format!(
        "\nEvery line was checked before it was printed. It took {:.1} seconds.",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Insists on what is about to be told.
fn is<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<()> {
    ensure!(found == expected, "expected {expected:?}, got {found:?}");
    Ok(())
}
