//! CO-RE relocations (libbpf's "compile once, run everywhere") of the one type that we know: `struct pt_regs`. And
//! local type ids, which name a type of the object itself: `upatch_event` records by them what an event is.
//!
//! A source with a vmlinux.h reads ctx through a struct that carries `preserve_access_index`; the author's own short
//! definition may even have other offsets. Both get the offsets of our ctx by the field's name. Every other type
//! belongs to the kernel or the application and is refused by name.

use std::collections::BTreeSet;

use upatch_abi::ctx::CtxField;

use super::btf::{Btf, Member, Type, TypeId};
use super::btf_ext::CoreRelocation;
use super::bytes::i32_at;

/// enum bpf_core_relo_kind (include/uapi/linux/bpf.h): the field's offset in bytes.
const FIELD_BYTE_OFFSET: u32 = 0;
/// The number of the type in the object's own BTF.
const TYPE_ID_LOCAL: u32 = 6;
const CLASS: u8 = 7;
const LD_IMM64: u8 = 0x18;

/// Why a CO-RE relocation is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CoreError {
    /// Not a field of `struct pt_regs`.
    #[error("{what} depends on the layout of `{ty}`, of which upatch only knows `struct pt_regs`")]
    Type {
        /// The function or section with the instruction.
        what: String,
        /// The type.
        ty: String,
    },
    /// Existence, sizes, types and enumerators.
    #[error("{what} asks for more than the offset of a field of `{ty}` (kind {kind})")]
    Kind {
        /// The function or section with the instruction.
        what: String,
        /// The type.
        ty: String,
        /// enum bpf_core_relo_kind.
        kind: u32,
    },
    /// No such register.
    #[error("`struct pt_regs` has no field `{field}`")]
    Field {
        /// As the source names it.
        field: String,
    },
    /// The relocation doesn't fit its instruction.
    #[error(
        "the type information is damaged: nothing at byte {offset} of {what} depends on a field"
    )]
    Damaged {
        /// The section.
        what: String,
        /// Byte in the section.
        offset: u32,
    },
}

/// The types that programs name by their local ids, ascending.
pub(super) fn named_types(relocations: &[CoreRelocation<'_>]) -> BTreeSet<TypeId> {
    relocations
        .iter()
        .filter(|relocation| relocation.kind == TYPE_ID_LOCAL)
        .map(|relocation| relocation.ty)
        .collect()
}

/// Writes the right offset or type id into the instruction that a relocation names.
pub(super) fn apply(
    btf: &Btf<'_>,
    relocation: &CoreRelocation<'_>,
    section: &str,
    code: &mut [u8],
) -> Result<(), CoreError> {
    let what = || format!("`{section}`");
    if relocation.kind == TYPE_ID_LOCAL {
        return type_id(relocation, code).ok_or_else(|| CoreError::Damaged {
            what: what(),
            offset: relocation.offset,
        });
    }
    let ty = btf.resolve(relocation.ty);
    let members = match btf.get(ty) {
        // `___x` marks a flavour: another definition of the same type (libbpf's convention).
        Type::Struct { name, members, .. } if name.split("___").next() == Some("pt_regs") => {
            members
        }
        _ => {
            return Err(CoreError::Type {
                what: what(),
                ty: btf.spell(relocation.ty),
            });
        }
    };
    if relocation.kind != FIELD_BYTE_OFFSET {
        return Err(CoreError::Kind {
            what: what(),
            ty: btf.spell(ty),
            kind: relocation.kind,
        });
    }
    let damaged = || CoreError::Damaged {
        what: what(),
        offset: relocation.offset,
    };
    let (name, local) = field(btf, members, relocation.access).ok_or_else(damaged)?;
    let ours = ctx_field(name)
        .ok_or_else(|| CoreError::Field {
            field: name.to_owned(),
        })?
        .offset();
    let start = relocation.offset as usize;
    let slot = start
        .checked_add(8)
        .and_then(|end| code.get_mut(start..end))
        .ok_or_else(damaged)?;
    let ours = ours.cast_signed();
    match slot[0] & CLASS {
        // Loads and stores have the offset in `off`.
        1..=3 => {
            let off = i16::from_le_bytes([slot[2], slot[3]]);
            if u32::from(off.cast_unsigned()) != local {
                return Err(damaged());
            }
            slot[2..4].copy_from_slice(&ours.to_le_bytes());
        }
        // Arithmetic and 64-bit immediates have it in `imm`.
        0 | 4 | 7 => {
            if i32_at(slot, 4).map(i32::cast_unsigned) != Some(local) {
                return Err(damaged());
            }
            slot[4..8].copy_from_slice(&i32::from(ours).to_le_bytes());
        }
        _ => return Err(damaged()),
    }
    Ok(())
}

/// A 64-bit immediate, or a move of 32 bits. What the compiler put there may be older than the last deduplication of
/// the BTF.
fn type_id(relocation: &CoreRelocation<'_>, code: &mut [u8]) -> Option<()> {
    let start = relocation.offset as usize;
    let slot = code.get_mut(start..start.checked_add(8)?)?;
    let is_move = matches!(slot[0], 0xb4 | 0xb7);
    let high = match slot[0] {
        LD_IMM64 => Some(code.get(start.checked_add(12)?..start.checked_add(16)?)?),
        _ => None,
    };
    if !is_move && high.is_none_or(|high| high != [0; 4]) {
        return None;
    }
    code.get_mut(start + 4..start + 8)?
        .copy_from_slice(&relocation.ty.0.to_le_bytes());
    Some(())
}

/// Name and local offset in bytes of the field that an access like `0:14` or `0:8:1` reaches.
fn field<'a>(btf: &Btf<'a>, members: &[Member<'a>], access: &str) -> Option<(&'a str, u32)> {
    let mut steps = access.split(':');
    if steps.next()? != "0" {
        return None;
    }
    let mut member = members.get(steps.next()?.parse::<usize>().ok()?)?;
    let mut bits = member.bit_offset;
    let mut inner;
    for step in steps.take(4) {
        match btf.get(btf.resolve(member.ty)) {
            Type::Struct { members, .. } | Type::Union { members, .. } => {
                inner = *members.get(step.parse::<usize>().ok()?)?;
                bits = bits.checked_add(inner.bit_offset)?;
                member = &inner;
            }
            _ => return None,
        }
    }
    (bits % 8 == 0).then_some((member.name, bits / 8))
}

/// The field with the kernel's (`di`) or user space's (`rdi`) name.
fn ctx_field(name: &str) -> Option<CtxField> {
    CtxField::ALL.into_iter().find(|field| {
        let kernel = field.name();
        let user = match field {
            CtxField::OrigRax => "orig_rax",
            CtxField::Rflags => "eflags",
            _ => "",
        };
        name == kernel || name == user || name.strip_prefix('r').is_some_and(|rest| rest == kernel)
    })
}
