//! What the record in the target says about a patch beyond addresses: enough to explain it and to read its variables
//! when the object is long gone.
//!
//! It comes back from the target's memory, so it is input like any other: sizes are checked against the arena before
//! anything is read, and names are only ever printed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kernel::AttachedInfo;
use crate::object::{Budget, EventRing, GlobalInfo, Role, TypeTable, render, render_within};

/// Bytes of arena variables that are read at once for telemetry; larger ones are cut, visibly.
pub const READ_LIMIT: u64 = 16 << 20;
/// What showing all variables may cost, roughly the bytes of their text.
const SHOWN: usize = 4 << 20;
/// Cost of a variable beside its name and value.
const NAME: usize = 64;

/// The part of the record that belongs to the upper layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PatchInfo {
    /// File name of the object.
    pub object: String,
    /// Build-id of the patched module, hexadecimal.
    pub build_id: String,
    /// Path of the patched module as the target sees it.
    pub module: String,
    /// The function by name, or by its address in the file if it has none.
    pub function: String,
    /// Bytes behind the function's entry.
    pub offset: u64,
    /// The program's section.
    pub section: String,
    /// Variables in the arena.
    pub globals: Vec<GlobalInfo>,
    /// Their types.
    pub types: TypeTable,
    /// Kernel programs that came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel: Vec<AttachedInfo>,
    /// The ring of events, if the patch has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventRing>,
}

impl PatchInfo {
    /// The function with its offset: `f`, `f+0x10`.
    #[must_use]
    pub fn site_name(&self) -> String {
        if self.offset == 0 {
            self.function.clone()
        } else {
            format!("{}+{:#x}", self.function, self.offset)
        }
    }

    /// The variables: everything but the ring of events.
    pub fn variables(&self) -> impl Iterator<Item = &GlobalInfo> {
        self.globals
            .iter()
            .filter(|global| global.role != Role::Events)
    }

    /// Bytes from the arena's start that hold all variables, at most `window` and [`READ_LIMIT`].
    #[must_use]
    pub fn bytes_needed(&self, window: u64) -> u64 {
        let end = self
            .variables()
            .map(|global| global.offset.saturating_add(global.size))
            .max();
        end.unwrap_or(0).min(window).min(READ_LIMIT)
    }

    /// Every variable by name with its value in `arena`, the arena's first bytes; `null` for one that isn't there.
    #[must_use]
    pub fn values(&self, arena: &[u8]) -> Map<String, Value> {
        let mut budget = Budget(SHOWN);
        self.variables()
            .map_while(|global| {
                budget.0 = budget.0.checked_sub(global.name.len() + NAME)?;
                let value = slice(arena, global.offset, global.size).map_or(Value::Null, |bytes| {
                    render_within(&self.types, global.ty, bytes, &mut budget)
                });
                Some((global.name.clone(), value))
            })
            .collect()
    }

    /// The counter called `hits`, if the patch has one and it is a number.
    #[must_use]
    pub fn hits(&self, arena: &[u8]) -> Option<u64> {
        let global = self
            .globals
            .iter()
            .find(|global| global.role == Role::Counter && global.name == "hits")?;
        render(
            &self.types,
            global.ty,
            slice(arena, global.offset, global.size)?,
        )
        .as_u64()
    }
}

fn slice(arena: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    arena.get(start..end)
}
