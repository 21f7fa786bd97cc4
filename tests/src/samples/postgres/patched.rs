//! One patch in all processes of a server.
//!
//! Decides the order: the postmaster first, so that whatever it forks from then on is as it should be; the processes that
//! it has by then are looked at one by one. One that ends meanwhile needs nothing.

use std::ffi::OsString;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::Postgres;
use crate::build_id_of;
use crate::child::PATIENCE;
use crate::upatch::run_json;

/// What applying or reverting took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Processes that were patched, or unpatched.
    pub processes: usize,
    /// The longest time that one of them stood still.
    pub longest_stop: Duration,
    /// All commands together.
    pub took: Duration,
}

/// What one command did to one process.
enum Step {
    Done(Value),
    /// It was so already: the process was forked after the postmaster was patched or unpatched.
    WasSo,
    Gone,
}

impl Postgres {
    /// Applies a patch to the postmaster and all its children.
    ///
    /// # Errors
    /// A process that lives refuses the patch.
    pub fn apply(&self, object: &Path) -> Result<Figures> {
        let build_id = build_id_of(self.program())?;
        self.each(|pid| {
            let mut args: Vec<OsString> =
                ["apply", "--pid", &pid.to_string(), "--build-id", &build_id]
                    .map(OsString::from)
                    .to_vec();
            args.push(object.into());
            step(&args, pid)
        })
    }

    /// Takes all patches out of the postmaster and all its children.
    ///
    /// # Errors
    /// A process that lives can't be unpatched.
    pub fn revert(&self) -> Result<Figures> {
        self.each(|pid| {
            let step = step(
                &["revert", "--pid", &pid.to_string()].map(OsString::from),
                pid,
            )?;
            Ok(match step {
                Step::Done(answer) if answer["patches"].as_array().is_some_and(Vec::is_empty) => {
                    Step::WasSo
                }
                step => step,
            })
        })
    }

    /// What an operator would type for [`Self::apply`].
    ///
    /// # Errors
    /// The server's program can't be read.
    pub fn apply_command(&self, object: &Path) -> Result<String> {
        let build_id = build_id_of(self.program())?;
        Ok(format!(
            "for pid in {pid} $(pgrep -P {pid}); do\n    upatch apply --pid $pid --build-id {build_id} {}\ndone",
            object.display(),
            pid = self.pid()
        ))
    }

    /// What an operator would type for [`Self::revert`].
    pub fn revert_command(&self) -> String {
        format!(
            "for pid in {pid} $(pgrep -P {pid}); do upatch revert --pid $pid; done",
            pid = self.pid()
        )
    }

    fn each(&self, mut act: impl FnMut(u32) -> Result<Step>) -> Result<Figures> {
        let (start, mut figures) = (Instant::now(), Figures::default());
        let mut one = |pid| -> Result<()> {
            if let Step::Done(answer) = act(pid)? {
                figures.processes += 1;
                figures.longest_stop = figures.longest_stop.max(longest_stop(&answer));
            }
            Ok(())
        };
        one(self.pid())?;
        for child in self.children()? {
            one(child)?;
        }
        figures.took = start.elapsed();
        Ok(figures)
    }
}

/// `apply` says it at the top, `revert` for each patch.
fn longest_stop(answer: &Value) -> Duration {
    let patches = answer["patches"].as_array().into_iter().flatten();
    let micros = std::iter::once(answer).chain(patches);
    let micros = micros.filter_map(|part| part["longest_stop_us"].as_f64());
    Duration::from_secs_f64(micros.fold(0.0, f64::max) / 1e6)
}

fn step(args: &[OsString], pid: u32) -> Result<Step> {
    let (code, answer) = run_json(args)?;
    if code == 0 {
        return Ok(Step::Done(answer));
    }
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    if message.contains("is applied at") {
        return Ok(Step::WasSo);
    }
    let deadline = Instant::now() + PATIENCE / 4;
    while Instant::now() < deadline {
        if has_ended(pid) {
            return Ok(Step::Gone);
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("{args:?} exited with {code}: {answer:#}")
}

/// Also when its parent hasn't asked for its end yet.
fn has_ended(pid: u32) -> bool {
    // pid (name) state …: proc_pid_stat(5)
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}
