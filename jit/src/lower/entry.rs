//! Ways in and out: prologues and epilogues of the main program and of subprograms.

use upatch_verifier::facts::{Facts, Verdict};
use upatch_verifier::insn::{Callee, Insn, Reg, Width};
use upatch_verifier::program::Program;

use super::{Lower, Shape, Within};
use crate::analysis::{Analysis, Op};
use crate::asm::{Arith, Cond, Gpr, GprSet, Mem, Size};
use crate::frame::{Frame, RED_ZONE};
use crate::patch::{CodePart, FixupKind};
use crate::regs::{Assignment, Needs, home};
use crate::runtime::Routine;

use Width::{W32, W64};

/// The frame of the main program.
pub(super) fn main_frame(
    program: &Program,
    facts: &Facts,
    analysis: &Analysis,
    needs: &Needs,
    regs: &Assignment,
    shape: Shape,
) -> Frame {
    let saved: GprSet = match shape {
        Shape::Patch(site) => {
            let fields = needs.ctx.iter().filter_map(|field| home(*field));
            let fields = fields.fold(GprSet::EMPTY, GprSet::with);
            let narrow = needs.narrow.iter().filter_map(|field| home(*field));
            let narrow = narrow.fold(GprSet::EMPTY, GprSet::with);
            // A free register's entry value is only kept where the program wants to see it.
            let kept = GprSet(u16::MAX).minus(site.free).union(fields);
            regs.clobbered.intersection(kept).union(narrow)
        }
        Shape::Function(_) => regs.clobbered.minus(GprSet::CALLER_SAVED),
    };
    let saved = saved.iter().filter(|reg| *reg != Gpr::Rsp).collect();
    let reads_flags = needs.ctx.contains(&upatch_abi::ctx::CtxField::Rflags);
    let inside = matches!(shape, Shape::Patch(site) if !site.at_entry);
    let mut frame = Frame::new(saved, facts.stack.first().copied().unwrap_or(0))
        .with_loop(has_loop(program, analysis, 0))
        .with_main(needs.may_goto, needs.calls_application);
    frame.red_zone = inside;
    if let Shape::Patch(site) = shape
        && may_return(program, facts)
    {
        let written = needs.ctx_writes.iter().filter_map(|field| home(*field));
        let written = written.fold(GprSet::EMPTY, GprSet::with);
        // rax and rdx are the result; what is free nobody misses.
        let lost = site.free.with(Gpr::Rax).with(Gpr::Rdx);
        frame.originals = written.minus(lost).iter().collect();
    }
    frame.flags = inside || reads_flags;
    if !uses_stack(program, analysis, 0) {
        frame = frame.without_bpf_stack();
    }
    frame
}

/// Can the program refuse the call?
fn may_return(program: &Program, facts: &Facts) -> bool {
    let end = program
        .subprogs()
        .first()
        .map_or(0, |main| main.end.index());
    let verdicts = facts.verdict.get(..end).unwrap_or_default();
    verdicts
        .iter()
        .any(|verdict| matches!(verdict, Some(Verdict::Return | Verdict::Dynamic)))
}

/// Does the function's code mention r10?
fn uses_stack(program: &Program, analysis: &Analysis, index: usize) -> bool {
    ops_of(program, analysis, index).any(|op| match op {
        Op::Plain(insn) => mentions_stack(insn),
        Op::Update { base, .. } => *base == Reg::R10,
        Op::Nothing | Op::Loop { .. } | Op::Strncmp { .. } => false,
    })
}

fn mentions_stack(insn: &Insn) -> bool {
    use upatch_verifier::insn::Operand;
    const STACK: Reg = Reg::R10;
    match *insn {
        Insn::Alu { dst, src, .. } | Insn::JumpIf { dst, src, .. } => {
            dst == STACK || src == Operand::Reg(STACK)
        }
        Insn::MovSx { dst, src, .. } | Insn::AddrSpaceCast { dst, src, .. } => {
            dst == STACK || src == STACK
        }
        Insn::Load { base, .. } | Insn::LoadAcquire { base, .. } => base == STACK,
        Insn::Store { base, src, .. } => base == STACK || src == Operand::Reg(STACK),
        Insn::StoreRelease { base, src, .. } | Insn::Atomic { base, src, .. } => {
            base == STACK || src == STACK
        }
        Insn::Neg { .. }
        | Insn::Endian { .. }
        | Insn::LdImm64 { .. }
        | Insn::LdImm64Tail
        | Insn::Jump { .. }
        | Insn::MayGoto { .. }
        | Insn::Call { .. }
        | Insn::Exit => false,
    }
}

fn has_loop(program: &Program, analysis: &Analysis, index: usize) -> bool {
    ops_of(program, analysis, index).any(|op| {
        matches!(
            op,
            Op::Loop { .. }
                | Op::Plain(Insn::Call {
                    callee: Callee::Helper(upatch_abi::helpers::LOOP)
                })
        )
    })
}

fn ops_of<'a>(
    program: &Program,
    analysis: &'a Analysis,
    index: usize,
) -> impl Iterator<Item = &'a Op> {
    let range = program
        .subprogs()
        .get(index)
        .map_or(0..0, |subprog| subprog.start.index()..subprog.end.index());
    analysis.ops.get(range).unwrap_or_default().iter()
}

impl Lower<'_> {
    /// The main program, from the entry to the jump to the displaced instructions.
    pub(super) fn main(&mut self) {
        let frame = self.frame.clone();
        self.within = Within::Main;
        self.mark(CodePart::Prologue(0));
        if frame.red_zone {
            // LEA changes no flags, and these are not saved yet.
            let down = Mem::at(Gpr::Rsp, -(RED_ZONE as i32));
            self.asm.lea(W64, Gpr::Rsp, down);
        }
        if frame.flags {
            self.asm.pushfq();
        }
        self.enter(&frame);
        if self.needs.calls_application && !self.is_function() {
            self.claim_guard(&frame);
        }
        if let Some(base) = self.regs.frame_base {
            self.asm.mov_rr(W64, base, Gpr::Rsp);
        }
        if self.needs.may_goto {
            let budget = self.facts.may_goto_budget;
            let small = i32::try_from(budget).unwrap_or(i32::MAX);
            let place = self.slot(frame.budget());
            self.asm.store_imm(Size::DW, place, small);
        }
        if self.is_function() {
            for reg in self.analysis.unset.iter() {
                self.asm.mov_ri(self.regs.host(reg), 0);
            }
        }
        // r1 is ctx; its value only matters where it is compared or stored, for every access to ctx is a register's.
        let live = self.analysis.live_in.first().copied().unwrap_or_default();
        if !self.is_function() && live.contains(Reg::R1) {
            let host = self.regs.host(Reg::R1);
            let entry = self.entry_rsp(&frame);
            self.asm.lea(W64, host, entry);
        }
        self.body(0);
        self.mark(CodePart::Continue);
        self.asm.bind(self.continues);
        self.leave_guarded(&frame);
    }

    /// The operand whose address is the entry's rsp; from the main frame.
    pub(super) fn entry_rsp(&self, frame: &Frame) -> Mem {
        self.main_slot(i32::try_from(frame.bytes()).unwrap_or(i32::MAX))
    }

    fn enter(&mut self, frame: &Frame) {
        for reg in frame.originals.iter().chain(&frame.saved) {
            self.asm.push(*reg);
        }
        if frame.locals() > 0 {
            let locals = i32::try_from(frame.locals()).unwrap_or(i32::MAX);
            self.asm.arith_ri(Arith::Sub, W64, Gpr::Rsp, locals);
        }
        if self.is_function() {
            self.zero_stack(frame);
        }
    }

    /// A program that nobody verified may read its stack before it writes it; so that it has one result, as in the
    /// interpreter, it finds zeros.
    fn zero_stack(&mut self, frame: &Frame) {
        let end = frame.stack_end();
        for offset in (end - frame.bpf_stack_bytes()..end).step_by(8) {
            let place = self.slot(offset);
            self.asm.store_imm(Size::DW, place, 0);
        }
    }

    fn leave(&mut self, frame: &Frame) {
        if frame.locals() > 0 {
            let locals = i32::try_from(frame.locals()).unwrap_or(i32::MAX);
            self.asm.arith_ri(Arith::Add, W64, Gpr::Rsp, locals);
        }
        for reg in frame.saved.iter().rev() {
            self.asm.pop(*reg);
        }
    }

    fn claim_guard(&mut self, frame: &Frame) {
        self.call_routine(Routine::GuardEnter);
        self.asm.test_rr(W64, Gpr::Rax, Gpr::Rax);
        let missed = self.asm.label();
        let claimed = self.asm.label();
        self.asm.jcc(Cond::Ge, claimed);
        self.asm.bind(missed);
        self.leave_main(frame, false);
        self.asm.jmp_out(FixupKind::Continue);
        self.asm.bind(claimed);
        let place = self.slot(frame.guard());
        self.asm.store(Size::DW, place, Gpr::Rax);
    }

    fn release_guard(&mut self, frame: &Frame) {
        if self.needs.calls_application && !self.is_function() {
            let place = self.slot(frame.guard());
            self.asm.load(Size::DW, false, Gpr::Rax, place);
            self.call_routine(Routine::GuardLeave);
        }
    }

    /// Everything but the way out itself.
    fn leave_main(&mut self, frame: &Frame, refused: bool) {
        self.leave(frame);
        let mut dropped = 0;
        if refused {
            for reg in frame.originals.iter().rev() {
                self.asm.pop(*reg);
            }
        } else {
            dropped += frame.original_bytes();
        }
        if frame.flags && frame.red_zone {
            self.asm.popfq();
        } else if frame.flags {
            // Saved to be read only.
            dropped += 8;
        }
        if dropped > 0 {
            let dropped = i32::try_from(dropped).unwrap_or(i32::MAX);
            self.asm.arith_ri(Arith::Add, W64, Gpr::Rsp, dropped);
        }
        if frame.red_zone {
            let up = Mem::at(Gpr::Rsp, RED_ZONE as i32);
            self.asm.lea(W64, Gpr::Rsp, up);
        }
    }

    /// The way on: to the displaced instructions, or back to a C caller.
    fn leave_guarded(&mut self, frame: &Frame) {
        self.release_guard(frame);
        self.leave_main(frame, false);
        if self.is_function() {
            self.asm.ret();
        } else {
            self.asm.jmp_out(FixupKind::Continue);
        }
    }

    /// The way back to the caller of the patched function.
    fn leave_returning(&mut self) {
        if let Some(label) = self.returns {
            self.asm.jmp(label);
            return;
        }
        self.returns = Some(self.asm.here());
        let frame = self.main_frame.clone();
        self.release_guard(&frame);
        self.leave_main(&frame, true);
        self.asm.ret();
    }

    /// `exit` at slot `at`.
    pub(super) fn exit(&mut self, at: usize) {
        if let Within::Subprog(_) = self.within {
            let frame = self.frame.clone();
            self.leave(&frame);
            self.asm.ret();
            return;
        }
        if self.is_function() {
            let result = self.regs.host(Reg::R0);
            if result != Gpr::Rax {
                self.asm.mov_rr(W64, Gpr::Rax, result);
            }
            self.go_on(at);
            return;
        }
        match self.facts.verdict.get(at).copied().flatten() {
            Some(Verdict::Continue | Verdict::Ignored) | None => self.go_on(at),
            Some(Verdict::Return) => self.leave_returning(),
            Some(Verdict::Dynamic) => {
                let verdict = self.regs.host(Reg::R0);
                self.asm.test_rr(W32, verdict, verdict);
                self.asm.jcc(Cond::E, self.continues);
                self.leave_returning();
            }
        }
    }

    /// To the common way on, which follows the main program's last slot.
    fn go_on(&mut self, at: usize) {
        let end = self
            .program
            .subprogs()
            .first()
            .map_or(0, |main| main.end.index());
        let rest = self.analysis.ops.get(at + 1..end).unwrap_or_default();
        if !rest.iter().all(|op| *op == Op::Nothing) {
            self.asm.jmp(self.continues);
        }
    }

    /// A subprogram: a function of its own, called with `call`.
    pub(super) fn subprog(&mut self, index: usize) {
        self.within = Within::Subprog(index);
        let bpf_stack = self.facts.stack.get(index).copied().unwrap_or(0);
        let mut frame = Frame::new(self.callee_saved(index), bpf_stack).with_loop(has_loop(
            self.program,
            self.analysis,
            index,
        ));
        if !uses_stack(self.program, self.analysis, index) {
            frame = frame.without_bpf_stack();
        }
        self.frame = frame.clone();
        // The first slot may also be a jump's target: the prologue has a place of its own.
        let entry = self.entry_of(index);
        self.mark(CodePart::Prologue(index));
        self.asm.bind(entry);
        self.enter(&frame);
        self.body(index);
    }
}
