//! `fuzz_jit --seconds N --seed S [--programs P]`: generated programs, JIT = interpreter, until the time is up.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use upatch_tests::jit_diff::compare;

fn main() -> ExitCode {
    let (mut seconds, mut seed, mut programs) = (60, 1, u64::MAX);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
        match (name.as_str(), value) {
            ("--seconds", Some(value)) => seconds = value,
            ("--seed", Some(value)) => seed = value,
            ("--programs", Some(value)) => programs = value,
            _ => {
                eprintln!("usage: fuzz_jit [--seconds N] [--seed S] [--programs P]");
                return ExitCode::from(2);
            }
        }
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    match compare(seed, programs, || Instant::now() >= end) {
        Ok(tally) => {
            println!("{tally:?}");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
    }
}
