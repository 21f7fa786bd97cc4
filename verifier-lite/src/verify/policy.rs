//! What the operator allows, and how long the proof may take.

/// What is allowed, and the budgets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Most instructions that one run of the program may execute, callbacks and may_goto iterations included.
    pub max_steps: u64,
    /// May the program write the application's memory (`bpf_probe_write_user`)?
    pub allow_write: bool,
    /// Most instructions that the analysis visits, over all paths.
    pub max_visits: u64,
    /// Most states that the analysis keeps: remembered ones to prune paths with, and as many of open paths. A state is a
    /// few kilobytes; one with much stack counts as several.
    pub max_states: usize,
    /// Most bytes of stack over any chain of calls (Linux: 512).
    pub max_stack: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_steps: 1_000_000,
            allow_write: false,
            max_visits: 1_000_000,
            max_states: 40_000,
            max_stack: 512,
        }
    }
}
