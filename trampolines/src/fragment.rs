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
    /// Absolute 64-bit address of the gate byte of a patch with several sites.
    Gate,
}

impl GprSet {
    /// No register.
    pub const EMPTY: Self = Self(0);
    /// All sixteen.
    pub const ALL: Self = Self(0xffff);
    /// Registers that the psABI (§3.2.1) lets a function overwrite: rax rcx rdx rsi rdi r8-r11.
    pub const CALLER_SAVED: Self = Self(0b0000_1111_1100_0111);
    /// Registers that a function must hand back unchanged (psABI §3.2.1), rsp excepted: rbx rbp r12-r15.
    pub const CALLEE_SAVED: Self = Self(0b1111_0000_0010_1000);
    /// Registers in which a call may pass something (psABI §3.2.3): rdi rsi rdx rcx r8 r9, rax (number of vector
    /// arguments), r10 (static chain).
    pub const ARGUMENTS: Self = Self(0b0000_0111_1100_0111);

    /// The set of the registers with these numbers; numbers above 15 are ignored.
    #[must_use]
    pub const fn of(numbers: &[u8]) -> Self {
        let mut set = 0;
        let mut index = 0;
        while index < numbers.len() {
            if numbers[index] < 16 {
                set |= 1 << numbers[index];
            }
            index += 1;
        }
        Self(set)
    }

    /// Is register `number` in the set?
    #[must_use]
    pub const fn contains(self, number: u8) -> bool {
        number < 16 && self.0 & (1 << number) != 0
    }

    /// The set and register `number`; numbers above 15 change nothing.
    #[must_use]
    pub const fn with(self, number: u8) -> Self {
        if number < 16 {
            Self(self.0 | 1 << number)
        } else {
            self
        }
    }

    /// Registers in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Registers in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Registers in this set but not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Does the set hold no register?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers in the set, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..16).filter(move |number| self.contains(*number))
    }
}

/// Names of the 64-bit registers by number.
pub(crate) const GPR_NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

impl std::fmt::Display for GprSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, number) in self.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", GPR_NAMES[usize::from(number)])?;
        }
        Ok(())
    }
}
