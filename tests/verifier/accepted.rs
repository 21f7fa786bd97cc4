//! Patches as people write them, which must be accepted.

use upatch_jit::interp::{Fault, Input, Machine, World};
use upatch_tests::programs::Random;
use upatch_verifier::{VerifiedProgram, verify};

use crate::case::{Case, Form};

/// Runs of each program.
const RUNS: u64 = 50;

pub(crate) fn check(case: &Case) -> Result<(), String> {
    let policy = case.policy()?;
    for program in case.programs(Form::Failing)? {
        let listing = program.listing();
        let verified = verify(program, &policy)
            .map_err(|rejection| format!("refused:\n{rejection}\n{listing}"))?;
        let facts = verified.facts();
        if facts.max_steps > policy.max_steps {
            return Err(format!("{} steps are more than allowed", facts.max_steps));
        }
        for wanted in case.values("warning") {
            if !facts.warnings.iter().any(|(_, text)| text.contains(wanted)) {
                return Err(format!(
                    "no warning with `{wanted}`, but {:?}",
                    facts.warnings
                ));
            }
        }
        if case.values("warning").next().is_none() && !facts.warnings.is_empty() {
            return Err(format!("warns: {:?}", facts.warnings));
        }
        run(&verified)?;
    }
    Ok(())
}

/// Runs the program on made-up registers, in a world where the program's memory has a string at one address. The
/// interpreter checks what was proven.
fn run(verified: &VerifiedProgram) -> Result<(), String> {
    const STRING: u64 = 0x5555_0000_1000;
    let mut random = Random::new(7);
    for _ in 0..RUNS {
        let mut input = Input {
            step_limit: verified.facts().max_steps.min(100_000),
            ..Input::default()
        };
        for word in input.ctx.chunks_exact_mut(8) {
            let value = if random.chance(40) {
                STRING
            } else {
                random.interesting()
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
        input.memory = (0..64).map(|_| random.next() as u8).collect();
        input.arena = (0..4096).map(|_| random.next() as u8).collect();
        let mut world = World {
            random: random.next(),
            ..World::default()
        };
        let text: Vec<u8> = (0..4096).map(|_| random.pick(b"0123 abc%$\0")).collect();
        world.user.insert(STRING, text);
        for function in verified.program().externs() {
            world
                .externs
                .insert(function.name.clone(), |args| args[0] & 1);
        }
        match Machine::verified(verified).run(&input, &mut world).r0 {
            Ok(_) => {}
            Err(Fault::StepLimit { .. }) if verified.facts().max_steps > input.step_limit => {}
            Err(fault) => return Err(format!("{fault}\n{}", verified.program().listing())),
        }
    }
    Ok(())
}
