//! What the compiler finds out about a program before it emits anything: constants, dead instructions, fused ones.
//!
//! Works on BPF alone. Facts that make a program safe come from the verifier; these only make the code smaller, and a
//! program of which nothing is found out compiles just as correctly. Invariant: executing [`Analysis::ops`] leaves the
//! same memory, ctx and result as executing the program.

mod constants;
mod fuse;
mod liveness;

use upatch_abi::helpers;
use upatch_verifier::facts::{Access, Facts};
use upatch_verifier::insn::{AtomicOp, Callee, Insn, Operand, Pc, Reg, Size};
use upatch_verifier::program::Program;

use crate::asm::Arith;

/// A set of BPF registers: bit n is rn. r10 is never in it: it is no register here but a place in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RegSet(u16);

impl RegSet {
    pub(crate) const EMPTY: Self = Self(0);
    /// What a call overwrites: r0 to r5.
    pub(crate) const CALL: Self = Self(0b11_1111);
    /// What a subprogram must hand back unchanged: r6 to r9.
    pub(crate) const CALLEE_SAVED: Self = Self(0b11_1100_0000);

    pub(crate) fn with(self, reg: Reg) -> Self {
        match reg {
            Reg::R10 => self,
            _ => Self(self.0 | 1 << reg.number()),
        }
    }

    /// r1 to rn.
    pub(crate) const fn arguments(count: usize) -> Self {
        let count = if count > 5 { 5 } else { count };
        Self(((1 << count) - 1) << 1)
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) const fn contains(self, reg: Reg) -> bool {
        self.0 >> reg.number() & 1 == 1
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Reg> {
        Reg::ALL.into_iter().filter(move |reg| self.contains(*reg))
    }
}

/// One slot's work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    /// Nothing: unreachable, without effect, or done by another op.
    Nothing,
    /// The instruction as it is.
    Plain(Insn),
    /// `*(size *)(base + off) op= imm` as one instruction, atomic or not.
    Update {
        op: Arith,
        locked: bool,
        size: Size,
        base: Reg,
        off: i16,
        imm: i32,
    },
    /// `bpf_loop` with a callback that is known here.
    Loop { callback: Pc },
    /// `bpf_strncmp` with a constant string of which this many bytes, the NUL included, count.
    Strncmp { bytes: u32 },
}

/// What was found out.
#[derive(Clone, Debug)]
pub(crate) struct Analysis {
    /// Per slot.
    pub(crate) ops: Vec<Op>,
    /// Per subprogram: BPF registers that its ops write.
    pub(crate) written: Vec<RegSet>,
    /// BPF registers that any op reads or writes.
    pub(crate) used: RegSet,
    /// Per subprogram: registers whose values at its start it reads.
    pub(crate) live_in: Vec<RegSet>,
    /// Registers that an unverified program may read before it writes them, r1 and r2 excepted.
    pub(crate) unset: RegSet,
}

/// Analyses a program. `keep_result`: r0 at the end of the program itself counts whatever the facts say of the verdict.
pub(crate) fn analyse(program: &Program, facts: &Facts, keep_result: bool) -> Analysis {
    let leaders = leaders(program);
    let mut ops = constants::propagate(program, facts, &leaders);
    let flow = liveness::Flow {
        program,
        facts,
        keep_result,
    };
    let live = flow.liveness(&ops);
    flow.remove_dead(&mut ops, &live);
    fuse::fuse(&mut ops, &leaders, facts, &live.out);
    // What only fed what is gone is dead now: moves to fused registers, comparisons of jumps that went nowhere.
    let live = flow.liveness(&ops);
    flow.remove_dead(&mut ops, &live);
    let live = flow.liveness(&ops);
    let mut written = vec![RegSet::EMPTY; program.subprogs().len()];
    let mut used = RegSet::EMPTY;
    for (index, subprog) in program.subprogs().iter().enumerate() {
        let range = subprog.start.index()..subprog.end.index();
        for (at, op) in range.clone().zip(ops.get(range).unwrap_or_default()) {
            let effect = flow.effect(at, op, &live.live_in);
            if let Some(written) = written.get_mut(index) {
                *written = written.union(effect.writes);
            }
            used = used.union(effect.reads).union(effect.writes);
        }
    }
    let unset = live
        .live_in
        .iter()
        .fold(RegSet::EMPTY, |all, live| all.union(*live));
    let unset = unset.minus(RegSet::arguments(2));
    Analysis {
        unset,
        ops,
        written,
        used,
        live_in: live.live_in,
    }
}

/// Slots that control can reach other than from the slot before.
fn leaders(program: &Program) -> Vec<bool> {
    let mut leaders = vec![false; program.insns().len() + 1];
    let mut mark = |pc: Pc| {
        if let Some(leader) = leaders.get_mut(pc.index()) {
            *leader = true;
        }
    };
    for subprog in program.subprogs() {
        mark(subprog.start);
    }
    for insn in program.insns() {
        if let Insn::Jump { target } | Insn::JumpIf { target, .. } | Insn::MayGoto { target } = insn
        {
            mark(*target);
        }
    }
    leaders
}

/// Is this memory access one of ctx?
pub(crate) fn is_ctx(facts: &Facts, at: usize) -> bool {
    matches!(facts.access.get(at), Some(Some(Access::Ctx { .. })))
}

/// What an op reads and writes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Effect {
    pub(crate) reads: RegSet,
    pub(crate) writes: RegSet,
    /// Lost in a call without being written by our code.
    pub(crate) kills: RegSet,
    /// Does it do anything besides writing registers?
    pub(crate) lasting: bool,
}

impl Effect {
    fn pure(writes: Reg, reads: RegSet) -> Self {
        Self {
            reads,
            writes: RegSet::EMPTY.with(writes),
            kills: RegSet::EMPTY,
            lasting: false,
        }
    }

    fn lasting(reads: RegSet) -> Self {
        Self {
            reads,
            lasting: true,
            ..Self::default()
        }
    }
}

fn operand(src: Operand) -> RegSet {
    match src {
        Operand::Reg(reg) => RegSet::EMPTY.with(reg),
        Operand::Imm(_) => RegSet::EMPTY,
    }
}

impl liveness::Flow<'_> {
    /// What the op at slot `at` reads and writes, given what subprograms read.
    pub(crate) fn effect(&self, at: usize, op: &Op, live_in: &[RegSet]) -> Effect {
        let none = RegSet::EMPTY;
        let insn = match *op {
            Op::Nothing => return Effect::default(),
            Op::Plain(insn) => insn,
            Op::Update { base, .. } => return Effect::lasting(none.with(base)),
            Op::Loop { callback } => {
                let reads = none.with(Reg::R1).with(Reg::R3).with(Reg::R4);
                return self.loop_effect(reads, &[callback], live_in);
            }
            Op::Strncmp { .. } => return call(RegSet::arguments(3)),
        };
        let base_of = |base: Reg| {
            if is_ctx(self.facts, at) {
                none
            } else {
                none.with(base)
            }
        };
        match insn {
            Insn::Alu { op, dst, src, .. } => {
                let reads = operand(src);
                let reads = match op {
                    upatch_verifier::insn::AluOp::Mov => reads,
                    _ => reads.with(dst),
                };
                Effect::pure(dst, reads)
            }
            Insn::MovSx { dst, src, .. } | Insn::AddrSpaceCast { dst, src, .. } => {
                Effect::pure(dst, none.with(src))
            }
            Insn::Neg { dst, .. } | Insn::Endian { dst, .. } => Effect::pure(dst, none.with(dst)),
            Insn::LdImm64 { dst, .. } => Effect::pure(dst, none),
            Insn::LdImm64Tail => Effect::default(),
            Insn::Load { dst, base, .. } | Insn::LoadAcquire { dst, base, .. } => {
                Effect::pure(dst, base_of(base))
            }
            Insn::Store { base, src, .. } => Effect::lasting(base_of(base).union(operand(src))),
            Insn::StoreRelease { base, src, .. } => Effect::lasting(base_of(base).with(src)),
            Insn::Atomic { op, base, src, .. } => atomic(op, base_of(base), src),
            Insn::Jump { .. } => Effect::lasting(none),
            Insn::MayGoto { .. } => Effect::lasting(none),
            Insn::JumpIf { dst, src, .. } => Effect::lasting(operand(src).with(dst)),
            Insn::Call { callee } => self.call_effect(callee, live_in),
            Insn::Exit => Effect::lasting(self.result_at(at)),
        }
    }

    fn call_effect(&self, callee: Callee, live_in: &[RegSet]) -> Effect {
        match callee {
            Callee::Helper(helpers::LOOP) => {
                let callbacks: Vec<Pc> = self.program.subprogs().iter().map(|s| s.start).collect();
                self.loop_effect(RegSet::arguments(4), &callbacks, live_in)
            }
            Callee::Helper(id) => call(RegSet::arguments(
                helpers::by_id(id).map_or(5, |helper| helper.args.len()),
            )),
            Callee::Subprog(target) => {
                let reads = self.live_in_of(target, live_in);
                call(reads.intersection(RegSet::arguments(5)))
            }
            Callee::Extern(index) => {
                let params = self.program.externs().get(index as usize);
                call(RegSet::arguments(params.map_or(5, |e| e.params.len())))
            }
        }
    }

    /// The loop writes r1 and r2 for callbacks that read them.
    fn loop_effect(&self, reads: RegSet, callbacks: &[Pc], live_in: &[RegSet]) -> Effect {
        let passed = callbacks.iter().fold(RegSet::EMPTY, |all, target| {
            all.union(self.live_in_of(*target, live_in))
        });
        let mut effect = call(reads);
        effect.writes = effect
            .writes
            .union(passed.intersection(RegSet::arguments(2)));
        effect
    }
}

fn call(reads: RegSet) -> Effect {
    Effect {
        reads,
        writes: RegSet::EMPTY.with(Reg::R0),
        kills: RegSet::CALL,
        lasting: true,
    }
}

fn atomic(op: AtomicOp, base: RegSet, src: Reg) -> Effect {
    let mut effect = Effect::lasting(base.with(src));
    match op {
        AtomicOp::Add { fetch }
        | AtomicOp::Or { fetch }
        | AtomicOp::And { fetch }
        | AtomicOp::Xor { fetch } => {
            if fetch {
                effect.writes = RegSet::EMPTY.with(src);
            }
        }
        AtomicOp::Xchg => effect.writes = RegSet::EMPTY.with(src),
        AtomicOp::CmpXchg => {
            effect.reads = effect.reads.with(Reg::R0);
            effect.writes = RegSet::EMPTY.with(Reg::R0);
        }
    }
    effect
}
