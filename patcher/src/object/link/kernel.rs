//! The kernel's plane: a kernel program and everything it reaches, as instructions for bpf(2).
//!
//! Calls and callbacks inside the program are written as the kernel expects them; what needs a descriptor or a number of
//! the running kernel is listed for the loader. Offsets in the arena are those of the patch plane: one table, `memory`.

use upatch_verifier::insn::{Callee, Imm64, Pc};
use upatch_verifier::program::{DataObject, LineInfo};

use super::{LinkError, Linker, PatchObject, Plane, Replacement, SLOT};
use crate::object::KernelProgram;

/// BPF_PSEUDO_CALL and BPF_PSEUDO_FUNC (include/uapi/linux/bpf.h).
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNC: u8 = 4;

/// What an instruction of a kernel program refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelReference {
    /// A byte of the arena.
    Arena {
        /// Which.
        offset: u32,
    },
    /// The arena as a map.
    ArenaMap,
    /// A byte of a read-only object.
    Data {
        /// Index in [`KernelCode::data`].
        object: u32,
        /// Which byte.
        offset: u32,
    },
    /// A function of the kernel, by its index in [`KernelCode::kfuncs`].
    Kfunc(u32),
}

/// A linked kernel program.
///
/// Holding a `KernelCode` tells you: every reference is either resolved or listed; none frees pages of the arena.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelCode {
    /// Eight bytes an instruction.
    pub insns: Vec<u8>,
    /// Instruction and what belongs there, ascending.
    pub references: Vec<(u32, KernelReference)>,
    /// First instruction and name of each function; the program's own is first.
    pub functions: Vec<(u32, String)>,
    /// Source lines, ascending.
    pub lines: Vec<LineInfo>,
    /// Read-only objects.
    pub data: Vec<DataObject>,
    /// Functions of the kernel, by name.
    pub kfuncs: Vec<String>,
}

/// Links a kernel program of the object.
///
/// # Errors
/// The first reference that leads nowhere, or to what a kernel program must not use.
pub fn link_kernel(object: &PatchObject, program: &KernelProgram) -> Result<KernelCode, LinkError> {
    let entry = object.functions.iter().position(|function| {
        let section = object.code.get(function.section);
        function.name == program.name
            && section.is_some_and(|section| section.name == program.section)
    });
    let entry = entry.ok_or_else(|| LinkError::NoProgram {
        name: program.name.clone(),
    })?;
    let mut linker = Linker::linked(object, Plane::Kernel, entry)?;
    let mut references = Vec::new();
    for (pc, replacement) in std::mem::take(&mut linker.replace) {
        let reference = match replacement {
            Replacement::Callee(Callee::Subprog(to)) => {
                write(&mut linker.bytes, pc, PSEUDO_CALL, distance(pc, to));
                continue;
            }
            Replacement::Imm64(Imm64::Subprog(to)) => {
                write(&mut linker.bytes, pc, PSEUDO_FUNC, distance(pc, to));
                continue;
            }
            Replacement::Callee(Callee::Extern(index)) => KernelReference::Kfunc(index),
            Replacement::Imm64(Imm64::Arena { offset }) => KernelReference::Arena {
                // The kernel's arenas end at 4 GiB.
                offset: u32::try_from(offset).map_err(|_| LinkError::OutOfData {
                    function: program.name.clone(),
                    object: "the arena".to_owned(),
                    offset: i64::try_from(offset).unwrap_or(i64::MAX),
                })?,
            },
            Replacement::Imm64(Imm64::Data { object, offset }) => {
                KernelReference::Data { object, offset }
            }
            Replacement::ArenaMap => KernelReference::ArenaMap,
            // Neither is ever made of a relocation.
            Replacement::Callee(Callee::Helper(_)) | Replacement::Imm64(Imm64::Const(_)) => {
                continue;
            }
        };
        references.push((pc.0, reference));
    }
    let mut lines = linker.lines();
    lines.sort_by_key(|line| line.pc);
    Ok(KernelCode {
        functions: linker
            .subprogs()
            .into_iter()
            .map(|function| (function.start.0, function.name))
            .collect(),
        insns: linker.bytes,
        references,
        lines,
        data: linker.data,
        kfuncs: linker.kfuncs,
    })
}

/// Instructions from behind `from` to `to`.
fn distance(from: Pc, to: Pc) -> i32 {
    // Both are below MAX_SLOTS.
    to.0.cast_signed() - from.0.cast_signed() - 1
}

fn write(insns: &mut [u8], at: Pc, src: u8, imm: i32) {
    let start = at.index() * SLOT;
    if let Some(slot) = insns.get_mut(start..start + SLOT) {
        slot[1] = slot[1] & 0x0f | src << 4;
        slot[4..].copy_from_slice(&imm.to_le_bytes());
    }
}
