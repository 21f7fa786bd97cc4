//! Generated programs: what is accepted runs in the reference interpreter without a fault, within the proven number of
//! steps, and with registers inside what was proven of them before every instruction.
//!
//! `UPATCH_GENERATED` is the number of programs (20,000 unless set), `UPATCH_SEED` the first seed.

use std::collections::HashMap;

use libtest_mimic::{Failed, Trial};
use upatch_jit::interp::{Input, Machine, World};
use upatch_tests::programs::{OBJECT, Random, blind, generate};
use upatch_verifier::insn::Pc;
use upatch_verifier::verify::{Event, Registers, Trace, verify_traced};
use upatch_verifier::{Policy, VerifiedProgram};

/// Runs of each accepted program.
const RUNS: u64 = 4;
/// Programs of one test, so that several threads share the work.
const CHUNK: u64 = 5_000;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

pub(crate) fn trials() -> Vec<Trial> {
    let programs = number("UPATCH_GENERATED", 20_000);
    let seed = number("UPATCH_SEED", 1);
    let mut trials = vec![Trial::test("generated::blind", move || {
        blind_programs(seed, programs * 5).map_err(Failed::from)
    })];
    trials.extend((0..programs.div_ceil(CHUNK)).map(|chunk| {
        let start = seed + chunk * CHUNK;
        let end = start + CHUNK.min(programs - chunk * CHUNK);
        Trial::test(format!("generated::from_{start}"), move || {
            chunk_of_programs(start, end).map_err(Failed::from)
        })
    }));
    trials
}

/// Nothing that is a program makes the verifier panic or go on for ever; what it accepts by chance runs, too.
fn blind_programs(start: u64, count: u64) -> Result<(), String> {
    let policy = Policy {
        max_visits: 3_000,
        ..Policy::default()
    };
    let mut accepted = 0;
    for seed in start..start + count {
        let mut visited = Visited::default();
        match verify_traced(blind(seed), &policy, &mut visited) {
            Ok(verified) => {
                accepted += 1;
                run(&verified, &visited, seed).map_err(|wrong| {
                    format!(
                        "blind seed {seed}: {wrong}\n{}",
                        verified.program().listing()
                    )
                })?;
            }
            Err(rejection) => {
                let shown = rejection.to_string();
                if rejection.subject.is_empty() || shown.lines().count() < 3 {
                    return Err(format!("blind seed {seed}: says too little:\n{shown}"));
                }
            }
        }
    }
    println!("{accepted} of {count} blind programs accepted");
    Ok(())
}

/// Everything that the analysis visited, by instruction.
#[derive(Default)]
struct Visited(HashMap<Pc, Vec<Registers>>);

impl Trace for Visited {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Before { pc, state } = event {
            self.0.entry(pc).or_default().push(state.registers());
        }
    }
}

fn chunk_of_programs(start: u64, end: u64) -> Result<(), String> {
    let (mut accepted, mut executed) = (0u64, 0u64);
    for seed in start..end {
        // A small budget is used up by loops with can_loop, so that the proven number of steps is tested, too.
        let policy = Policy {
            max_visits: 4_000,
            max_steps: if seed % 2 == 0 { 2_000 } else { 1_000_000 },
            ..Policy::default()
        };
        let program = generate(seed);
        let mut visited = Visited::default();
        let Ok(verified) = verify_traced(program, &policy, &mut visited) else {
            continue;
        };
        accepted += 1;
        executed += run(&verified, &visited, seed)
            .map_err(|wrong| format!("seed {seed}: {wrong}\n{}", verified.program().listing()))?;
    }
    println!(
        "{accepted} of {} programs accepted, {executed} instructions executed",
        end - start
    );
    // A generator whose programs are all refused, or all harmless, tests nothing.
    let share = accepted * 100 / (end - start);
    if end - start >= 1000 && !(20..=80).contains(&share) {
        return Err(format!("{share} % of the programs are accepted"));
    }
    Ok(())
}

fn run(verified: &VerifiedProgram, visited: &Visited, seed: u64) -> Result<u64, String> {
    let facts = verified.facts();
    let mut random = Random::new(seed ^ 0x5eed);
    let mut executed = 0;
    for _ in 0..RUNS {
        let mut input = Input {
            step_limit: facts.max_steps.min(3_000),
            ..Input::default()
        };
        for word in input.ctx.chunks_exact_mut(8) {
            word.copy_from_slice(&random.interesting().to_le_bytes());
        }
        for _ in 0..OBJECT / 8 {
            input.memory.extend(random.interesting().to_le_bytes());
            input.arena.extend(random.interesting().to_le_bytes());
        }
        let mut world = World {
            random: random.next(),
            ..World::default()
        };
        let mut wrong = None;
        let output =
            Machine::verified(verified).run_observed(&input, &mut world, &mut |pc, regs| {
                let known = visited.0.get(&pc);
                let allowed =
                    known.is_some_and(|known| known.iter().any(|registers| registers.allow(regs)));
                if !allowed && wrong.is_none() {
                    let states = known.map_or(0, Vec::len);
                    wrong = Some(format!(
                        "at {}: {regs:x?} is in none of {states} states",
                        pc.0
                    ));
                }
            });
        executed += output.steps;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        match output.r0 {
            Ok(_) => {}
            // Long but within the proof: the run was cut for the test's sake.
            Err(upatch_jit::interp::Fault::StepLimit { .. })
                if facts.max_steps > input.step_limit => {}
            Err(fault) => return Err(format!("{fault}; proven were {} steps", facts.max_steps)),
        }
    }
    Ok(executed)
}
