//! How a stop gathers its tasks: seized until nobody new is found, interrupted, waited for.
//!
//! Knows births and parked tasks; the invariant of a stop is in `stop`.

use std::time::{Duration, Instant};

use super::handle::ProcessError;
use super::sharers;
use super::status::{BlockedAt, Status, is_kernel_worker, state_of_stat};
use super::stop::{Standing, StopError, StoppedProcess, Task};
use super::sys;
use super::tracee::{self, Nap, Stop, TRACE_BIRTHS};

/// How long all tasks together may take to stop.
const PATIENCE: Duration = Duration::from_millis(1000);
/// After this time a task that hasn't stopped is looked at: perhaps it is parked.
const LOOK_AFTER: Duration = Duration::from_micros(300);

impl StoppedProcess<'_> {
    /// Seizes without stopping, until neither the task lists nor the search for sharers show anybody new.
    pub(super) fn seize_all(&mut self) -> Result<(), StopError> {
        loop {
            while self.seize_listed(&self.owners(), false)? > 0 {}
            let others = sharers::others(self.process);
            if self.seize_listed(&others, false)? == 0 {
                return Ok(());
            }
        }
    }

    /// The processes whose tasks we hold, the target first.
    fn owners(&self) -> Vec<i32> {
        let mut owners: Vec<i32> = self.tasks.values().map(|task| task.owner).collect();
        owners.push(self.process.pid());
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// Seizes the tasks of these processes that we don't hold yet; tells how many.
    fn seize_listed(&mut self, owners: &[i32], interrupt: bool) -> Result<usize, StopError> {
        let mut new = 0;
        for &owner in owners {
            let tids = if owner == self.process.pid() {
                self.process.numbers_in("task")?
            } else {
                tasks_of(owner)
            };
            for tid in tids {
                let new_task = !self.tasks.contains_key(&tid) && self.except != Some(tid);
                let worker =
                    || task_text(owner, tid, "stat").is_some_and(|stat| is_kernel_worker(&stat));
                if new_task && !worker() && self.seize(owner, tid, interrupt)? {
                    new += 1;
                }
            }
        }
        Ok(new)
    }

    fn seize(&mut self, owner: i32, tid: i32, interrupt: bool) -> Result<bool, StopError> {
        if let Err(source) = sys::seize(tid, TRACE_BIRTHS) {
            let status = task_text(owner, tid, "status");
            let status = status
                .map(|text| Status::parse(&text))
                .filter(|status| !status.is_dead());
            let Some(status) = status else {
                return Ok(false);
            };
            if source.raw_os_error() == Some(libc::ESRCH) {
                return Ok(false);
            }
            if status.tracer != sys::thread_id() {
                return Err(match status.tracer {
                    0 => StopError::Trace { tid, source },
                    tracer => StopError::AlreadyTraced { tid, tracer },
                });
            }
            // Born of a task that we hold, and so ours from the start; it stops by itself.
        } else if interrupt {
            self.ask(tid)?;
        }
        self.tasks.insert(
            tid,
            Task {
                owner,
                standing: Standing::Pending,
            },
        );
        Ok(true)
    }

    fn ask(&self, tid: i32) -> Result<(), StopError> {
        match sys::interrupt(tid) {
            Err(source) if source.raw_os_error() != Some(libc::ESRCH) => {
                Err(StopError::Trace { tid, source })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(super) fn interrupt_all(&mut self) -> Result<(), StopError> {
        let tids: Vec<i32> = self.tasks.keys().copied().collect();
        for tid in tids {
            self.ask(tid)?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.wait_for_pending(deadline)?;
            // Who was born between the lists and the stops, untraced; nobody can be born once this finds none.
            let late = self.seize_listed(&self.owners(), true)?;
            self.born += late;
            if late == 0
                && !self
                    .tasks
                    .values()
                    .any(|task| matches!(task.standing, Standing::Pending))
            {
                break;
            }
        }
        self.tasks
            .retain(|_, task| !matches!(task.standing, Standing::Gone));
        if self.tasks.is_empty() && self.except.is_none() {
            return Err(ProcessError::NotFound(self.process.pid()).into());
        }
        Ok(())
    }

    fn pending(&self) -> Vec<i32> {
        let pending = self
            .tasks
            .iter()
            .filter(|(_, task)| matches!(task.standing, Standing::Pending));
        pending.map(|(&tid, _)| tid).collect()
    }

    fn wait_for_pending(&mut self, deadline: Instant) -> Result<(), StopError> {
        let began = Instant::now();
        let mut nap = Nap::default();
        loop {
            let pending = self.pending();
            let Some(&one) = pending.first() else {
                return Ok(());
            };
            for &tid in &pending {
                while let Some(stop) =
                    tracee::stop_now(tid).map_err(|source| StopError::Trace { tid, source })?
                {
                    if self.settle(tid, stop)? {
                        break;
                    }
                }
            }
            let now = Instant::now();
            if now > began + LOOK_AFTER {
                self.look_for_parked();
            }
            if now > deadline && !self.pending().is_empty() {
                return Err(self.not_stopping(one));
            }
            nap.take();
        }
    }

    /// Takes one stop of a pending task in. True if it stands still now.
    fn settle(&mut self, tid: i32, stop: Stop) -> Result<bool, StopError> {
        let standing = match stop {
            Stop::Signal(signal) => {
                // Deliver it first; the new request stops the task when the handler's frame is built.
                self.ask(tid)?;
                let _ = sys::cont(tid, signal);
                return Ok(false);
            }
            Stop::Gone => Standing::Gone,
            Stop::Birth(born) => {
                self.take_in(born);
                self.stand(tid)
            }
            Stop::Interrupt | Stop::Group(_) | Stop::Syscall | Stop::Other => self.stand(tid),
        };
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.standing = standing;
        }
        Ok(true)
    }

    fn stand(&self, tid: i32) -> Standing {
        match sys::registers(tid) {
            Ok(mut regs) => {
                if tracee::mend_interrupted(&mut regs) && sys::set_registers(tid, &regs).is_err() {
                    return Standing::Gone;
                }
                Standing::Stopped(regs)
            }
            // Killed in the stop; its end is still to be collected.
            Err(_) => Standing::Gone,
        }
    }

    /// A task was born of one that we hold. If it has memory of its own, it is let go with the others: until then it
    /// stands before its first instruction.
    fn take_in(&mut self, born: i32) {
        if self.tasks.contains_key(&born) {
            return;
        }
        self.born += 1;
        let status = std::fs::read_to_string(format!("/proc/{born}/status")).unwrap_or_default();
        let owner = Status::parse(&status).tgid;
        if self.owners().contains(&owner) || sharers::shares(self.process, born) {
            self.tasks.insert(
                born,
                Task {
                    owner,
                    standing: Standing::Pending,
                },
            );
        } else {
            self.strangers.push(born);
        }
    }

    fn look_for_parked(&mut self) {
        for tid in self.pending() {
            let Some(task) = self.tasks.get_mut(&tid) else {
                continue;
            };
            let state = task_text(task.owner, tid, "stat").and_then(|stat| state_of_stat(&stat));
            match state {
                Some('D') => {
                    let blocked = task_text(task.owner, tid, "syscall")
                        .and_then(|text| BlockedAt::parse(&text));
                    if let Some(at) = blocked {
                        task.standing = Standing::Parked(at);
                    }
                }
                Some('Z' | 'X') | None => task.standing = Standing::Gone,
                Some(_) => {}
            }
        }
    }

    fn not_stopping(&self, tid: i32) -> StopError {
        let owner = self
            .tasks
            .get(&tid)
            .map_or(self.process.pid(), |task| task.owner);
        let state = task_text(owner, tid, "stat")
            .and_then(|stat| state_of_stat(&stat))
            .unwrap_or('?');
        let wchan = task_text(owner, tid, "wchan").unwrap_or_default();
        StopError::NotStopping { tid, state, wchan }
    }
}

fn task_text(owner: i32, tid: i32, file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{owner}/task/{tid}/{file}")).ok()
}

fn tasks_of(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
