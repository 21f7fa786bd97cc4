//! What compilation gives: machine code without an address, and what it needs of the place it will get.
//!
//! Plain data; whoever places it turns a [`CompiledPatch`] into a trampoline's fragment. Knows no instructions.

use std::collections::BTreeSet;

use upatch_verifier::insn::Pc;

use crate::asm::GprSet;

/// A compiled patch.
///
/// Holding a `CompiledPatch` tells you: it was compiled from a verified program; it is entered at byte 0 by a jump, and
/// leaves by a jump to [`FixupKind::Continue`] or by `ret`, with every register, flag and byte of stack as the contract
/// of `compile` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompiledPatch {
    /// Machine code, then literals; the entry is byte 0.
    pub bytes: Vec<u8>,
    /// How many of `bytes`, from the start, are instructions; what follows is read-only data.
    pub code_len: usize,
    /// Places to fill in once addresses are known.
    pub fixups: Vec<Fixup>,
    /// Most bytes of stack below the entry's rsp that the code itself uses at any moment.
    pub stack_bytes: u32,
    /// Bytes of the arena's window, a power of two (accesses may run into the slack page behind it); 0: no arena.
    pub arena_window: u64,
    /// Bytes of private writable memory that [`FixupKind::Private`] refers to, laid out as
    /// [`crate::private`] says; 0: none.
    pub private_bytes: u64,
    /// Does it call functions of the application, so that frames of them can lie on a stack for long?
    pub calls_application: bool,
    /// Functions of the application by the numbers of [`FixupKind::Extern`]: those of the program in its order, then
    /// those that helpers need.
    pub extern_names: Vec<String>,
    /// Numbers of the system calls that it makes.
    pub syscalls: BTreeSet<u32>,
    /// Does it read the thread pointer at `fs:0`?
    pub reads_thread_pointer: bool,
    /// Registers that it changes on purpose for the function that continues (ctx writes).
    pub writes: GprSet,
    /// Which part of the program each piece of code is for, in the order of `at`; the first is at 0. For people who read
    /// the code: nothing of it gets into a process.
    pub marks: Vec<CodeMark>,
}

/// From here to the next mark, or to the end of the code, is the code of one part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeMark {
    /// Offset in the code.
    pub at: usize,
    /// What it is for.
    pub part: CodePart,
}

/// What a piece of code is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodePart {
    /// The gate test of a patch with several sites.
    Gate,
    /// The beginning of a function, by its number in `Program::subprogs`: saves registers, makes room on the stack.
    Prologue(usize),
    /// One BPF instruction; several may have become one, then the others have no code.
    Slot(Pc),
    /// The main program's way on: restores registers, jumps to the displaced instructions.
    Continue,
    /// A helper, by its name, or what calls of the application need.
    Routine(&'static str),
}

/// A compiled program of `ProgramKind::Memory`: a C function `u64 f(u8 *memory, u64 len)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawCode {
    /// Machine code, then literals; the entry is byte 0.
    pub bytes: Vec<u8>,
    /// How many of `bytes`, from the start, are instructions.
    pub code_len: usize,
    /// Places to fill in; never [`FixupKind::Continue`].
    pub fixups: Vec<Fixup>,
    /// Bytes of the arena's window; 0: no arena.
    pub arena_window: u64,
    /// Bytes of private writable memory.
    pub private_bytes: u64,
    /// Functions of the application by the numbers of [`FixupKind::Extern`].
    pub extern_names: Vec<String>,
}

/// One place in the code that depends on an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fixup {
    /// Offset of the field in the bytes.
    pub at: usize,
    /// What to write there.
    pub kind: FixupKind,
}

/// What a fixup's field will hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FixupKind {
    /// rel32 field, relative to its end, of a jump to the displaced instructions.
    Continue,
    /// Absolute 64-bit address: arena base plus this offset.
    Arena(u64),
    /// Absolute 64-bit address of the n-th function of the application.
    Extern(u32),
    /// Absolute 64-bit address of the patched instruction (ctx's ip).
    Site,
    /// Absolute 64-bit address of the private data plus this offset.
    Private(u64),
    /// Absolute 64-bit address of the patch's gate byte ([`crate::private::GATE`] in the private data of its first image).
    Gate,
}
