//! `cargo xtask bench call`: what one call of a patched function costs, beside an unhooked one, a hook written by hand
//! in assembly that does the same, and a kernel uprobe.
//!
//! All cases live in one process (victims/bench_call.c) and are timed in turn, many rounds, so that drift of this
//! shared machine hits all alike. A row's `ratio` is its minimum to the minimum of the hand-written hook; the bar is
//! count <= 1.5. Exit 1 when a hook answers wrongly: a fast wrong hook is no result.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use upatch_tests::uprobe::Uprobe;

const ROUNDS: usize = 200;
/// Cases with a hand-written twin; the C of each patch is in tests/cases/bench.
const PATCHES: [&str; 4] = ["count", "count_atomic", "clamp", "refuse"];

/// The victim: killed when dropped.
struct Victim {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Victim {
    fn spawn(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().context("no pipe from the victim")?);
        let mut victim = Self { child, answers };
        ensure!(
            victim.line()?.starts_with("ready"),
            "the victim did not start"
        );
        Ok(victim)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the victim is gone");
        Ok(line)
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        let stdin = self.child.stdin.as_mut().context("no pipe to the victim")?;
        writeln!(stdin, "{question}")?;
        self.line()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Best effort: it may have ended by itself, and there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Minimum and median of the rounds, in nanoseconds per call.
struct Timing {
    min: f64,
    median: f64,
}

fn timing(mut rounds: Vec<f64>) -> Result<Timing> {
    rounds.sort_by(f64::total_cmp);
    let min = *rounds.first().context("no rounds")?;
    let median = *rounds.get(rounds.len() / 2).context("no rounds")?;
    Ok(Timing { min, median })
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// `name first second` triples of the victim's answer to `results`.
fn check_results(line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    for triple in words.chunks_exact(3) {
        let &[name, legal, excessive] = triple else {
            continue;
        };
        let expected = match name.split('_').next() {
            Some("clamp") => "105",
            Some("refuse") => "-14",
            _ => "5005",
        };
        ensure!(
            legal == "9" && excessive == expected,
            "{name} answers {legal} and {excessive}, not 9 and {expected}"
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    match bench(std::env::args().any(|arg| arg == "--json")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench call: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(as_json: bool) -> Result<()> {
    let here = std::env::current_exe()?;
    let bin = here.parent().context("the bench has no folder")?;
    let upatch = bin.join("upatch");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir()?;
    let program: PathBuf = scratch.path().join("bench_call");
    run(Command::new("gcc")
        .args(["-O2", "-g", "-Wl,--build-id", "-o"])
        .arg(&program)
        .arg(tests.join("victims/bench_call.c")))?;

    let mut victim = Victim::spawn(&program)?;
    let pid = victim.child.id().to_string();
    let build_id = upatch_tests::build_id_of(&program)?;
    for name in PATCHES {
        let object = scratch.path().join(format!("{name}.o"));
        run(Command::new(&upatch)
            .arg("build")
            .arg(tests.join(format!("cases/bench/{name}.c")))
            .arg("-o")
            .arg(&object))?;
        run(Command::new(&upatch)
            .args(["apply", "--pid", &pid, "--build-id", &build_id])
            .arg(&object))?;
    }
    let mut skipped = None;
    let mut uprobes = Vec::new();
    for name in ["bench_uprobe_nop5", "bench_uprobe_int3"] {
        match Uprobe::attach(&program, name) {
            Ok(uprobe) => uprobes.push(uprobe),
            Err(error) => skipped = Some(format!("kernel uprobe: {error:#}")),
        }
    }

    check_results(&victim.ask("results")?)?;
    let mut rounds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        let line = victim.ask("round")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.chunks_exact(2) {
            let &[name, nanoseconds] = pair else { continue };
            if !rounds.contains_key(name) {
                order.push(name.to_owned());
            }
            rounds
                .entry(name.to_owned())
                .or_default()
                .push(nanoseconds.parse()?);
        }
    }
    check_results(&victim.ask("results")?)?;
    run(Command::new(&upatch).args(["revert", "--pid", &pid]))?;

    let mut timings = BTreeMap::new();
    for (name, rounds) in rounds {
        timings.insert(name, timing(rounds)?);
    }
    let unhooked = timings
        .get("unhooked")
        .context("the victim did not time `unhooked`")?
        .min;
    let mut rows = Vec::new();
    for name in &order {
        if name.starts_with("uprobe") && uprobes.len() < 2 {
            continue;
        }
        let Some(own) = timings.get(name) else {
            continue;
        };
        // The hook that does the same; a uprobe counts, and does less than that.
        let twin = match name.strip_suffix("_ours") {
            Some(case) => timings.get(&format!("{case}_hand")),
            None if name.starts_with("uprobe") => timings.get("count_hand"),
            None => None,
        };
        let label = name.replace('_', " ").replace(" ours", "");
        rows.push(json!({
            "case": label,
            "min_ns": own.min,
            "median_ns": own.median,
            "over_unhooked_ns": own.min - unhooked,
            "ratio": twin.map(|twin| own.min / twin.min),
        }));
    }
    if as_json {
        println!(
            "{}",
            json!({"ok": true, "bench": "call", "rounds": ROUNDS, "rows": rows, "skipped": skipped})
        );
        return Ok(());
    }
    println!(
        "one call, ns: minimum and median of {ROUNDS} interleaved rounds (call and loop included)"
    );
    println!(
        "{:<20} {:>9} {:>9} {:>12} {:>9}",
        "case", "min", "median", "- unhooked", "x hand"
    );
    for row in &rows {
        let number = |key: &str| row[key].as_f64();
        println!(
            "{:<20} {:>9.2} {:>9.2} {:>12.2} {:>9}",
            row["case"].as_str().unwrap_or_default(),
            number("min_ns").unwrap_or_default(),
            number("median_ns").unwrap_or_default(),
            number("over_unhooked_ns").unwrap_or_default(),
            number("ratio").map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        );
    }
    if let Some(reason) = skipped {
        println!("skipped {reason}");
    }
    Ok(())
}
