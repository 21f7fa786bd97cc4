//! Bytes to instructions: RFC 9669 as clang -mcpu=v4 emits it, and Linux's addr_space_cast, may_goto, load_acquire and
//! store_release.
//!
//! Decides which bit patterns are instructions: a field that an instruction does not use must be zero. Doesn't know
//! relocations: data objects, the arena and external functions are the linker's to fill in.
//! Invariant: every decoded instruction can be encoded again, and decodes to itself.

mod error;

pub use error::{DecodeError, Field};

use crate::insn::{AddrSpaceCast, Callee, EndianOp, Imm64, Insn, Operand, Pc, Reg, Size, Width};
use crate::program::MAX_SLOTS;
use crate::slot::{self, SLOT, Slot};

/// Decodes 8 bytes a slot, little-endian. The result has one entry per slot; jump, call and callback targets are
/// absolute slots. Targets of calls and callbacks may lie outside `bytes` (a relocation is still to be applied);
/// [`crate::Program::new`] checks them.
///
/// # Errors
/// The first slot that is not an instruction, with the field that says so.
pub fn decode(bytes: &[u8]) -> Result<Vec<Insn>, DecodeError> {
    let (chunks, rest) = bytes.as_chunks::<SLOT>();
    if !rest.is_empty() {
        return Err(DecodeError::TornSlot { bytes: bytes.len() });
    }
    if chunks.len() > MAX_SLOTS {
        return Err(DecodeError::TooLong {
            slots: chunks.len(),
        });
    }
    let slots: Vec<Slot> = chunks
        .iter()
        .map(|chunk| Slot::from_bytes(*chunk))
        .collect();
    let mut insns = Vec::with_capacity(slots.len());
    while let Some(&slot) = slots.get(insns.len()) {
        let at = Pc(u32::try_from(insns.len()).unwrap_or(u32::MAX));
        let one = One {
            at,
            slot,
            slots: slots.len(),
        };
        if slot.opcode == slot::LD | slot::MODE_IMM | 0x18 {
            let second = slots
                .get(insns.len() + 1)
                .copied()
                .ok_or(DecodeError::TornImm64 { at })?;
            insns.push(one.imm64(second)?);
            insns.push(Insn::LdImm64Tail);
        } else {
            insns.push(one.insn()?);
        }
    }
    Ok(insns)
}

/// One slot at its place.
#[derive(Clone, Copy)]
struct One {
    at: Pc,
    slot: Slot,
    slots: usize,
}

impl One {
    fn insn(self) -> Result<Insn, DecodeError> {
        match self.slot.opcode & slot::CLASS {
            slot::LD => match self.slot.opcode & slot::MODE {
                slot::MODE_ABS | slot::MODE_IND => Err(DecodeError::LegacyPacket { at: self.at }),
                _ => Err(self.unknown_opcode()),
            },
            slot::LDX => self.load(),
            slot::ST | slot::STX => self.store(),
            slot::ALU32 => self.alu(Width::W32),
            slot::ALU64 => self.alu(Width::W64),
            slot::JMP => self.jump(Width::W64),
            // Three bits: JMP32 is the only class left.
            _ => self.jump(Width::W32),
        }
    }

    fn imm64(self, second: Slot) -> Result<Insn, DecodeError> {
        let dst = self.dst()?;
        self.zero(Field::Offset)?;
        let tail = Self {
            at: Pc(self.at.0 + 1),
            slot: second,
            ..self
        };
        if second.opcode != 0 {
            return Err(DecodeError::TornImm64 { at: self.at });
        }
        tail.zero(Field::Dst)?;
        tail.zero(Field::Src)?;
        tail.zero(Field::Offset)?;
        let imm = match self.slot.src {
            0 => Imm64::Const(
                u64::from(second.imm.cast_unsigned()) << 32
                    | u64::from(self.slot.imm.cast_unsigned()),
            ),
            slot::IMM64_CODE => {
                tail.zero(Field::Imm)?;
                Imm64::Subprog(self.callee_target()?)
            }
            src @ 1..=6 => return Err(DecodeError::KernelReference { at: self.at, src }),
            _ => return Err(self.unknown_variant(Field::Src)),
        };
        Ok(Insn::LdImm64 { dst, imm })
    }

    fn load(self) -> Result<Insn, DecodeError> {
        let size = self.size();
        let signed = match self.slot.opcode & slot::MODE {
            slot::MODE_MEM => false,
            slot::MODE_MEMSX if size != Size::DW => true,
            _ => return Err(self.unknown_opcode()),
        };
        self.zero(Field::Imm)?;
        Ok(Insn::Load {
            size,
            signed,
            dst: self.dst()?,
            base: self.src()?,
            off: self.slot.off,
        })
    }

    fn store(self) -> Result<Insn, DecodeError> {
        let immediate = self.slot.opcode & slot::CLASS == slot::ST;
        let src = match self.slot.opcode & slot::MODE {
            slot::MODE_MEM if immediate => {
                self.zero(Field::Src)?;
                Operand::Imm(self.slot.imm)
            }
            slot::MODE_MEM => {
                self.zero(Field::Imm)?;
                Operand::Reg(self.src()?)
            }
            slot::MODE_ATOMIC if !immediate => return self.atomic(),
            _ => return Err(self.unknown_opcode()),
        };
        Ok(Insn::Store {
            size: self.size(),
            base: self.dst()?,
            off: self.slot.off,
            src,
        })
    }

    fn atomic(self) -> Result<Insn, DecodeError> {
        let (size, off) = (self.size(), self.slot.off);
        let (dst, src) = (self.dst()?, self.src()?);
        match self.slot.imm {
            slot::LOAD_ACQUIRE => {
                return Ok(Insn::LoadAcquire {
                    size,
                    dst,
                    base: src,
                    off,
                });
            }
            slot::STORE_RELEASE => {
                return Ok(Insn::StoreRelease {
                    size,
                    base: dst,
                    off,
                    src,
                });
            }
            _ => {}
        }
        if !matches!(size, Size::W | Size::DW) {
            return Err(self.unknown_opcode());
        }
        let &(_, op) = slot::ATOMIC_OPS
            .iter()
            .find(|(imm, _)| *imm == self.slot.imm)
            .ok_or_else(|| self.unknown_variant(Field::Imm))?;
        Ok(Insn::Atomic {
            op,
            size,
            base: dst,
            off,
            src,
        })
    }

    fn alu(self, width: Width) -> Result<Insn, DecodeError> {
        let dst = self.dst()?;
        match self.slot.opcode & slot::OPERATION {
            slot::NEG => {
                if self.by_register() {
                    return Err(self.unknown_opcode());
                }
                self.zero(Field::Src)?;
                self.zero(Field::Offset)?;
                self.zero(Field::Imm)?;
                Ok(Insn::Neg { width, dst })
            }
            slot::END => self.endian(width),
            slot::MOV if self.by_register() && self.slot.off != 0 => self.special_move(width),
            bits => {
                let &(.., op) = slot::ALU_OPS
                    .iter()
                    .find(|(known, off, _)| *known == bits && *off == self.slot.off)
                    .ok_or_else(|| self.unknown_alu(bits))?;
                Ok(Insn::Alu {
                    op,
                    width,
                    dst,
                    src: self.operand()?,
                })
            }
        }
    }

    /// The operation exists with another offset, or not at all.
    fn unknown_alu(self, bits: u8) -> DecodeError {
        let mut variants = slot::ALU_OPS.iter().filter(|(known, ..)| *known == bits);
        match variants.clone().count() {
            0 => self.unknown_opcode(),
            1 => match self.zero(Field::Offset) {
                Err(reserved) => reserved,
                // Offset 0 exists for every operation.
                Ok(()) => self.unknown_opcode(),
            },
            _ if variants.any(|(_, off, _)| *off == self.slot.off) => self.unknown_opcode(),
            _ => self.unknown_variant(Field::Offset),
        }
    }

    fn endian(self, width: Width) -> Result<Insn, DecodeError> {
        let op = match (width, self.by_register()) {
            (Width::W32, false) => EndianOp::ToLe,
            (Width::W32, true) => EndianOp::ToBe,
            (Width::W64, false) => EndianOp::Swap,
            (Width::W64, true) => return Err(self.unknown_opcode()),
        };
        self.zero(Field::Src)?;
        self.zero(Field::Offset)?;
        let bits = match self.slot.imm {
            16 => 16,
            32 => 32,
            64 => 64,
            _ => return Err(self.unknown_variant(Field::Imm)),
        };
        Ok(Insn::Endian {
            op,
            bits,
            dst: self.dst()?,
        })
    }

    /// A register move with an offset: sign extension, or Linux's addr_space_cast.
    fn special_move(self, width: Width) -> Result<Insn, DecodeError> {
        let (dst, src) = (self.dst()?, self.src()?);
        let from = match (self.slot.off, width) {
            (slot::OFF_ADDR_SPACE_CAST, Width::W64) => {
                let cast = match self.slot.imm {
                    slot::CAST_FROM_ARENA => AddrSpaceCast::FromArena,
                    slot::CAST_TO_ARENA => AddrSpaceCast::ToArena,
                    _ => return Err(self.unknown_variant(Field::Imm)),
                };
                return Ok(Insn::AddrSpaceCast { cast, dst, src });
            }
            (8, _) => Size::B,
            (16, _) => Size::H,
            (32, Width::W64) => Size::W,
            _ => return Err(self.unknown_variant(Field::Offset)),
        };
        self.zero(Field::Imm)?;
        Ok(Insn::MovSx {
            width,
            from,
            dst,
            src,
        })
    }

    fn jump(self, width: Width) -> Result<Insn, DecodeError> {
        let bits = self.slot.opcode & slot::OPERATION;
        match (bits, width, self.by_register()) {
            (slot::JA, Width::W64, false) => {
                self.zero(Field::Imm)?;
                self.only_target(self.slot.off.into())
                    .map(|target| Insn::Jump { target })
            }
            (slot::JA, Width::W32, false) => {
                self.zero(Field::Offset)?;
                self.only_target(self.slot.imm.into())
                    .map(|target| Insn::Jump { target })
            }
            (slot::JCOND, Width::W64, false) => {
                self.zero(Field::Imm)?;
                self.only_target(self.slot.off.into())
                    .map(|target| Insn::MayGoto { target })
            }
            (slot::EXIT, Width::W64, false) => {
                for field in [Field::Dst, Field::Src, Field::Offset, Field::Imm] {
                    self.zero(field)?;
                }
                Ok(Insn::Exit)
            }
            (slot::CALL, Width::W64, false) => self.call(),
            (slot::CALL, Width::W64, true) => Err(DecodeError::IndirectCall { at: self.at }),
            _ => {
                let &(_, op) = slot::CMP_OPS
                    .iter()
                    .find(|(known, _)| *known == bits)
                    .ok_or_else(|| self.unknown_opcode())?;
                Ok(Insn::JumpIf {
                    op,
                    width,
                    dst: self.dst()?,
                    src: if self.by_register() {
                        self.zero(Field::Imm)?;
                        Operand::Reg(self.src()?)
                    } else {
                        self.zero(Field::Src)?;
                        Operand::Imm(self.slot.imm)
                    },
                    target: self.target(self.slot.off.into())?,
                })
            }
        }
    }

    fn call(self) -> Result<Insn, DecodeError> {
        self.zero(Field::Dst)?;
        self.zero(Field::Offset)?;
        let callee = match self.slot.src {
            slot::CALL_HELPER if self.slot.imm == slot::TAIL_CALL => {
                return Err(DecodeError::TailCall { at: self.at });
            }
            slot::CALL_HELPER => Callee::Helper(self.slot.imm.cast_unsigned()),
            slot::CALL_LOCAL => Callee::Subprog(self.callee_target()?),
            slot::CALL_EXTERN => Callee::Extern(self.slot.imm.cast_unsigned()),
            _ => return Err(self.unknown_variant(Field::Src)),
        };
        Ok(Insn::Call { callee })
    }

    /// The target of a jump that uses neither register.
    fn only_target(self, delta: i64) -> Result<Pc, DecodeError> {
        self.zero(Field::Dst)?;
        self.zero(Field::Src)?;
        self.target(delta)
    }

    /// `delta` counts from the next slot (§4.3).
    fn target(self, delta: i64) -> Result<Pc, DecodeError> {
        let target = i64::from(self.at.0) + 1 + delta;
        match u32::try_from(target) {
            Ok(pc) if (pc as usize) < self.slots => Ok(Pc(pc)),
            _ => Err(DecodeError::BadTarget {
                at: self.at,
                target,
            }),
        }
    }

    /// Like [`Self::target`] of `imm`, but a relocation may still move it.
    fn callee_target(self) -> Result<Pc, DecodeError> {
        let target = i64::from(self.at.0) + 1 + i64::from(self.slot.imm);
        u32::try_from(target)
            .map(Pc)
            .map_err(|_| DecodeError::BadTarget {
                at: self.at,
                target,
            })
    }

    fn by_register(self) -> bool {
        self.slot.opcode & slot::SOURCE_REG != 0
    }

    fn operand(self) -> Result<Operand, DecodeError> {
        if self.by_register() {
            self.zero(Field::Imm)?;
            Ok(Operand::Reg(self.src()?))
        } else {
            self.zero(Field::Src)?;
            Ok(Operand::Imm(self.slot.imm))
        }
    }

    fn size(self) -> Size {
        // Two bits, four entries: one always matches.
        slot::SIZES
            .iter()
            .find(|(bits, _)| *bits == self.slot.opcode & slot::SIZE)
            .map_or(Size::W, |(_, size)| *size)
    }

    fn dst(self) -> Result<Reg, DecodeError> {
        self.register(Field::Dst, self.slot.dst)
    }

    fn src(self) -> Result<Reg, DecodeError> {
        self.register(Field::Src, self.slot.src)
    }

    fn register(self, field: Field, number: u8) -> Result<Reg, DecodeError> {
        Reg::new(number).ok_or(DecodeError::BadRegister {
            at: self.at,
            field,
            number,
        })
    }

    fn value(self, field: Field) -> i64 {
        match field {
            Field::Dst => self.slot.dst.into(),
            Field::Src => self.slot.src.into(),
            Field::Offset => self.slot.off.into(),
            Field::Imm => self.slot.imm.into(),
            Field::Opcode => self.slot.opcode.into(),
        }
    }

    fn zero(self, field: Field) -> Result<(), DecodeError> {
        match self.value(field) {
            0 => Ok(()),
            value => Err(DecodeError::Reserved {
                at: self.at,
                opcode: self.slot.opcode,
                field,
                value,
            }),
        }
    }

    fn unknown_opcode(self) -> DecodeError {
        DecodeError::UnknownOpcode {
            at: self.at,
            opcode: self.slot.opcode,
        }
    }

    fn unknown_variant(self, field: Field) -> DecodeError {
        DecodeError::UnknownVariant {
            at: self.at,
            opcode: self.slot.opcode,
            field,
            value: self.value(field),
        }
    }
}
