//! pgbench on a server, one short run after the other until told to stop, and what it has measured.
//!
//! Decides when a run counts as failed: any failed transaction, any other end than a regular one. Its log of single
//! transactions says when each was answered and how long it took.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};

use super::Place;
use crate::child;

/// Seconds of one run. When it ends its backends end, and the next run makes new ones.
const RUN: &str = "2";
/// For one run, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A load that goes on until [`Pgbench::finish`].
#[derive(Debug)]
pub struct Pgbench {
    stop: Arc<AtomicBool>,
    runner: Option<JoinHandle<Result<BenchReport>>>,
}

/// What pgbench saw; there is a report only if nothing failed.
#[derive(Debug, Default, Clone)]
pub struct BenchReport {
    /// How many times it was started.
    pub runs: u64,
    /// Every transaction that was answered, in no order.
    pub transactions: Vec<Transaction>,
}

/// One answered transaction.
#[derive(Debug, Clone, Copy)]
pub struct Transaction {
    /// When it was answered.
    pub answered: SystemTime,
    /// How long it took from its first statement.
    pub took: Duration,
}

impl Pgbench {
    pub(super) fn start(place: Place, arguments: &[&str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let stopped = Arc::clone(&stop);
        let runner = thread::spawn(move || {
            let mut report = BenchReport::default();
            while !stopped.load(Ordering::Relaxed) {
                run(&place, &arguments, &mut report)?;
            }
            Ok(report)
        });
        Self {
            stop,
            runner: Some(runner),
        }
    }

    /// Ends the load after the run that is under way.
    ///
    /// # Errors
    /// A transaction failed, or pgbench did.
    pub fn finish(mut self) -> Result<BenchReport> {
        self.stop.store(true, Ordering::Relaxed);
        let runner = self.runner.take().context("finished twice")?;
        runner
            .join()
            .map_err(|_| anyhow!("pgbench's thread panicked"))?
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(runner) = self.runner.take() {
            // Somebody has failed already, and says so.
            let _ = runner.join();
        }
    }
}

fn run(place: &Place, arguments: &[String], report: &mut BenchReport) -> Result<()> {
    let logs = tempfile::Builder::new()
        .prefix("pgbench-")
        .tempdir_in(&place.folder)?;
    place.owner.give(logs.path())?;
    let mut pgbench = place.command("pgbench");
    pgbench
        .args(["--no-vacuum", "--log", "--time", RUN])
        .arg(format!(
            "--log-prefix={}",
            logs.path().join("log").display()
        ))
        .args(arguments)
        .arg("postgres");
    let ended = child::run(&mut pgbench, LIMIT)?;
    let said = format!("{}{}", ended.stdout, ended.stderr);
    let number = |label: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(label))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    ensure!(
        ended.code == 0 && number("number of failed transactions: ") == Some(0),
        "pgbench {} exited with {}: {said}",
        arguments.join(" "),
        ended.code
    );
    let before = report.transactions.len();
    for file in fs::read_dir(logs.path())? {
        let text = fs::read_to_string(file?.path())?;
        for line in text.lines() {
            let transaction =
                transaction(line).with_context(|| format!("pgbench's log: {line}"))?;
            report.transactions.push(transaction);
        }
    }
    let logged = report.transactions.len() - before;
    let processed = number("number of transactions actually processed: ");
    ensure!(
        processed == u64::try_from(logged).ok(),
        "pgbench processed {processed:?} transactions and logged {logged}"
    );
    report.runs += 1;
    Ok(())
}

/// A line of the log: client, number, duration in µs, script, seconds and µs since 1970.
fn transaction(line: &str) -> Option<Transaction> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, _, took, _, seconds, micros, ..] = fields[..] else {
        return None;
    };
    let since =
        Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?);
    Some(Transaction {
        answered: SystemTime::UNIX_EPOCH + since,
        took: Duration::from_micros(took.parse().ok()?),
    })
}
