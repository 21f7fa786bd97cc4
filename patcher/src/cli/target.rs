//! Opening the process that the command line names.

use std::time::{Duration, Instant};

use super::Failure;
use crate::process::{Process, ProcessError};

/// How long another `upatch` may take that has the process at the moment: it needs milliseconds as a rule.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the process, after any other `upatch` that works on it right now.
///
/// # Errors
/// As [`Process::open`], with the process as the place.
pub(super) fn open(pid: i32) -> Result<Process, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Process::open(pid) {
            Err(error) if is_held_by_upatch(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.map_err(|error| Failure::from(error).at(place(pid))),
        }
    }
}

/// The process as a place in messages.
pub(super) fn place(pid: i32) -> String {
    format!("process {pid}")
}

/// Is the tracer that is in the way one of us, so that waiting helps?
pub(super) fn is_held_by_upatch(error: &ProcessError) -> bool {
    // Without a name: it has ended since, and with it its hold.
    matches!(error, ProcessError::AlreadyTraced { name, .. } if name == "upatch" || name.is_empty())
}
