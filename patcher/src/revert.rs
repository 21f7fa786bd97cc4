//! Taking a patch off: the original bytes are looked up in the ELF file, the counters are read at the last moment.

use upatch_trampolines::Avma;

use crate::patching::{self, Found, RevertError, Reverted};
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
    let plan = found.plan();
    let original = plan
        .as_ref()
        .and_then(|plan| bytes_in_file(process, plan.at, plan.old.len()))
        // The file is gone and we may not open it through map_files (not root): then the record's own copy is all there
        // is. A process that forged it would only change its own text, as it can anyway.
        .or_else(|| plan.map(|plan| plan.old))
        .unwrap_or_default();
    let mut last = read(process, found);
    let reverted = patching::revert(process, found, &original, &mut |_| {
        last = read(process, found)
    })?;
    Ok(Done { reverted, last })
}

fn bytes_in_file(process: &Process, at: Avma, len: usize) -> Option<Vec<u8>> {
    let target = TargetImage::snapshot(process).ok()?;
    let module = target.module_at(at)?;
    let image = module.image(process).ok()?;
    match image.source() {
        Source::File => image
            .at(module.bias().svma(at), len as u64)
            .map(<[u8]>::to_vec),
        Source::Memory => None,
    }
}
