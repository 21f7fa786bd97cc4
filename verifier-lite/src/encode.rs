//! Instructions to bytes, the inverse of `decode`, for the kernel plane and for tests.
//!
//! Knows only encodings; what a reference to read-only data or the arena becomes is asked of a callback, because only
//! the loader knows file descriptors and addresses. Invariant: `decode(encode(x)) == x` where no callback was needed.

use crate::insn::{
    AddrSpaceCast, AluOp, AtomicOp, Callee, CmpOp, EndianOp, Imm64, Insn, Operand, Pc, Size, Width,
};
use crate::slot::{self, SLOT, Slot};

/// A 64-bit immediate that only a loader can fill in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference {
    /// Byte `offset` of read-only data object `object`.
    Data {
        /// Index into [`crate::Program::data`].
        object: u32,
        /// Byte within it.
        offset: u32,
    },
    /// Byte `offset` of the arena.
    Arena {
        /// Byte within the arena.
        offset: u64,
    },
}

/// What a [`Reference`] becomes: the fields of the two slots (RFC 9669 §5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// Kind of immediate: 0 a number, 1 a map, 2 an address in a map's value, … (Linux's BPF_PSEUDO_*), at most 15.
    pub src: u8,
    /// `imm` of the first slot.
    pub low: u32,
    /// `imm` of the second slot.
    pub high: u32,
}

impl Resolved {
    /// A plain number.
    #[must_use]
    pub fn number(value: u64) -> Self {
        Self {
            src: 0,
            low: value as u32,
            high: (value >> 32) as u32,
        }
    }
}

/// Why instructions have no encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum EncodeError {
    #[error("slot {}: the jump to slot {} does not fit its offset field", at.0, target.0)]
    TooFar { at: Pc, target: Pc },
    #[error("slot {}: a reference to data or the arena was not resolved", at.0)]
    Unresolved { at: Pc },
    #[error("slot {}: no such combination of operands exists", at.0)]
    BadOperands { at: Pc },
}

/// Encodes whole slots. An unconditional jump that is too far for 16 bits becomes `gotol`.
///
/// # Errors
/// A conditional jump that is too far, a reference that `resolve` answers with `None`, or operands that no encoding has
/// (none of which can come from `decode`).
pub fn encode(
    insns: &[Insn],
    mut resolve: impl FnMut(Reference) -> Option<Resolved>,
) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(insns.len() * SLOT);
    let mut high = 0;
    for (at, &insn) in (0..).map(Pc).zip(insns) {
        let slot = match insn {
            Insn::LdImm64 { dst, imm } => {
                let resolved = match imm {
                    Imm64::Const(value) => Some(Resolved::number(value)),
                    Imm64::Subprog(target) => Some(Resolved {
                        src: slot::IMM64_CODE,
                        low: delta32(at, target)?.cast_unsigned(),
                        high: 0,
                    }),
                    Imm64::Data { object, offset } => resolve(Reference::Data { object, offset }),
                    Imm64::Arena { offset } => resolve(Reference::Arena { offset }),
                }
                .ok_or(EncodeError::Unresolved { at })?;
                high = resolved.high;
                Slot {
                    opcode: slot::LD | slot::MODE_IMM | 0x18,
                    dst: dst.number(),
                    src: resolved.src & 0x0f,
                    off: 0,
                    imm: resolved.low.cast_signed(),
                }
            }
            Insn::LdImm64Tail => Slot {
                imm: std::mem::take(&mut high).cast_signed(),
                ..Slot::default()
            },
            _ => one(at, insn)?,
        };
        bytes.extend_from_slice(&slot.to_bytes());
    }
    Ok(bytes)
}

/// Encodes a program without references to data or the arena.
///
/// # Errors
/// As [`encode`].
pub fn encode_plain(insns: &[Insn]) -> Result<Vec<u8>, EncodeError> {
    encode(insns, |_| None)
}

impl Insn {
    /// Does this combination of operands exist? (The type allows a few that the instruction set does not.)
    #[must_use]
    pub fn is_encodable(&self) -> bool {
        // A target next door always fits, so that only operands are judged.
        let here = match *self {
            Self::LdImm64 { .. } | Self::LdImm64Tail => return true,
            Self::Jump { target } | Self::JumpIf { target, .. } | Self::MayGoto { target } => {
                target
            }
            Self::Call {
                callee: Callee::Subprog(target),
            } => target,
            _ => Pc(0),
        };
        one(here, *self).is_ok()
    }
}

fn one(at: Pc, insn: Insn) -> Result<Slot, EncodeError> {
    let bad = EncodeError::BadOperands { at };
    Ok(match insn {
        Insn::Alu {
            op,
            width,
            dst,
            src,
        } => {
            let (bits, off) = alu_bits(op);
            with_operand(alu_class(width) | bits, dst.number(), src, off)
        }
        Insn::MovSx {
            width,
            from,
            dst,
            src,
        } => Slot {
            opcode: alu_class(width) | slot::MOV | slot::SOURCE_REG,
            dst: dst.number(),
            src: src.number(),
            off: match (from, width) {
                (Size::B, _) => 8,
                (Size::H, _) => 16,
                (Size::W, Width::W64) => 32,
                (Size::W, Width::W32) | (Size::DW, _) => return Err(bad),
            },
            imm: 0,
        },
        Insn::Neg { width, dst } => Slot {
            opcode: alu_class(width) | slot::NEG,
            dst: dst.number(),
            ..Slot::default()
        },
        Insn::Endian { op, bits, dst } => Slot {
            opcode: slot::END
                | match op {
                    EndianOp::ToLe => slot::ALU32,
                    EndianOp::ToBe => slot::ALU32 | slot::SOURCE_REG,
                    EndianOp::Swap => slot::ALU64,
                },
            dst: dst.number(),
            imm: match bits {
                16 | 32 | 64 => bits.into(),
                _ => return Err(bad),
            },
            ..Slot::default()
        },
        Insn::AddrSpaceCast { cast, dst, src } => Slot {
            opcode: slot::ALU64 | slot::MOV | slot::SOURCE_REG,
            dst: dst.number(),
            src: src.number(),
            off: slot::OFF_ADDR_SPACE_CAST,
            imm: match cast {
                AddrSpaceCast::FromArena => slot::CAST_FROM_ARENA,
                AddrSpaceCast::ToArena => slot::CAST_TO_ARENA,
            },
        },
        Insn::LdImm64 { .. } | Insn::LdImm64Tail => return Err(bad),
        Insn::Load {
            size,
            signed,
            dst,
            base,
            off,
        } => Slot {
            opcode: slot::LDX
                | size_bits(size)
                | match (signed, size) {
                    (false, _) => slot::MODE_MEM,
                    (true, Size::B | Size::H | Size::W) => slot::MODE_MEMSX,
                    (true, Size::DW) => return Err(bad),
                },
            dst: dst.number(),
            src: base.number(),
            off,
            imm: 0,
        },
        Insn::Store {
            size,
            base,
            off,
            src,
        } => Slot {
            // ST and STX are classes, not a source bit.
            opcode: slot::MODE_MEM
                | size_bits(size)
                | match src {
                    Operand::Reg(_) => slot::STX,
                    Operand::Imm(_) => slot::ST,
                },
            ..with_operand(0, base.number(), src, off)
        },
        Insn::Atomic {
            op,
            size: size @ (Size::W | Size::DW),
            base,
            off,
            src,
        } => atomic(size, base.number(), src.number(), off, atomic_imm(op)),
        Insn::Atomic { .. } => return Err(bad),
        Insn::LoadAcquire {
            size,
            dst,
            base,
            off,
        } => atomic(size, dst.number(), base.number(), off, slot::LOAD_ACQUIRE),
        Insn::StoreRelease {
            size,
            base,
            off,
            src,
        } => atomic(size, base.number(), src.number(), off, slot::STORE_RELEASE),
        Insn::Jump { target } => match delta16(at, target) {
            Ok(off) => Slot {
                opcode: slot::JMP | slot::JA,
                off,
                ..Slot::default()
            },
            Err(_) => Slot {
                opcode: slot::JMP32 | slot::JA,
                imm: delta32(at, target)?,
                ..Slot::default()
            },
        },
        Insn::JumpIf {
            op,
            width,
            dst,
            src,
            target,
        } => {
            let class = match width {
                Width::W32 => slot::JMP32,
                Width::W64 => slot::JMP,
            };
            let off = delta16(at, target)?;
            with_operand(class | cmp_bits(op), dst.number(), src, off)
        }
        Insn::MayGoto { target } => Slot {
            opcode: slot::JMP | slot::JCOND,
            off: delta16(at, target)?,
            ..Slot::default()
        },
        Insn::Call { callee } => {
            let (src, imm) = match callee {
                Callee::Helper(id) => (slot::CALL_HELPER, id.cast_signed()),
                Callee::Subprog(target) => (slot::CALL_LOCAL, delta32(at, target)?),
                Callee::Extern(index) => (slot::CALL_EXTERN, index.cast_signed()),
            };
            Slot {
                opcode: slot::JMP | slot::CALL,
                src,
                imm,
                ..Slot::default()
            }
        }
        Insn::Exit => Slot {
            opcode: slot::JMP | slot::EXIT,
            ..Slot::default()
        },
    })
}

fn with_operand(opcode: u8, dst: u8, src: Operand, off: i16) -> Slot {
    match src {
        Operand::Reg(reg) => Slot {
            opcode: opcode | slot::SOURCE_REG,
            dst,
            src: reg.number(),
            off,
            imm: 0,
        },
        Operand::Imm(imm) => Slot {
            opcode,
            dst,
            src: 0,
            off,
            imm,
        },
    }
}

fn atomic(size: Size, dst: u8, src: u8, off: i16, imm: i32) -> Slot {
    Slot {
        opcode: slot::STX | slot::MODE_ATOMIC | size_bits(size),
        dst,
        src,
        off,
        imm,
    }
}

fn alu_class(width: Width) -> u8 {
    match width {
        Width::W32 => slot::ALU32,
        Width::W64 => slot::ALU64,
    }
}

// The tables are complete (tests look each operation up), so the defaults below are never taken.

fn alu_bits(op: AluOp) -> (u8, i16) {
    slot::ALU_OPS
        .iter()
        .find(|(.., known)| *known == op)
        .map_or((0, 0), |(bits, off, _)| (*bits, *off))
}

fn cmp_bits(op: CmpOp) -> u8 {
    slot::CMP_OPS
        .iter()
        .find(|(_, known)| *known == op)
        .map_or(0, |(bits, _)| *bits)
}

fn size_bits(size: Size) -> u8 {
    slot::SIZES
        .iter()
        .find(|(_, known)| *known == size)
        .map_or(0, |(bits, _)| *bits)
}

fn atomic_imm(op: AtomicOp) -> i32 {
    slot::ATOMIC_OPS
        .iter()
        .find(|(_, known)| *known == op)
        .map_or(0, |(imm, _)| *imm)
}

fn delta(at: Pc, target: Pc) -> i64 {
    i64::from(target.0) - i64::from(at.0) - 1
}

fn delta16(at: Pc, target: Pc) -> Result<i16, EncodeError> {
    i16::try_from(delta(at, target)).map_err(|_| EncodeError::TooFar { at, target })
}

fn delta32(at: Pc, target: Pc) -> Result<i32, EncodeError> {
    i32::try_from(delta(at, target)).map_err(|_| EncodeError::TooFar { at, target })
}
