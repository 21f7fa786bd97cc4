//! Calls: subprograms, helpers, bpf_loop, the application.

use upatch_abi::helpers::{self, MAX_LOOPS};
use upatch_verifier::insn::{Callee, Operand, Pc, Reg, Size, Width};
use upatch_verifier::program::ExternRet;

use super::Lower;
use crate::asm::{Arith, Cond, Gpr, Label, Mem};
use crate::interp::CODE_BASE;
use crate::patch::FixupKind;
use crate::runtime::Routine;

use Width::{W32, W64};

/// What a callback's address is as a number. No code is there: it only tells callbacks apart.
pub(super) fn callback_number(pc: Pc) -> u64 {
    CODE_BASE + 8 * u64::from(pc.0)
}

impl Lower<'_> {
    pub(super) fn call(&mut self, callee: Callee) {
        match callee {
            Callee::Subprog(target) => self.call_subprog(target),
            Callee::Helper(helpers::LOOP) => self.bpf_loop(None),
            Callee::Helper(id) => match Routine::of(id) {
                // How much of the constant string counts is not known here: all of it.
                Some(Routine::Strncmp) => self.strncmp(u32::MAX.into()),
                Some(routine) => self.call_routine(routine),
                // The verifier refuses helpers that are not in the table.
                None => self.asm.ud2(),
            },
            Callee::Extern(index) => self.call_extern(index),
        }
    }

    /// The label of a subprogram's prologue. The label of its first slot stands behind it.
    pub(super) fn entry_of(&mut self, index: usize) -> Label {
        let asm = &mut self.asm;
        *self.entries.entry(index).or_insert_with(|| asm.label())
    }

    fn call_subprog(&mut self, target: Pc) {
        if let Some(index) = self.index_of(target) {
            let entry = self.entry_of(index);
            self.call_inside(entry);
        }
    }

    /// Calls code of the image, and wipes the return address behind the call: left below the stack, it may come to lie in a
    /// frame of the application that never writes there, and a revert would take it for somebody who is still inside.
    fn call_inside(&mut self, label: Label) {
        self.asm.call(label);
        self.asm.push_imm(0);
        self.asm.lea(W64, Gpr::Rsp, Mem::at(Gpr::Rsp, 8));
    }

    pub(super) fn call_routine(&mut self, routine: Routine) {
        if let Some(label) = self.routines.get(&routine).copied() {
            self.call_inside(label);
        }
    }

    pub(super) fn strncmp(&mut self, bytes: u64) {
        self.asm.mov_ri(Gpr::Rcx, bytes);
        self.call_routine(Routine::Strncmp);
    }

    /// r1 to r5 are where the C calling convention has arguments; the result is extended so that all of r0 is defined.
    fn call_extern(&mut self, index: u32) {
        self.asm.mov_address(Gpr::R11, FixupKind::Extern(index));
        self.call_routine(Routine::CallApplication);
        let external = self.program.externs().get(index as usize);
        if let Some(ExternRet::Scalar { bytes, signed }) = external.map(|external| external.ret) {
            let size = match bytes {
                1 => Size::B,
                2 => Size::H,
                4 => Size::W,
                _ => return,
            };
            self.asm.extend_rr(size, signed, Gpr::Rax, Gpr::Rax);
        }
    }

    /// `bpf_loop(count, callback, context, flags)`: calls `callback(index, context)` until it returns something else than
    /// 0 or `count` calls are done; r0 is the number of calls.
    pub(super) fn bpf_loop(&mut self, callback: Option<Pc>) {
        const E2BIG: i32 = -7;
        const EINVAL: i32 = -22;
        let labels: [_; 5] = std::array::from_fn(|_| self.asm.label());
        let [bad_flags, too_many, again, finished, done] = labels;
        let host = |reg: Reg| self.regs.host(reg);
        let (r0, count, context, flags) =
            (host(Reg::R0), host(Reg::R1), host(Reg::R3), host(Reg::R4));
        let most = i32::try_from(MAX_LOOPS).unwrap_or(i32::MAX);
        let (index_at, count_at, context_at) = (
            self.slot(self.frame.loop_index()),
            self.slot(self.frame.loop_count()),
            self.slot(self.frame.loop_context()),
        );
        self.asm.test_rr(W64, flags, flags);
        self.asm.jcc(Cond::Ne, bad_flags);
        // The kernel's prototype has a u32 count.
        self.asm.arith_ri(Arith::Cmp, W32, count, most);
        self.asm.jcc(Cond::A, too_many);
        self.asm.mov_rr(W32, count, count);
        self.asm.store(Size::DW, count_at, count);
        self.asm.store(Size::DW, context_at, context);
        let callback = self.callback(callback);
        self.asm.store_imm(Size::DW, index_at, 0);
        self.asm.bind(again);
        // Through r0, which is free here.
        self.asm.load(Size::DW, false, r0, index_at);
        self.asm.arith_rm(Arith::Cmp, W64, r0, count_at);
        self.asm.jcc(Cond::Ae, finished);
        if let Some(first) = self.regs.used(Reg::R1) {
            self.asm.load(Size::DW, false, first, index_at);
        }
        if let Some(second) = self.regs.used(Reg::R2) {
            self.asm.load(Size::DW, false, second, context_at);
        }
        self.call_callback(callback);
        self.asm.arith_mi(Arith::Add, W64, index_at, 1);
        self.asm.test_rr(W64, r0, r0);
        self.asm.jcc(Cond::E, again);
        self.asm.bind(finished);
        self.asm.load(Size::DW, false, r0, index_at);
        self.asm.jmp(done);
        self.asm.bind(bad_flags);
        self.mov(W64, Reg::R0, Operand::Imm(EINVAL));
        self.asm.jmp(done);
        self.asm.bind(too_many);
        self.mov(W64, Reg::R0, Operand::Imm(E2BIG));
        self.asm.bind(done);
    }

    /// Which callback: known now, or kept in the frame.
    fn callback(&mut self, known: Option<Pc>) -> Option<Pc> {
        if known.is_none() {
            let place = self.slot(self.frame.loop_callback());
            let host = self.regs.host(Reg::R2);
            self.asm.store(Size::DW, place, host);
        }
        known
    }

    fn call_callback(&mut self, known: Option<Pc>) {
        if let Some(target) = known {
            self.call_subprog(target);
            return;
        }
        // Only direct calls: the number picks one. The verifier has proven that it is a subprogram's.
        let r0 = self.regs.host(Reg::R0);
        let number = self.slot(self.frame.loop_callback());
        let called = self.asm.label();
        for subprog in self.program.subprogs().iter().skip(1) {
            let next = self.asm.label();
            self.asm.mov_ri(r0, callback_number(subprog.start));
            self.asm.arith_rm(Arith::Cmp, W64, r0, number);
            self.asm.jcc(Cond::Ne, next);
            self.call_subprog(subprog.start);
            self.asm.jmp(called);
            self.asm.bind(next);
        }
        self.asm.ud2();
        self.asm.bind(called);
    }
}
