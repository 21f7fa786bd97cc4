//! ctx: the x86-64 `struct pt_regs` as a kernel uprobe shows it (arch/x86/include/asm/ptrace.h).

/// Size of ctx in bytes.
pub const SIZE: u16 = 168;

/// A field of ctx. The discriminant is its offset in bytes; every field is 8 bytes, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
#[expect(missing_docs, reason = "each variant is the register of that name")]
pub enum CtxField {
    R15 = 0,
    R14 = 8,
    R13 = 16,
    R12 = 24,
    Rbp = 32,
    Rbx = 40,
    R11 = 48,
    R10 = 56,
    R9 = 64,
    R8 = 72,
    Rax = 80,
    Rcx = 88,
    Rdx = 96,
    Rsi = 104,
    Rdi = 112,
    /// -1 at an entry: no system call is in progress.
    OrigRax = 120,
    /// The patched address.
    Rip = 128,
    Cs = 136,
    Rflags = 144,
    /// At an entry it points at the return address.
    Rsp = 152,
    Ss = 160,
}

impl CtxField {
    /// All fields in the order of their offsets.
    pub const ALL: [Self; 21] = [
        Self::R15,
        Self::R14,
        Self::R13,
        Self::R12,
        Self::Rbp,
        Self::Rbx,
        Self::R11,
        Self::R10,
        Self::R9,
        Self::R8,
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rsi,
        Self::Rdi,
        Self::OrigRax,
        Self::Rip,
        Self::Cs,
        Self::Rflags,
        Self::Rsp,
        Self::Ss,
    ];

    /// The field that holds byte `offset`, or `None` beyond the end.
    #[must_use]
    pub fn containing(offset: u16) -> Option<Self> {
        Self::ALL.get(usize::from(offset / 8)).copied()
    }

    /// Offset of the field's first byte.
    #[must_use]
    pub const fn offset(self) -> u16 {
        self as u16
    }

    /// The register's number in the SDM's encoding (0 rax … 15 r15), if it is a general-purpose register.
    #[must_use]
    pub const fn gpr(self) -> Option<u8> {
        Some(match self {
            Self::Rax => 0,
            Self::Rcx => 1,
            Self::Rdx => 2,
            Self::Rbx => 3,
            Self::Rsp => 4,
            Self::Rbp => 5,
            Self::Rsi => 6,
            Self::Rdi => 7,
            Self::R8 => 8,
            Self::R9 => 9,
            Self::R10 => 10,
            Self::R11 => 11,
            Self::R12 => 12,
            Self::R13 => 13,
            Self::R14 => 14,
            Self::R15 => 15,
            Self::OrigRax | Self::Rip | Self::Cs | Self::Rflags | Self::Ss => return None,
        })
    }

    /// The field's name in `struct pt_regs` as the kernel spells it (`di`, `orig_ax`, …).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::R15 => "r15",
            Self::R14 => "r14",
            Self::R13 => "r13",
            Self::R12 => "r12",
            Self::Rbp => "bp",
            Self::Rbx => "bx",
            Self::R11 => "r11",
            Self::R10 => "r10",
            Self::R9 => "r9",
            Self::R8 => "r8",
            Self::Rax => "ax",
            Self::Rcx => "cx",
            Self::Rdx => "dx",
            Self::Rsi => "si",
            Self::Rdi => "di",
            Self::OrigRax => "orig_ax",
            Self::Rip => "ip",
            Self::Cs => "cs",
            Self::Rflags => "flags",
            Self::Rsp => "sp",
            Self::Ss => "ss",
        }
    }

    /// May an `upatch/` program at a function's entry write it? (Contract: rdi rsi rdx rcx r8 r9 rax.)
    #[must_use]
    pub const fn writable_at_entry(self) -> bool {
        matches!(
            self,
            Self::Rdi | Self::Rsi | Self::Rdx | Self::Rcx | Self::R8 | Self::R9 | Self::Rax
        )
    }

    /// May an `upatch/` program at `function+offset` write it? (Contract: every GPR but rsp; never rip.)
    #[must_use]
    pub const fn writable_at_offset(self) -> bool {
        self.gpr().is_some() && !matches!(self, Self::Rsp)
    }
}

const _: () = assert!(CtxField::Ss.offset() + 8 == SIZE);
