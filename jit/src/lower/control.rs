//! Jumps (RFC 9669 §4.3) and may_goto.

use upatch_verifier::insn::{CmpOp, Operand, Pc, Reg, Width};

use super::Lower;
use crate::asm::{Arith, Cond};

impl Lower<'_> {
    pub(super) fn jump_if(&mut self, op: CmpOp, width: Width, dst: Reg, src: Operand, target: Pc) {
        // r10 on both sides is the same scratch register twice, which compares right.
        let left = self.source(dst);
        match (op, src) {
            (CmpOp::Set, Operand::Imm(imm)) => self.asm.test_ri(width, left, imm),
            (CmpOp::Set, Operand::Reg(src)) => {
                let right = self.source(src);
                self.asm.test_rr(width, left, right);
            }
            // The same flags as a comparison with zero, in fewer bytes.
            (_, Operand::Imm(0)) => self.asm.test_rr(width, left, left),
            (_, Operand::Imm(imm)) => self.asm.arith_ri(Arith::Cmp, width, left, imm),
            (_, Operand::Reg(src)) => {
                let right = self.source(src);
                self.asm.arith_rr(Arith::Cmp, width, left, right);
            }
        }
        let target = self.label_of(target);
        self.asm.jcc(condition(op), target);
    }

    /// Jumps once the budget that all may_goto share is used up. The budget is in the main program's frame.
    pub(super) fn may_goto(&mut self, target: Pc) {
        let budget = self.main_slot(self.main_frame.budget());
        let target = self.label_of(target);
        self.asm.arith_mi(Arith::Cmp, Width::W64, budget, 0);
        self.asm.jcc(Cond::E, target);
        self.asm.arith_mi(Arith::Sub, Width::W64, budget, 1);
    }
}

fn condition(op: CmpOp) -> Cond {
    match op {
        CmpOp::Eq => Cond::E,
        CmpOp::Ne | CmpOp::Set => Cond::Ne,
        CmpOp::Gt => Cond::A,
        CmpOp::Ge => Cond::Ae,
        CmpOp::Lt => Cond::B,
        CmpOp::Le => Cond::Be,
        CmpOp::SGt => Cond::G,
        CmpOp::SGe => Cond::Ge,
        CmpOp::SLt => Cond::L,
        CmpOp::SLe => Cond::Le,
    }
}
