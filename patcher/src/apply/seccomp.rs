//! Would a seccomp filter of the target object to the system calls that a patch's helpers make in it?
//!
//! A filter may kill the process for a call it doesn't know, so this is asked before, not found out after. The filter
//! itself isn't evaluated yet: a target that has one gets no patch that makes system calls.

use upatch_abi::helpers;

use crate::process::status::Status;

/// A target under seccomp and a patch that would make system calls in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the process runs under seccomp ({mode}), and {} would make system calls in it that may get it killed",
    helpers.join(", ")
)]
pub struct SeccompConflict {
    /// `strict mode` or `a filter`.
    pub mode: &'static str,
    /// Names of the helpers.
    pub helpers: Vec<&'static str>,
}

/// Refuses helpers that make system calls where the target's seccomp mode isn't "none".
///
/// # Errors
/// The conflict, with the helpers that cause it.
pub fn check(status: &Status, used: impl IntoIterator<Item = u32>) -> Result<(), SeccompConflict> {
    let mode = match status.seccomp {
        0 => return Ok(()),
        1 => "strict mode",
        _ => "a filter",
    };
    let helpers: Vec<&'static str> = used
        .into_iter()
        .filter_map(helpers::by_id)
        .filter(|helper| !helper.syscalls.is_empty())
        .map(|helper| helper.name)
        .collect();
    if helpers.is_empty() {
        Ok(())
    } else {
        Err(SeccompConflict { mode, helpers })
    }
}
