//! A thread that traces, and the watchdog over it.
//!
//! ptrace ties a traced thread to the thread that traces it, and the kernel lets go of everything when that thread
//! ends: whatever it was doing, also of threads that can't be detached because they sleep in the kernel. So each session
//! gets a thread of its own, and *its end is the last of our ways to resume a process*. The thread that started the
//! session waits for it and is the watchdog: a stop that outlives its deadline ends this whole program, which resumes
//! the process too.

use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::sys;

/// How long a process may stay stopped, whatever happens.
pub const LONGEST_STOP: Duration = Duration::from_secs(2);
/// Exit status of a program that its watchdog ended (1 in the contract: internal error).
const WATCHDOG_EXIT: i32 = 1;

#[derive(Default)]
struct Watch {
    state: Mutex<WatchState>,
    changed: Condvar,
}

#[derive(Default)]
struct WatchState {
    deadline: Option<Instant>,
    ended: bool,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, WatchState> {
        // A panic in the traced section must not keep the watchdog from its work.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut WatchState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn guard_until_end(&self) {
        let mut state = self.lock();
        while !state.ended {
            state = match state.deadline {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        sys::exit_now(WATCHDOG_EXIT);
                    }
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

/// The right to trace, held by the session's own thread only.
///
/// Holding a `&Tracer` tells you: this thread traces nothing that somebody else relies on, and when it ends, the kernel
/// resumes every thread that it still holds.
pub struct Tracer<'w> {
    watch: &'w Watch,
    // ptrace requests must come from the thread that seized.
    not_send: PhantomData<*const ()>,
}

impl Tracer<'_> {
    /// Runs `work` on a thread that may trace, and waits for it. A panic of `work` is passed on, after everything was
    /// let go.
    pub fn session<R: Send>(work: impl FnOnce(&Tracer<'_>) -> R + Send) -> R {
        let watch = Watch::default();
        std::thread::scope(|scope| {
            let session = scope.spawn(|| {
                let _end = EndOnDrop(&watch);
                work(&Tracer {
                    watch: &watch,
                    not_send: PhantomData,
                })
            });
            watch.guard_until_end();
            match session.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Makes this thread fast and unblockable for the time of a stop: real-time and with its memory locked, as far as
    /// we may. Best effort; nothing is wrong without.
    pub(super) fn hurry(&self) -> Hurry {
        // Lock first: it is slow, and not worth real-time priority.
        let locked = sys::lock_memory().is_ok();
        Hurry {
            locked,
            realtime: sys::become_realtime().is_ok(),
        }
    }

    /// Something of the target is stopped from now on: the watchdog counts.
    pub(super) fn guard_stop(&self) -> StopGuard<'_> {
        let mut before = None;
        self.watch.set(|state| {
            before = state.deadline;
            // A stop within a stop doesn't get more time.
            state.deadline = Some(before.unwrap_or_else(|| Instant::now() + LONGEST_STOP));
        });
        StopGuard {
            watch: self.watch,
            before,
        }
    }
}

struct EndOnDrop<'w>(&'w Watch);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.set(|state| state.ended = true);
    }
}

/// While it lives, this thread is in a hurry; see [`Tracer::hurry`].
pub(super) struct Hurry {
    locked: bool,
    realtime: bool,
}

impl Drop for Hurry {
    fn drop(&mut self) {
        // Giving up a privilege needs none; were it to fail all the same: this thread ends soon, and locked memory is
        // merely not swapped.
        if self.realtime {
            let _ = sys::become_ordinary();
        }
        if self.locked {
            let _ = sys::unlock_memory();
        }
    }
}

/// While it lives, the watchdog counts; see [`Tracer::guard_stop`].
pub(super) struct StopGuard<'w> {
    watch: &'w Watch,
    before: Option<Instant>,
}

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        self.watch.set(|state| state.deadline = self.before);
    }
}
