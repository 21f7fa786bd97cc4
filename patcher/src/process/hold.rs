//! One borrowed thread of the target, which makes system calls for us while all others run.
//!
//! The thread's registers come back exactly: after the last call the original ones are set while it is still inside the
//! kernel, it is interrupted once more before it executes an instruction, and so it ends in the same kind of stop that it
//! began in; the kernel then restarts what it interrupted by its own rules. If we are killed in between, the stub's frame
//! does the same (see `stub`). A signal that arrives meanwhile is delivered first, and the call is begun anew.

use std::io;
use std::time::{Duration, Instant};

use upatch_trampolines::Avma;

use super::failpoint::{FailPoint, reach};
use super::handle::{Process, ProcessError};
use super::memory::MemoryError;
use super::status::{Status, is_kernel_worker, state_of_stat};
use super::stop::{StopFigures, StoppedProcess};
use super::stub::{self, Entry, STUB, StubPlace};
use super::sys::{self, Regs};
use super::tracee::{self, Stop};
use super::tracer::{StopGuard, Tracer};

/// How long one thread may take to stop before another one is tried.
/// It only has to get a processor: one that can't stop is not tried.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long one step of a borrowed thread may take: it, too, queues for a processor.
const STEP: Duration = Duration::from_millis(1500);
/// How long a thread may stay in a state that we don't touch (an rseq critical section, too little stack).
const SETTLE: Duration = Duration::from_millis(500);
/// After this time the thread runs again for a moment, before the next call.
const LONGEST_HOLD: Duration = Duration::from_millis(300);
/// A call that takes longer than this queues for a processor: it takes ten microseconds by itself.
const CROWDED: Duration = Duration::from_micros(500);
/// 64-bit user code segment; arch/x86/include/asm/segment.h.
const USER_CS: u64 = 0x33;
const TRAP_FLAG: u64 = 0x100;

/// Why no thread could be borrowed.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Every thread was unfit; one reason each (at most eight are kept).
    #[error("no thread of process {pid} can be borrowed: {}", reasons.join("; "))]
    NoThread {
        /// The process.
        pid: i32,
        /// `thread N: why`.
        reasons: Vec<String>,
    },
    /// No executable segment has a free tail of 64 bytes.
    #[error("no executable segment of process {0} has 64 unused bytes in its last page")]
    NoRoomForStub(i32),
    /// The thread ended while we held it.
    #[error("the borrowed thread ended")]
    Gone,
    /// Signals or odd states kept it from making the call.
    #[error("thread {0} did not come to rest")]
    Restless(i32),
    /// The process can't be looked at.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its memory can't be used.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// ptrace failed.
    #[error("can't control thread {tid}")]
    Trace {
        /// The thread.
        tid: i32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a remote system call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It was made, and failed.
    #[error("{call} failed in the target")]
    Failed {
        /// Its name.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A descriptor of ours can't be handed over, for a reason on our side.
    #[error("can't hand a descriptor to the target ({call})")]
    Passing {
        /// The system call of ours.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A descriptor of ours was sent, and the target's kernel side did not install it.
    #[error("the target did not take a descriptor: it has none left, or a security module refused")]
    NotTaken,
    /// It wasn't made.
    #[error(transparent)]
    Hold(#[from] HoldError),
}

impl RemoteError {
    /// The error number, if the call was made.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Failed { source, .. } => source.raw_os_error(),
            Self::Passing { .. } | Self::NotTaken | Self::Hold(_) => None,
        }
    }
}

/// An argument of a remote system call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    Number(u64),
    /// The address of a copy of these bytes, at most [`stub::SCRATCH_LEN`], in the target. One call has at most one.
    Bytes(&'a [u8]),
    /// The same, with the copy's own address plus `to` as the eight bytes at `at`.
    Pointing {
        bytes: &'a [u8],
        at: usize,
        to: u64,
    },
}

/// A stopped thread that makes system calls for us.
///
/// Holding a `HeldThread` tells you: it is stopped outside any rseq critical section with room on its stack, no seccomp
/// filter looks at its calls, its descriptors are the process's, and whatever happens to us it goes on as if nothing had been.
pub struct HeldThread<'t> {
    tracer: &'t Tracer<'t>,
    process: &'t Process,
    tid: i32,
    original: Regs,
    stub: StubPlace,
    /// The thread stands in the stub, behind a remote call.
    in_stub: bool,
    /// What lay below the stack pointer where our frame is: on a coroutine's small stack that may be somebody's data.
    below: Option<Vec<u8>>,
    wrote_stub: bool,
    released: bool,
    /// The last call took long: the process keeps its processors busy, and our thread has to queue for them.
    crowded: bool,
    /// Everybody else, stopped because of that.
    others: Option<StoppedProcess<'t>>,
    since: Instant,
    guard: Option<StopGuard<'t>>,
}

impl<'t> HeldThread<'t> {
    /// Borrows one thread of the process.
    ///
    /// # Errors
    /// See [`HoldError`].
    pub fn hold(tracer: &'t Tracer<'t>, process: &'t Process) -> Result<Self, HoldError> {
        let maps = process.maps()?;
        let places = stub::places(process.memory(), &maps);
        // An inherited stub is as good as a free place, and doesn't make a second one.
        let stub = places
            .iter()
            .find(|place| place.inherited)
            .or(places.first())
            .copied();
        let stub = stub.ok_or(HoldError::NoRoomForStub(process.pid()))?;
        let mut tids = process.numbers_in("task")?;
        tids.retain(|&tid| {
            !process
                .read_text(&format!("task/{tid}/stat"))
                .is_ok_and(|stat| is_kernel_worker(&stat))
        });
        // A sleeping one first: it doesn't queue for a processor. The main thread after its peers: programs treat it as
        // special more often than others.
        tids.sort_by_cached_key(|&tid| (!is_asleep(process, tid), tid == process.pid()));
        let mut reasons = Vec::new();
        let guard_deadline = Instant::now() + Duration::from_millis(1500);
        for tid in tids {
            if reasons.len() >= 8 || Instant::now() > guard_deadline {
                break;
            }
            match Self::try_hold(tracer, process, tid, stub)? {
                Ok(held) => return Ok(held),
                Err(reason) => reasons.push(format!("thread {tid}: {reason}")),
            }
        }
        process.check_alive()?;
        Err(HoldError::NoThread {
            pid: process.pid(),
            reasons,
        })
    }

    fn try_hold(
        tracer: &'t Tracer<'t>,
        process: &'t Process,
        tid: i32,
        stub: StubPlace,
    ) -> Result<Result<Self, String>, HoldError> {
        let dir = format!("task/{tid}");
        let Ok(stat) = process.read_text(&format!("{dir}/stat")) else {
            return Ok(Err("ended".to_owned()));
        };
        if let Some(state @ ('D' | 'Z' | 'X')) = state_of_stat(&stat) {
            return Ok(Err(format!("in state {state}")));
        }
        let Ok(status) = process.read_text(&format!("{dir}/status")) else {
            return Ok(Err("ended".to_owned()));
        };
        if Status::parse(&status).seccomp != 0 {
            return Ok(Err("a seccomp filter watches its system calls".to_owned()));
        }
        // What it opened would be another file, or none, to everybody who looks at the process. Without kcmp nobody can tell.
        let shares =
            || tid == process.pid() || sys::share_descriptors(tid, process.pid()).unwrap_or(false);
        let apart = || Ok(Err("it may have a descriptor table of its own".to_owned()));
        if !shares() {
            return apart();
        }
        let guard = tracer.guard_stop();
        match sys::seize(tid, libc::PTRACE_O_TRACESYSGOOD) {
            Ok(()) => {}
            Err(source) if source.raw_os_error() == Some(libc::ESRCH) => {
                return Ok(Err("ended".to_owned()));
            }
            Err(source) => return Ok(Err(format!("can't be seized: {source}"))),
        }
        let mut held = Self {
            tracer,
            process,
            tid,
            original: sys::no_registers(),
            stub,
            in_stub: false,
            below: None,
            wrote_stub: false,
            released: false,
            crowded: false,
            others: None,
            since: Instant::now(),
            guard: Some(guard),
        };
        match held.come_to_rest(None) {
            Ok(()) => {}
            Err(HoldError::Restless(_)) => return Ok(Err("did not come to rest".to_owned())),
            Err(HoldError::Gone) => return Ok(Err("ended".to_owned())),
            Err(error) => return Err(error),
        }
        // Again, now that it stands still.
        if !shares() {
            return apart();
        }
        reach(FailPoint::Held);
        stub.write(process.memory())?;
        held.wrote_stub = !stub.inherited;
        reach(FailPoint::StubWritten);
        Ok(Ok(held))
    }

    /// The thread's id.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &'t Process {
        self.process
    }

    fn trace<T>(&self, result: io::Result<T>) -> Result<T, HoldError> {
        result.map_err(|source| match source.raw_os_error() {
            Some(libc::ESRCH) => HoldError::Gone,
            _ => HoldError::Trace {
                tid: self.tid,
                source,
            },
        })
    }

    fn wait(&self, patience: Duration) -> Result<Stop, HoldError> {
        match self.trace(tracee::stop_by(self.tid, Instant::now() + patience))? {
            Some(Stop::Gone) => Err(HoldError::Gone),
            Some(stop) => Ok(stop),
            None => Err(HoldError::Restless(self.tid)),
        }
    }

    /// Brings the thread to an interrupt stop in which it may be borrowed, and remembers its registers. `pending`: it
    /// stands at the delivery of this signal, with its own registers.
    fn come_to_rest(&mut self, mut pending: Option<i32>) -> Result<(), HoldError> {
        let deadline = Instant::now() + SETTLE;
        let mut stopped = pending.is_some();
        loop {
            // Interrupting while it is stopped makes it stop again right after the signal's frame is built.
            self.trace(sys::interrupt(self.tid))?;
            if stopped {
                self.trace(sys::cont(self.tid, pending.take().unwrap_or(0)))?;
            }
            match self.wait(PATIENCE)? {
                Stop::Signal(signal) => {
                    pending = Some(signal);
                    stopped = true;
                    continue;
                }
                Stop::Interrupt | Stop::Group(_) | Stop::Syscall | Stop::Birth(_) | Stop::Other => {
                }
                Stop::Gone => return Err(HoldError::Gone),
            }
            self.original = self.trace(sys::registers(self.tid))?;
            if tracee::mend_interrupted(&mut self.original) {
                self.trace(sys::set_registers(self.tid, &self.original))?;
            }
            if self.is_fit()? {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(HoldError::Restless(self.tid));
            }
            self.trace(sys::cont(self.tid, 0))?;
            stopped = false;
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn is_fit(&self) -> Result<bool, HoldError> {
        let regs = &self.original;
        if regs.cs != USER_CS || regs.eflags & TRAP_FLAG != 0 {
            return Ok(false);
        }
        if tracee::in_rseq_section(self.tid, self.process.memory(), Avma(regs.rip)) {
            return Ok(false);
        }
        // Its system calls come back to it as signals (Wine does that); ours would too.
        if sys::dispatches_syscalls(self.tid) {
            return Ok(false);
        }
        let below = Avma(regs.rsp.wrapping_sub(stub::STACK_ROOM));
        let maps = self.process.maps()?;
        let stack = maps.find(Avma(regs.rsp.wrapping_sub(1)));
        Ok(stack.is_some_and(|stack| stack.perms.write && stack.range.contains(below)))
    }

    /// Makes one system call in the target. The result is the kernel's: a negative error number is an error here.
    pub(super) fn call(
        &mut self,
        call: &'static str,
        number: i64,
        args: [Arg<'_>; 6],
    ) -> Result<u64, RemoteError> {
        self.call_at(Entry::Call, call, number, args)
    }

    /// As [`Self::call`], for a call that opens a descriptor by which nobody could tell that it is ours: if we are killed
    /// before the next call, the target closes it.
    pub(super) fn call_undone(
        &mut self,
        call: &'static str,
        number: i64,
        args: [Arg<'_>; 6],
    ) -> Result<u64, RemoteError> {
        self.call_at(Entry::Undo, call, number, args)
    }

    /// What the call before wrote into the copy of its [`Arg::Bytes`].
    pub(super) fn written(&self, len: usize) -> Result<Vec<u8>, HoldError> {
        let at = stub::scratch_at(&self.original);
        Ok(self
            .process
            .memory()
            .read_vec(at, len.min(stub::SCRATCH_LEN))?)
    }

    fn call_at(
        &mut self,
        entry: Entry,
        call: &'static str,
        number: i64,
        args: [Arg<'_>; 6],
    ) -> Result<u64, RemoteError> {
        if self.since.elapsed() > LONGEST_HOLD {
            self.let_go()?;
            drop(self.others.take());
            *self = Self::hold(self.tracer, self.process)?;
        }
        self.make_room();
        let began = Instant::now();
        for _ in 0..100 {
            if let Some(result) = self.attempt(entry, number, &args)? {
                self.crowded |= began.elapsed() > CROWDED;
                return match result.cast_signed() {
                    error @ -4095..0 => {
                        let errno = i32::try_from(-error).unwrap_or(libc::EIO);
                        Err(RemoteError::Failed {
                            call,
                            source: io::Error::from_raw_os_error(errno),
                        })
                    }
                    _ => Ok(result),
                };
            }
        }
        Err(HoldError::Restless(self.tid).into())
    }

    /// Where the target itself keeps all processors busy, each step of the borrowed thread waits for its turn, some
    /// milliseconds each. Stopping the others for the rest of the calls is shorter for every thread, also for them.
    fn make_room(&mut self) {
        if self.crowded && self.others.is_none() {
            // Without it it is merely slow.
            self.others =
                StoppedProcess::stop_except(self.tracer, self.process, Some(self.tid)).ok();
            self.crowded = self.others.is_some();
        }
    }

    /// `None`: a signal came first and has been delivered.
    fn attempt(
        &mut self,
        entry: Entry,
        number: i64,
        args: &[Arg<'_>; 6],
    ) -> Result<Option<u64>, HoldError> {
        let memory = self.process.memory();
        if self.below.is_none() {
            self.below = Some(memory.read_vec(stub::below_at(&self.original), stub::BELOW_LEN)?);
        }
        let scratch = stub::scratch_at(&self.original);
        let mut values = [0; 6];
        for (value, arg) in values.iter_mut().zip(args) {
            let mut copy = match arg {
                Arg::Number(number) => {
                    *value = *number;
                    continue;
                }
                Arg::Bytes(bytes) | Arg::Pointing { bytes, .. } => bytes.to_vec(),
            };
            copy.truncate(stub::SCRATCH_LEN);
            if let Arg::Pointing { at, to, .. } = *arg
                && let Some(room) = copy.get_mut(at..at + 8)
            {
                room.copy_from_slice(&scratch.plus(to).0.to_le_bytes());
            }
            memory.write(scratch, &copy)?;
            *value = scratch.0;
        }
        let (frame_at, frame) = stub::frame(&self.original);
        memory.write(frame_at, &frame)?;
        reach(FailPoint::FrameWritten);
        let [rdi, rsi, rdx, r10, r8, r9] = values;
        let mut regs = Regs {
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..self.original
        };
        regs.rax = number.cast_unsigned();
        regs.rip = self.stub.entry(entry).0;
        regs.rsp = frame_at.0;
        // Without this the kernel would "restart" the interrupted system call at our address.
        regs.orig_rax = u64::MAX;
        self.in_stub = true;
        self.trace(sys::set_registers(self.tid, &regs))?;
        reach(FailPoint::RegistersSet);
        // Until the call is entered, anything else that stops the thread comes first.
        loop {
            self.trace(sys::cont_to_syscall(self.tid))?;
            match self.wait(STEP)? {
                Stop::Syscall => break,
                Stop::Signal(signal) => {
                    self.back_to_own_code()?;
                    self.come_to_rest(Some(signal))?;
                    return Ok(None);
                }
                Stop::Interrupt | Stop::Group(_) | Stop::Birth(_) | Stop::Other => {}
                Stop::Gone => return Err(HoldError::Gone),
            }
        }
        reach(FailPoint::SyscallEntry);
        self.trace(sys::cont_to_syscall(self.tid))?;
        // Inside the call nothing is delivered: the next stop is its exit.
        while self.wait(STEP)? != Stop::Syscall {
            self.trace(sys::cont_to_syscall(self.tid))?;
        }
        let after = self.trace(sys::registers(self.tid))?;
        reach(FailPoint::SyscallExit);
        Ok(Some(after.rax))
    }

    /// Gives the thread back; tells if everybody else had to be stopped for it.
    ///
    /// # Errors
    /// The thread ended, or ptrace failed (then the end of the session lets go of it).
    pub fn release(mut self) -> Result<Option<StopFigures>, HoldError> {
        self.let_go()?;
        Ok(self.others.take().map(StoppedProcess::resume))
    }

    /// The thread's own bytes below its stack, then its own registers.
    fn back_to_own_code(&mut self) -> Result<(), HoldError> {
        if let Some(below) = self.below.take() {
            self.process
                .memory()
                .write(stub::below_at(&self.original), &below)?;
        }
        self.trace(sys::set_registers(self.tid, &self.original))?;
        self.in_stub = false;
        Ok(())
    }

    fn let_go(&mut self) -> Result<(), HoldError> {
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        if self.in_stub {
            self.back_to_own_code()?;
            reach(FailPoint::RegistersBack);
            self.trace(sys::interrupt(self.tid))?;
            self.trace(sys::cont(self.tid, 0))?;
            let stop = self.wait(STEP)?;
            let signal = if let Stop::Signal(signal) = stop {
                signal
            } else {
                0
            };
            self.finish(signal)
        } else {
            self.finish(0)
        }
    }

    fn finish(&mut self, signal: i32) -> Result<(), HoldError> {
        if self.wrote_stub {
            self.stub.erase(self.process.memory())?;
        }
        self.trace(sys::detach(self.tid, signal))?;
        self.guard = None;
        Ok(())
    }
}

impl Drop for HeldThread<'_> {
    fn drop(&mut self) {
        // The thread's death needs nothing; for all else there is the end of the session.
        let _ = self.let_go();
    }
}

fn is_asleep(process: &Process, tid: i32) -> bool {
    let stat = process.read_text(&format!("task/{tid}/stat"));
    stat.is_ok_and(|stat| state_of_stat(&stat) == Some('S'))
}

const _: () = assert!(STUB.len() <= 64);
