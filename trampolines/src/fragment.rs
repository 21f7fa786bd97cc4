//! Hook code before it has an address: bytes plus the places that depend on where things will lie.
//!
//! A fragment is entered at byte 0 with the registers of the displaced entry, and leaves in one of two ways: a jump
//! whose target is [`FixupKind::Continue`] (the displaced instructions run, then the original function) or its own
//! `ret` (the call is refused). It comes from the JIT, or, in tests and benchmarks, from a hand-assembled hook.

/// A set of general-purpose registers, bit n = register number n of the SDM's encoding (0 rax, 1 rcx, 2 rdx, 3 rbx,
/// 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8-15 r8-r15).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct GprSet(pub u16);

/// Address-free hook code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Machine code, then literals; the entry is byte 0.
    pub bytes: Vec<u8>,
    /// How many of `bytes`, from the start, are instructions; what follows is read-only data.
    pub code_len: usize,
    /// Places to fill in once addresses are known.
    pub fixups: Vec<Fixup>,
    /// Most bytes of stack that the fragment itself has below the entry's rsp at any moment, called functions of the
    /// application excluded.
    pub stack_bytes: u32,
    /// Arena window that stores may touch, relative to the binding of [`FixupKind::Arena`]; 0 if there is none.
    pub arena_len: u64,
    /// Does the fragment call functions of the application (so that frames of it can lie on a stack for long)?
    pub calls_application: bool,
}

/// One place in a fragment's bytes that depends on an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fixup {
    /// Offset of the field in `bytes`.
    pub at: usize,
    /// What to write there.
    pub kind: FixupKind,
}

/// What a fixup's field will hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FixupKind {
    /// rel32 field (end of instruction = end of field) of a jump to the displaced instructions.
    Continue,
    /// Absolute 64-bit little-endian address: arena base plus this offset.
    Arena(u64),
    /// Absolute 64-bit address of the n-th external function of the application.
    Extern(u32),
    /// Absolute 64-bit address of the patched site itself (what a uprobe shows as ip).
    Site,
    /// Absolute 64-bit address of the image's private writable data (re-entry guards) plus this offset.
    Private(u64),
}
