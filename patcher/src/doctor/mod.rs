//! What upatch can do on this machine: each thing tried, on this process or on a child that is started for it and ended.
//!
//! ```text
//! Companion (child) ─┬→ process: tracing, memory, remote calls, descriptors
//!                    ├→ machine: kernel, processor, scheduling
//!                    ├→ bpf: arenas, programs, uprobes
//!                    └→ tools: compiler, headers
//! ```
//! Decides what is tried and what the outcome means for upatch; how it is shown is the command line's business. A trial
//! leaves nothing behind, and one that fails is a finding, never an error.

mod bpf;
mod companion;
mod machine;
mod process;
mod target;
mod tools;

use std::io;

pub use companion::{ROLE, accompany};
pub use target::of_target;

/// How something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Works.
    Ok,
    /// Works in part, or upatch does without at a cost.
    Limited,
    /// Doesn't work.
    Missing,
}

/// The outcome of one trial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was tried, in one to three words.
    pub topic: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What that means for upatch.
    pub means: &'static str,
    /// What would lift it; `None` if nothing needs to be lifted, or nothing can.
    pub lift: Option<&'static str>,
}

impl Finding {
    fn ok(topic: &'static str, found: impl Into<String>, means: &'static str) -> Self {
        Self {
            topic,
            state: State::Ok,
            found: found.into(),
            means,
            lift: None,
        }
    }

    fn limited(topic: &'static str, found: impl Into<String>, means: &'static str) -> Self {
        Self {
            state: State::Limited,
            ..Self::ok(topic, found, means)
        }
    }

    fn missing(topic: &'static str, found: impl Into<String>, means: &'static str) -> Self {
        Self {
            state: State::Missing,
            ..Self::ok(topic, found, means)
        }
    }

    fn lifted_by(mut self, lift: &'static str) -> Self {
        self.lift = Some(lift);
        self
    }
}

/// Findings of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    /// What they are about.
    pub title: &'static str,
    /// In the order in which they are read best.
    pub findings: Vec<Finding>,
}

/// Tries everything that doesn't depend on a target.
///
/// # Errors
/// The child for the trials can't be started.
pub fn examine() -> io::Result<Vec<Section>> {
    let companion = companion::Companion::start(None)?;
    let processes = process::findings(&companion);
    let machine = machine::findings(&companion);
    let bpf = bpf::findings(&companion);
    companion.end()?;
    Ok(vec![
        Section {
            title: "processes",
            findings: processes,
        },
        Section {
            title: "machine",
            findings: machine,
        },
        Section {
            title: "kernel BPF",
            findings: bpf,
        },
        Section {
            title: "tools",
            findings: tools::findings(),
        },
    ])
}

/// A file's text without the line's end, if it can be read.
fn read(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// Bits of `CapEff` (include/uapi/linux/capability.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Capability {
    SysPtrace = 19,
    SetUid = 7,
}

/// Has this process the capability, in its own user namespace?
fn has(capability: Capability) -> bool {
    let status = read("/proc/self/status").unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> capability as u64 & 1 == 1)
}
