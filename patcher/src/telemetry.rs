//! Reading a patch's variables out of the target: by its record, which came from the target, so with every size checked.

use serde_json::{Map, Value};
use upatch_jit::private;

use crate::apply::info::PatchInfo;
use crate::patching::Found;
use crate::process::Process;

/// What the record and the arena of one patch say.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    /// What the record says about the patch, if it can be understood.
    pub info: Option<PatchInfo>,
    /// The counter called `hits`, if there is one.
    pub hits: Option<u64>,
    /// Calls that went on unpatched because their thread was inside the patch already; `None` if the patch can't be re-entered.
    pub missed: Option<u64>,
    /// Every variable by name.
    pub globals: Map<String, Value>,
}

/// Reads the variables of a patch as they are now. What can't be read is left out: a telemetry that fails because one
/// page is gone would hide the rest.
#[must_use]
pub fn read(process: &Process, found: &Found) -> Reading {
    let nothing = Reading {
        info: None,
        hits: None,
        missed: None,
        globals: Map::new(),
    };
    let Some(record) = &found.record else {
        return nothing;
    };
    let Ok(info) = serde_json::from_value::<PatchInfo>(record.info.clone()) else {
        return nothing;
    };
    let window = found.arena().map_or(0, |arena| arena.len());
    let len = usize::try_from(info.bytes_needed(window)).unwrap_or(0);
    let mut bytes = vec![0; len];
    let there = found.arena().map_or(0, |arena| {
        process.memory().read_some(arena.start, &mut bytes)
    });
    bytes.truncate(there);
    let missed = record
        .data
        .filter(|_| record.calls_application)
        .and_then(|data| {
            process
                .memory()
                .read_u64(data.range().start.plus(private::MISSED))
                .ok()
        });
    Reading {
        hits: info.hits(&bytes),
        globals: info.values(&bytes),
        missed,
        info: Some(info),
    }
}
