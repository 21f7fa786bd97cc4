//! Taking a patch off: the original bytes are looked up in the ELF file, the counters are read at the last moment.

use upatch_trampolines::PokePlan;

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
    let reverted = patching::revert(process, found, &original, &mut |_| {
        last = read(process, found)
    })?;
    Ok(Done { reverted, last })
}

/// Takes off every patch with several sites that a killed `upatch` left in the middle, where it changes nothing. Tells the ids.
///
/// # Errors
/// See [`RevertError`].
pub fn finish_interrupted(process: &Process) -> Result<Vec<String>, RevertError> {
    let mut ids = Vec::new();
    for found in patching::inspect(process)?.found {
        if found.state == FoundState::Interrupted {
            match revert(process, &found) {
                Ok(_) => ids.push(found.id),
                // Somebody else was faster.
                Err(RevertError::Vanished(_)) => {}
                Err(error) => return Err(error),
            }
        }
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
