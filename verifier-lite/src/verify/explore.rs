//! Walks every path of a program, depth first, and prunes those that an earlier one stands for.
//!
//! A path ends at an exit, or where a state remembered at the same instruction covers it ([`State::covers`]):
//!
//! * The remembered state is explored to its ends: everything that can follow was found safe.
//! * It lies on the very path that is being explored: only if an iteration of the may_goto budget was consumed since.
//!   If none was, and the newer state covers the older one, the loop need never end and is refused.
//!
//! At a may_goto states are widened, so that such loops converge; other loops are walked as often as they run.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use upatch_abi::helpers;

use super::assume::{Comparison, assume};
use super::check::{Rules, check};
use super::graph::{Arrival, Graph, Lengths, NodeId};
use super::liveness::{Liveness, successors};
use super::obligations::{Obligation, obligations};
use super::place::Failure;
use super::record::Record;
use super::rejection::Refused;
use super::saved::{Saved, SavedStates};
use super::scalar::Scalar;
use super::state::{Frame, State};
use super::trace::{Event, Trace};
use super::transfer::{Fresh, MixedMemory, Step, after_call, number};
use super::value::Value;
use crate::facts::Verdict;
use crate::insn::{Callee, Insn, Pc, Reg};
use crate::program::ProgramKind;

/// Branch decisions that a rejection shows.
const PATH: usize = 64;
/// Widenings at one place before everything that still changes is given up.
const PATIENCE: usize = 6;

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
    visited: u64,
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
    /// Frames when it began.
    base: usize,
    after: Option<State>,
}

enum Found {
    /// The path ends in an explored node.
    Covered(NodeId),
    /// Go on, possibly with a widened state.
    New,
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
        run.work.push(Work {
            state: entry,
            pc,
            arrival: None,
        });
        while let Some(work) = run.work.pop() {
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
        self.remembered -= run.saved.values().map(SavedStates::len).sum::<usize>();
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
        let at = self.busiest_loop().unwrap_or(pc);
        let visits = self.visits.get(at.index()).copied().unwrap_or(0);
        let failure = Failure::new(
            "the analysis",
            "every path must be proven safe within the analysis budget",
            format!(
                "the proof is too complex: {} instructions were visited, this loop's head {visits} times",
                self.rules.policy.max_visits
            ),
        )
        .hint("bound the loop by a smaller constant, use bpf_loop(), or add `can_loop` to its condition");
        Err(self.refused(run, node, at, Obligation::Provable, failure))
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

    fn look_up(
        &mut self,
        run: &mut Run,
        node: NodeId,
        state: &mut State,
        pc: Pc,
    ) -> Result<Found, Box<Refused>> {
        state.clean(pc, &self.liveness);
        let Run { saved, graph, .. } = run;
        let Some(saved) = saved.get_mut(&pc) else {
            return Ok(Found::New);
        };
        let is_open = |other: NodeId| other == node || graph.is_open(other);
        let covering = saved.candidates(state).find(|candidate| {
            let ends_here = !is_open(candidate.node) || graph.consumed_since(candidate.node, node);
            ends_here && candidate.state.covers(state)
        });
        if let Some(candidate) = covering {
            return Ok(Found::Covered(candidate.node));
        }
        let mut open: Option<(&Saved, usize)> = None;
        let mut endless_loop = false;
        for candidate in saved.open(is_open) {
            if graph.consumed_since(candidate.node, node) {
                if candidate.state.is_same_shape(state) {
                    open = Some(match open {
                        None => (candidate, 1),
                        Some((latest, count)) => (latest, count + 1),
                    });
                }
            } else if state.covers(&candidate.state) {
                endless_loop = true;
                break;
            }
        }
        if endless_loop {
            return Err(self.refused(run, node, pc, Obligation::Terminates, endless()));
        }
        let at_may_goto = matches!(
            self.rules.program.insns().get(pc.index()),
            Some(Insn::MayGoto { .. })
        );
        if let (Some((latest, count)), true) = (open, at_may_goto) {
            *state = widen(&latest.state, state, count);
        }
        Ok(Found::New)
    }

    fn remember(&mut self, run: &mut Run, node: NodeId, state: &State, pc: Pc) {
        let at_may_goto = matches!(
            self.rules.program.insns().get(pc.index()),
            Some(Insn::MayGoto { .. })
        );
        let Run { saved, graph, .. } = run;
        let saved = saved.entry(pc).or_default();
        self.remembered -= saved.make_room(|other| other == node || graph.is_open(other));
        if self.remembered < self.rules.policy.max_states || at_may_goto {
            self.remembered += 1;
            saved.push(Saved {
                state: state.clone(),
                node,
            });
        }
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

    /// Returns from the innermost function: to its caller's next instruction, or `None` when the exploration's own
    /// function ends.
    fn exit(
        &mut self,
        run: &mut Run,
        node: NodeId,
        state: &mut State,
        pc: Pc,
    ) -> Result<Option<Pc>, Box<Refused>> {
        let frame = state.frame();
        let obligation = if state.frames.len() == 1 {
            Obligation::Verdict
        } else if frame.callback {
            Obligation::CallbackResult
        } else {
            Obligation::Result
        };
        if let Err(failure) = check(self.rules, state, obligation) {
            // The line that set the result says more than the function's last.
            return Err(self.refused(
                run,
                node,
                state.result_at.unwrap_or(pc),
                obligation,
                failure,
            ));
        }
        if state.frames.len() == 1 {
            self.record.verdict(pc, self.verdict(state));
            return Ok(None);
        }
        let result = state.reg(Reg::R0);
        let call = frame.call;
        state.frames.pop();
        if state.frames.len() < run.base {
            let after = match run.after.take() {
                Some(after) => after.merge(state, Value::join),
                None => state.clone(),
            };
            run.after = Some(after);
            return Ok(None);
        }
        after_call(state, result);
        state.result_at = Some(call);
        Ok(Some(Pc(call.0 + 1)))
    }

    fn verdict(&self, state: &State) -> Verdict {
        match self.rules.program.kind() {
            ProgramKind::PatchEntry | ProgramKind::PatchOffset => {
                match number(state.reg(Reg::R0)).as_constant() {
                    Some(0) => Verdict::Continue,
                    Some(_) => Verdict::Return,
                    None => Verdict::Dynamic,
                }
            }
            ProgramKind::Probe | ProgramKind::Memory { .. } => Verdict::Ignored,
        }
    }

    fn call(
        &mut self,
        run: &mut Run,
        node: NodeId,
        state: &mut State,
        pc: Pc,
        callee: Callee,
    ) -> Result<Pc, Box<Refused>> {
        let next = Pc(pc.0 + 1);
        match callee {
            Callee::Subprog(target) => {
                self.enter(state, pc, target, false);
                return Ok(target);
            }
            Callee::Extern(index) => {
                let program = self.rules.program;
                if let Some(function) = program.externs().get(index as usize) {
                    self.step(pc).external(state, index, function);
                }
            }
            Callee::Helper(helpers::LOOP) => self.bpf_loop(run, node, state, pc)?,
            Callee::Helper(id) => {
                if let Some(helper) = helpers::by_id(id) {
                    self.step(pc).helper(state, helper);
                }
            }
        }
        Ok(next)
    }

    /// Pushes a frame; its arguments are the caller's r1 to r5.
    fn enter(&mut self, state: &mut State, call: Pc, target: Pc, callback: bool) {
        let subprog = self
            .rules
            .program
            .subprogs()
            .iter()
            .position(|subprog| subprog.start == target)
            .unwrap_or(0);
        let mut frame = Frame::new(subprog, call, callback);
        let caller = state.frame_mut();
        for index in 0..6 {
            if index > 0 {
                frame.regs[index] = caller.regs[index];
            }
            caller.regs[index] = Value::Uninit;
        }
        state.result_at = None;
        state.frames.push(Rc::new(frame));
        let chain = state.frames.iter().map(|frame| frame.subprog).collect();
        self.chains.entry(chain).or_insert(call);
    }

    /// Finds what holds before and after every iteration, by walking the callback until nothing new comes out.
    fn bpf_loop(
        &mut self,
        run: &mut Run,
        node: NodeId,
        state: &mut State,
        pc: Pc,
    ) -> Result<(), Box<Refused>> {
        let count = number(state.reg(Reg::R1));
        // The kernel's prototype has a u32 count.
        let most = u64::min(count.low.umax, helpers::MAX_LOOPS);
        let (Value::Callback(target), context) = (state.reg(Reg::R2), state.reg(Reg::R3)) else {
            return Ok(());
        };
        let known_count = self.rules.known(state, Reg::R1);
        self.record.helpers.insert(helpers::LOOP);
        after_call(state, Value::Uninit);
        let mut lengths = Lengths::default();
        let mut rounds = 0;
        while most > 0 {
            let mut entry = state.clone();
            self.enter(&mut entry, pc, target, true);
            entry.set(Reg::R1, Value::number(Scalar::unsigned(0, most - 1)));
            entry.set(Reg::R2, context);
            let outcome = self.explore(entry, target).map_err(|mut refused| {
                let mut path = run.graph.path(node, PATH);
                path.append(&mut refused.path);
                refused.path = path;
                refused
            })?;
            lengths = outcome.lengths;
            match outcome.after {
                Some(after) if !state.covers(&after) => {
                    rounds += 1;
                    *state = widen(state, &after, rounds);
                }
                Some(_) | None => break,
            }
        }
        self.callback_piece = self.callback_piece.max(lengths.piece);
        let cost = most.saturating_mul(lengths.first);
        if cost > self.rules.policy.max_steps {
            let failure = Failure::new(
                "r1",
                format!(
                    "the iterations of bpf_loop must fit into the budget of {} executed instructions",
                    self.rules.policy.max_steps
                ),
                format!("{known_count}, so at most {most} iterations of up to {} instructions", lengths.first),
            )
            .hint("limit the number of iterations with a comparison before the call");
            return Err(self.refused(run, node, pc, Obligation::Steps, failure));
        }
        run.graph.step(node, cost);
        // SANITY: at most MAX_LOOPS.
        after_call(state, Value::number(Scalar::signed(-22, most as i64)));
        Ok(())
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

/// A state that covers both, on the way to one that no iteration changes.
fn widen(old: &State, new: &State, rounds: usize) -> State {
    if rounds <= PATIENCE {
        old.merge(new, Value::widen)
    } else {
        old.merge(new, Value::give_up)
    }
}
