//! Walks every path of a program, depth first, and prunes those that an earlier one stands for.
//!
//! A path ends at an exit, or where a state remembered at the same instruction covers it ([`State::covers`]):
//!
//! * The remembered state is explored to its ends: everything that can follow was found safe.
//! * It lies on the very path that is being explored: only if an iteration of the may_goto budget was consumed since.
//!   If none was, and the newer state covers the older one, the loop need never end and is refused.
//!
//! At a may_goto states are widened, so that such loops converge; other loops are walked as often as they run.

mod calls;
mod prune;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use self::prune::{Found, limits, widen};
use super::assume::{Comparison, assume};
use super::check::{Rules, check};
use super::graph::{Arrival, Graph, Lengths, NodeId};
use super::liveness::{Liveness, successors};
use super::obligations::{Obligation, obligations};
use super::place::Failure;
use super::record::Record;
use super::rejection::Refused;
use super::saved::SavedStates;
use super::state::State;
use super::trace::{Event, Trace};
use super::transfer::{Fresh, MixedMemory, Step};
use crate::insn::{Callee, Insn, Pc, Reg};

/// Branch decisions that a rejection shows.
const PATH: usize = 64;

/// What an exploration found.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The callers' frames after the entered function returned, joined over all paths (callbacks only).
    pub(crate) after: Option<State>,
    pub(crate) lengths: Lengths,
}

/// The analysis of one program.
pub(crate) struct Explorer<'a, 't> {
    pub(crate) rules: Rules<'a>,
    pub(crate) liveness: Liveness,
    pub(crate) record: Record,
    trace: Option<&'t mut dyn Trace>,
    fresh: Fresh,
    obligations: Vec<Option<Rc<[Obligation]>>>,
    /// Where states are remembered: jump targets and what follows a call.
    landmarks: Vec<bool>,
    visits: Vec<u32>,
    /// Where bounds may stop when states are widened.
    limits: Vec<i64>,
    visited: u64,
    /// What the remembered states weigh.
    remembered: usize,
    /// Chains of active functions that were seen, with the call that completed each.
    pub(crate) chains: BTreeMap<Vec<usize>, Pc>,
    /// Longest piece between two consumed iterations inside callbacks.
    pub(crate) callback_piece: u64,
}

struct Work {
    state: State,
    pc: Pc,
    arrival: Option<Arrival>,
}

/// One exploration: of the program, or of a callback.
#[derive(Default)]
struct Run {
    graph: Graph,
    saved: HashMap<Pc, SavedStates>,
    work: Vec<Work>,
    /// What the states in `work` weigh.
    waiting: usize,
    /// Frames when it began.
    base: usize,
    after: Option<State>,
}

impl<'a, 't> Explorer<'a, 't> {
    pub(crate) fn new(rules: Rules<'a>, trace: Option<&'t mut dyn Trace>) -> Self {
        let insns = rules.program.insns();
        let mut landmarks = vec![false; insns.len()];
        for (slot, insn) in (0u32..).zip(insns) {
            let mark = match *insn {
                Insn::Jump { target } | Insn::JumpIf { target, .. } => Some(target),
                Insn::MayGoto { target } => {
                    landmarks[slot as usize] = true;
                    Some(target)
                }
                Insn::Call {
                    callee: Callee::Subprog(_),
                } => Some(Pc(slot + 1)),
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
                | Insn::Call { .. }
                | Insn::Exit => None,
            };
            if let Some(mark) = mark.and_then(|pc| landmarks.get_mut(pc.index())) {
                *mark = true;
            }
        }
        Self {
            rules,
            liveness: Liveness::new(rules.program),
            record: Record::new(rules.program),
            trace,
            fresh: Fresh::default(),
            obligations: vec![None; insns.len()],
            landmarks,
            visits: vec![0; insns.len()],
            limits: limits(insns),
            visited: 0,
            remembered: 0,
            chains: BTreeMap::new(),
            callback_piece: 0,
        }
    }

    /// Walks everything that can follow `entry` at `pc` until the innermost function returns.
    pub(crate) fn explore(&mut self, entry: State, pc: Pc) -> Result<Outcome, Box<Refused>> {
        let mut run = Run {
            base: entry.frames.len(),
            ..Run::default()
        };
        run.waiting += entry.weight();
        run.work.push(Work {
            state: entry,
            pc,
            arrival: None,
        });
        while let Some(work) = run.work.pop() {
            run.waiting -= work.state.weight();
            if run.waiting > self.rules.policy.max_states {
                let failure = self.too_complex(work.pc, "too many paths are open at once");
                return Err(failure);
            }
            let node = match work.arrival {
                // The parent counted this child when it was put off.
                Some(arrival) => {
                    let node = run.graph.child(work.pc, arrival);
                    run.graph.unexpect(arrival.from);
                    node
                }
                None => run.graph.entry(work.pc),
            };
            let end = self.walk(&mut run, node, work.state, work.pc)?;
            run.graph.finish(end);
        }
        self.remembered -= run.saved.values().map(SavedStates::weight).sum::<usize>();
        let lengths = run.graph.lengths().map_err(|pc| {
            Box::new(Refused {
                pc,
                obligation: Obligation::Terminates,
                failure: endless(),
                path: Vec::new(),
            })
        })?;
        Ok(Outcome {
            after: run.after,
            lengths,
        })
    }

    /// Follows one path until it ends or branches; gives the last node.
    fn walk(
        &mut self,
        run: &mut Run,
        mut node: NodeId,
        mut state: State,
        mut pc: Pc,
    ) -> Result<NodeId, Box<Refused>> {
        loop {
            if self.landmarks.get(pc.index()) == Some(&true) {
                match self.look_up(run, node, &mut state, pc)? {
                    Found::Covered(known) => {
                        run.graph.link(node, known, false);
                        self.emit(Event::Pruned { pc });
                        return Ok(node);
                    }
                    Found::New => {
                        let arrival = Arrival {
                            from: node,
                            consuming: false,
                            decision: None,
                        };
                        node = run.graph.child(pc, arrival);
                        self.remember(run, node, &state, pc);
                    }
                }
            }
            self.count(run, node, pc)?;
            let Some(insn) = self.rules.program.insns().get(pc.index()).copied() else {
                return Ok(node);
            };
            self.emit_state(pc, &state);
            self.check_all(run, node, &state, pc, insn)?;
            if let Some(reachable) = self.record.reachable.get_mut(pc.index()) {
                *reachable = true;
            }
            let next = Pc(pc.0 + insn.slots());
            if writes_result(insn) {
                state.result_at = Some(pc);
            }
            match insn {
                Insn::Jump { target } => pc = target,
                Insn::JumpIf {
                    op,
                    width,
                    dst,
                    src,
                    target,
                } => {
                    let comparison = Comparison {
                        op,
                        width,
                        dst,
                        src,
                    };
                    self.branch(run, node, state, pc, (comparison, target, next));
                    return Ok(node);
                }
                Insn::MayGoto { target } => {
                    put_off(run, node, state.clone(), target, (pc, true), false);
                    put_off(run, node, state, next, (pc, false), true);
                    return Ok(node);
                }
                Insn::Exit => match self.exit(run, node, &mut state, pc)? {
                    Some(back) => pc = back,
                    None => return Ok(node),
                },
                Insn::Call { callee } => pc = self.call(run, node, &mut state, pc, callee)?,
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
                | Insn::StoreRelease { .. } => {
                    let executed = self.step(pc).execute(&mut state, insn);
                    if let Err(mixed) = executed {
                        return Err(self.mixed_memory(run, node, &state, pc, mixed));
                    }
                    pc = next;
                }
            }
        }
    }

    fn step(&mut self, pc: Pc) -> Step<'_> {
        Step {
            rules: self.rules,
            record: &mut self.record,
            fresh: &mut self.fresh,
            pc,
        }
    }

    fn refused(
        &self,
        run: &Run,
        node: NodeId,
        pc: Pc,
        obligation: Obligation,
        failure: Failure,
    ) -> Box<Refused> {
        Box::new(Refused {
            pc,
            obligation,
            failure,
            path: run.graph.path(node, PATH),
        })
    }

    fn check_all(
        &mut self,
        run: &Run,
        node: NodeId,
        state: &State,
        pc: Pc,
        insn: Insn,
    ) -> Result<(), Box<Refused>> {
        let Some(slot) = self.obligations.get_mut(pc.index()) else {
            return Ok(());
        };
        let list = slot
            .get_or_insert_with(|| obligations(self.rules.program, insn).into())
            .clone();
        for obligation in list.iter() {
            if let Err(failure) = check(self.rules, state, *obligation) {
                return Err(self.refused(run, node, pc, *obligation, failure));
            }
        }
        Ok(())
    }

    fn count(&mut self, run: &mut Run, node: NodeId, pc: Pc) -> Result<(), Box<Refused>> {
        run.graph.step(node, 1);
        self.visited += 1;
        if let Some(visits) = self.visits.get_mut(pc.index()) {
            *visits = visits.saturating_add(1);
        }
        if self.visited <= self.rules.policy.max_visits {
            return Ok(());
        }
        let visits = self.rules.policy.max_visits;
        let mut refused = self.too_complex(pc, &format!("{visits} instructions were visited"));
        refused.path = run.graph.path(node, PATH);
        Err(refused)
    }

    fn too_complex(&self, pc: Pc, why: &str) -> Box<Refused> {
        let at = self.busiest_loop().unwrap_or(pc);
        let visits = self.visits.get(at.index()).copied().unwrap_or(0);
        let failure = Failure::new(
            "the analysis",
            "every path must be proven safe within the analysis budget",
            format!("the proof is too complex: {why}, this loop's head {visits} times"),
        )
        .hint("bound the loop by a smaller constant, use bpf_loop(), or add `can_loop` to its condition");
        Box::new(Refused {
            pc: at,
            obligation: Obligation::Provable,
            failure,
            path: Vec::new(),
        })
    }

    /// The target of a backward jump that was visited most.
    pub(crate) fn busiest_loop(&self) -> Option<Pc> {
        (0u32..)
            .zip(self.rules.program.insns())
            .flat_map(|(slot, insn)| successors(*insn, Pc(slot)).filter(move |to| to.0 <= slot))
            .max_by_key(|to| self.visits.get(to.index()).copied().unwrap_or(0))
    }

    fn mixed_memory(
        &self,
        run: &Run,
        node: NodeId,
        state: &State,
        pc: Pc,
        mixed: MixedMemory,
    ) -> Box<Refused> {
        let failure = Failure::new(
            super::describe::reg(mixed.0),
            "one instruction must reach the same kind of memory on every path",
            format!(
                "{} here, and points to memory of another kind on another path",
                self.rules.known(state, mixed.0)
            ),
        )
        .hint("access the two in separate branches");
        self.refused(run, node, pc, Obligation::OneKindOfMemory, failure)
    }

    fn branch(
        &mut self,
        run: &mut Run,
        node: NodeId,
        state: State,
        pc: Pc,
        (comparison, target, next): (Comparison, Pc, Pc),
    ) {
        let taken = assume(self.rules.program, state.clone(), comparison, true);
        let not_taken = assume(self.rules.program, state, comparison, false);
        if let Some(state) = taken {
            put_off(run, node, state, target, (pc, true), false);
        }
        if let Some(state) = not_taken {
            put_off(run, node, state, next, (pc, false), false);
        }
    }

    fn emit(&mut self, event: Event<'_>) {
        if let Some(trace) = &mut self.trace {
            trace.event(event);
        }
    }

    fn emit_state(&mut self, pc: Pc, state: &State) {
        if let Some(trace) = &mut self.trace {
            trace.event(Event::Before {
                pc,
                state: &super::trace::Shown::new(self.rules.program, state),
            });
        }
    }
}

/// Does the instruction leave something in r0?
fn writes_result(insn: Insn) -> bool {
    match insn {
        Insn::Alu { dst, .. }
        | Insn::MovSx { dst, .. }
        | Insn::Neg { dst, .. }
        | Insn::Endian { dst, .. }
        | Insn::AddrSpaceCast { dst, .. }
        | Insn::LdImm64 { dst, .. }
        | Insn::Load { dst, .. }
        | Insn::LoadAcquire { dst, .. } => dst == Reg::R0,
        Insn::Call { .. } => true,
        Insn::LdImm64Tail
        | Insn::Store { .. }
        | Insn::StoreRelease { .. }
        | Insn::Atomic { .. }
        | Insn::Jump { .. }
        | Insn::JumpIf { .. }
        | Insn::MayGoto { .. }
        | Insn::Exit => false,
    }
}

fn endless() -> Failure {
    Failure::new(
        "the loop",
        "every path must come to an end",
        "this loop can come back to the same state: nothing that its condition depends on changes",
    )
    .hint("give the loop a constant bound, or add `can_loop` to its condition")
}

fn put_off(
    run: &mut Run,
    node: NodeId,
    state: State,
    pc: Pc,
    decision: (Pc, bool),
    consuming: bool,
) {
    run.graph.expect(node, 1);
    run.waiting += state.weight();
    run.work.push(Work {
        state,
        pc,
        arrival: Some(Arrival {
            from: node,
            consuming,
            decision: Some(decision),
        }),
    });
}
