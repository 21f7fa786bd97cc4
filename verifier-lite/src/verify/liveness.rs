//! Which registers and stack bytes are read again, and by which of them anything is decided.
//!
//! A backward data-flow analysis per function, over two sets: *live* is what some path reads before writing it,
//! *precise* is what can reach an address, a condition, a helper's argument or the verdict. It reads stack accesses off
//! the code (`r10` plus a constant); where a frame's address goes elsewhere, all of its bytes count as read. Nothing here
//! is trusted: see [`super::state::State::clean`].

mod bases;

use self::bases::{Base, Bases, direct};
use super::obligations::fetches;
use super::stack::Bytes;
use crate::insn::{AluOp, AtomicOp, Callee, Insn, Operand, Pc, Reg};
use crate::program::Program;

/// A set of registers (r0 to r9) and stack bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Places {
    regs: u16,
    pub(crate) stack: Bytes,
}

impl Places {
    pub(crate) const fn has_reg(&self, number: usize) -> bool {
        self.regs >> number & 1 == 1
    }

    fn add(&mut self, reg: Reg) {
        self.regs |= 1 << reg.number();
    }

    fn drop(&mut self, reg: Reg) {
        self.regs &= !(1 << reg.number());
    }

    fn merge(&mut self, other: &Self) {
        self.regs |= other.regs;
        self.stack = self.stack.or(&other.stack);
    }
}

/// Live and precise places before an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct At {
    pub(crate) live: Places,
    pub(crate) precise: Places,
}

/// The result for a program.
pub(crate) struct Liveness {
    at: Vec<At>,
    /// Per function: does the address of its frame go anywhere but into direct accesses?
    escapes: Vec<bool>,
}

impl Liveness {
    pub(crate) fn new(program: &Program) -> Self {
        let mut liveness = Self {
            at: vec![At::default(); program.insns().len()],
            escapes: Vec::new(),
        };
        for subprog in program.subprogs() {
            let function = Function {
                program,
                insns: program.insns(),
                start: subprog.start,
                end: subprog.end,
            };
            let (bases, escapes) = function.bases();
            liveness.escapes.push(escapes);
            function.solve(&bases, escapes, &mut liveness.at);
        }
        liveness
    }

    pub(crate) fn at(&self, pc: Pc) -> At {
        self.at.get(pc.index()).copied().unwrap_or_default()
    }

    /// What a caller still needs while the call at `call` runs.
    pub(crate) fn after_call(&self, call: Pc, subprog: usize) -> At {
        let mut at = self.at(Pc(call.0 + 1));
        // The callee clobbers r0 to r5: what the caller's hold is gone.
        at.live.regs &= !0x3f;
        at.precise.regs &= !0x3f;
        if self.escapes.get(subprog).copied().unwrap_or(true) {
            at.live.stack = Bytes::ALL;
            at.precise.stack = Bytes::ALL;
        }
        at
    }
}

/// Where control goes after `insn` at `pc`.
pub(crate) fn successors(insn: Insn, pc: Pc) -> impl Iterator<Item = Pc> {
    let next = Pc(pc.0 + insn.slots());
    let (first, second) = match insn {
        Insn::Exit => (None, None),
        Insn::Jump { target } => (Some(target), None),
        Insn::JumpIf { target, .. } | Insn::MayGoto { target } => (Some(next), Some(target)),
        Insn::Alu { .. }
        | Insn::MovSx { .. }
        | Insn::Neg { .. }
        | Insn::Endian { .. }
        | Insn::AddrSpaceCast { .. }
        | Insn::LdImm64 { .. }
        | Insn::LdImm64Tail
        | Insn::Load { .. }
        | Insn::Store { .. }
        | Insn::Atomic { .. }
        | Insn::LoadAcquire { .. }
        | Insn::StoreRelease { .. }
        | Insn::Call { .. } => (Some(next), None),
    };
    first.into_iter().chain(second)
}

struct Function<'p> {
    program: &'p Program,
    insns: &'p [Insn],
    start: Pc,
    end: Pc,
}

impl Function<'_> {
    fn pcs(&self) -> impl DoubleEndedIterator<Item = (Pc, Insn)> {
        (self.start.0..self.end.0)
            .filter_map(|slot| Some((Pc(slot), *self.insns.get(slot as usize)?)))
            .filter(|(_, insn)| !matches!(insn, Insn::LdImm64Tail))
    }

    /// Everything is read again: nothing is forgotten.
    fn give_up(&self, at: &mut [At]) {
        let all = Places {
            regs: u16::MAX,
            stack: Bytes::ALL,
        };
        for slot in self.start.index()..self.end.index() {
            if let Some(at) = at.get_mut(slot) {
                *at = At {
                    live: all,
                    precise: all,
                };
            }
        }
    }

    fn solve(&self, bases: &[Bases], escapes: bool, at: &mut [At]) {
        // Backward until nothing changes; loops need a few rounds.
        let mut changed = true;
        let mut rounds = 0;
        while changed {
            changed = false;
            rounds += 1;
            if rounds > ROUNDS {
                return self.give_up(at);
            }
            for (pc, insn) in self.pcs().rev() {
                let mut state = At::default();
                for next in successors(insn, pc) {
                    if let Some(after) = at.get(next.index()) {
                        state.live.merge(&after.live);
                        state.precise.merge(&after.precise);
                    }
                }
                let known = bases
                    .get((pc.0 - self.start.0) as usize)
                    .copied()
                    .unwrap_or([Base::Other; 11]);
                step_back(&mut state, insn, &known, escapes, self.program);
                if let Some(slot) = at.get_mut(pc.index())
                    && *slot != state
                {
                    *slot = state;
                    changed = true;
                }
            }
        }
    }
}

/// Rounds after which a function is too tangled to analyse.
const ROUNDS: usize = 64;

fn step_back(at: &mut At, insn: Insn, bases: &Bases, escapes: bool, program: &Program) {
    // An access through a pointer that may lead into the frame reads all of it.
    let read = |at: &mut At, base: Reg, off: i16, bytes: u8, precise: bool| {
        match direct(bases, base, off, bytes) {
            Some((start, end)) => {
                at.live.stack.insert(start, end);
                if precise {
                    at.precise.stack.insert(start, end);
                }
            }
            None if escapes => {
                at.live.stack = Bytes::ALL;
                at.precise.stack = Bytes::ALL;
            }
            None => {}
        }
        use_of(at, base);
    };
    match insn {
        Insn::Alu { op, dst, src, .. } => {
            let precise = at.precise.has_reg(dst.index());
            if op == AluOp::Mov {
                define(at, dst);
                if let Operand::Reg(src) = src {
                    flow(at, src, precise);
                }
            } else {
                if let Operand::Reg(src) = src {
                    flow(at, src, precise);
                }
                flow(at, dst, precise);
            }
        }
        Insn::MovSx { dst, src, .. } | Insn::AddrSpaceCast { dst, src, .. } => {
            let precise = at.precise.has_reg(dst.index());
            define(at, dst);
            flow(at, src, precise);
        }
        Insn::Neg { dst, .. } | Insn::Endian { dst, .. } => {
            let precise = at.precise.has_reg(dst.index());
            flow(at, dst, precise);
        }
        Insn::LdImm64 { dst, .. } => define(at, dst),
        Insn::Load {
            size,
            dst,
            base,
            off,
            ..
        }
        | Insn::LoadAcquire {
            size,
            dst,
            base,
            off,
        } => {
            let precise = at.precise.has_reg(dst.index());
            define(at, dst);
            read(at, base, off, size.bytes(), precise);
        }
        Insn::Store {
            size,
            base,
            off,
            src,
        } => {
            store_back(
                at,
                bases,
                escapes,
                (base, off, size.bytes()),
                match src {
                    Operand::Reg(reg) => Some(reg),
                    Operand::Imm(_) => None,
                },
            );
        }
        Insn::StoreRelease {
            size,
            base,
            off,
            src,
        } => {
            store_back(at, bases, escapes, (base, off, size.bytes()), Some(src));
        }
        Insn::Atomic {
            size,
            base,
            off,
            src,
            op,
        } => {
            // What is in memory afterwards is unknown either way.
            if op == AtomicOp::CmpXchg {
                define(at, Reg::R0);
                flow(at, Reg::R0, false);
            } else if fetches(op) {
                define(at, src);
            }
            flow(at, src, false);
            read(at, base, off, size.bytes(), true);
        }
        Insn::Jump { .. } | Insn::LdImm64Tail | Insn::MayGoto { .. } => {}
        Insn::JumpIf { dst, src, .. } => {
            use_of(at, dst);
            if let Operand::Reg(src) = src {
                use_of(at, src);
            }
        }
        Insn::Call { callee } => {
            for reg in &Reg::ALL[0..6] {
                define(at, *reg);
            }
            for reg in &Reg::ALL[1..=arguments(program, callee)] {
                use_of(at, *reg);
            }
            if escapes {
                at.live.stack = Bytes::ALL;
                at.precise.stack = Bytes::ALL;
            }
        }
        Insn::Exit => {
            use_of(at, Reg::R0);
            // A callee's callers get r6 to r9 back from their own frames.
        }
    }
}

/// How many of r1 to r5 a call reads.
fn arguments(program: &Program, callee: Callee) -> usize {
    let known = match callee {
        Callee::Helper(id) => upatch_abi::helpers::by_id(id).map(|helper| helper.args.len()),
        Callee::Extern(index) => program
            .externs()
            .get(index as usize)
            .map(|function| function.params.len()),
        Callee::Subprog(start) => program
            .subprogs()
            .iter()
            .find(|subprog| subprog.start == start)
            .and_then(|subprog| subprog.args)
            .map(usize::from),
    };
    known.unwrap_or(5).min(5)
}

fn store_back(
    at: &mut At,
    bases: &Bases,
    escapes: bool,
    (base, off, bytes): (Reg, i16, u8),
    src: Option<Reg>,
) {
    let precise = match direct(bases, base, off, bytes) {
        Some((start, end)) => {
            let precise = (start..end).any(|index| at.precise.stack.has(index));
            at.live.stack.remove(start, end);
            at.precise.stack.remove(start, end);
            precise
        }
        // To other memory or ctx the range matters to nobody; through an escaped pointer it may land in the frame.
        None => escapes,
    };
    if let Some(src) = src {
        flow(at, src, precise);
    }
    use_of(at, base);
}

fn define(at: &mut At, reg: Reg) {
    at.live.drop(reg);
    at.precise.drop(reg);
}

/// The register is read and something is decided by it.
fn use_of(at: &mut At, reg: Reg) {
    if reg != Reg::R10 {
        at.live.add(reg);
        at.precise.add(reg);
    }
}

/// The register is read; `precise`: what becomes of it matters.
fn flow(at: &mut At, reg: Reg, precise: bool) {
    if reg != Reg::R10 {
        at.live.add(reg);
        if precise {
            at.precise.add(reg);
        }
    }
}
