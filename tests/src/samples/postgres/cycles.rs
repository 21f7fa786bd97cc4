//! Many cycles of applying and reverting on a server that pgbench keeps busy: what the test and the soak share.
//!
//! Decides what a cycle is and what must hold in it. Even cycles take the sample, whose effect is asked for on an old
//! and on a new connection; odd ones a patch that counts in a function which every process runs all the time, so that
//! there is always somebody near the bytes that change. Anything unexpected is an error.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Figures, Outcome, Pgbench, Postgres, Session};
use crate::samples::{Scratch, changed_text};
use crate::upatch::{build, build_sample, repository, succeed};

/// What a command does that is allowed to run.
const COPY: &str = "COPY (SELECT 42) TO PROGRAM 'cat >/dev/null'";

/// A server with pgbench at work, and the two patches.
#[derive(Debug)]
pub struct Cycles {
    server: Postgres,
    loads: Vec<Pgbench>,
    old: Session,
    sample: PathBuf,
    hot: PathBuf,
    /// The postmaster's processes that are no backends: they must be there at the end.
    helpers: BTreeSet<u32>,
    /// The most mappings of ours that `old`'s backend has had in the first two cycles.
    mappings: usize,
    figures: CycleFigures,
}

/// What was seen; there are figures only if nothing went wrong.
#[derive(Debug, Default, Clone, Copy)]
pub struct CycleFigures {
    /// Cycles of applying and reverting.
    pub cycles: usize,
    /// Processes patched, added up.
    pub patched: usize,
    /// Commands that were refused, each while the sample was in.
    pub refused: u64,
    /// Commands that ran, each while it wasn't.
    pub ran: u64,
    /// Hits of the patch in the busy function.
    pub hits: u64,
    /// The longest time that one process stood still.
    pub longest_stop: Duration,
    /// Transactions of pgbench that were answered; none failed.
    pub transactions: usize,
    /// The longest of them.
    pub slowest: Duration,
}

impl std::fmt::Display for CycleFigures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} cycles, {} processes patched and reverted, {} commands refused and {} run, each when it should, {} hits in a \
             busy function, {} transactions of pgbench, none failed, slowest {:.1} ms, longest stop of one process {} us",
            self.cycles,
            self.patched,
            self.refused,
            self.ran,
            self.hits,
            self.transactions,
            self.slowest.as_secs_f64() * 1e3,
            self.longest_stop.as_micros()
        )
    }
}

impl Cycles {
    /// Builds the patches, fills the tables, and starts pgbench: three clients that stay, and one that connects anew for
    /// each transaction.
    ///
    /// # Errors
    /// Something of it fails.
    pub fn start(server: Postgres, scratch: &Scratch) -> Result<Self> {
        let source = repository().join("tests/cases/soak/lwlock.c");
        let hot = build(&source, &scratch.path().join("lwlock.o"))?;
        let sample = build_sample("postgresql", scratch.path())?;
        // Nobody has connected yet.
        let helpers = server.children()?.into_iter().collect();
        server.fill()?;
        let old = server.connect()?;
        let loads = vec![
            server.bench(&["--client=3"]),
            server.bench(&["--client=1", "--connect"]),
        ];
        Ok(Self {
            server,
            loads,
            old,
            sample,
            hot,
            helpers,
            mappings: 0,
            figures: CycleFigures::default(),
        })
    }

    /// One cycle.
    ///
    /// # Errors
    /// Anything that an undisturbed server wouldn't do, or a patch shouldn't.
    pub fn cycle(&mut self) -> Result<()> {
        let number = self.figures.cycles;
        if number.is_multiple_of(2) {
            self.sample_cycle()
        } else {
            self.hot_cycle()
        }
        .with_context(|| format!("cycle {number}"))?;
        for pid in [self.server.pid(), self.old.backend()] {
            let changed = changed_text(pid, self.server.program())?;
            ensure!(
                changed.is_empty(),
                "cycle {number}: process {pid} differs from its file at {changed:x?}"
            );
        }
        let mappings = our_mappings(self.old.backend())?;
        if number < 2 {
            self.mappings = self.mappings.max(mappings);
        }
        ensure!(
            mappings <= self.mappings,
            "cycle {number}: a backend has {mappings} mappings of ours, and {} at first",
            self.mappings
        );
        self.server.check()?;
        self.figures.cycles += 1;
        Ok(())
    }

    fn sample_cycle(&mut self) -> Result<()> {
        let applied = self.server.apply(&self.sample)?;
        let refusal = Outcome::Error {
            code: "42501".to_owned(),
            message: "could not execute command \"cat >/dev/null\": Operation not permitted"
                .to_owned(),
        };
        for session in [&mut self.old, &mut self.server.connect()?] {
            let outcome = session.query(COPY)?;
            ensure!(outcome == refusal, "while patched: {outcome:?}");
            ensure!(
                counter(session.backend(), "refused")? > 0,
                "refused, but not counted"
            );
            self.figures.refused += 1;
        }
        let reverted = self.server.revert()?;
        self.add(applied, reverted);
        for session in [&mut self.old, &mut self.server.connect()?] {
            let outcome = session.query(COPY)?;
            ensure!(outcome == Outcome::done(), "after the revert: {outcome:?}");
            self.figures.ran += 1;
        }
        Ok(())
    }

    fn hot_cycle(&mut self) -> Result<()> {
        let applied = self.server.apply(&self.hot)?;
        for session in [&mut self.old, &mut self.server.connect()?] {
            let balance = session.value("SELECT count(*) FROM pgbench_accounts")?;
            ensure!(balance == "100000", "{balance} accounts while patched");
            let hits = counter(session.backend(), "hits")?;
            ensure!(hits > 0, "the query took no lock");
            self.figures.hits += hits;
        }
        let reverted = self.server.revert()?;
        self.add(applied, reverted);
        Ok(())
    }

    fn add(&mut self, applied: Figures, reverted: Figures) {
        self.figures.patched += applied.processes;
        self.figures.longest_stop = self
            .figures
            .longest_stop
            .max(applied.longest_stop)
            .max(reverted.longest_stop);
    }

    /// Ends pgbench and the server.
    ///
    /// # Errors
    /// A transaction failed, the tables are wrong, a process is missing, or the server's log or end tells of a failure.
    pub fn finish(mut self) -> Result<CycleFigures> {
        let reports = self.loads.drain(..).map(Pgbench::finish);
        let reports = reports.collect::<Result<Vec<_>>>()?;
        for report in &reports {
            self.figures.transactions += report.transactions.len();
            let slowest = report.transactions.iter().map(|one| one.took).max();
            self.figures.slowest = self.figures.slowest.max(slowest.unwrap_or_default());
        }
        self.server.check_sums(&reports)?;
        let left: BTreeSet<u32> = self.server.children()?.into_iter().collect();
        let gone: Vec<&u32> = self.helpers.difference(&left).collect();
        ensure!(gone.is_empty(), "processes {gone:?} of the server are gone");
        self.server.stop()?;
        Ok(self.figures)
    }
}

/// A counter of the only patch that is applied, or retired from there.
fn counter(pid: u32, name: &str) -> Result<u64> {
    let dump = succeed(&["telemetry", "dump", "--pid", &pid.to_string()])?;
    let patches = dump["patches"].as_array().context("no patches")?;
    let found: Vec<u64> = patches
        .iter()
        .filter_map(|patch| patch["globals"][name].as_u64())
        .collect();
    found
        .iter()
        .copied()
        .max()
        .with_context(|| format!("no counter {name} in {dump:#}"))
}

fn our_mappings(pid: u32) -> Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(maps
        .lines()
        .filter(|line| line.contains("/memfd:upatch"))
        .count())
}
