//! Odd states of a process: values in scratch registers, vfork children, a stopped process, and what is refused.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use upatch::patching::revert::Retired;
use upatch::patching::{FoundState, RevertOutcome};
use upatch::process::{Process, ProcessError};

use crate::cycles::Sum;
use crate::hook::{Hook, Target};
use crate::victim::{Victim, eventually};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        crate::case("scratch_and_vector_registers", registers),
        crate::case("vfork_child", vfork),
        crate::case("group_stopped", group_stopped),
        crate::case("retired_and_reused", retired),
        crate::case("contested_site", contested),
        crate::case("refused_processes", refused),
        crate::case("no_descriptor_left", no_descriptor),
    ]
}

/// Applies and reverts `cycles` times; in each one the victim's counter `n` moves on while hooked, and hits are counted.
fn cycle(victim: &mut Victim, target: &Target, cycles: usize, n: u64, by: u64) -> Result<Sum> {
    let mut sum = Sum::default();
    for _ in 0..cycles {
        let applied = target.apply("00000002", Hook::Count)?;
        victim.progress(n, by)?;
        let (reverted, hits) = target.revert("00000002")?;
        ensure!(
            reverted.outcome == RevertOutcome::Clean,
            "{:?}",
            reverted.outcome
        );
        ensure!(hits > 0, "no hits");
        sum.add(&applied.figures, &reverted.figures, hits);
        victim.progress(n, 1)?;
    }
    target.check_clean()?;
    Ok(sum)
}

fn registers() -> Result<String> {
    let mut victim = Victim::start("ipara", &["-fipa-ra"], &[])?;
    let target = Target::open(victim.pid(), "exe", "touched")?;
    let sum = cycle(&mut victim, &target, 100 * crate::scale(), 0, 200)?;
    let (calls, errors, bytes) = (victim.counter(0)?, victim.counter(1)?, victim.counter(2)?);
    ensure!(errors == 0);
    Ok(format!(
        "{} cycles, {} hooked of {calls} calls with 8 scratch registers and {bytes} bytes of vector and mask registers \
         checked, {errors} changed",
        sum.cycles, sum.hits
    ))
}

fn vfork() -> Result<String> {
    let mut victim = Victim::start("vfork", &[], &[])?;
    let target = Target::open(victim.pid(), "exe", "work")?;
    let mut sum = cycle(&mut victim, &target, 100 * crate::scale(), 0, 1000)?;
    let (calls, errors, children) = (victim.counter(0)?, victim.counter(1)?, victim.counter(2)?);
    ensure!(errors == 0 && children > 0);
    ensure!(sum.foreign > 0, "no vfork child was stopped");
    ensure!(sum.parked > 0, "no parent was found asleep in vfork");
    let stops = sum.stops();
    Ok(format!(
        "{} cycles, {} hits, {calls} calls in {children} vfork children, {errors} wrong; in {} cycles a child was stopped \
         too, in {} its parent slept in the kernel; {}",
        sum.cycles, sum.hits, sum.foreign, sum.parked, stops
    ))
}

fn state(pid: i32) -> Result<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(upatch::process::status::state_of_stat(&stat).unwrap_or('?'))
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) -> Result<()> {
    Ok(nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        signal,
    )?)
}

fn group_stopped() -> Result<String> {
    use nix::sys::signal::Signal;
    let mut victim = Victim::start("spinner", &[], &["2"])?;
    let target = Target::open(victim.pid(), "exe", "work")?;
    signal(victim.pid(), Signal::SIGSTOP)?;
    let stopped = |pid| eventually(Duration::from_secs(5), || Ok(state(pid)? == 'T'));
    stopped(victim.pid())?;
    let applied = target.apply("00000003", Hook::Count)?;
    stopped(victim.pid())?;
    ensure!(target.hits(&applied)? == 0, "a stopped process ran");
    signal(victim.pid(), Signal::SIGCONT)?;
    victim.progress(0, 10)?;
    ensure!(target.hits(&applied)? > 0, "the hook is not called");
    signal(victim.pid(), Signal::SIGSTOP)?;
    stopped(victim.pid())?;
    let (reverted, _) = target.revert("00000003")?;
    stopped(victim.pid())?;
    signal(victim.pid(), Signal::SIGCONT)?;
    victim.progress(0, 10)?;
    Ok(format!(
        "applied and reverted while stopped by SIGSTOP, still stopped after each: {:?}",
        reverted.outcome
    ))
}

fn retired() -> Result<String> {
    let mut victim = Victim::start("spinner", &[], &["2"])?;
    let target = Target::open(victim.pid(), "exe", "work")?;
    let mut place = None;
    for _ in 0..10 {
        let applied = target.apply("00000004", Hook::Retiring)?;
        eventually(Duration::from_secs(5), || Ok(target.hits(&applied)? > 0))?;
        ensure!(
            place.is_none_or(|place| place == applied.sites[0].0.image),
            "the retired image was not taken up again"
        );
        place = Some(applied.sites[0].0.image);
        let (reverted, hits) = target.revert("00000004")?;
        let expected = RevertOutcome::Retired {
            why: Retired::CallsApplication,
        };
        ensure!(
            reverted.outcome == expected && hits > 0,
            "{:?}",
            reverted.outcome
        );
        let found = target.found("00000004")?;
        ensure!(
            found.len() == 1 && found[0].state == FoundState::Retired,
            "{found:?}"
        );
        victim.progress(0, 1)?;
    }
    Ok("10 cycles in one retired image, taken up again each time".to_owned())
}

fn contested() -> Result<String> {
    let mut victim = Victim::start("spinner", &[], &["2"])?;
    let target = Target::open(victim.pid(), "exe", "wrap")?;
    let applied = target.apply("00000005", Hook::Count)?;
    let live = target.found("00000005")?;
    // Somebody else's jump over ours, which leads to the same place: two bytes of padding less, one more prefix.
    signal(victim.pid(), nix::sys::signal::Signal::SIGSTOP)?;
    eventually(Duration::from_secs(5), || Ok(state(victim.pid())? == 'T'))?;
    target
        .process
        .memory()
        .write(applied.sites[0].0.at, &[0xcc])?;
    let (reverted, _) = target.revert_found(&live[0])?;
    ensure!(
        matches!(reverted.outcome, RevertOutcome::Contested { .. }),
        "{:?}",
        reverted.outcome
    );
    let found = target.process.memory().read_vec(applied.sites[0].0.at, 1)?;
    ensure!(found == [0xcc], "a contested site was written");
    target
        .process
        .memory()
        .write(applied.sites[0].0.at, &applied.sites[0].0.new)?;
    let (reverted, _) = target.revert("00000005")?;
    ensure!(
        reverted.outcome == RevertOutcome::Clean,
        "{:?}",
        reverted.outcome
    );
    signal(victim.pid(), nix::sys::signal::Signal::SIGCONT)?;
    victim.progress(0, 10)?;
    target.check_clean()?;
    Ok("a breakpoint over our jump is left alone; reverted when it is gone".to_owned())
}

fn refused() -> Result<String> {
    let victim = Victim::start("spinner", &[], &["2"])?;
    let other = victim.tasks()?.into_iter().find(|&tid| tid != victim.pid());
    if let Some(tid) = other {
        let answer = Process::open(tid);
        // A short-lived thread may be gone already.
        ensure!(
            matches!(
                answer,
                Err(ProcessError::NotAProcess { .. } | ProcessError::NotFound(_))
            ),
            "a thread was opened: {answer:?}"
        );
    }
    let kernel_thread = Process::open(2);
    ensure!(
        matches!(
            kernel_thread,
            Err(ProcessError::KernelThread(2) | ProcessError::NotFound(2))
        ),
        "{kernel_thread:?}"
    );
    for pid in [0, -1, i32::MAX] {
        ensure!(matches!(Process::open(pid), Err(ProcessError::NotFound(_))));
    }
    let mut child = std::process::Command::new("true").spawn()?;
    let pid = i32::try_from(child.id())?;
    eventually(Duration::from_secs(5), || Ok(state(pid)? == 'Z'))?;
    let zombie = Process::open(pid);
    child.wait()?;
    ensure!(matches!(zombie, Err(ProcessError::Zombie(_))), "{zombie:?}");
    Ok("a thread, a kernel thread, a zombie and impossible pids".to_owned())
}

/// The limit of descriptors (one more than the largest) below which so many are free.
fn limit_with(open: &[i32], free: usize) -> i32 {
    let mut unused = (0..).filter(|number| !open.contains(number));
    unused.nth(free).unwrap_or(0)
}

/// The arena's descriptor passes through the target's table: with no room there, or room for the socket only, apply is
/// refused, and nothing stays.
fn no_descriptor() -> Result<String> {
    let mut victim = Victim::start("spinner", &[], &["2"])?;
    let target = Target::open(victim.pid(), "exe", "work")?;
    let open = || target.process.numbers_in("fd");
    let before = open()?;
    let mut messages = Vec::new();
    for (free, wanted) in [
        (0, "socket failed in the target"),
        (1, "did not take a descriptor"),
    ] {
        let status = std::process::Command::new("prlimit")
            .arg(format!("--pid={}", target.process.pid()))
            .arg(format!("--nofile={}:", limit_with(&before, free)))
            .status()?;
        ensure!(status.success(), "prlimit failed");
        let error = match target.apply("00000009", Hook::Count) {
            Ok(_) => anyhow::bail!("applied with {free} free descriptors"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(error.contains(wanted), "{free} free descriptors: {error}");
        ensure!(open()? == before, "{:?} is open", open()?);
        target.check_clean()?;
        victim.progress(0, 1000)?;
        messages.push(error);
    }
    Ok(messages.join("; "))
}
