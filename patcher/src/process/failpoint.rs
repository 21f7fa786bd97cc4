//! Places at which a test can kill this process with SIGKILL, to show that the target doesn't mind.
//!
//! `UPATCH_FAILPOINT=name` (or `name:n` for the n-th time, counted from 1) in the environment arms one. Always compiled
//! in: one relaxed load where none is armed, and the code that is tested is the code that ships.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sys;

macro_rules! failpoints {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A place between two steps that touch the target.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FailPoint { $($(#[$doc])* $variant,)* }

        impl FailPoint {
            /// Every failpoint, in the order in which an apply and then a revert pass them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name for `UPATCH_FAILPOINT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

failpoints! {
    /// One thread is seized and stopped, nothing is changed.
    Held = "held",
    /// The stub lies in the tail of a text page.
    StubWritten = "stub-written",
    /// The self-restoring frame lies below the stack.
    FrameWritten = "frame-written",
    /// The thread's registers point at the stub.
    RegistersSet = "registers-set",
    /// The thread stands at the entry of a remote system call.
    SyscallEntry = "syscall-entry",
    /// The thread stands at the exit of a remote system call.
    SyscallExit = "syscall-exit",
    /// Original registers are back, the thread is still ours.
    RegistersBack = "registers-back",
    /// The socket through which a descriptor will come is open in the target, without a name.
    SocketOpen = "socket-open",
    /// The same, with its name; nothing is sent.
    SocketNamed = "socket-named",
    /// A descriptor of ours is open in the target, and so is the socket.
    Received = "received",
    /// The arena is mapped, its descriptor is still open.
    ArenaMapped = "arena-mapped",
    /// The memory file exists in the target and nothing is mapped.
    FileCreated = "file-created",
    /// The image's pages are mapped and empty, the file is still open.
    Mapped = "mapped",
    /// A kernel program's link is open in the target.
    LinkPassed = "link-passed",
    /// Code is written, the record isn't.
    CodeWritten = "code-written",
    /// Code and record are written, nobody jumps there.
    Prepared = "prepared",
    /// All threads are seized, none is interrupted.
    Seized = "seized",
    /// All threads are stopped.
    Stopped = "stopped",
    /// Threads that stood in the displaced bytes have been moved.
    IpsMoved = "ips-moved",
    /// The gate of several sites is closed, all still jump, all threads are stopped.
    GateClosed = "gate-closed",
    /// One site's jump is written (or its original bytes are back), all threads are stopped.
    Poked = "poked",
    /// All sites of several jump and the gate is open, all threads are stopped.
    GateOpened = "gate-opened",
    /// As above, all threads run.
    Resumed = "resumed",
    /// Part of a reverted patch is unmapped.
    PartlyUnmapped = "partly-unmapped",
    /// The image of a reverted patch is unmapped, its arena isn't.
    ImageUnmapped = "image-unmapped",
}

struct Armed {
    point: FailPoint,
    left: AtomicU32,
}

/// Dies here if the environment says so.
pub fn reach(point: FailPoint) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| parse(&std::env::var("UPATCH_FAILPOINT").ok()?));
    if let Some(armed) = armed
        && armed.point == point
        && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        sys::kill_self();
    }
}

/// A write in a text poke that a test makes fail: `UPATCH_FAULT=name` or `name:n`, several with commas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The n-th site's bytes.
    Poke,
    /// The gate.
    Gate,
    /// The n-th site's bytes when what was poked is taken back.
    TakeBack,
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::Poke => "poke",
            Self::Gate => "gate",
            Self::TakeBack => "take-back",
        }
    }
}

/// Does the environment ask for this write to fail?
pub fn fails(fault: Fault) -> bool {
    static ARMED: OnceLock<Vec<(String, AtomicU32)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("UPATCH_FAULT").unwrap_or_default();
        let one = |part: &str| {
            let (name, count) = part.split_once(':').unwrap_or((part, "1"));
            Some((name.to_owned(), AtomicU32::new(count.parse().ok()?)))
        };
        text.split(',').filter_map(one).collect()
    });
    armed
        .iter()
        .any(|(name, left)| name == fault.name() && left.fetch_sub(1, Ordering::Relaxed) == 1)
}

fn parse(text: &str) -> Option<Armed> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let point = FailPoint::ALL
        .iter()
        .copied()
        .find(|point| point.name() == name)?;
    Some(Armed {
        point,
        left: AtomicU32::new(count.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse() {
        for point in FailPoint::ALL {
            assert_eq!(parse(point.name()).unwrap().point, *point);
        }
        assert_eq!(parse("held:3").unwrap().left.into_inner(), 3);
        assert!(parse("nowhere").is_none() && parse("held:x").is_none());
    }
}
