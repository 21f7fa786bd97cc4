//! Taking away what nobody uses any more: regions that were never applied or are reverted, orphaned arenas, forgotten
//! descriptors.
//!
//! Runs while the target runs; whoever calls it has proof that nobody is in a region (no jump leads there, and a survey
//! of the stopped process found nobody inside).

use upatch_trampolines::{Avma, AvmaRange};

use super::apply::{Chores, pause};
use super::arena::Backend;
use super::quiesce::survey;
use super::record::{RecordState, STATE_OFFSET};
use super::region::{self, Found, FoundState, Inventory};
use super::revert::RevertError;
use crate::kernel;
use crate::process::failpoint::{FailPoint, reach};
use crate::process::remote::RemoteFd;
use crate::process::{
    HeldThread, HoldError, MemoryError, Process, RemoteError, StopFigures, StoppedProcess, Tracer,
};

/// What is to go.
#[derive(Debug, Default)]
pub(super) struct Rubbish {
    /// Regions of which the survey says that nobody is inside.
    pub(super) regions: Vec<Found>,
    /// Arenas without a region.
    pub(super) arenas: Vec<AvmaRange>,
    /// Open memory files, sockets and links of ours.
    pub(super) descriptors: Vec<i32>,
}

impl Rubbish {
    pub(super) fn is_empty(&self) -> bool {
        self.regions.is_empty() && self.arenas.is_empty() && self.descriptors.is_empty()
    }

    /// What an inventory shows as left behind, before anybody has looked who is inside.
    pub(super) fn candidates(inventory: &Inventory) -> Self {
        let left = |found: &&Found| match found.state {
            FoundState::Leftover | FoundState::Incomplete => true,
            FoundState::Applied
            | FoundState::Interrupted
            | FoundState::Retired
            | FoundState::Contested { .. }
            | FoundState::Damaged(_) => false,
        };
        Self {
            regions: inventory.found.iter().filter(left).cloned().collect(),
            // The arena of a region whose record can't be believed looks orphaned, and may be in use.
            arenas: if inventory
                .found
                .iter()
                .any(|found| matches!(found.state, FoundState::Damaged(_)))
            {
                Vec::new()
            } else {
                inventory.orphans.clone()
            },
            descriptors: inventory.descriptors.clone(),
        }
    }

    /// The executable ranges that must be unused before the regions may go; a region without code has an empty one.
    pub(super) fn code_ranges(&self) -> Vec<AvmaRange> {
        let nothing = AvmaRange::new(Avma(0), 0);
        let regions = self.regions.iter().flat_map(|found| &found.regions);
        regions
            .map(|region| region.code.unwrap_or(nothing))
            .collect()
    }
}

/// Does the image's frame perhaps outlive what a stack scan can see?
pub(super) fn must_retire(found: &Found) -> bool {
    let mut records = found
        .regions
        .iter()
        .filter_map(|region| region.record.as_ref());
    records.any(|record| record.calls_application)
}

/// Marks a reverted region as kept.
pub(super) fn retire(process: &Process, found: &Found) -> Result<(), MemoryError> {
    mark(process, found, RecordState::Retired)
}

/// Says in the records of all sites what has become of the patch.
pub(super) fn mark(
    process: &Process,
    found: &Found,
    state: RecordState,
) -> Result<(), MemoryError> {
    for at in found.regions.iter().filter_map(|region| region.record_at) {
        let place = at.start.plus(STATE_OFFSET);
        process.memory().write(place, &state.word().to_le_bytes())?;
    }
    Ok(())
}

/// Takes the rubbish away with one borrowed thread; tells if everybody else had to be stopped for it.
pub(super) fn clean(
    process: &Process,
    rubbish: &Rubbish,
) -> Result<Option<StopFigures>, RemoteError> {
    if rubbish.is_empty() {
        return Ok(None);
    }
    Tracer::session(|tracer| {
        let mut held = HeldThread::hold(tracer, process)?;
        clean_with(&mut held, rubbish)?;
        Ok(held.release()?)
    })
}

/// Takes away what belongs to no region, arenas, descriptors and stubs: what is left when `upatch` is killed at the very end of
/// a revert, or at the very beginning of an apply. Tells whether there was anything.
///
/// # Errors
/// The process can't be looked at, or makes no system calls for us.
pub fn sweep(process: &Process) -> Result<bool, RevertError> {
    let _lock = process.lock()?;
    let mut rubbish = Rubbish::candidates(&region::inspect(process)?);
    rubbish.regions.clear();
    let any = !rubbish.is_empty();
    clean(process, &rubbish)?;
    Ok(erase_stubs(process)? || any)
}

/// Erases stubs that nobody is in. Whoever was has only to make a system call that doesn't wait.
fn erase_stubs(process: &Process) -> Result<bool, RevertError> {
    let mut any = false;
    for attempt in 1..=4 {
        let mut chores = Chores::new(process, Rubbish::default());
        if chores.ranges().is_empty() {
            break;
        }
        any = true;
        if attempt > 1 {
            pause(attempt);
        }
        Tracer::session(|tracer| -> Result<(), RevertError> {
            let mut stopped = StoppedProcess::stop(tracer, process)?;
            let (uses, complete) = survey(&mut stopped, &chores.ranges());
            chores.surveyed(process, &uses, complete);
            stopped.resume();
            Ok(())
        })?;
    }
    Ok(any)
}

/// A memory file has its name in the memory map; for an arena of the kernel's there is only the record's word, unless the
/// kernel is asked.
fn is_ours(found: &Found, arena: AvmaRange) -> bool {
    match found.record().map(|record| record.backend) {
        Some(Backend::Memfd) | None => true,
        Some(Backend::Kernel) => kernel::arenas().is_ok_and(|ours| ours.contains(&arena)),
    }
}

/// As [`clean`], with a thread that is held anyway.
pub(super) fn clean_with(held: &mut HeldThread<'_>, rubbish: &Rubbish) -> Result<(), RemoteError> {
    if !rubbish.descriptors.is_empty() {
        // Looked at again: the numbers may have been closed and reused since.
        let (passing, links) = region::our_descriptors(held.process(), rubbish.descriptors.clone())
            .map_err(HoldError::from)?;
        let links = links.into_iter().map(|link| link.fd);
        let fds = links.chain(passing);
        for fd in fds.filter_map(|fd| fd.try_into().ok()) {
            held.close(RemoteFd(fd))?;
        }
    }
    for found in &rubbish.regions {
        // The leader last, which holds the gate. In each region the record first: one without is known to be unused. The arena
        // at the very end: without region it is orphaned.
        for region in found.regions.iter().rev() {
            if let Some(record) = region.record_at {
                held.unmap(record)?;
                reach(FailPoint::PartlyUnmapped);
            }
            let rest = region.ranges.iter();
            for &range in rest.filter(|&&range| Some(range) != region.record_at) {
                held.unmap(range)?;
            }
            reach(FailPoint::ImageUnmapped);
        }
        if let Some(arena) = found.arena().filter(|&arena| is_ours(found, arena)) {
            held.unmap(arena)?;
        }
    }
    for &arena in &rubbish.arenas {
        held.unmap(arena)?;
    }
    Ok(())
}
