//! Walks an image's code from its entry along all paths until nothing new can be learned.
//!
//! First with one state per jump target and call path: where paths meet, states are joined, and after a few visits widened,
//! so that loops settle. Where that shows too little, path by path: loops are walked as often as they run, and a path ends
//! where an earlier state covers it. Knows nothing about what instructions do. Invariant: when either ends without a failure,
//! every reachable instruction has been stepped from a state that covers all executions that reach it.

use std::collections::{BTreeMap, HashMap};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
};

use super::memory::Memory;
use super::needed::Needed;
use super::state::State;
use super::step::{self, Flow};
use super::{CheckFailure, Problem, exit, refine};
use crate::address::Avma;
use crate::displace::text_of;
use crate::relocate;

/// Instructions stepped before the check gives up: hooks are short, and each path through a subroutine counts.
const MAX_STEPS: u32 = 400_000;
/// States that are kept when going path by path, a few kilobytes each.
const MAX_STATES: usize = 8192;
/// Of these, how many of the newest at one place a path is compared with.
const LOOKED_AT: usize = 64;
/// Visits after which a join widens.
const WIDEN_AFTER: u32 = 3;
/// Bounds that widening tries before it gives a range up.
const MAX_BOUNDS: usize = 64;

/// Identifies the chain of calls that leads to a subroutine; 0 is the hook itself.
type CallPath = usize;

/// One link of a call path.
struct Called {
    from: CallPath,
    target: u64,
    returns_to: u64,
}

struct Explorer<'a> {
    memory: Memory<'a>,
    factory: InstructionInfoFactory,
    /// States at jump targets, with the number of joins. Path by path there are several.
    known: HashMap<(CallPath, u64), Vec<(State, u32)>>,
    /// Where to go on; path by path with this state, otherwise with the known one.
    pending: Vec<(CallPath, u64, Option<State>)>,
    /// Path by path: which registers are still read.
    needed: Option<Needed>,
    /// States in `known`.
    kept: usize,
    paths: Vec<Called>,
    path_numbers: HashMap<(CallPath, u64, u64), CallPath>,
    /// Length of each instruction that was reached, by address.
    reached: BTreeMap<u64, u64>,
    /// Where widening stops first, ascending: around the constants that the code compares with.
    bounds: Vec<u64>,
}

/// Follows all paths of the image.
pub(crate) fn explore(memory: Memory<'_>) -> Result<(), CheckFailure> {
    let Err(joined) = explore_with(memory, None) else {
        return Ok(());
    };
    explore_with(memory, Some(Needed::of(memory))).map_err(|_| joined)
}

fn explore_with(memory: Memory<'_>, needed: Option<Needed>) -> Result<(), CheckFailure> {
    let root = Called {
        from: 0,
        target: memory.image.at.0,
        returns_to: 0,
    };
    let mut explorer = Explorer {
        memory,
        factory: InstructionInfoFactory::new(),
        known: HashMap::new(),
        pending: Vec::new(),
        needed,
        kept: 0,
        paths: vec![root],
        path_numbers: HashMap::new(),
        reached: BTreeMap::new(),
        bounds: bounds(memory),
    };
    explorer.arrive(0, memory.image.at.0, State::entry(), false);
    let mut steps = 0;
    while let Some((path, at, state)) = explorer.pending.pop() {
        let joined = || Some(explorer.known.get(&(path, at))?.first()?.0.clone());
        if let Some(state) = state.or_else(joined) {
            explorer.follow(path, at, state, &mut steps)?;
        }
    }
    Ok(())
}

/// The constants that the hook's code compares with, and their predecessors: between them a counting loop's range settles.
///
/// A plain sweep: what it misreads, or finds in bytes that are never executed, costs precision or time, nothing else.
fn bounds(memory: Memory<'_>) -> Vec<u64> {
    let code = memory.image.code;
    let len = usize::try_from(code.len())
        .unwrap_or(0)
        .min(memory.image.bytes.len());
    let decoder = Decoder::with_ip(
        64,
        &memory.image.bytes[..len],
        code.start.0,
        DecoderOptions::NONE,
    );
    let mut bounds: Vec<u64> = decoder
        .into_iter()
        .filter(|insn| insn.mnemonic() == Mnemonic::Cmp && insn.op_count() == 2)
        .filter_map(|insn| insn.try_immediate(1).ok())
        .filter(|constant| (1..=0xffff_ffff).contains(constant))
        .flat_map(|constant| [constant - 1, constant])
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    bounds.truncate(MAX_BOUNDS);
    bounds
}

impl Explorer<'_> {
    /// Records that `at` is reached in `state`; queues it if that is news.
    fn arrive(&mut self, path: CallPath, at: u64, state: State, backwards: bool) {
        if self.needed.is_some() {
            self.arrive_alone(path, at, state);
        } else {
            self.arrive_joined(path, at, state, backwards);
        }
    }

    /// Every loop has a jump backwards, so widening there is enough; elsewhere it would undo what comparisons have shown.
    fn arrive_joined(&mut self, path: CallPath, at: u64, state: State, backwards: bool) {
        let known = self.known.entry((path, at)).or_default();
        match known.first_mut() {
            None => known.push((state, 0)),
            Some((known, visits)) => {
                let widen = (backwards && *visits >= WIDEN_AFTER).then_some(&*self.bounds);
                let Some(joined) = known.join(&state, widen) else {
                    return;
                };
                *known = joined;
                *visits += 1;
            }
        }
        let queued = |pending: &(CallPath, u64, _)| (pending.0, pending.1) == (path, at);
        if !self.pending.iter().any(queued) {
            self.pending.push((path, at, None));
        }
    }

    fn arrive_alone(&mut self, path: CallPath, at: u64, mut state: State) {
        if let Some(needed) = &self.needed {
            state.forget_unneeded(|number| needed.is_needed(at, number));
        }
        let known = self.known.entry((path, at)).or_default();
        // Nothing to add to an earlier state: what can follow was looked at there, or will be.
        let mut newest = known.iter().rev().take(LOOKED_AT);
        if newest.any(|(earlier, _)| earlier.covers(&state)) {
            return;
        }
        if self.kept < MAX_STATES {
            self.kept += 1;
            known.push((state.clone(), 0));
        }
        self.pending.push((path, at, Some(state)));
    }

    /// Steps from a known place until control goes elsewhere.
    fn follow(
        &mut self,
        path: CallPath,
        at: u64,
        mut state: State,
        steps: &mut u32,
    ) -> Result<(), CheckFailure> {
        let mut at = at;
        loop {
            if at == self.memory.image.displaced_copy.start.0 {
                return self.finish(path, at, &state);
            }
            *steps += 1;
            let insn = self.fetch(at)?;
            let failure = |problem| CheckFailure {
                at: Avma(at),
                text: text_of(&insn),
                problem,
            };
            let most = if self.needed.is_some() {
                self.memory.policy.path_steps
            } else {
                MAX_STEPS
            };
            if *steps > most {
                return Err(failure(Problem::TooComplex));
            }
            let flow =
                step::step(self.memory, &mut self.factory, &mut state, &insn).map_err(failure)?;
            match flow {
                Flow::Next => {
                    at = insn.next_ip();
                    // Where something else arrives too, the joined state goes on.
                    if self.known.contains_key(&(path, at)) {
                        self.arrive(path, at, state, false);
                        return Ok(());
                    }
                }
                Flow::Jump(to) => {
                    self.arrive(path, to, state, to <= at);
                    return Ok(());
                }
                Flow::Branch(to) => {
                    let mut taken = state.clone();
                    if refine::refine(&mut taken, insn.condition_code(), true) {
                        self.arrive(path, to, taken, to <= at);
                    }
                    if !refine::refine(&mut state, insn.condition_code(), false) {
                        return Ok(());
                    }
                    at = insn.next_ip();
                    if self.known.contains_key(&(path, at)) {
                        self.arrive(path, at, state, false);
                        return Ok(());
                    }
                }
                Flow::Call(target) => {
                    let callee = self.enter(path, target, insn.next_ip()).map_err(failure)?;
                    self.arrive(callee, target, state, false);
                    return Ok(());
                }
                Flow::Return(to) => {
                    let caller = &self.paths[path];
                    if path == 0 || caller.returns_to != to {
                        return Err(failure(Problem::ReturnAddress {
                            known: format!("{to:#x}"),
                        }));
                    }
                    let from = caller.from;
                    self.arrive(from, to, state, false);
                    return Ok(());
                }
                Flow::Leave => return exit::at_return(self.memory, &state).map_err(failure),
            }
        }
    }

    /// The displaced instructions are reached.
    fn finish(&self, path: CallPath, at: u64, state: &State) -> Result<(), CheckFailure> {
        let result = if path == 0 {
            exit::at_continue(self.memory, state)
        } else {
            Err(Problem::ContinuesInside)
        };
        result.map_err(|problem| CheckFailure {
            at: Avma(at),
            text: "displaced instructions".to_owned(),
            problem,
        })
    }

    /// The call path that a call from `path` opens.
    fn enter(&mut self, path: CallPath, target: u64, returns_to: u64) -> Result<CallPath, Problem> {
        let mut above = path;
        while above != 0 {
            if self.paths[above].target == target {
                return Err(Problem::Recursion {
                    target: Avma(target),
                });
            }
            above = self.paths[above].from;
        }
        if target == self.memory.image.at.0 {
            return Err(Problem::Recursion {
                target: Avma(target),
            });
        }
        let next = self.paths.len();
        let number = *self
            .path_numbers
            .entry((path, target, returns_to))
            .or_insert(next);
        if number == next {
            self.paths.push(Called {
                from: path,
                target,
                returns_to,
            });
        }
        Ok(number)
    }

    /// The instruction at `at`, if it lies in the hook's code and shares no byte with another one.
    fn fetch(&mut self, at: u64) -> Result<Instruction, CheckFailure> {
        let code = self.memory.image.code;
        let failure = |text: String, problem| CheckFailure {
            at: Avma(at),
            text,
            problem,
        };
        let start = Avma(at)
            .since(self.memory.image.at)
            .filter(|_| code.contains(Avma(at)));
        let end = code.end.since(self.memory.image.at);
        let bytes = start.zip(end).and_then(|(start, end)| {
            self.memory
                .image
                .bytes
                .get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        });
        let Some(bytes) = bytes else {
            return Err(failure(
                "…".to_owned(),
                Problem::LeavesCode { to: Avma(at) },
            ));
        };
        let insn = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
        if insn.is_invalid() {
            return Err(failure(
                format!("{:02x?}", &bytes[..bytes.len().min(4)]),
                Problem::Undecodable,
            ));
        }
        if insn.flow_control() != FlowControl::Next && relocate::has_operand_size_prefix(bytes) {
            return Err(failure(text_of(&insn), Problem::NotAllowed));
        }
        let before = self
            .reached
            .range(..at)
            .next_back()
            .filter(|(other, len)| **other + **len > at);
        let behind = self.reached.range(at + 1..insn.next_ip()).next();
        if let Some((other, _)) = before.or(behind) {
            return Err(failure(
                text_of(&insn),
                Problem::Overlaps {
                    other: Avma(*other),
                },
            ));
        }
        self.reached.insert(at, insn.len() as u64);
        Ok(insn)
    }
}
