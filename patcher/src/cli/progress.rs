//! A word on standard error about a command that takes longer than a second, if somebody looks.
//!
//! It is a thread of its own: the one that works may have a process stopped, which must never wait for a terminal (the
//! terminal may be that process). For the same reason the end of the work waits for this thread only a moment.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::terminal;

/// Before this nothing is said.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the seconds are counted up.
const BEAT: Duration = Duration::from_millis(500);
/// How long the end waits for the line to be wiped.
const FAREWELL: Duration = Duration::from_millis(100);
/// The thread's stack: it prints a line. Small, because `apply` locks all of our pages in memory.
const STACK: usize = 64 << 10;

/// Work in progress; over when this is dropped.
pub(super) struct Progress {
    running: Option<(Sender<()>, mpsc::Receiver<()>)>,
}

impl Progress {
    /// Says `what` ("compiling patch.c") once it has taken a second.
    pub(super) fn start(what: String) -> Self {
        Self {
            running: terminal::is_watched().then(|| watch(what)).flatten(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, wiped)) = self.running.take() {
            drop(end);
            // Either it says so by going away, or it hangs on a terminal that takes no output: not our affair.
            let _ = wiped.recv_timeout(FAREWELL);
        }
    }
}

fn watch(what: String) -> Option<(Sender<()>, mpsc::Receiver<()>)> {
    let (end, ended) = mpsc::channel::<()>();
    let (wiping, wiped) = mpsc::channel::<()>();
    std::thread::Builder::new()
        .name("progress".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let start = Instant::now();
            let mut pause = PATIENCE;
            let mut said = false;
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let mut err = std::io::stderr();
                // Cursor to the first column, erase the line (ECMA-48 EL).
                let _ = write!(err, "\r\x1b[K{what} … {} s", start.elapsed().as_secs());
                let _ = err.flush();
                said = true;
                pause = BEAT;
            }
            if said {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
            drop(wiping);
        })
        .ok()?;
    Some((end, wiped))
}
