//! Calls and returns: subprograms are walked at every call, helpers and external functions by their prototypes, and
//! `bpf_loop` by finding what holds before every iteration.

use std::rc::Rc;

use upatch_abi::helpers;

use super::{Explorer, PATH, Run, widen};
use crate::facts::Verdict;
use crate::insn::{Callee, Pc, Reg};
use crate::program::ProgramKind;
use crate::verify::check::check;
use crate::verify::graph::{Lengths, NodeId};
use crate::verify::obligations::Obligation;
use crate::verify::place::Failure;
use crate::verify::rejection::Refused;
use crate::verify::scalar::Scalar;
use crate::verify::state::{Frame, State};
use crate::verify::transfer::{after_call, number};
use crate::verify::value::Value;

impl Explorer<'_, '_> {
    /// Returns from the innermost function: to its caller's next instruction, or `None` when the exploration's own
    /// function ends.
    pub(super) fn exit(
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

    pub(super) fn call(
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
        let subprog = self.rules.functions.get(&target).copied().unwrap_or(0);
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
        if most > 0 {
            lengths = self.iterate(run, node, state, pc, (target, context, most))?;
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

    /// Walks the callback until nothing new comes out of it: `state` then holds before and after every iteration.
    fn iterate(
        &mut self,
        run: &mut Run,
        node: NodeId,
        state: &mut State,
        pc: Pc,
        (target, context, most): (Pc, Value, u64),
    ) -> Result<Lengths, Box<Refused>> {
        let mut rounds = 0;
        loop {
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
            match outcome.after {
                Some(after) if !state.covers(&after) => {
                    rounds += 1;
                    *state = widen(state, &after, rounds, &self.limits);
                }
                Some(_) | None => return Ok(outcome.lengths),
            }
        }
    }
}
