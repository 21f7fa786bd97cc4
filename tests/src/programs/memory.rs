//! Statements that touch memory: at computed indexes behind all kinds of checks, and through spilled copies.

use upatch_verifier::ProgramKind;
use upatch_verifier::insn::{
    AddrSpaceCast, AluOp, AtomicOp, CmpOp, Imm64, Insn, Operand, Pc, Reg, Size, Width,
};

use super::{BUFFER, NUMBERS, OBJECT, SIZES, Writer};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Table,
    Memory,
}

impl Writer<'_> {
    /// Bounds a register in one of the ways that programs do, or not quite.
    pub(super) fn guard(&mut self, reg: Reg, most: i32) -> Option<usize> {
        match self.random.below(10) {
            0..=2 => {
                let mask = if self.random.chance(85) {
                    most
                } else {
                    self.random.imm()
                };
                self.alu(AluOp::And, reg, Operand::Imm(mask));
                None
            }
            3 => {
                let width = self.random.pick(&[Width::W32, Width::W64]);
                let op = self.random.pick(&[AluOp::Mod, AluOp::SMod]);
                self.push(Insn::Alu {
                    op,
                    width,
                    dst: reg,
                    src: Operand::Imm(most + 1),
                });
                None
            }
            4..=7 => {
                let at = self.insns.len();
                let op =
                    self.random
                        .pick(&[CmpOp::Gt, CmpOp::Gt, CmpOp::Ge, CmpOp::SGt, CmpOp::Ne]);
                let width = self.random.pick(&[Width::W64, Width::W64, Width::W32]);
                let limit = if self.random.chance(85) {
                    most
                } else {
                    most + 1
                };
                self.push(Insn::JumpIf {
                    op,
                    width,
                    dst: reg,
                    src: Operand::Imm(limit),
                    target: Pc(0),
                });
                Some(at)
            }
            8 => {
                self.push(Insn::Alu {
                    op: AluOp::Rsh,
                    width: Width::W64,
                    dst: reg,
                    src: Operand::Imm(58),
                });
                None
            }
            _ => None,
        }
    }

    /// An access at a computed index.
    pub(super) fn indexed(&mut self) {
        let index = self.random.pick(&NUMBERS);
        let size = self.random.pick(&SIZES);
        let most = OBJECT as i32 - i32::from(size.bytes());
        let most = if self.random.chance(90) {
            most
        } else {
            most + 3
        };
        // `and` needs a mask.
        let limit = if self.random.chance(50) {
            most.min(31)
        } else {
            most
        };
        let guarded = self.guard(index, limit);
        let base = self.base_pointer();
        self.alu(AluOp::Add, Reg::R1, Operand::Reg(index));
        let value = self.random.pick(&NUMBERS);
        if base == Base::Table || self.random.chance(60) {
            let signed = size != Size::DW && self.random.chance(30);
            self.push(Insn::Load {
                size,
                signed,
                dst: value,
                base: Reg::R1,
                off: 0,
            });
        } else {
            self.push(Insn::Store {
                size,
                base: Reg::R1,
                off: 0,
                src: Operand::Reg(value),
            });
        }
        if let Some(at) = guarded {
            self.set_target(at);
        }
    }

    /// Puts the start of an object of [`OBJECT`] bytes into r1.
    pub(super) fn base_pointer(&mut self) -> Base {
        match self.random.below(4) {
            0 => {
                self.push(Insn::LdImm64 {
                    dst: Reg::R1,
                    imm: Imm64::Data {
                        object: 0,
                        offset: 0,
                    },
                });
                Base::Table
            }
            1 if self.arena => {
                self.push(Insn::LdImm64 {
                    dst: Reg::R1,
                    imm: Imm64::Arena { offset: 0 },
                });
                Base::Memory
            }
            2 if matches!(self.kind, ProgramKind::Memory { .. }) && !self.inner => {
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R6));
                Base::Memory
            }
            _ => {
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R1, Operand::Imm(-i32::from(BUFFER)));
                Base::Memory
            }
        }
    }

    pub(super) fn stack_slot(&mut self) {
        let size = self.random.pick(&SIZES);
        let bytes = i16::from(size.bytes());
        // Sometimes below the part that is initialised.
        let slots = if self.random.chance(85) {
            BUFFER
        } else {
            BUFFER + 32
        } / bytes;
        let off = -bytes * (1 + self.random.below(slots as u64) as i16);
        let reg = self.random.pick(&NUMBERS);
        if self.random.chance(50) {
            self.push(Insn::Store {
                size,
                base: Reg::R10,
                off,
                src: Operand::Reg(reg),
            });
        }
        if self.random.chance(60) {
            let signed = size != Size::DW && self.random.chance(30);
            let dst = self.random.pick(&NUMBERS);
            self.push(Insn::Load {
                size,
                signed,
                dst,
                base: Reg::R10,
                off,
            });
        }
    }

    /// Copies a number, perhaps moves it, checks one of the two, and indexes by the other.
    pub(super) fn copy_and_check(&mut self) {
        let original = self.random.pick(&[Reg::R7, Reg::R8]);
        let copy = self.random.pick(&[Reg::R2, Reg::R3]);
        let width = self.random.pick(&[Width::W32, Width::W64]);
        self.push(Insn::Alu {
            op: AluOp::Mov,
            width,
            dst: copy,
            src: Operand::Reg(original),
        });
        if self.random.chance(60) {
            let width = self.random.pick(&[Width::W32, Width::W64]);
            let amount = self.random.below(20) as i32 - 10;
            self.push(Insn::Alu {
                op: AluOp::Add,
                width,
                dst: copy,
                src: Operand::Imm(amount),
            });
        }
        if self.random.chance(30) {
            let size = self.random.pick(&[Size::W, Size::DW]);
            self.push(Insn::Store {
                size,
                base: Reg::R10,
                off: -8,
                src: Operand::Reg(copy),
            });
            self.push(Insn::Load {
                size,
                signed: false,
                dst: copy,
                base: Reg::R10,
                off: -8,
            });
        }
        if self.random.chance(25) {
            // What bounds an or bounds its parts.
            let width = self.random.pick(&[Width::W32, Width::W64]);
            let other = self.random.pick(&NUMBERS);
            self.push(Insn::Alu {
                op: AluOp::Or,
                width,
                dst: copy,
                src: Operand::Reg(other),
            });
        }
        let (checked, used) = if self.random.chance(70) {
            (copy, original)
        } else {
            (original, copy)
        };
        let guarded = self.guard(checked, 40);
        self.base_pointer();
        self.alu(AluOp::Add, Reg::R1, Operand::Reg(used));
        let off = self.random.below(12) as i16;
        self.push(Insn::Load {
            size: Size::B,
            signed: false,
            dst: Reg::R4,
            base: Reg::R1,
            off,
        });
        if let Some(at) = guarded {
            self.set_target(at);
        }
    }

    pub(super) fn arena_access(&mut self) {
        let size = self.random.pick(&SIZES);
        let reg = self.random.pick(&NUMBERS);
        self.global(Reg::R1);
        match self.random.below(4) {
            0 => self.push(Insn::Store {
                size,
                base: Reg::R1,
                off: 0,
                src: Operand::Reg(reg),
            }),
            1 => self.push(Insn::StoreRelease {
                size,
                base: Reg::R1,
                off: 0,
                src: reg,
            }),
            2 => self.push(Insn::LoadAcquire {
                size,
                dst: reg,
                base: Reg::R1,
                off: 0,
            }),
            _ => {
                // A pointer from nowhere: to be confined.
                let cast = AddrSpaceCast::FromArena;
                self.push(Insn::AddrSpaceCast {
                    cast,
                    dst: Reg::R1,
                    src: reg,
                });
                self.push(Insn::Load {
                    size,
                    signed: false,
                    dst: reg,
                    base: Reg::R1,
                    off: 16,
                });
            }
        }
    }

    pub(super) fn atomic(&mut self) {
        let fetch = self.random.chance(50);
        let op = self.random.pick(&[
            AtomicOp::Add { fetch },
            AtomicOp::Or { fetch },
            AtomicOp::And { fetch },
            AtomicOp::Xor { fetch },
            AtomicOp::Xchg,
            AtomicOp::CmpXchg,
        ]);
        let size = self.random.pick(&[Size::W, Size::DW]);
        let src = self.random.pick(&NUMBERS);
        let off = -8 * (1 + self.random.below(8) as i16);
        self.push(Insn::Atomic {
            op,
            size,
            base: Reg::R10,
            off,
            src,
        });
    }

    pub(super) fn ctx_store(&mut self) {
        let off = self.random.pick(&[64, 72, 80, 88, 96, 104, 112]);
        let size = self.random.pick(&SIZES);
        let src = self.operand();
        self.push(Insn::Store {
            size,
            base: Reg::R6,
            off,
            src,
        });
    }
}
