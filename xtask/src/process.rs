//! Starting programs, with a limit on their time, and ending them by their ids.

use std::env;
use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::repository;

/// The same cargo that runs this task, in the repository, on the same target folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    command
}

/// Runs a command that must succeed, its output going where ours goes.
///
/// # Errors
/// It can't be started, fails, or still runs after `limit`.
pub(crate) fn succeed(command: &mut Command, limit: Duration) -> Result<()> {
    let child = command
        .spawn()
        .with_context(|| format!("starting {}", shown(command)))?;
    let status = wait(child, limit).with_context(|| shown(command))?;
    ensure!(status.success(), "{}: {status}", shown(command));
    Ok(())
}

/// Runs a command to its end and returns its exit status and what it printed on both streams.
///
/// # Errors
/// It can't be started.
pub(crate) fn output(command: &mut Command) -> Result<(ExitStatus, String)> {
    let output = command
        .output()
        .with_context(|| format!("starting {}", shown(command)))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status, text))
}

/// Waits for a child, and after `limit` ends it and all that it has started.
///
/// # Errors
/// It still ran after `limit`.
pub(crate) fn wait(mut child: Child, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            end_tree(child.id());
            // Reaps it; it was just killed.
            let _ = child.wait();
            bail!("ended after {} seconds", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Kills a process and its descendants. The parent goes first, so that it can't start more.
fn end_tree(pid: u32) {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    // Best effort: it may be gone already. The kill program knows signals by name; std knows none for foreign ids.
    let _ = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    for child in children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
    {
        end_tree(child);
    }
}

/// The command line for messages; a whole script among its words is not repeated.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let word = |word: &std::ffi::OsStr| match word.to_string_lossy() {
        script if script.contains('\n') => "…".to_owned(),
        word => word.into_owned(),
    };
    words.map(word).collect::<Vec<_>>().join(" ")
}

/// Whether this process has root's rights, by its effective user id.
pub(crate) fn is_root() -> bool {
    // Uid: real effective saved filesystem (proc_pid_status(5))
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            Some(uids.split_whitespace().nth(1)? == "0")
        })
        .unwrap_or(false)
}
