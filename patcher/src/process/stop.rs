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
use super::stack;
use super::status::BlockedAt;
use super::sys::{self, Regs};
use super::tracee::{self, Stop};
use super::tracer::{Hurry, StopGuard, Tracer};

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
pub(super) enum Standing {
    /// Not yet.
    Pending,
    /// In a ptrace-stop, with these registers.
    Stopped(Regs),
    /// In the kernel, and will stop before it returns from there.
    Parked(BlockedAt),
    /// Ended.
    Gone,
}

pub(super) struct Task {
    /// The process that it belongs to: the target, or one that shares its memory.
    pub(super) owner: i32,
    pub(super) standing: Standing,
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
    pub(super) process: &'t Process,
    pub(super) tasks: BTreeMap<i32, Task>,
    maps: Maps,
    /// A task that the session holds in another way.
    pub(super) except: Option<i32>,
    pub(super) born: usize,
    /// Forked children that were born traced; they have nothing to do with us.
    pub(super) strangers: Vec<i32>,
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
    /// The base of `fs`, its thread pointer; unknown while it sleeps in the kernel.
    pub thread_pointer: Option<u64>,
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
                    thread_pointer: Some(regs.fs_base),
                    restarts: tracee::will_restart(&regs),
                }),
                Standing::Parked(at) => Some(TaskView {
                    tid,
                    ip: at.ip,
                    sp: at.sp,
                    parked: true,
                    thread_pointer: None,
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
