//! BPF instructions as a sum type, decoded once; raw opcodes exist only in `slot`, for `decode` and `encode`.
//!
//! Positions are slots of 8 bytes, as RFC 9669 and llvm-objdump count them: a 64-bit immediate takes two, the second
//! of which is [`Insn::LdImm64Tail`]. Jump targets are absolute slots.

/// Position of an instruction: its slot (8 bytes each) from the start of the program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pc(pub u32);

impl Pc {
    /// As an index into the program's slots.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A BPF register (RFC 9669 §2.2): r0 result, r1-r5 arguments, r6-r9 callee-saved, r10 frame pointer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "each variant is the register of that number")]
#[repr(u8)]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

impl Reg {
    /// All registers in order.
    pub const ALL: [Self; 11] = [
        Self::R0,
        Self::R1,
        Self::R2,
        Self::R3,
        Self::R4,
        Self::R5,
        Self::R6,
        Self::R7,
        Self::R8,
        Self::R9,
        Self::R10,
    ];

    /// The register of this number, if there is one.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number, 0 to 10.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its number as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Width of an arithmetic operation or comparison: `W32` zero-extends its result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Width {
    W32,
    W64,
}

/// Size of a memory access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Size {
    /// One byte.
    B,
    /// Two bytes.
    H,
    /// Four bytes.
    W,
    /// Eight bytes.
    DW,
}

impl Size {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Self::B => 1,
            Self::H => 2,
            Self::W => 4,
            Self::DW => 8,
        }
    }
}

/// The second operand: a register, or an immediate that is sign-extended from 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operand {
    Reg(Reg),
    Imm(i32),
}

/// Two-operand arithmetic (RFC 9669 §4.1): `dst = dst op src`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AluOp {
    /// Wrapping addition.
    Add,
    /// Wrapping subtraction.
    Sub,
    /// Wrapping multiplication.
    Mul,
    /// Unsigned division; by zero gives 0.
    Div,
    /// Signed division; by zero gives 0, MIN / -1 gives MIN.
    SDiv,
    /// Bitwise or.
    Or,
    /// Bitwise and.
    And,
    /// Left shift; the count is masked to the width.
    Lsh,
    /// Logical right shift; the count is masked to the width.
    Rsh,
    /// Unsigned remainder; by zero leaves dst (W32: its low half, zero-extended).
    Mod,
    /// Signed remainder, sign of the dividend; by zero leaves dst; MIN % -1 gives 0.
    SMod,
    /// Bitwise exclusive or.
    Xor,
    /// Copy.
    Mov,
    /// Arithmetic right shift; the count is masked to the width.
    Arsh,
}

/// Byte order conversions (RFC 9669 §4.2); results narrower than 64 bits are zero-extended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EndianOp {
    /// To little-endian: truncates on this machine.
    ToLe,
    /// To big-endian: swaps on this machine.
    ToBe,
    /// Unconditional swap.
    Swap,
}

/// Comparison of a conditional jump (RFC 9669 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(
    missing_docs,
    reason = "as RFC 9669 names them: S prefix is signed, Set is `dst & src != 0`"
)]
pub enum CmpOp {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    SGt,
    SGe,
    SLt,
    SLe,
    Set,
}

/// Atomic read-modify-write (RFC 9669 §5.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AtomicOp {
    /// `*addr += src`; with fetch src becomes the old value.
    Add {
        /// Return the old value in src.
        fetch: bool,
    },
    /// `*addr |= src`.
    Or {
        /// Return the old value in src.
        fetch: bool,
    },
    /// `*addr &= src`.
    And {
        /// Return the old value in src.
        fetch: bool,
    },
    /// `*addr ^= src`.
    Xor {
        /// Return the old value in src.
        fetch: bool,
    },
    /// src and memory trade places.
    Xchg,
    /// If memory equals r0 it becomes src; r0 gets the old value (zero-extended when 32 bits).
    CmpXchg,
}

/// What a 64-bit immediate load puts into its register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Imm64 {
    /// A number.
    Const(u64),
    /// Address of byte `offset` of read-only data object `object` of the program.
    Data {
        /// Index into [`crate::program::Program::data`].
        object: u32,
        /// Byte within it.
        offset: u32,
    },
    /// Address of byte `offset` of the arena (an arena pointer: address space 1).
    Arena {
        /// Byte within the arena.
        offset: u64,
    },
    /// A subprogram, to be passed as a callback.
    Subprog(Pc),
}

/// Whom a call goes to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Callee {
    /// A built-in helper by id ([`upatch_abi::helpers`]).
    Helper(u32),
    /// A subprogram of this program by its first slot.
    Subprog(Pc),
    /// A function of the application: index into [`crate::program::Program::externs`].
    Extern(u32),
}

/// Direction of Linux's `addr_space_cast` between the arena (address space 1) and plain pointers (0).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddrSpaceCast {
    /// imm = 1: from address space 1 to 0; the result may be dereferenced.
    FromArena,
    /// imm = 0x10000: from address space 0 to 1.
    ToArena,
}

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "operand names are the RFC's")]
pub enum Insn {
    /// Two-operand arithmetic.
    Alu {
        op: AluOp,
        width: Width,
        dst: Reg,
        src: Operand,
    },
    /// Move with sign extension from `from` (B, H, or W; W only at `W64`).
    MovSx {
        width: Width,
        from: Size,
        dst: Reg,
        src: Reg,
    },
    /// Two's complement negation.
    Neg { width: Width, dst: Reg },
    /// Byte order conversion of the low `bits` (16, 32, 64).
    Endian { op: EndianOp, bits: u8, dst: Reg },
    /// `dst = addr_space_cast(src)`.
    AddrSpaceCast {
        cast: AddrSpaceCast,
        dst: Reg,
        src: Reg,
    },
    /// 64-bit immediate; takes this slot and the next.
    LdImm64 { dst: Reg, imm: Imm64 },
    /// The second slot of a 64-bit immediate: never executed, never a target.
    LdImm64Tail,
    /// `dst = *(size *)(base + off)`, zero- or sign-extended to 64 bits (`signed` never with DW).
    Load {
        size: Size,
        signed: bool,
        dst: Reg,
        base: Reg,
        off: i16,
    },
    /// `*(size *)(base + off) = src`.
    Store {
        size: Size,
        base: Reg,
        off: i16,
        src: Operand,
    },
    /// Atomic read-modify-write; W and DW only.
    Atomic {
        op: AtomicOp,
        size: Size,
        base: Reg,
        off: i16,
        src: Reg,
    },
    /// `dst = load_acquire((size *)(base + off))`, zero-extended.
    LoadAcquire {
        size: Size,
        dst: Reg,
        base: Reg,
        off: i16,
    },
    /// `store_release((size *)(base + off), src)`.
    StoreRelease {
        size: Size,
        base: Reg,
        off: i16,
        src: Reg,
    },
    /// Unconditional jump (`ja` and `gotol`).
    Jump { target: Pc },
    /// Conditional jump.
    JumpIf {
        op: CmpOp,
        width: Width,
        dst: Reg,
        src: Operand,
        target: Pc,
    },
    /// Linux's may_goto: goes to `target` once the iteration budget is used up, else falls through.
    MayGoto { target: Pc },
    /// Call; clobbers r1-r5, result in r0.
    Call { callee: Callee },
    /// Return from the subprogram, or the program's end.
    Exit,
}

impl Insn {
    /// Slots it takes: 2 for a 64-bit immediate, else 1.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        match self {
            Self::LdImm64 { .. } => 2,
            _ => 1,
        }
    }
}
