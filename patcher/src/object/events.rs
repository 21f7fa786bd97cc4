//! Where an object's ring of events is and what its events are, in a form that the record in the target can hold.
//!
//! The ring's layout is `struct upatch_event_ring` of `upatch.h`; its sizes are taken from the BTF, as the source may
//! have chosen them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::btf::{Btf, TypeId};
use super::memory::GlobalInfo;
use super::types::{TypeBuilder, TypeDesc, TypeRef};

/// Bytes of a slot before its payload.
pub const SLOT_HEADER: u64 = 40;
/// Bytes of the ring before its slots.
const RING_HEADER: u64 = 64;
/// Most bytes of all slots together; `upatch.h` refuses more.
const LARGEST: u64 = 64 << 20;
/// The type that `upatch_printk` records.
pub const PRINTK: &str = "struct upatch_printk";

/// A type of events.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventType {
    /// Its number in the object's BTF, which the event carries.
    pub id: u32,
    /// Its name in C: `struct refusal`.
    pub name: String,
    /// What it is made of, in the object's [`super::TypeTable`].
    #[serde(rename = "type")]
    pub ty: TypeRef,
}

/// The ring of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventRing {
    /// First byte in the arena: the number of the next event, 8 bytes.
    pub offset: u64,
    /// First byte of the slots in the arena.
    pub slots_at: u64,
    /// Number of slots: a power of two.
    pub slots: u64,
    /// Bytes of each, a multiple of 8, with the header of [`SLOT_HEADER`] bytes.
    pub slot_bytes: u64,
    /// What may be in it.
    pub types: Vec<EventType>,
}

impl EventRing {
    /// The ring that is this variable; `None` if the variable isn't what `upatch.h` declares.
    pub(super) fn new(
        btf: &Btf<'_>,
        builder: &mut TypeBuilder<'_, '_>,
        variable: &GlobalInfo,
        types: &BTreeSet<TypeId>,
    ) -> Option<Self> {
        let TypeDesc::Struct { members, .. } = builder.get(variable.ty)? else {
            return None;
        };
        let slots = members.iter().find(|member| member.name == "slots")?;
        let TypeDesc::Array { of, len } = builder.get(slots.ty)? else {
            return None;
        };
        let TypeDesc::Struct { bytes, .. } = builder.get(*of)? else {
            return None;
        };
        let (slots, slot_bytes) = (u64::from(*len), u64::from(*bytes));
        let types = types
            .iter()
            .map(|&id| EventType {
                id: id.0,
                name: btf.spell(id),
                ty: builder.add(id),
            })
            .collect();
        Self {
            offset: variable.offset,
            slots_at: variable.offset.checked_add(RING_HEADER)?,
            slots,
            slot_bytes,
            types,
        }
        .checked()
        .filter(|ring| {
            ring.end()
                .is_some_and(|end| end <= variable.offset.saturating_add(variable.size))
        })
    }

    /// Behind its last byte in the arena; `None` beyond `u64`.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.slots_at
            .checked_add(self.slots.checked_mul(self.slot_bytes)?)
    }

    /// The same if its numbers can be those of a ring: they may come from a hostile process.
    #[must_use]
    pub fn checked(self) -> Option<Self> {
        let good = self.slots.is_power_of_two()
            && self.slot_bytes > SLOT_HEADER
            && self.slot_bytes.is_multiple_of(8)
            && self.offset.is_multiple_of(8)
            && self.offset < self.slots_at
            && self.end().is_some_and(|end| end - self.slots_at <= LARGEST);
        good.then_some(self)
    }

    /// The type with this number.
    #[must_use]
    pub fn type_of(&self, id: u32) -> Option<&EventType> {
        self.types.iter().find(|ty| ty.id == id)
    }
}
