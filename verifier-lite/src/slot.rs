//! One 8-byte slot and the numbers of RFC 9669: the only place where opcodes are spelled, shared by `decode` and `encode`.
//!
//! ```text
//! byte   0        1            2..4        4..8
//!        opcode   src:4 dst:4  offset i16  imm i32     (little-endian)
//! ```
//! Knows encodings, not meanings. Every table is read in both directions, so that encoding cannot drift from decoding.

use crate::insn::{AluOp, AtomicOp, CmpOp, Size};

/// Bytes of a slot.
pub(crate) const SLOT: usize = 8;

/// A slot, taken apart (RFC 9669 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) opcode: u8,
    pub(crate) dst: u8,
    pub(crate) src: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

impl Slot {
    pub(crate) fn from_bytes(bytes: [u8; SLOT]) -> Self {
        let [opcode, regs, o0, o1, i0, i1, i2, i3] = bytes;
        Self {
            opcode,
            dst: regs & 0x0f,
            src: regs >> 4,
            off: i16::from_le_bytes([o0, o1]),
            imm: i32::from_le_bytes([i0, i1, i2, i3]),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; SLOT] {
        let [o0, o1] = self.off.to_le_bytes();
        let [i0, i1, i2, i3] = self.imm.to_le_bytes();
        [
            self.opcode,
            self.src << 4 | self.dst,
            o0,
            o1,
            i0,
            i1,
            i2,
            i3,
        ]
    }
}

// Instruction classes (§3.2), the low three bits of an opcode.
pub(crate) const LD: u8 = 0x00;
pub(crate) const LDX: u8 = 0x01;
pub(crate) const ST: u8 = 0x02;
pub(crate) const STX: u8 = 0x03;
pub(crate) const ALU32: u8 = 0x04;
pub(crate) const JMP: u8 = 0x05;
pub(crate) const JMP32: u8 = 0x06;
pub(crate) const ALU64: u8 = 0x07;
pub(crate) const CLASS: u8 = 0x07;

/// Arithmetic and jumps: the second operand is a register (§4).
pub(crate) const SOURCE_REG: u8 = 0x08;
/// Arithmetic and jumps: the operation's bits (§4).
pub(crate) const OPERATION: u8 = 0xf0;

// Operations that are not in the tables below (§4.1-4.3).
pub(crate) const NEG: u8 = 0x80;
pub(crate) const MOV: u8 = 0xb0;
pub(crate) const END: u8 = 0xd0;
pub(crate) const JA: u8 = 0x00;
pub(crate) const CALL: u8 = 0x80;
pub(crate) const EXIT: u8 = 0x90;
/// Linux's may_goto (include/uapi/linux/bpf.h, BPF_JCOND).
pub(crate) const JCOND: u8 = 0xe0;

/// `off` of a signed division or remainder (§4.1).
pub(crate) const OFF_SIGNED: i16 = 1;
/// `off` of Linux's addr_space_cast, a MOV.
pub(crate) const OFF_ADDR_SPACE_CAST: i16 = 1;
/// `imm` of a cast from address space 1 (arena) to 0.
pub(crate) const CAST_FROM_ARENA: i32 = 1;
/// `imm` of a cast from address space 0 to 1.
pub(crate) const CAST_TO_ARENA: i32 = 1 << 16;

// Modes of loads and stores (§5).
pub(crate) const MODE: u8 = 0xe0;
pub(crate) const MODE_IMM: u8 = 0x00;
pub(crate) const MODE_ABS: u8 = 0x20;
pub(crate) const MODE_IND: u8 = 0x40;
pub(crate) const MODE_MEM: u8 = 0x60;
pub(crate) const MODE_MEMSX: u8 = 0x80;
pub(crate) const MODE_ATOMIC: u8 = 0xc0;
/// Size bits of a load or store (§5).
pub(crate) const SIZE: u8 = 0x18;

/// `imm` of an atomic load with acquire order (Linux 6.15).
pub(crate) const LOAD_ACQUIRE: i32 = 0x100;
/// `imm` of an atomic store with release order (Linux 6.15).
pub(crate) const STORE_RELEASE: i32 = 0x110;

// `src` of a call (§4.3.1).
pub(crate) const CALL_HELPER: u8 = 0;
pub(crate) const CALL_LOCAL: u8 = 1;
pub(crate) const CALL_EXTERN: u8 = 2;
/// `src` of a 64-bit immediate that is a code address (§5.4; Linux: BPF_PSEUDO_FUNC).
pub(crate) const IMM64_CODE: u8 = 4;
/// bpf_tail_call's helper id.
pub(crate) const TAIL_CALL: i32 = 12;

/// Arithmetic operations: bits, `off`, meaning.
pub(crate) const ALU_OPS: [(u8, i16, AluOp); 14] = [
    (0x00, 0, AluOp::Add),
    (0x10, 0, AluOp::Sub),
    (0x20, 0, AluOp::Mul),
    (0x30, 0, AluOp::Div),
    (0x30, OFF_SIGNED, AluOp::SDiv),
    (0x40, 0, AluOp::Or),
    (0x50, 0, AluOp::And),
    (0x60, 0, AluOp::Lsh),
    (0x70, 0, AluOp::Rsh),
    (0x90, 0, AluOp::Mod),
    (0x90, OFF_SIGNED, AluOp::SMod),
    (0xa0, 0, AluOp::Xor),
    (MOV, 0, AluOp::Mov),
    (0xc0, 0, AluOp::Arsh),
];

/// Conditional jumps: bits, meaning.
pub(crate) const CMP_OPS: [(u8, CmpOp); 11] = [
    (0x10, CmpOp::Eq),
    (0x20, CmpOp::Gt),
    (0x30, CmpOp::Ge),
    (0x40, CmpOp::Set),
    (0x50, CmpOp::Ne),
    (0x60, CmpOp::SGt),
    (0x70, CmpOp::SGe),
    (0xa0, CmpOp::Lt),
    (0xb0, CmpOp::Le),
    (0xc0, CmpOp::SLt),
    (0xd0, CmpOp::SLe),
];

/// Sizes of loads and stores: bits, meaning.
pub(crate) const SIZES: [(u8, Size); 4] = [
    (0x00, Size::W),
    (0x08, Size::H),
    (0x10, Size::B),
    (0x18, Size::DW),
];

/// Atomic read-modify-writes: `imm`, meaning (§5.3).
pub(crate) const ATOMIC_OPS: [(i32, AtomicOp); 10] = [
    (0x00, AtomicOp::Add { fetch: false }),
    (0x01, AtomicOp::Add { fetch: true }),
    (0x40, AtomicOp::Or { fetch: false }),
    (0x41, AtomicOp::Or { fetch: true }),
    (0x50, AtomicOp::And { fetch: false }),
    (0x51, AtomicOp::And { fetch: true }),
    (0xa0, AtomicOp::Xor { fetch: false }),
    (0xa1, AtomicOp::Xor { fetch: true }),
    (0xe1, AtomicOp::Xchg),
    (0xf1, AtomicOp::CmpXchg),
];
