//! Taking a patch off: the original bytes are looked up in the ELF file, the counters are read at the last moment.

use upatch_trampolines::{AvmaRange, PokePlan};

use crate::patching::{self, Found, FoundState, RevertError, Reverted};
use crate::process::Process;
use crate::target::{Source, TargetImage};
use crate::telemetry::{Reading, read};

/// What a revert did, and what the patch had counted.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub reverted: Reverted,
    /// The variables when nobody was in the patch any more.
    pub last: Reading,
}

/// Takes one patch off.
///
/// # Errors
/// See [`RevertError`].
pub fn revert(process: &Process, found: &Found) -> Result<Done, RevertError> {
    revert_by(process, found, patching::revert)
}

/// How `patching` takes a patch off.
type Revert = fn(
    &Process,
    &Found,
    &dyn Fn(&PokePlan) -> Vec<u8>,
    &mut dyn FnMut(Option<AvmaRange>),
) -> Result<Reverted, RevertError>;

fn revert_by(process: &Process, found: &Found, how: Revert) -> Result<Done, RevertError> {
    let target = TargetImage::snapshot(process).ok();
    let original = |plan: &PokePlan| {
        let file = target
            .as_ref()
            .and_then(|target| bytes_in_file(process, target, plan));
        // The file is gone and we may not open it through map_files (not root): then the record's own copy is all there
        // is. A process that forged it would only change its own text, as it can anyway.
        file.unwrap_or_else(|| plan.old.clone())
    };
    let mut last = read(process, found);
    let reverted = how(process, found, &original, &mut |_| {
        last = read(process, found)
    })?;
    Ok(Done { reverted, last })
}

/// Takes off every patch with several sites that a killed `upatch` left in the middle, where it changes nothing; with
/// `leftovers` also what was never applied (a child that was forked from a process while it was prepared has such). Tells the
/// ids of the former.
///
/// # Errors
/// See [`RevertError`].
pub fn finish_interrupted(process: &Process, leftovers: bool) -> Result<Vec<String>, RevertError> {
    let mut ids = Vec::new();
    let inventory = patching::inspect(process)?;
    for found in inventory.found {
        let interrupted = found.state == FoundState::Interrupted;
        let left = matches!(found.state, FoundState::Leftover | FoundState::Incomplete);
        if !(interrupted || leftovers && left) {
            continue;
        }
        match revert_by(process, &found, patching::revert_rest) {
            Ok(_) if interrupted => ids.push(found.id),
            // Somebody else was faster, or is at work.
            Ok(_) | Err(RevertError::Vanished(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if leftovers && !inventory.orphans.is_empty() {
        patching::sweep(process)?;
    }
    Ok(ids)
}

fn bytes_in_file(process: &Process, target: &TargetImage, plan: &PokePlan) -> Option<Vec<u8>> {
    let module = target.module_at(plan.at)?;
    let image = module.image(process).ok()?;
    match image.source() {
        Source::File => image
            .at(module.bias().svma(plan.at), plan.old.len() as u64)
            .map(<[u8]>::to_vec),
        Source::Memory => None,
    }
}
