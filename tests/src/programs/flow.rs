//! Statements that go elsewhere: loops, calls, callbacks, helpers.

use upatch_abi::helpers;
use upatch_verifier::insn::{AluOp, Callee, CmpOp, Imm64, Insn, Operand, Pc, Reg, Size, Width};
use upatch_verifier::program::Subprog;

use super::{BUFFER, FUNCTIONS, Function, NUMBERS, SIZES, Writer};

impl Writer<'_> {
    pub(super) fn counted_loop(&mut self) {
        self.counting = true;
        self.depth += 1;
        self.mov(Reg::R9, 0);
        let start = Pc(self.insns.len() as u32);
        for _ in 0..=self.random.below(3) {
            self.statement();
        }
        if self.random.chance(40) {
            // Index by the counter.
            self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
            self.alu(AluOp::Add, Reg::R1, Operand::Imm(-i32::from(BUFFER)));
            self.alu(AluOp::Add, Reg::R1, Operand::Reg(Reg::R9));
            self.push(Insn::Load {
                size: Size::B,
                signed: false,
                dst: Reg::R2,
                base: Reg::R1,
                off: 0,
            });
        }
        let step = 1 + self.random.below(3) as i32;
        self.alu(AluOp::Add, Reg::R9, Operand::Imm(step));
        let op = self
            .random
            .pick(&[CmpOp::Lt, CmpOp::SLt, CmpOp::Le, CmpOp::Ne]);
        let limit = step * (1 + self.random.below(12) as i32);
        let width = self.random.pick(&[Width::W32, Width::W64]);
        self.push(Insn::JumpIf {
            op,
            width,
            dst: Reg::R9,
            src: Operand::Imm(limit),
            target: start,
        });
        self.depth -= 1;
        self.counting = false;
    }

    pub(super) fn may_goto_loop(&mut self) {
        self.depth += 1;
        let start = Pc(self.insns.len() as u32);
        self.push(Insn::MayGoto { target: Pc(0) });
        for _ in 0..=self.random.below(3) {
            self.statement();
        }
        self.push(Insn::Jump { target: start });
        self.set_target(start.index());
        self.depth -= 1;
    }

    /// After a call r1 to r5 are gone.
    pub(super) fn revive(&mut self) {
        for reg in [Reg::R2, Reg::R3, Reg::R4] {
            self.fresh_number(reg);
        }
    }

    pub(super) fn helper(&mut self) {
        match self.random.below(4) {
            0 => self.push(Insn::Call {
                callee: Callee::Helper(5),
            }),
            1 => self.push(Insn::Call {
                callee: Callee::Helper(7),
            }),
            2 => {
                // probe_read_user[_str] of a bounded or fixed size to the buffer.
                let size = self.random.pick(&[Reg::R7, Reg::R8]);
                let guarded = self.guard(size, 63);
                self.alu(AluOp::Mov, Reg::R2, Operand::Reg(size));
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R1, Operand::Imm(-i32::from(BUFFER)));
                let address = self.random.pick(&[Reg::R7, Reg::R8]);
                self.alu(AluOp::Mov, Reg::R3, Operand::Reg(address));
                let id = self.random.pick(&[112, 114]);
                self.push(Insn::Call {
                    callee: Callee::Helper(id),
                });
                if let Some(at) = guarded {
                    self.set_target(at);
                }
            }
            _ => {
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R1, Operand::Imm(-16));
                self.mov(Reg::R2, 16);
                self.push(Insn::Call {
                    callee: Callee::Helper(16),
                });
            }
        }
        self.revive();
    }

    pub(super) fn call(&mut self) {
        let function = self.random.pick(&FUNCTIONS);
        match function {
            Function::Numbers => {
                let (a, b) = (
                    self.random.pick(&NUMBERS),
                    self.random.pick(&[Reg::R7, Reg::R8]),
                );
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(a));
                self.alu(AluOp::Mov, Reg::R2, Operand::Reg(b));
            }
            Function::Pointer => {
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R1, Operand::Imm(-i32::from(BUFFER)));
                self.alu(AluOp::Mov, Reg::R2, Operand::Reg(Reg::R7));
            }
            Function::Callback => {
                let most = self.random.below(20) as i32;
                if self.random.chance(50) {
                    self.mov(Reg::R1, most);
                } else {
                    self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R7));
                    self.alu(AluOp::And, Reg::R1, Operand::Imm(most));
                }
                self.alu(AluOp::Mov, Reg::R3, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R3, Operand::Imm(-i32::from(BUFFER)));
                self.mov(Reg::R4, 0);
                self.calls.push((self.insns.len(), function));
                self.push(Insn::LdImm64 {
                    dst: Reg::R2,
                    imm: Imm64::Subprog(Pc(0)),
                });
                self.push(Insn::Call {
                    callee: Callee::Helper(helpers::LOOP),
                });
                return self.revive();
            }
        }
        self.calls.push((self.insns.len(), function));
        self.push(Insn::Call {
            callee: Callee::Subprog(Pc(0)),
        });
        self.revive();
    }

    /// Writes a function and lets its calls go to it.
    pub(super) fn function(&mut self, function: Function) -> Subprog {
        let start = Pc(self.insns.len() as u32);
        self.inner = true;
        self.depth = 1;
        self.push(Insn::Store {
            size: Size::DW,
            base: Reg::R10,
            off: -8,
            src: Operand::Reg(Reg::R1),
        });
        // The arguments are where the statements don't touch them.
        let (pointer, number) = match function {
            Function::Numbers => (None, Reg::R2),
            Function::Pointer => (Some(Reg::R1), Reg::R2),
            Function::Callback => (Some(Reg::R2), Reg::R1),
        };
        self.alu(AluOp::Mov, Reg::R8, Operand::Reg(number));
        self.alu(
            AluOp::Mov,
            Reg::R6,
            Operand::Reg(pointer.unwrap_or(Reg::R8)),
        );
        for slot in 1..=BUFFER / 8 {
            self.push(Insn::Store {
                size: Size::DW,
                base: Reg::R10,
                off: -8 * slot,
                src: Operand::Imm(7),
            });
        }
        for reg in [Reg::R0, Reg::R2, Reg::R3, Reg::R4, Reg::R7] {
            self.fresh_number(reg);
        }
        for _ in 0..=self.random.below(4) {
            self.statement();
        }
        if pointer.is_some() {
            let guarded = self.guard(Reg::R8, 31);
            self.alu(AluOp::Add, Reg::R6, Operand::Reg(Reg::R8));
            let size = self.random.pick(&SIZES);
            self.push(Insn::Load {
                size,
                signed: false,
                dst: Reg::R2,
                base: Reg::R6,
                off: 0,
            });
            self.alu(AluOp::Add, Reg::R2, Operand::Imm(1));
            self.push(Insn::Store {
                size,
                base: Reg::R6,
                off: 0,
                src: Operand::Reg(Reg::R2),
            });
            if let Some(at) = guarded {
                self.set_target(at);
            }
        }
        if function == Function::Callback {
            self.alu(AluOp::And, Reg::R0, Operand::Imm(1));
        }
        self.push(Insn::Exit);
        for (at, wanted) in &self.calls {
            if *wanted == function {
                match &mut self.insns[*at] {
                    Insn::LdImm64 { imm, .. } => *imm = Imm64::Subprog(start),
                    Insn::Call { callee } => *callee = Callee::Subprog(start),
                    _ => unreachable!("only calls are remembered"),
                }
            }
        }
        Subprog {
            start,
            end: Pc(self.insns.len() as u32),
            name: format!("{function:?}"),
            global: false,
            args: Some(2),
        }
    }
}
