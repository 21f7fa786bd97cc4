//! SIGKILL of `upatch` at every failpoint, while the victim's threads are in all kinds of waits.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use upatch::patching::{FoundState, inspect};
use upatch::process::Process;
use upatch::process::failpoint::FailPoint;

use crate::hook::{Hook, Target};
use crate::victim::{Victim, eventually};

/// The hidden first argument that turns this program into the `upatch` that is killed.
pub(crate) const CHILD_FLAG: &str = "--upatch";
const ID: &str = "0000000e";
const FUNCTION: &str = "work";

pub(crate) fn trials() -> Vec<Trial> {
    vec![crate::case("killed_at_every_failpoint", every_failpoint)]
}

/// `apply PID` or `revert PID`, in a process of its own.
pub(crate) fn child(words: &[String]) -> i32 {
    match act(words) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error:#}");
            1
        }
    }
}

fn act(words: &[String]) -> Result<()> {
    let [verb, pid] = words else {
        anyhow::bail!("usage: {CHILD_FLAG} apply|revert PID")
    };
    let target = Target::open(pid.parse()?, "exe", FUNCTION)?;
    match verb.as_str() {
        "apply" => target.apply(ID, Hook::Count).map(drop),
        _ => finish(&target).map(drop),
    }
}

/// Reverts or removes whatever is left of the patch; tells what there was.
fn finish(target: &Target) -> Result<Vec<FoundState>> {
    let mut states = Vec::new();
    while let Some(found) = target.found(ID)?.first() {
        ensure!(states.len() < 10, "it never ends: {found:?}");
        states.push(found.state.clone());
        target.revert_found(found)?;
    }
    Ok(states)
}

/// Runs `upatch` as a child. True if it was killed by its failpoint.
fn upatch(verb: &str, pid: i32, point: Option<FailPoint>) -> Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([CHILD_FLAG, verb, &pid.to_string()]);
    if let Some(point) = point {
        command.env("UPATCH_FAILPOINT", point.name());
    }
    let output = command.output()?;
    if output.status.signal() == Some(libc::SIGKILL) {
        return Ok(true);
    }
    ensure!(
        output.status.success(),
        "{verb}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(false)
}

/// What the process has open, by number.
fn descriptors(pid: i32) -> Result<Vec<(i32, std::path::PathBuf)>> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        open.push((number.context("a number")?, std::fs::read_link(&path)?));
    }
    open.sort();
    Ok(open)
}

/// Each of the victim's threads, in its own kind of wait, makes progress and has seen no error.
fn check(victim: &mut Victim) -> Result<()> {
    let errors = victim.counter(15)?;
    ensure!(
        errors == 0,
        "{errors} errors in the victim, last in wait {}",
        victim.counter(14)?
    );
    for wait in 0..7 {
        victim
            .progress(wait, 2)
            .with_context(|| format!("thread of wait {wait}"))?;
    }
    Ok(())
}

fn every_failpoint() -> Result<String> {
    let mut victim = Victim::start("waits", &[], &[])?;
    let pid = victim.pid();
    check(&mut victim)?;
    let descriptors = descriptors(pid)?;
    let text = upatch_tests::child::text_of(pid.unsigned_abs())?;
    let (mut killed, mut leftovers, mut live) = (0, 0, 0);
    for verb in ["apply", "revert"] {
        for &point in FailPoint::ALL {
            for round in 0..2 * crate::scale() {
                let target = Target::open(pid, "exe", FUNCTION)?;
                if verb == "revert" {
                    target.apply(ID, Hook::Count)?;
                }
                let died = upatch(verb, pid, Some(point))
                    .with_context(|| format!("{verb} at {}", point.name()))?;
                killed += usize::from(died);
                check(&mut victim)
                    .with_context(|| format!("after a kill at {} in {verb}", point.name()))?;
                // Applied completely or not at all.
                let inventory = inspect(&target.process)?;
                for found in &inventory.found {
                    let whole = match found.state {
                        FoundState::Applied => {
                            live += 1;
                            true
                        }
                        FoundState::Leftover | FoundState::Incomplete => {
                            leftovers += 1;
                            true
                        }
                        FoundState::Interrupted
                        | FoundState::Retired
                        | FoundState::Contested { .. }
                        | FoundState::Damaged(_) => false,
                    };
                    ensure!(whole, "after {} in {verb}: {:?}", point.name(), found.state);
                }
                // The next upatch finishes it: alternately one that applies again, and one that reverts.
                if round % 2 == 0
                    && !inventory
                        .found
                        .iter()
                        .any(|found| found.state == FoundState::Applied)
                {
                    let applied = target.apply(ID, Hook::Count)?;
                    eventually(Duration::from_secs(5), || Ok(target.hits(&applied)? > 0))?;
                }
                finish(&target)?;
                // What no revert was asked for (a file without a mapping, an arena) goes with the next apply.
                target.apply(ID, Hook::Count)?;
                finish(&target)?;
                target
                    .check_clean()
                    .with_context(|| format!("after {} in {verb}", point.name()))?;
                // Counted apart from what upatch thinks is its own.
                let open = self::descriptors(pid)?;
                ensure!(
                    open == descriptors,
                    "after {} in {verb}: {open:?} is open instead of {descriptors:?}",
                    point.name()
                );
                ensure!(
                    upatch_tests::child::text_of(pid.unsigned_abs())? == text,
                    "after {} in {verb}: the victim's code differs",
                    point.name()
                );
                drop(Process::open(pid)?);
                check(&mut victim)?;
            }
        }
    }
    ensure!(killed > FailPoint::ALL.len(), "only {killed} kills");
    ensure!(
        leftovers > 0 && live > 0,
        "{leftovers} leftovers, {live} live"
    );
    Ok(format!(
        "{killed} kills at {} failpoints; victim in user code, nanosleep, futex, read, poll, epoll_wait, sigtimedwait: no \
         wrong result; {leftovers} leftovers found and removed, {live} patches were live",
        FailPoint::ALL.len()
    ))
}
