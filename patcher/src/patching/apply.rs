//! Applying a prepared patch: stop, look, poke, resume; again after a pause if somebody was in the way.

use std::time::Duration;

use upatch_trampolines::{AvmaRange, PokePlan};

use super::clean::{self, Rubbish};
use super::poke::{PokeError, text_poke};
use super::prepare::Prepared;
use super::quiesce::{Busy, RangeUse, interior, survey};
use super::record::Record;
use crate::process::failpoint::{FailPoint, reach};
use crate::process::stub::{self, StubPlace};
use crate::process::{Process, RemoteError, StopError, StopFigures, StoppedProcess, Tracer};

/// How often a stop is tried before somebody in the way is an answer.
const ATTEMPTS: u32 = 12;

/// The pause before the n-th repetition: 1 ms, doubled each time up to 200 ms, less than a second in all. Every stop may make
/// a wait with a timeout begin again (epoll_wait does), so there are few.
pub(super) fn pause(attempt: u32) {
    let doubled = 1_u64
        .checked_shl(attempt.saturating_sub(1))
        .unwrap_or(u64::MAX);
    std::thread::sleep(Duration::from_millis(doubled.clamp(1, 200)));
}

/// What it took, added up over all stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PokeFigures {
    /// How often the process was stopped.
    pub stops: u32,
    /// The longest of these stops.
    pub longest_stop: Duration,
    /// Tasks of the largest stop.
    pub tasks: usize,
    /// Of these, tasks of other processes in the same address space.
    pub foreign: usize,
    /// Of these, tasks that slept in the kernel.
    pub parked: usize,
    /// Tasks that were born during a stop.
    pub born: usize,
    /// Tasks whose ip was moved.
    pub moved: usize,
    /// Tasks that stood in the way of a stop's purpose.
    pub standing: usize,
    /// Words on stacks that stood in the way.
    pub returning: usize,
}

impl PokeFigures {
    pub(super) fn add_stop(&mut self, stop: &StopFigures) {
        self.stops += 1;
        self.longest_stop = self.longest_stop.max(stop.duration);
        self.tasks = self.tasks.max(stop.tasks);
        self.foreign = self.foreign.max(stop.foreign);
        self.parked = self.parked.max(stop.parked);
        self.born += stop.born;
    }

    pub(super) fn add_use(&mut self, used: &RangeUse) {
        self.standing += used.standing.len();
        self.returning += used.words.len();
    }
}

/// A patch that is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Per site what was poked, and its record in the target; never none.
    pub sites: Vec<(PokePlan, Record)>,
    /// What it took.
    pub figures: PokeFigures,
}

impl Applied {
    /// The shared memory, if any.
    #[must_use]
    pub fn arena(&self) -> Option<AvmaRange> {
        let mut records = self.sites.iter().map(|(_, record)| record);
        records.find_map(|record| Some(record.arena?.range()))
    }
}

/// Why a prepared patch is not live. The target runs unpatched.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There was no quiet moment.
    #[error(transparent)]
    Busy(Box<Busy>),
    /// The text isn't what was planned for, or can't be written.
    #[error(transparent)]
    Poke(#[from] PokeError),
    /// The image finds its re-entry guards by the thread pointer, and a thread has none.
    #[error(
        "thread {tid} has no thread pointer (fs base 0), by which calls of the program are kept apart"
    )]
    NoThreadPointer {
        /// The thread.
        tid: i32,
    },
    /// The process could not be stopped.
    #[error(transparent)]
    Stop(#[from] StopError),
}

/// Stubs that a killed `upatch` left, and regions that may be unused: looked at in the same stop as everything else.
pub(super) struct Chores {
    stubs: Vec<StubPlace>,
    rubbish: Rubbish,
}

impl Chores {
    pub(super) fn new(process: &Process, rubbish: Rubbish) -> Self {
        Self {
            stubs: stub::inherited(process),
            rubbish,
        }
    }

    /// Ranges to survey.
    pub(super) fn ranges(&self) -> Vec<AvmaRange> {
        let stubs = self.stubs.iter().map(StubPlace::range);
        stubs.chain(self.rubbish.code_ranges()).collect()
    }

    /// Acts on the survey: erases stubs, keeps only what nobody is in.
    pub(super) fn surveyed(&mut self, process: &Process, uses: &[RangeUse], complete: bool) {
        let (stubs, mut codes) = uses.split_at(self.stubs.len().min(uses.len()));
        let mut stubs = stubs.iter();
        self.stubs.retain(|place| {
            let unused = stubs.next().is_some_and(RangeUse::is_unused) && complete;
            // Zeros in place of zeros that were there before; if it fails the stub stays, and does no harm.
            !(unused && place.erase(process.memory()).is_ok())
        });
        // All sites of a patch or none: each of its images reads the gate that lies beside the first one.
        self.rubbish.regions.retain(|found| {
            let (own, others) = codes.split_at(found.regions.len().min(codes.len()));
            codes = others;
            own.len() == found.regions.len() && own.iter().all(RangeUse::is_unused) && complete
        });
    }

    /// Only what needs no survey.
    pub(super) fn without_regions(mut self) -> Self {
        self.rubbish.regions.clear();
        self
    }

    /// One more region, of which a survey has shown that nobody is inside.
    pub(super) fn add(&mut self, found: super::region::Found) {
        self.rubbish.regions.push(found);
    }

    /// Takes away what the survey found unused. Best effort: what stays is found again.
    pub(super) fn finish(self, process: &Process) -> Result<Option<StopFigures>, RemoteError> {
        let (retired, regions): (Vec<_>, Vec<_>) = self
            .rubbish
            .regions
            .into_iter()
            .partition(clean::must_retire);
        for found in &retired {
            let _ = clean::retire(process, found);
        }
        clean::clean(
            process,
            &Rubbish {
                regions,
                ..self.rubbish
            },
        )
    }
}

/// Makes a prepared patch live.
///
/// # Errors
/// See [`ApplyError`]; what was prepared is taken out again.
pub fn apply(mut prepared: Prepared<'_>) -> Result<Applied, ApplyError> {
    let process = prepared.process;
    let mut chores = Chores::new(process, std::mem::take(&mut prepared.leftovers));
    let mut figures = prepared.figures;
    match poke_in(process, &prepared, &mut chores, &mut figures) {
        Ok(()) => {
            // The patch is live; rubbish that can't be removed now is removed another time.
            if let Ok(Some(stop)) = chores.finish(process) {
                figures.add_stop(&stop);
            }
            Ok(Applied {
                sites: prepared.sites,
                figures,
            })
        }
        // Nobody knows what the site holds: the image stays.
        Err(error @ ApplyError::Poke(PokeError::Lost { .. })) => Err(error),
        Err(error) => {
            let _ = prepared.discard();
            Err(error)
        }
    }
}

fn poke_in(
    process: &Process,
    prepared: &Prepared<'_>,
    chores: &mut Chores,
    figures: &mut PokeFigures,
) -> Result<(), ApplyError> {
    let plans: Vec<PokePlan> = prepared
        .sites
        .iter()
        .map(|(plan, _)| plan.clone())
        .collect();
    let mut records = prepared.sites.iter().map(|(_, record)| record);
    let calls_application = records.any(|record| record.calls_application);
    for attempt in 1.. {
        let tried = Tracer::session(|tracer| -> Result<Option<Box<Busy>>, ApplyError> {
            let mut stopped = StoppedProcess::stop(tracer, process)?;
            let unable = stopped
                .tasks()
                .find(|task| calls_application && task.thread_pointer == Some(0));
            if let Some(task) = unable {
                return Err(ApplyError::NoThreadPointer { tid: task.tid });
            }
            let mut ranges: Vec<AvmaRange> = plans.iter().map(interior).collect();
            ranges.extend(chores.ranges());
            let (uses, complete) = survey(&mut stopped, &ranges);
            let (own, others) = uses.split_at(plans.len());
            chores.surveyed(process, others, complete);
            let result = match stopped.quiesce_surveyed(&plans, prepared.gate, own) {
                Err(busy) => {
                    own.iter().for_each(|used| figures.add_use(used));
                    Ok(Some(busy))
                }
                Ok(quiescent) => text_poke(quiescent).map(|poked| {
                    figures.moved += poked.moved;
                    None
                }),
            };
            figures.add_stop(&stopped.resume());
            reach(FailPoint::Resumed);
            Ok(result?)
        });
        match tried? {
            None => return Ok(()),
            Some(busy) if attempt >= ATTEMPTS => return Err(ApplyError::Busy(busy)),
            Some(_) => pause(attempt),
        }
    }
    Ok(())
}
