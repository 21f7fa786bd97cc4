//! Atomic read-modify-writes (RFC 9669 §5.3).

use upatch_verifier::insn::{AtomicOp, Reg, Size, Width};

use super::Lower;
use crate::asm::{Arith, Cond, Gpr, Mem, Swap};

use Width::{W32, W64};

/// Atomics have four or eight bytes.
pub(super) fn width_of(size: Size) -> Width {
    match size {
        Size::DW => W64,
        Size::B | Size::H | Size::W => W32,
    }
}

impl Lower<'_> {
    pub(super) fn atomic(
        &mut self,
        at: usize,
        op: AtomicOp,
        size: Size,
        base: Reg,
        off: i16,
        src: Reg,
    ) {
        let width = width_of(size);
        let mem = self.atomic_place(at, base, off, size);
        let src = self.source(src);
        match op {
            AtomicOp::Add { fetch: false } => self.asm.lock_arith_mr(Arith::Add, width, mem, src),
            AtomicOp::Or { fetch: false } => self.asm.lock_arith_mr(Arith::Or, width, mem, src),
            AtomicOp::And { fetch: false } => self.asm.lock_arith_mr(Arith::And, width, mem, src),
            AtomicOp::Xor { fetch: false } => self.asm.lock_arith_mr(Arith::Xor, width, mem, src),
            AtomicOp::Add { fetch: true } => self.asm.lock_xadd(width, mem, src),
            AtomicOp::Xchg => self.asm.xchg_mr(width, mem, src),
            AtomicOp::Or { fetch: true } => self.fetch(Arith::Or, width, mem, src),
            AtomicOp::And { fetch: true } => self.fetch(Arith::And, width, mem, src),
            AtomicOp::Xor { fetch: true } => self.fetch(Arith::Xor, width, mem, src),
            AtomicOp::CmpXchg => self.compare_exchange(width, mem, src),
        }
    }

    /// CMPXCHG compares with rax, so r0 goes there if it lives elsewhere.
    fn compare_exchange(&mut self, width: Width, mem: Mem, src: Gpr) {
        let r0 = self.regs.host(Reg::R0);
        let swap = Swap(Gpr::Rax, r0);
        if r0 != Gpr::Rax {
            self.asm.xchg_rr(Gpr::Rax, r0);
        }
        self.asm
            .lock_cmpxchg(width, mem.swapped(swap), swap.of(src));
        if let W32 = width {
            // Where the comparison succeeds, the processor leaves the upper half as it was.
            self.asm.mov_rr(W32, Gpr::Rax, Gpr::Rax);
        }
        if r0 != Gpr::Rax {
            self.asm.xchg_rr(Gpr::Rax, r0);
        }
    }

    /// or, and, xor that give the old value: a loop around CMPXCHG. `src` is operand and result.
    fn fetch(&mut self, op: Arith, width: Width, mem: Mem, src: Gpr) {
        let new = self.regs.value;
        // rax is needed for the old value: whatever is there is put aside, be it the operand, the base or neither.
        let (operand, spare) = if src == Gpr::Rax {
            let spare = [Gpr::Rcx, Gpr::Rdx]
                .into_iter()
                .find(|reg| !mem.uses(*reg))
                .unwrap_or(Gpr::Rdx);
            (spare, spare)
        } else {
            (src, Gpr::Rax)
        };
        let mut mem = mem;
        if mem.uses(Gpr::Rax) {
            self.asm.lea(W64, self.regs.address, mem);
            mem = Mem::at(self.regs.address, 0);
        }
        self.push(spare);
        mem = Self::after_push(mem, 8);
        if src == Gpr::Rax {
            self.asm.mov_rr(W64, operand, Gpr::Rax);
        }
        let size = if width == W64 { Size::DW } else { Size::W };
        self.asm.load(size, false, Gpr::Rax, mem);
        let again = self.asm.here();
        self.asm.mov_rr(W64, new, Gpr::Rax);
        self.asm.arith_rr(op, width, new, operand);
        self.asm.lock_cmpxchg(width, mem, new);
        self.asm.jcc(Cond::Ne, again);
        if let W32 = width {
            self.asm.mov_rr(W32, Gpr::Rax, Gpr::Rax);
        }
        if src != Gpr::Rax {
            self.asm.mov_rr(W64, src, Gpr::Rax);
        }
        self.pop(spare);
    }
}
