//! Damages patch objects for a while: `fuzz_object --seconds N --seed S [OBJECT…]`; with `--input I` only that input, once.
//! Without objects it damages those of the accepted cases.
//!
//! Exit code 0 and a line of figures, or the panic of the first finding with the number of its input.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use upatch_tests::object_fuzz::{Report, exercise, input, own_objects, peak_memory};

/// Longest time for one input of a few kilobytes.
const SLOWEST: Duration = Duration::from_secs(1);
/// Most memory.
const MEMORY: u64 = 64 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz_object: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let (mut seconds, mut seed, mut only, mut files) = (10_u64, 1_u64, None, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .ok_or_else(|| anyhow::anyhow!("{arg} wants a number"))
        };
        match &*arg {
            "--seconds" => seconds = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--input" => only = Some(value()?.parse::<u64>()?),
            _ => {
                files.push(std::fs::read(&arg).map_err(|error| anyhow::anyhow!("{arg}: {error}"))?)
            }
        }
    }
    if files.is_empty() {
        files = own_objects("fuzz_object");
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut report = Report::default();
    if let Some(number) = only {
        let bytes = input(&files, seed, number);
        let path = format!("object-{seed}-{number}.o");
        std::fs::write(&path, &bytes)?;
        exercise(&bytes, &mut report);
        println!("{path}: {report:?}");
        return Ok(());
    }
    while Instant::now() < end {
        let number = report.inputs;
        let bytes = input(&files, seed, number);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            exercise(&bytes, &mut report)
        }));
        if outcome.is_err() {
            let path = format!("object-{seed}-{number}.o");
            std::fs::File::create(&path)?.write_all(&bytes)?;
            anyhow::bail!("input {number} of seed {seed} panicked; it is in {path}");
        }
    }
    let memory = peak_memory().unwrap_or(0);
    println!(
        "seed {seed}: {} inputs, {} parsed, {} programs linked, slowest {:.1} ms (input {}), peak {} MiB",
        report.inputs,
        report.parsed,
        report.linked,
        report.slowest.as_secs_f64() * 1e3,
        report.slowest_at,
        memory >> 20
    );
    anyhow::ensure!(
        report.slowest < SLOWEST,
        "one input took longer than {SLOWEST:?}"
    );
    anyhow::ensure!(memory < MEMORY, "more than {} MiB were used", MEMORY >> 20);
    anyhow::ensure!(
        report.parsed > 0 && report.parsed < report.inputs,
        "the inputs are not varied enough"
    );
    Ok(())
}
