//! Stopping every task that runs in an address space, and resuming all of them on every path.
//!
//! First all tasks are seized, which stops nobody, with births traced; then all are interrupted, and the list is read
//! again until it holds no new task. A task that sleeps in the kernel where it can't be stopped (a vfork parent) counts
//! as *parked*: it has been interrupted, so that it stops before its next instruction of user code, and `/proc` tells
//! where that is. What may block is done before the first interrupt.
//!
//! Invariant: a [`StoppedProcess`] resumes when it is dropped, and if that fails, when its session ends.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use upatch_trampolines::Avma;

use super::failpoint::{FailPoint, reach};
use super::handle::{Process, ProcessError};
use super::maps::Maps;
use super::memory::Memory;
use super::sharers;
use super::stack;
use super::status::{BlockedAt, Status, state_of_stat};
use super::sys::{self, Regs};
use super::tracee::{self, Nap, Stop, TRACE_BIRTHS};
use super::tracer::{Hurry, StopGuard, Tracer};

/// How long all tasks together may take to stop.
const PATIENCE: Duration = Duration::from_millis(1000);
/// After this time a task that hasn't stopped is looked at: perhaps it is parked.
const LOOK_AFTER: Duration = Duration::from_micros(300);

/// Why a process could not be stopped; it runs.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// One task didn't stop in time.
    #[error("thread {tid} did not stop (state {state}, waiting in {wchan})")]
    NotStopping {
        /// The task.
        tid: i32,
        /// Its state letter.
        state: char,
        /// Where in the kernel it waits, `0` if unknown.
        wchan: String,
    },
    /// Somebody else traces one of its tasks.
    #[error("thread {tid} is traced by {tracer}")]
    AlreadyTraced {
        /// The task.
        tid: i32,
        /// Who traces it.
        tracer: i32,
    },
    /// The process is gone, or unreadable.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// ptrace failed.
    #[error("can't stop thread {tid}")]
    Trace {
        /// The task.
        tid: i32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How a task stands still.
#[derive(Clone, Copy)]
enum Standing {
    /// Not yet.
    Pending,
    /// In a ptrace-stop, with these registers.
    Stopped(Regs),
    /// In the kernel, and will stop before it returns from there.
    Parked(BlockedAt),
    /// Ended.
    Gone,
}

struct Task {
    /// The process that it belongs to: the target, or one that shares its memory.
    owner: i32,
    standing: Standing,
}

/// What a stop was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StopFigures {
    /// Tasks that stood still, parked ones included.
    pub tasks: usize,
    /// Of these, tasks of other processes in the same address space.
    pub foreign: usize,
    /// Of these, tasks that slept in the kernel.
    pub parked: usize,
    /// Tasks that were born while the stop was under way.
    pub born: usize,
    /// From the first interrupt to the last resume.
    pub duration: Duration,
}

/// A process whose tasks all stand still.
///
/// Holding a `StoppedProcess` tells you: no task executes an instruction of the address space, and none will before this
/// value is resumed or dropped.
///
/// ```compile_fail,E0382
/// fn twice(stopped: upatch::process::StoppedProcess<'_>) {
///     stopped.resume();
///     stopped.resume();
/// }
/// ```
#[must_use]
pub struct StoppedProcess<'t> {
    process: &'t Process,
    tasks: BTreeMap<i32, Task>,
    maps: Maps,
    /// A task that the session holds in another way.
    except: Option<i32>,
    born: usize,
    /// Forked children that were born traced; they have nothing to do with us.
    strangers: Vec<i32>,
    began: Instant,
    ended: Option<Duration>,
    // Dropped in this order, after `drop` has resumed everybody.
    _guard: Option<StopGuard<'t>>,
    _hurry: Hurry,
}

/// One task of a stopped process, to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskView {
    /// Its id.
    pub tid: i32,
    /// The next instruction of user code.
    pub ip: Avma,
    /// The stack pointer.
    pub sp: Avma,
    /// It sleeps in the kernel: its registers can't be changed.
    pub parked: bool,
    /// The kernel will set ip back by two, to repeat a system call.
    pub restarts: bool,
}

impl<'t> StoppedProcess<'t> {
    /// Stops every task that runs in the process's address space.
    ///
    /// # Errors
    /// See [`StopError`]; the process runs then.
    pub fn stop(tracer: &'t Tracer<'_>, process: &'t Process) -> Result<Self, StopError> {
        Self::stop_except(tracer, process, None)
    }

    /// As [`Self::stop`], but for one task, which the session has stopped already.
    pub(super) fn stop_except(
        tracer: &'t Tracer<'_>,
        process: &'t Process,
        except: Option<i32>,
    ) -> Result<Self, StopError> {
        let hurry = tracer.hurry();
        let mut stopped = Self {
            process,
            tasks: BTreeMap::new(),
            maps: process.maps()?,
            except,
            born: 0,
            strangers: Vec::new(),
            began: Instant::now(),
            ended: None,
            _guard: None,
            _hurry: hurry,
        };
        stopped.seize_all()?;
        reach(FailPoint::Seized);
        stopped._guard = Some(tracer.guard_stop());
        stopped.began = Instant::now();
        stopped.interrupt_all()?;
        reach(FailPoint::Stopped);
        Ok(stopped)
    }

    /// Seizes without stopping, until neither the task lists nor the search for sharers show anybody new.
    fn seize_all(&mut self) -> Result<(), StopError> {
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
                if new_task && self.seize(owner, tid, interrupt)? {
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

    fn interrupt_all(&mut self) -> Result<(), StopError> {
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

    /// The process.
    #[must_use]
    pub fn process(&self) -> &'t Process {
        self.process
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &'t Memory {
        self.process.memory()
    }

    /// Every task, in the order of their ids.
    pub fn tasks(&self) -> impl Iterator<Item = TaskView> {
        self.tasks
            .iter()
            .filter_map(|(&tid, task)| match task.standing {
                Standing::Stopped(regs) => Some(TaskView {
                    tid,
                    ip: Avma(regs.rip),
                    sp: Avma(regs.rsp),
                    parked: false,
                    restarts: tracee::will_restart(&regs),
                }),
                Standing::Parked(at) => Some(TaskView {
                    tid,
                    ip: at.ip,
                    sp: at.sp,
                    parked: true,
                    restarts: at.number >= 0,
                }),
                Standing::Pending | Standing::Gone => None,
            })
    }

    /// Does the task stand in its rseq critical section?
    #[must_use]
    pub fn in_rseq_section(&self, task: &TaskView) -> bool {
        !task.parked && tracee::in_rseq_section(task.tid, self.memory(), task.ip)
    }

    /// Hands every word of the task's stack to `see`, conservatively. False if not all of it could be read.
    pub fn scan_stack(&mut self, task: &TaskView, see: impl FnMut(u64)) -> bool {
        if self.maps.find(task.sp).is_none() {
            // A thread that is younger than the map.
            self.maps = self.process.maps().unwrap_or_default();
        }
        stack::scan(self.process.memory(), &self.maps, task.sp, see)
    }

    /// Lets the task go on at `to` instead of where it stands.
    pub(crate) fn move_ip(&mut self, tid: i32, to: Avma) -> Result<(), StopError> {
        let Some(Task {
            standing: Standing::Stopped(regs),
            ..
        }) = self.tasks.get_mut(&tid)
        else {
            return Err(StopError::Trace {
                tid,
                source: io::Error::from_raw_os_error(libc::ESRCH),
            });
        };
        let moved = Regs { rip: to.0, ..*regs };
        sys::set_registers(tid, &moved).map_err(|source| StopError::Trace { tid, source })?;
        *regs = moved;
        Ok(())
    }

    /// Lets everybody run again.
    pub fn resume(mut self) -> StopFigures {
        self.let_go();
        let tasks = self.tasks.values();
        StopFigures {
            tasks: self.tasks.len(),
            foreign: tasks
                .clone()
                .filter(|task| task.owner != self.process.pid())
                .count(),
            parked: tasks
                .filter(|task| matches!(task.standing, Standing::Parked(_)))
                .count(),
            born: self.born,
            duration: self.ended.unwrap_or_default(),
        }
    }

    fn let_go(&mut self) {
        if self.ended.is_some() {
            return;
        }
        for (&tid, task) in &self.tasks {
            // Fails for a task that was killed, or is parked, or that an error left running: the session's end does it.
            match task.standing {
                Standing::Stopped(_) => drop(sys::detach(tid, 0)),
                Standing::Pending | Standing::Parked(_) | Standing::Gone => {
                    if let Ok(Some(stop)) = tracee::stop_now(tid) {
                        let signal = if let Stop::Signal(signal) = stop {
                            signal
                        } else {
                            0
                        };
                        let _ = sys::detach(tid, signal);
                    }
                }
            }
        }
        for &tid in &self.strangers {
            if let Ok(Some(_)) = tracee::stop_now(tid) {
                let _ = sys::detach(tid, 0);
            }
        }
        self.ended = Some(self.began.elapsed());
    }
}

impl Drop for StoppedProcess<'_> {
    fn drop(&mut self) {
        self.let_go();
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
