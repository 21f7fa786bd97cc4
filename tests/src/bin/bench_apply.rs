//! `cargo xtask bench apply`: how long the whole `upatch apply` takes, and the longest gap that a running thread of the
//! target sees, at 1, 10 and 100 threads, beside a bare interrupt-getregs-continue loop over the same threads.
//!
//! The gap is read inside the target (victims/bench_apply.c): one thread reads the clock without pause. The machine
//! itself makes gaps, so `idle` tells what that thread sees in the same time when nobody stops it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

const ROUNDS: usize = 15;

struct Victim {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Victim {
    fn spawn(program: &Path, threads: usize) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().context("no pipe from the victim")?);
        let mut victim = Self { child, answers };
        let ready = victim.line()?;
        ensure!(ready.starts_with("ready"), "the victim did not start");
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

    /// The longest gap in microseconds that the watching thread sees while `work` runs.
    fn gap(&mut self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        self.ask("reset")?;
        work()?;
        let answer = self.ask("gap")?;
        let mut words = answer.split_whitespace();
        let gap: f64 = words.next().context("no gap")?.parse()?;
        let wrong: u64 = words.next().context("no count of wrong results")?.parse()?;
        ensure!(wrong == 0, "the target computed {wrong} wrong results");
        Ok(gap / 1000.0)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Best effort: it may have ended by itself, and there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tasks(pid: Pid) -> Result<Vec<Pid>> {
    let mut tasks = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = entry?.file_name();
        tasks.push(Pid::from_raw(name.to_string_lossy().parse()?));
    }
    Ok(tasks)
}

/// What any tool that stops a process must do at least: seize, interrupt and await each thread, read its registers,
/// let all go.
fn bare_stop(pid: Pid) -> Result<()> {
    let tasks = tasks(pid)?;
    for &task in &tasks {
        ptrace::seize(task, ptrace::Options::empty())?;
        ptrace::interrupt(task)?;
    }
    for &task in &tasks {
        waitpid(task, Some(WaitPidFlag::__WALL))?;
        ptrace::getregs(task)?;
    }
    for &task in &tasks {
        ptrace::detach(task, None)?;
    }
    Ok(())
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

fn minimum_and_median(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    json!({"min": values.first(), "median": values.get(values.len() / 2)})
}

fn main() -> ExitCode {
    match bench(std::env::args().any(|arg| arg == "--json")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench apply: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(as_json: bool) -> Result<()> {
    let here = std::env::current_exe()?;
    let upatch = here
        .parent()
        .context("the bench has no folder")?
        .join("upatch");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir()?;
    let program = scratch.path().join("bench_apply");
    run(Command::new("gcc")
        .args(["-O2", "-g", "-pthread", "-Wl,--build-id", "-o"])
        .arg(&program)
        .arg(tests.join("victims/bench_apply.c")))?;
    let object = scratch.path().join("apply.o");
    run(Command::new(&upatch)
        .arg("build")
        .arg(tests.join("cases/bench/apply.c"))
        .arg("-o")
        .arg(&object))?;
    let build_id = upatch_tests::build_id_of(&program)?;

    let mut rows = Vec::new();
    for threads in [1, 10, 100] {
        let mut victim = Victim::spawn(&program, threads)?;
        let pid = victim.child.id().to_string();
        let target = Pid::from_raw(i32::try_from(victim.child.id())?);
        let (mut idle, mut bare, mut apply, mut revert) = (vec![], vec![], vec![], vec![]);
        let (mut apply_time, mut revert_time) = (vec![], vec![]);
        for _ in 0..ROUNDS {
            idle.push(victim.gap(|| {
                std::thread::sleep(Duration::from_millis(10));
                Ok(())
            })?);
            bare.push(victim.gap(|| bare_stop(target))?);
            let mut started = Instant::now();
            apply.push(victim.gap(|| {
                started = Instant::now();
                run(Command::new(&upatch)
                    .args(["apply", "--pid", &pid, "--build-id", &build_id])
                    .arg(&object))
            })?);
            apply_time.push(started.elapsed().as_secs_f64() * 1000.0);
            revert.push(victim.gap(|| {
                started = Instant::now();
                run(Command::new(&upatch).args(["revert", "--pid", &pid]))
            })?);
            revert_time.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        rows.push(json!({
            "threads": threads,
            "idle_gap_us": minimum_and_median(idle),
            "bare_gap_us": minimum_and_median(bare),
            "apply_gap_us": minimum_and_median(apply),
            "revert_gap_us": minimum_and_median(revert),
            "apply_ms": minimum_and_median(apply_time),
            "revert_ms": minimum_and_median(revert_time),
        }));
    }
    if as_json {
        println!(
            "{}",
            json!({"ok": true, "bench": "apply", "rounds": ROUNDS, "rows": rows})
        );
        return Ok(());
    }
    println!(
        "longest gap seen inside the target, µs, and time of the whole command, ms: minimum / median of {ROUNDS} rounds"
    );
    println!(
        "{:>7} {:>17} {:>17} {:>17} {:>17} {:>15} {:>15}",
        "threads", "idle gap", "bare stop gap", "apply gap", "revert gap", "apply ms", "revert ms"
    );
    for row in &rows {
        let cell = |key: &str| {
            let number = |what: &str| row[key][what].as_f64().unwrap_or(f64::NAN);
            format!("{:.1} / {:.1}", number("min"), number("median"))
        };
        println!(
            "{:>7} {:>17} {:>17} {:>17} {:>17} {:>15} {:>15}",
            row["threads"].to_string(),
            cell("idle_gap_us"),
            cell("bare_gap_us"),
            cell("apply_gap_us"),
            cell("revert_gap_us"),
            cell("apply_ms"),
            cell("revert_ms"),
        );
    }
    Ok(())
}
