//! Apply and revert, over and over, on a program that checks its own results on eight threads.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use upatch::patching::{PokeFigures, RevertOutcome};

use crate::hook::{Hook, Target};
use crate::victim::{Victim, eventually};

pub(crate) fn trials() -> Vec<Trial> {
    vec![crate::case("spinner_1000_cycles", spinner)]
}

/// Figures of many cycles.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) cycles: usize,
    pub(crate) hits: u64,
    pub(crate) moved: usize,
    pub(crate) delayed: usize,
    pub(crate) standing: usize,
    pub(crate) born: usize,
    pub(crate) stops: u32,
    /// Cycles in which a task of another process in the same memory was stopped.
    pub(crate) foreign: usize,
    /// Cycles in which a task slept in the kernel.
    pub(crate) parked: usize,
    pub(crate) longest: Vec<Duration>,
}

impl Sum {
    pub(crate) fn add(&mut self, apply: &PokeFigures, revert: &PokeFigures, hits: u64) {
        self.cycles += 1;
        self.hits += hits;
        self.moved += apply.moved + revert.moved;
        self.delayed += revert.returning;
        self.standing += apply.standing + revert.standing;
        self.born += apply.born + revert.born;
        self.stops += apply.stops + revert.stops;
        self.foreign += usize::from(apply.foreign + revert.foreign > 0);
        self.parked += usize::from(apply.parked + revert.parked > 0);
        self.longest
            .push(apply.longest_stop.max(revert.longest_stop));
    }

    /// Minimum, median and maximum of the longest stop per cycle.
    pub(crate) fn stops(&mut self) -> String {
        self.longest.sort_unstable();
        let micros = |at: usize| self.longest.get(at).map_or(0, Duration::as_micros);
        let last = self.longest.len().saturating_sub(1);
        format!(
            "longest stop per cycle {}/{}/{} us (min/median/max)",
            micros(0),
            micros(last / 2),
            micros(last)
        )
    }
}

fn spinner() -> Result<String> {
    const THREADS: u64 = 8;
    let mut victim = Victim::start("spinner", &[], &[&THREADS.to_string()])?;
    let targets = [
        Target::open(victim.pid(), "exe", "slow")?,
        Target::open(victim.pid(), "exe", "work")?,
        Target::open(victim.pid(), "exe", "wrap")?,
        Target::open(victim.pid(), "exe", "deep")?,
    ];
    let cycles = 1000 * crate::scale();
    let mut sum = Sum::default();
    let began = Instant::now();
    for cycle in 0..cycles {
        let target = &targets[cycle % targets.len()];
        let hook = if (cycle / targets.len()) % 2 == 0 {
            Hook::Count
        } else {
            Hook::Linger(20_000)
        };
        let applied = target.apply("00000001", hook)?;
        eventually(Duration::from_secs(5), || Ok(target.hits(&applied)? > 0))?;
        let (reverted, hits) = target.revert("00000001")?;
        ensure!(
            reverted.outcome == RevertOutcome::Clean,
            "cycle {cycle}: {:?}",
            reverted.outcome
        );
        ensure!(hits > 0, "cycle {cycle}: no hits");
        sum.add(&applied.figures, &reverted.figures, hits);
        victim.check_running()?;
    }
    let took = began.elapsed();
    for target in &targets {
        target.check_clean()?;
    }
    let mut checks = 0;
    for thread in 0..THREADS {
        victim.progress(thread, 1)?;
        checks += victim.counter(thread)?;
    }
    let (births, errors) = (victim.counter(64)?, victim.counter(65)?);
    let stops = sum.stops();
    let figures = format!(
        "{} cycles in {:.1} s, {} hits, {checks} rounds of checks, {errors} wrong, {} ips moved, {} return addresses delayed a \
         revert ({} threads stood in it), {} threads born during a stop (of {births}), {} stops, {}",
        sum.cycles,
        took.as_secs_f64(),
        sum.hits,
        sum.moved,
        sum.delayed,
        sum.standing,
        sum.born,
        sum.stops,
        stops,
    );
    ensure!(errors == 0 && checks > 0, "{figures}");
    ensure!(sum.moved > 0, "no ip was moved: {figures}");
    ensure!(
        sum.delayed > 0,
        "no return address delayed a revert: {figures}"
    );
    ensure!(sum.born > 0, "no thread was born during a stop: {figures}");
    Ok(figures)
}
