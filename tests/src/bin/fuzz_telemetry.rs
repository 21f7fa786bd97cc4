//! Feeds hostile records and arenas to telemetry and rules for a while: `fuzz_telemetry --seconds N --seed S`; with
//! `--input I` only that input, once.
//!
//! Exit code 0 and a line of figures, or the panic of the first finding with the number of its input.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use upatch_tests::object_fuzz::peak_memory;
use upatch_tests::telemetry_fuzz::{Report, exercise, extremes, good, input};

/// Longest time for one input.
const SLOWEST: Duration = Duration::from_secs(1);
/// Most memory.
const MEMORY: u64 = 64 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz_telemetry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let (mut seconds, mut seed, mut only) = (10_u64, 1_u64, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args
            .next()
            .ok_or_else(|| anyhow::anyhow!("{arg} wants a number"))?;
        match &*arg {
            "--seconds" => seconds = value.parse()?,
            "--seed" => seed = value.parse()?,
            "--input" => only = Some(value.parse::<u64>()?),
            _ => anyhow::bail!("{arg} is unknown"),
        }
    }
    let good = good();
    let mut report = Report::default();
    if let Some(number) = only {
        let input = input(&good, seed, number);
        println!("{}", input.info);
        exercise(&input, &mut report);
        println!("{report:?}, peak {} MiB", peak_memory().unwrap_or(0) >> 20);
        return Ok(());
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    for (number, input) in extremes(&good).iter().enumerate() {
        let before = report.slowest;
        exercise(input, &mut report);
        if report.slowest > before {
            println!(
                "extreme {number}: {:.1} ms",
                report.slowest.as_secs_f64() * 1e3
            );
        }
    }
    while Instant::now() < end {
        let number = report.inputs;
        let input = input(&good, seed, number);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            exercise(&input, &mut report)
        }));
        anyhow::ensure!(
            outcome.is_ok(),
            "input {number} of seed {seed} panicked; see it by --seed {seed} --input {number}"
        );
    }
    let memory = peak_memory().unwrap_or(0);
    println!(
        "seed {seed}: {} inputs, {} understood, {} events, {} assignments, slowest {:.1} ms (input {}), peak {} MiB",
        report.inputs,
        report.understood,
        report.events,
        report.set,
        report.slowest.as_secs_f64() * 1e3,
        report.slowest_at,
        memory >> 20
    );
    anyhow::ensure!(
        report.slowest < SLOWEST,
        "one input took longer than {SLOWEST:?}"
    );
    anyhow::ensure!(memory <= MEMORY, "more than {} MiB were used", MEMORY >> 20);
    anyhow::ensure!(
        report.events > 0 && report.set > 0 && report.understood < report.inputs,
        "the inputs are not varied enough"
    );
    Ok(())
}
