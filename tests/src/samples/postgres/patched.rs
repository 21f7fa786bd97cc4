//! One patch in all processes of a server, by one command: the postmaster and its children, which share the arena.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Postgres;
use crate::build_id_of;
use crate::upatch::succeed;

/// What applying or reverting took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Processes that were patched, or unpatched; not those that were forked after the postmaster was.
    pub processes: usize,
    /// The longest time that one of them stood still.
    pub longest_stop: Duration,
    /// The whole command.
    pub took: Duration,
}

impl Postgres {
    /// Applies a patch to the postmaster and all its children.
    ///
    /// # Errors
    /// A process that lives refuses the patch.
    pub fn apply(&self, object: &Path) -> Result<Figures> {
        let start = Instant::now();
        let answer = succeed(&self.apply_words(object)?)?;
        figures(&answer, start, |process| process["already"] != true)
    }

    /// Takes all patches out of the postmaster and all its children.
    ///
    /// # Errors
    /// A process that lives can't be unpatched.
    pub fn revert(&self) -> Result<Figures> {
        let start = Instant::now();
        let answer = succeed(&self.revert_words())?;
        let had_one = |process: &Value| {
            process["patches"]
                .as_array()
                // What stays mapped of an earlier revert doesn't count.
                .is_some_and(|all| all.iter().any(|patch| patch["state"] != "retired"))
        };
        figures(&answer, start, had_one)
    }

    /// What an operator types for [`Self::apply`].
    ///
    /// # Errors
    /// The server's program can't be read.
    pub fn apply_command(&self, object: &Path) -> Result<String> {
        Ok(command(&self.apply_words(object)?))
    }

    /// What an operator types for [`Self::revert`].
    pub fn revert_command(&self) -> String {
        command(&self.revert_words())
    }

    fn apply_words(&self, object: &Path) -> Result<Vec<OsString>> {
        let (pid, build_id) = (self.pid().to_string(), build_id_of(self.program())?);
        let words = [
            "apply",
            "--pid",
            &pid,
            "--children",
            "--build-id",
            &build_id,
        ];
        let words = words.iter().map(OsString::from);
        Ok(words.chain([object.into()]).collect())
    }

    fn revert_words(&self) -> Vec<OsString> {
        let pid = self.pid().to_string();
        ["revert", "--pid", &pid, "--children"]
            .map(OsString::from)
            .to_vec()
    }
}

fn command(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    format!("upatch {}", words.join(" "))
}

fn figures(answer: &Value, start: Instant, counts: impl Fn(&Value) -> bool) -> Result<Figures> {
    let took = start.elapsed();
    let processes = answer["processes"]
        .as_array()
        .context("no processes in the answer")?;
    Ok(Figures {
        processes: processes.iter().filter(|process| counts(process)).count(),
        longest_stop: Duration::from_secs_f64(longest_stop(answer) / 1e6),
        took,
    })
}

/// The greatest `longest_stop_us` of all processes and patches.
fn longest_stop(answer: &Value) -> f64 {
    let parts: Box<dyn Iterator<Item = &Value>> = match answer {
        Value::Object(fields) => Box::new(fields.values()),
        Value::Array(parts) => Box::new(parts.iter()),
        _ => return 0.0,
    };
    let own = answer["longest_stop_us"].as_f64().unwrap_or_default();
    parts.map(longest_stop).fold(own, f64::max)
}
