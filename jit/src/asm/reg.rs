//! General-purpose registers, sets of them, and memory operands.

/// A 64-bit general-purpose register; its discriminant is its number (SDM vol. 2 table 3-1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the register of that name")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// All of them, by number.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The register of this number, if there is one.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number, 0 to 15.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The three bits that ModRM, SIB and opcodes hold.
    pub(crate) const fn low3(self) -> u8 {
        self as u8 & 7
    }

    /// The bit that goes into REX.
    pub(crate) const fn high(self) -> bool {
        self as u8 >= 8
    }
}

/// A set of general-purpose registers: bit n is register number n.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct GprSet(pub u16);

impl GprSet {
    /// No register.
    pub const EMPTY: Self = Self(0);
    /// Registers that the psABI (§3.2.1) lets a function overwrite: rax rcx rdx rsi rdi r8-r11.
    pub const CALLER_SAVED: Self = Self(0b0000_1111_1100_0111);

    /// The set of these registers.
    #[must_use]
    pub const fn of(regs: &[Gpr]) -> Self {
        let mut set = Self::EMPTY;
        let mut index = 0;
        while index < regs.len() {
            set = set.with(regs[index]);
            index += 1;
        }
        set
    }

    /// Is it in the set?
    #[must_use]
    pub const fn contains(self, reg: Gpr) -> bool {
        self.0 >> reg.number() & 1 == 1
    }

    /// The set and this register.
    #[must_use]
    pub const fn with(self, reg: Gpr) -> Self {
        Self(self.0 | 1 << reg.number())
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one only.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Its registers by number.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Gpr> {
        Gpr::ALL.into_iter().filter(move |reg| self.contains(*reg))
    }

    /// How many.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// None?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A memory operand: `base + index + disp` (SDM vol. 1 §3.7.5). The index isn't scaled: no BPF instruction asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mem {
    /// Base register.
    pub base: Gpr,
    /// Index register; never rsp, which has no encoding as one.
    pub index: Option<Gpr>,
    /// Displacement in bytes.
    pub disp: i32,
}

impl Mem {
    /// `[base + disp]`.
    #[must_use]
    pub const fn at(base: Gpr, disp: i32) -> Self {
        Self {
            base,
            index: None,
            disp,
        }
    }

    /// `[base + index]`. rsp as an index is exchanged with the base.
    #[must_use]
    pub fn sum(base: Gpr, index: Gpr) -> Self {
        let (base, index) = if index == Gpr::Rsp {
            (index, base)
        } else {
            (base, index)
        };
        Self {
            base,
            index: Some(index),
            disp: 0,
        }
    }

    /// Does its address depend on this register?
    #[must_use]
    pub fn uses(self, reg: Gpr) -> bool {
        self.base == reg || self.index == Some(reg)
    }

    /// The same with two registers exchanged.
    #[must_use]
    pub fn swapped(self, swap: Swap) -> Self {
        Self {
            base: swap.of(self.base),
            index: self.index.map(|index| swap.of(index)),
            disp: self.disp,
        }
    }
}

/// Two registers whose contents are exchanged for a while, so that an instruction finds an operand where it needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Swap(pub Gpr, pub Gpr);

impl Swap {
    /// Where the content of `reg` is meanwhile.
    #[must_use]
    pub fn of(self, reg: Gpr) -> Gpr {
        if reg == self.0 {
            self.1
        } else if reg == self.1 {
            self.0
        } else {
            reg
        }
    }
}
