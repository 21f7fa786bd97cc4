//! The child that the trials are made on: this program again, waiting for the end of its standard input.
//!
//! It ends when it is told to, or when its parent dies: the pipe closes either way. Before it waits it tries to trace its
//! parent, because that is what upatch mostly does: trace a process that is not its descendant. (Descendants may be traced
//! where others may not, so that tracing the child alone would prove nothing.)

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::process::trials;

/// Set in the environment of the child.
pub const ROLE: &str = "UPATCH_DOCTOR_COMPANION";

/// The running child; killed if it isn't ended.
pub(super) struct Companion {
    child: Child,
    /// What became of the child's try to trace this process: 0 or an error number.
    pub(super) traced_us: i32,
}

impl Companion {
    /// Starts it, as another user if one is given.
    pub(super) fn start(user: Option<u32>) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("doctor")
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut companion = Self {
            child,
            traced_us: 0,
        };
        match line.trim().parse() {
            Ok(number) => companion.traced_us = number,
            Err(_) => return Err(io::Error::other("the child for the trials did not start")),
        }
        Ok(companion)
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Lets it go and waits for its end; an error if it did not end by itself, unharmed by the trials.
    pub(super) fn end(mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "the child for the trials ended with {status}"
            )))
        }
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        // It has ended already, or nobody needs it any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child does.
///
/// # Errors
/// Its pipes are broken.
pub fn accompany() -> io::Result<()> {
    let parent = std::os::unix::process::parent_id();
    let number = match trials::try_to_trace(i32::try_from(parent).unwrap_or(0)) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    };
    println!("{number}");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
