//! `cargo xtask soak [--seconds N] [NAME…]`: apply and revert for a long time, on real programs under load.
//!
//! Decides how long: each soak does the cycles that it is meant for, and goes on until its share of N seconds is over.
//! Exits with 1 when a result is wrong, or when a named soak can't run; prints figures as it goes.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use upatch_tests::packages::Package;
use upatch_tests::samples::{Cycles, Postgres, Scratch};
use upatch_tests::skip::is_strict;

/// A soak: its name, its least number of cycles, and what it does.
struct Soak {
    name: &'static str,
    cycles: usize,
    run: fn(&Progress) -> Result<String>,
}

const SOAKS: &[Soak] = &[Soak {
    name: "postgresql",
    cycles: 100,
    run: postgresql,
}];

/// How far a soak is.
struct Progress {
    name: &'static str,
    cycles: usize,
    began: Instant,
    least: Duration,
}

impl Progress {
    /// Whether there is another cycle to do after `done`. Says now and then how far it is.
    fn goes_on(&self, done: usize) -> bool {
        if done > 0 && done.is_multiple_of(10) {
            println!(
                "{}: {done} cycles, {} s",
                self.name,
                self.began.elapsed().as_secs()
            );
        }
        done < self.cycles || self.began.elapsed() < self.least
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (least, names) = arguments(std::env::args().skip(1))?;
    let chosen: Vec<&Soak> = SOAKS
        .iter()
        .filter(|soak| names.is_empty() || names.iter().any(|name| name == soak.name))
        .collect();
    let share = least / u32::try_from(chosen.len().max(1))?;
    for soak in chosen {
        let progress = Progress {
            name: soak.name,
            cycles: soak.cycles,
            began: Instant::now(),
            least: share,
        };
        let figures = (soak.run)(&progress).with_context(|| soak.name)?;
        println!("{}: {figures}", soak.name);
    }
    Ok(())
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<(Duration, Vec<String>)> {
    let (mut least, mut names) = (Duration::ZERO, Vec::new());
    while let Some(word) = words.next() {
        if let Some(rest) = word.strip_prefix("--seconds") {
            let value = match rest.strip_prefix('=') {
                Some(value) => value.to_owned(),
                None => words.next().context("--seconds how many?")?,
            };
            least = Duration::from_secs(
                value
                    .parse()
                    .with_context(|| format!("--seconds {value}"))?,
            );
        } else if SOAKS.iter().any(|soak| soak.name == word) {
            names.push(word);
        } else {
            let known: Vec<_> = SOAKS.iter().map(|soak| soak.name).collect();
            bail!("there is no soak {word}; known: {}", known.join(", "));
        }
    }
    Ok((least, names))
}

fn postgresql(progress: &Progress) -> Result<String> {
    let package = match Package::find("postgresql") {
        Ok(package) => package,
        Err(missing) => {
            ensure!(!is_strict(), "{missing}");
            return Ok(format!("skipped: {missing}"));
        }
    };
    let scratch = Scratch::new()?;
    let mut cycles = Cycles::start(Postgres::start(&package, &scratch)?, &scratch)?;
    let mut done = 0;
    while progress.goes_on(done) {
        cycles.cycle()?;
        done += 1;
    }
    let figures = cycles.finish()?;
    Ok(format!(
        "{figures}, in {} s",
        progress.began.elapsed().as_secs()
    ))
}
