//! Patch objects: what clang makes of a patch, read by our own total parser and linked into programs.
//!
//! ```text
//! bytes ─elf, btf, btf_ext→ tables ─parse→ PatchObject ─link(program)→ Program (for the verifier)
//! ```
//! No bytes make the parser panic, loop or allocate more than a small multiple of their number. It decides what an object
//! means and refuses what upatch can't honour; it doesn't judge whether a program is safe.

mod btf;
mod btf_ext;
mod bytes;
mod core;
mod elf;
mod error;
mod events;
mod externs;
mod index;
mod link;
mod memory;
mod parse;
mod render;
mod spell;
mod target;
mod types;

use std::collections::HashMap;

use upatch_verifier::ProgramKind;
use upatch_verifier::program::{DataObject, Extern};

pub use btf::BtfError;
pub use core::CoreError;
pub use elf::ElfError;
pub use error::ObjectError;
pub use events::{EventRing, EventType, PRINTK, SLOT_HEADER};
pub use externs::{ExternError, Place};
pub use link::{KernelCode, KernelReference, LinkError, link, link_kernel};
pub use memory::{ArenaLayout, GlobalInfo, Role, Segment};
pub use render::{Budget, render, render_within};
pub use target::{Hook, Target, TargetError, parse_target};
pub use types::{IntKind, Member, TypeDesc, TypeRef, TypeTable};

/// A program of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectProgram {
    /// Name of the C function, unique in the object.
    pub name: String,
    /// Its section.
    pub section: String,
    /// What it may do.
    pub kind: ProgramKind,
    /// Where it goes, if its section says so.
    pub target: Option<Target>,
}

/// A program of an object that the kernel runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelProgram {
    /// Name of the C function, unique in the object.
    pub name: String,
    /// Its section.
    pub section: String,
    /// Where it is attached.
    pub hook: Hook,
}

/// A parsed object.
///
/// Holding a `PatchObject` tells you: it has at least one program of ours; no two of these go to the same place; those of
/// the kernel's are of a kind that can be attached; its only map is an arena; every external function that a program of
/// ours may call has a prototype that can be enforced.
#[derive(Clone, Debug)]
pub struct PatchObject {
    sha256: [u8; 32],
    programs: Vec<ObjectProgram>,
    kernel_programs: Vec<KernelProgram>,
    /// The section `.BTF`, if there are kernel programs.
    btf: Vec<u8>,
    build_ids: Vec<String>,
    license: Option<String>,
    arena: ArenaLayout,
    data: Vec<DataObject>,
    externs: Vec<Extern>,
    code: Vec<CodeSection>,
    functions: Vec<Function>,
    /// By code section, then offset.
    lines: Vec<SourceLine>,
    /// Names that references to nothing of ours are made of.
    symbols: Vec<String>,
}

impl PatchObject {
    /// Reads an object.
    ///
    /// # Errors
    /// What is damaged, or what upatch can't honour.
    pub fn parse(bytes: &[u8]) -> Result<Self, ObjectError> {
        parse::parse(bytes)
    }

    /// SHA-256 of the object's bytes.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The patch's id: the first 8 hex digits of the SHA-256.
    #[must_use]
    pub fn id(&self) -> String {
        self.sha256
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Its programs, in the order of their sections.
    #[must_use]
    pub fn programs(&self) -> &[ObjectProgram] {
        &self.programs
    }

    /// Its programs for the kernel, in the order of their sections.
    #[must_use]
    pub fn kernel_programs(&self) -> &[KernelProgram] {
        &self.kernel_programs
    }

    /// The type information as clang wrote it; empty without kernel programs.
    #[must_use]
    pub fn kernel_btf(&self) -> &[u8] {
        &self.btf
    }

    /// From `UPATCH_BUILD_ID`: lower-case hexadecimal, at least 8 digits.
    #[must_use]
    pub fn build_ids(&self) -> &[String] {
        &self.build_ids
    }

    /// The string in section `license`.
    #[must_use]
    pub fn license(&self) -> Option<&str> {
        self.license.as_deref()
    }

    /// What it wants of the arena.
    #[must_use]
    pub fn arena(&self) -> &ArenaLayout {
        &self.arena
    }

    /// Has the arena begin with other bytes at `offset`; nothing if they lie outside of it.
    pub fn set_initial(&mut self, offset: u64, bytes: Vec<u8>) {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_some_and(|end| end <= self.arena.len) {
            self.arena.initial.push(Segment { offset, bytes });
        }
    }

    /// Functions of the application that it may call.
    #[must_use]
    pub fn externs(&self) -> &[Extern] {
        &self.externs
    }
}

/// A section of instructions.
#[derive(Clone, Debug)]
struct CodeSection {
    name: String,
    bytes: Vec<u8>,
    /// By byte in the section.
    references: HashMap<u64, Reference>,
}

/// What an instruction refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reference {
    /// R_BPF_…
    kind: u32,
    to: Referent,
}

/// What a symbol stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Referent {
    /// Byte `value` of code section `section`.
    Code { section: usize, value: u64 },
    /// Byte `value` of the arena.
    Arena { value: u64 },
    /// Byte `value` of a read-only object.
    ReadOnly { object: u32, value: u64 },
    /// A map.
    Map { symbol: usize },
    /// Not defined here.
    Undefined { symbol: usize },
    /// Defined, but nothing that a program may refer to.
    Nowhere { symbol: usize },
}

/// A function.
#[derive(Clone, Debug)]
struct Function {
    /// Index of its code section.
    section: usize,
    /// First byte in the section, a multiple of 8.
    start: u64,
    /// Behind its last byte.
    end: u64,
    name: String,
    global: bool,
    /// Number of parameters.
    args: Option<u8>,
}

/// A line of source.
#[derive(Clone, Debug)]
struct SourceLine {
    section: usize,
    offset: u64,
    file: String,
    text: String,
    line: u32,
    column: u32,
}
