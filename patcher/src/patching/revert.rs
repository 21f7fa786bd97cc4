//! Reverting: the original bytes back if the site still holds ours, then the image away when nobody is in it.
//!
//! The original bytes come from the caller, who reads them from the ELF file; the record's copy only has to agree.

use upatch_trampolines::{AvmaRange, PokePlan};

use super::apply::{Chores, PokeFigures, pause};
use super::arena::Backend;
use super::clean::{self, Rubbish};
use super::poke::{Bytes, PokeError, text_poke};
use super::quiesce::{RangeUse, survey};
use super::region::{Found, FoundState, Region, SiteBytes, inspect};
use crate::kernel;
use crate::process::failpoint::{FailPoint, reach};
use crate::process::{
    MemoryError, Process, ProcessError, RemoteError, StopError, StoppedProcess, Tracer,
};

/// How many stops are spent on waiting for the image to empty: about a second with the pauses between.
const ATTEMPTS: u32 = 12;

/// How a revert ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevertOutcome {
    /// The original bytes are back and nothing of the patch is left.
    Clean,
    /// The original bytes are back, the image stays mapped.
    Retired {
        /// Why.
        why: Retired,
    },
    /// A site holds somebody else's bytes, which stay, and so do the images: who wrote them may bring our jump back.
    Contested {
        /// What it holds.
        found: Bytes,
        /// True if there are other sites: these are original again, and the gate is closed, so that the patch does nothing
        /// whatever comes. False: nothing was changed.
        off: bool,
    },
}

/// Why an image stays mapped after a revert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Retired {
    /// It calls functions of the application: a suspended coroutine may return into it unseen.
    #[error("it calls functions of the application, and a suspended context may return into it")]
    CallsApplication,
    /// Somebody was still in it after a second.
    #[error("a thread stands in it or returns into it")]
    InUse,
    /// A stack was too long to be read to its end.
    #[error("a thread's stack is too deep to be searched for return addresses")]
    DeepStack,
}

/// What a revert did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reverted {
    /// How it ended.
    pub outcome: RevertOutcome,
    /// What it took; `standing` and `returning` are what delayed the removal of the image.
    pub figures: PokeFigures,
}

/// Why a revert was refused or broken off.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// The region is no longer there.
    #[error("patch {0} is not in the process any more")]
    Vanished(String),
    /// It uses what only a privileged user can tell from what isn't ours.
    #[error(
        "patch {0} shares memory with the kernel, and we are not permitted to ask what the kernel holds for it"
    )]
    NotPermitted(String),
    /// Its record can't be believed, so nothing is done by it.
    #[error("patch {id}: {why}")]
    Damaged {
        /// Its id.
        id: String,
        /// What is wrong.
        why: String,
    },
    /// The file's bytes are not the ones that the record says were replaced.
    #[error("the file has {file} at the site of patch {id}, its record says {record}")]
    FileDisagrees {
        /// Its id.
        id: String,
        /// From the ELF file.
        file: Bytes,
        /// From the record.
        record: Bytes,
    },
    /// The poke failed.
    #[error(transparent)]
    Poke(#[from] PokeError),
    /// The process could not be stopped.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// The original bytes are back, but what remains of the patch could not be removed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The process can't be looked at.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The record can't be marked.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Takes one patch off, all its sites at once. `original` tells what the ELF file holds at the site of a poke. `last_look` is called once, when nobody is in
/// the image any more (or waiting for that was given up) and before anything is unmapped, with the arena if there is one:
/// the moment to read final counters.
///
/// # Errors
/// See [`RevertError`].
pub fn revert(
    process: &Process,
    found: &Found,
    original: &dyn Fn(&PokePlan) -> Vec<u8>,
    last_look: &mut dyn FnMut(Option<AvmaRange>),
) -> Result<Reverted, RevertError> {
    revert_in(process, found, original, last_look, false)
}

/// As [`revert`], of what an interrupted `upatch` left: one that is live by now (its `upatch` was still at work) is let be.
///
/// # Errors
/// As [`revert`]; [`RevertError::Vanished`] too if it isn't a rest any more.
pub fn revert_rest(
    process: &Process,
    found: &Found,
    original: &dyn Fn(&PokePlan) -> Vec<u8>,
    last_look: &mut dyn FnMut(Option<AvmaRange>),
) -> Result<Reverted, RevertError> {
    revert_in(process, found, original, last_look, true)
}

fn revert_in(
    process: &Process,
    found: &Found,
    original: &dyn Fn(&PokePlan) -> Vec<u8>,
    last_look: &mut dyn FnMut(Option<AvmaRange>),
    only_rests: bool,
) -> Result<Reverted, RevertError> {
    let _lock = process.lock()?;
    let inventory = inspect(process)?;
    let found = inventory
        .found
        .iter()
        .find(|other| other.is(found))
        .ok_or_else(|| RevertError::Vanished(found.id.clone()))?;
    let is_rest = matches!(
        found.state,
        FoundState::Interrupted | FoundState::Leftover | FoundState::Incomplete
    );
    if only_rests && !is_rest {
        return Err(RevertError::Vanished(found.id.clone()));
    }
    let mut others = Rubbish::candidates(&inventory);
    others.regions.retain(|other| !other.is(found));
    let backend = found.record().map(|record| record.backend);
    if backend == Some(Backend::Kernel) && !kernel::may_look() {
        return Err(RevertError::NotPermitted(found.id.clone()));
    }
    // Its kernel programs go with it.
    let links = inventory.links.iter().filter(|link| link.id == found.id);
    others.descriptors.extend(links.map(|link| link.fd));
    let id = || found.id.clone();
    match &found.state {
        FoundState::Damaged(why) => {
            return Err(RevertError::Damaged {
                id: id(),
                why: why.clone(),
            });
        }
        FoundState::Applied
        | FoundState::Interrupted
        | FoundState::Contested { .. }
        | FoundState::Leftover
        | FoundState::Retired
        | FoundState::Incomplete => {}
    }
    let foreign = found.regions.iter().find_map(|region| match &region.site {
        SiteBytes::Other(bytes) => Some(Bytes(bytes.clone())),
        SiteBytes::Jump | SiteBytes::Original | SiteBytes::Gone | SiteBytes::Unknown => None,
    });
    if let Some(bytes) = foreign.clone().filter(|_| found.gate().is_none()) {
        return Ok(Reverted {
            outcome: RevertOutcome::Contested {
                found: bytes,
                off: false,
            },
            figures: PokeFigures::default(),
        });
    }
    let ours = |region: &&Region| matches!(region.site, SiteBytes::Jump | SiteBytes::Original);
    let plans: Vec<PokePlan> = found
        .regions
        .iter()
        .filter(ours)
        .filter_map(Region::plan)
        .collect();
    for plan in &plans {
        let file = original(plan);
        if plan.old != file {
            return Err(RevertError::FileDisagrees {
                id: id(),
                file: Bytes(file),
                record: Bytes(plan.old.clone()),
            });
        }
    }
    let mut figures = PokeFigures::default();
    let mut chores = Chores::new(process, others);
    if let Some(bytes) = foreign {
        return switch_off(process, found, (&plans, bytes), chores, last_look);
    }
    let jumps = |region: &Region| region.site == SiteBytes::Jump;
    let poke = found.regions.iter().any(jumps).then_some(&*plans);
    let emptied = match empty(process, found, poke, &mut chores, &mut figures) {
        Err(RevertError::Poke(PokeError::Differs { found, .. })) => {
            return Ok(Reverted {
                outcome: RevertOutcome::Contested { found, off: false },
                figures,
            });
        }
        result => result?,
    };
    last_look(found.arena());
    let retired = match emptied {
        Ok(()) if clean::must_retire(found) => Some(Retired::CallsApplication),
        Ok(()) => None,
        Err(why) => Some(why),
    };
    let (outcome, stop) = match retired {
        Some(why) => {
            clean::retire(process, found)?;
            (RevertOutcome::Retired { why }, chores.finish(process)?)
        }
        None => {
            chores.add(found.clone());
            (RevertOutcome::Clean, chores.finish(process)?)
        }
    };
    if let Some(stop) = stop {
        figures.add_stop(&stop);
    }
    Ok(Reverted { outcome, figures })
}

/// Takes off what can be taken off while one site holds somebody else's bytes: closes the gate, pokes the others back, detaches
/// the kernel programs.
fn switch_off(
    process: &Process,
    found: &Found,
    (plans, foreign): (&[PokePlan], Bytes),
    chores: Chores,
    last_look: &mut dyn FnMut(Option<AvmaRange>),
) -> Result<Reverted, RevertError> {
    let mut figures = PokeFigures::default();
    let poked = Tracer::session(|tracer| -> Result<(), RevertError> {
        let mut stopped = StoppedProcess::stop(tracer, process)?;
        figures.moved = text_poke(stopped.quiesce_inverse(plans, found.gate()))?.moved;
        figures.add_stop(&stopped.resume());
        Ok(())
    });
    let off = match poked {
        Err(RevertError::Poke(PokeError::Differs { .. })) => false,
        result => result.map(|()| true)?,
    };
    if off {
        last_look(found.arena());
        // What else was left behind was not looked into in this stop.
        if let Some(stop) = chores.without_regions().finish(process)? {
            figures.add_stop(&stop);
        }
    }
    Ok(Reverted {
        outcome: RevertOutcome::Contested {
            found: foreign,
            off,
        },
        figures,
    })
}

/// Pokes the original bytes back, if that is still to be done, and waits for the images to empty.
fn empty(
    process: &Process,
    found: &Found,
    mut poke: Option<&[PokePlan]>,
    chores: &mut Chores,
    figures: &mut PokeFigures,
) -> Result<Result<(), Retired>, RevertError> {
    let nothing = AvmaRange::new(upatch_trampolines::Avma(0), 0);
    let mut last = Ok(());
    for attempt in 1..=ATTEMPTS {
        last = Tracer::session(|tracer| -> Result<Result<(), Retired>, RevertError> {
            let mut stopped = StoppedProcess::stop(tracer, process)?;
            if let Some(plans) = poke.take() {
                figures.moved += text_poke(stopped.quiesce_inverse(plans, found.gate()))?.moved;
            }
            let regions = found.regions.iter();
            let mut ranges: Vec<AvmaRange> = regions
                .map(|region| region.code.unwrap_or(nothing))
                .collect();
            ranges.extend(chores.ranges());
            let (uses, complete) = survey(&mut stopped, &ranges);
            let (own, others) = uses.split_at(found.regions.len());
            chores.surveyed(process, others, complete);
            own.iter().for_each(|used| figures.add_use(used));
            figures.add_stop(&stopped.resume());
            reach(FailPoint::Resumed);
            Ok(match (own.iter().all(RangeUse::is_unused), complete) {
                (true, true) => Ok(()),
                (true, false) => Err(Retired::DeepStack),
                (false, _) => Err(Retired::InUse),
            })
        })?;
        if last.is_ok() {
            break;
        }
        pause(attempt);
    }
    Ok(last)
}
