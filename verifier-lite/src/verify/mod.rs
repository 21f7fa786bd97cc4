//! The proof that a program is safe: `Program → VerifiedProgram`, or the reason why not.
//!
//! ```text
//! tnum → range → arith, refine → scalar          what is known of numbers
//! value, stack → state ← liveness                what is known of a machine state
//! obligations  Insn → Vec<Obligation>            what must hold, as data
//! check        (state, obligation) → ok?         does it hold
//! transfer     (state, insn) → state             what the instruction does
//! assume       (state, comparison) → state?      what a branch tells
//! explore, graph                                 all paths, pruned; termination; worst-case steps
//! record → facts                                 what the JIT relies on
//! ```
//! Knows neither ELF nor x86. Invariant: abstract states hold every concrete state that can occur; each step keeps that
//! (tests compare with concrete execution). Never panics, and ends within [`Policy::max_visits`].

mod arith;
mod assume;
mod check;
mod check_call;
mod check_exit;
mod describe;
mod explore;
mod graph;
mod kernel_names;
mod liveness;
mod obligations;
mod place;
mod policy;
mod range;
mod record;
mod refine;
mod rejection;
mod saved;
mod scalar;
mod stack;
mod state;
#[cfg(test)]
mod tests;
mod tnum;
mod trace;
mod transfer;
mod transfer_call;
mod value;
mod warnings;

pub use obligations::{AccessKind, Obligation, obligations};
pub use policy::Policy;
pub use rejection::Rejection;
pub use trace::{Event, Registers, Shown, Trace};

use self::check::Rules;
use self::explore::{Explorer, Outcome};
use self::place::Failure;
use self::rejection::Refused;
use self::scalar::Scalar;
use self::state::{Frame, State};
use self::value::{Region, Value};
use crate::facts::{Facts, VerifiedProgram};
use crate::insn::{Insn, Pc, Reg};
use crate::program::{Program, ProgramKind};

/// Proves `program` safe.
///
/// # Errors
/// The first obligation that could not be proven, with its place and what would help.
pub fn verify(program: Program, policy: &Policy) -> Result<VerifiedProgram, Box<Rejection>> {
    run(program, policy, None)
}

/// Like [`verify`], and shows `trace` every visited instruction with its state.
///
/// # Errors
/// As [`verify`].
pub fn verify_traced(
    program: Program,
    policy: &Policy,
    trace: &mut dyn Trace,
) -> Result<VerifiedProgram, Box<Rejection>> {
    run(program, policy, Some(trace))
}

fn run(
    program: Program,
    policy: &Policy,
    trace: Option<&mut dyn Trace>,
) -> Result<VerifiedProgram, Box<Rejection>> {
    match prove(&program, policy, trace) {
        Ok(facts) => Ok(VerifiedProgram { program, facts }),
        Err(refused) => Err(Box::new(Rejection::new(&program, *refused))),
    }
}

fn prove(
    program: &Program,
    policy: &Policy,
    trace: Option<&mut dyn Trace>,
) -> Result<Facts, Box<Refused>> {
    let functions = program
        .subprogs()
        .iter()
        .enumerate()
        .map(|(index, subprog)| (subprog.start, index))
        .collect();
    let rules = Rules {
        program,
        policy,
        functions: &functions,
    };
    let mut explorer = Explorer::new(rules, trace);
    let outcome = explorer.explore(entry(program), Pc(0))?;
    let (max_steps, may_goto_budget) = steps(&explorer, &outcome, policy)?;
    let total_stack = total_stack(&explorer, policy)?;
    let record = explorer.record;
    Ok(Facts {
        warnings: warnings::warnings(program, &record.arena_spans),
        access: record.accesses(),
        reachable: reachable_tails(program, record.reachable),
        verdict: record.verdict,
        stack: record.stack,
        total_stack,
        helpers: record.helpers,
        externs: record.externs,
        ctx_reads: record.ctx_reads,
        ctx_writes: record.ctx_writes,
        max_steps,
        may_goto_budget,
    })
}

/// What holds when the program is entered.
fn entry(program: &Program) -> State {
    let mut frame = Frame::new(0, Pc(0), false);
    let (r1, r2) = match program.kind() {
        ProgramKind::PatchEntry | ProgramKind::PatchOffset | ProgramKind::Probe => (
            Value::Pointer(Region::Ctx, Scalar::constant(0)),
            Value::Uninit,
        ),
        ProgramKind::Memory { mem_len: 0 } => (Value::ANY, Value::constant(0)),
        ProgramKind::Memory { mem_len } => (
            Value::Pointer(Region::Memory, Scalar::constant(0)),
            Value::constant(u64::from(mem_len)),
        ),
    };
    frame.regs[Reg::R1.index()] = r1;
    frame.regs[Reg::R2.index()] = r2;
    State::new(frame)
}

/// The second slot of an immediate is reachable with the first.
fn reachable_tails(program: &Program, mut reachable: Vec<bool>) -> Vec<bool> {
    for (slot, insn) in program.insns().iter().enumerate() {
        if matches!(insn, Insn::LdImm64 { .. })
            && reachable.get(slot) == Some(&true)
            && let Some(tail) = reachable.get_mut(slot + 1)
        {
            *tail = true;
        }
    }
    reachable
}

/// Worst-case steps, and how many iterations may_goto gets so that they stay within the policy.
fn steps(
    explorer: &Explorer<'_, '_>,
    outcome: &Outcome,
    policy: &Policy,
) -> Result<(u64, u64), Box<Refused>> {
    let first = outcome.lengths.first;
    let piece = outcome.lengths.piece.max(explorer.callback_piece);
    let refuse = |pc: Pc, known: String, hint: &str| {
        Err(Box::new(Refused {
            pc,
            obligation: Obligation::Steps,
            failure: Failure::new(
                "the program",
                format!(
                    "a run must execute at most {} instructions",
                    policy.max_steps
                ),
                known,
            )
            .hint(hint),
            path: Vec::new(),
        }))
    };
    if first > policy.max_steps {
        return refuse(
            explorer.busiest_loop().unwrap_or(Pc(0)),
            format!("its longest path executes {first}"),
            "bound loops by smaller constants",
        );
    }
    if piece == 0 {
        return Ok((first, 0));
    }
    let budget = (policy.max_steps - first) / piece;
    if budget == 0 {
        return refuse(
            explorer.busiest_loop().unwrap_or(Pc(0)),
            format!(
                "its longest path executes {first}, and one iteration with can_loop {piece} more"
            ),
            "bound the loops inside by smaller constants",
        );
    }
    Ok((first + budget * piece, budget))
}

/// The deepest sum of stack over the chains of calls that can happen.
fn total_stack(explorer: &Explorer<'_, '_>, policy: &Policy) -> Result<u32, Box<Refused>> {
    let of = |subprog: &usize| {
        explorer
            .record
            .stack
            .get(*subprog)
            .copied()
            .map_or(0, u32::from)
    };
    let mut deepest = of(&0);
    for (chain, call) in &explorer.chains {
        let sum: u32 = chain.iter().map(of).sum();
        if sum > policy.max_stack {
            let names: Vec<String> = chain
                .iter()
                .filter_map(|index| {
                    Some((explorer.rules.program.subprogs().get(*index)?, of(index)))
                })
                .map(|(subprog, bytes)| format!("{} ({bytes})", subprog.name))
                .collect();
            return Err(Box::new(Refused {
                pc: *call,
                obligation: Obligation::StackDepth,
                failure: Failure::new(
                    "the stack",
                    format!(
                        "a chain of calls must use at most {} bytes of stack",
                        policy.max_stack
                    ),
                    format!("{} use {sum} together", names.join(", ")),
                )
                .hint("move large buffers into arena variables"),
                path: Vec::new(),
            }));
        }
        deepest = deepest.max(sum);
    }
    Ok(deepest)
}
