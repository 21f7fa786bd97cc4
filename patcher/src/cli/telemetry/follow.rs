//! `upatch telemetry follow`: every event once, as it comes.
//!
//! It only reads: the process is never stopped, and other commands can work on it meanwhile. Events appear within the
//! interval; those that the ring lost before they were read are counted, and said where they are missing.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::super::args::FollowArgs;
use super::super::terminal::harmless;
use super::super::{Exit, Failure, Report, target};
use crate::apply::info::PatchInfo;
use crate::object::{Budget, EventRing};
use crate::patching::{Found, FoundState, inspect};
use crate::process::Process;
use crate::telemetry::{ArenaView, Clock, Cursor, RawEvent, info, to_json, to_line};

/// Shortest pause between two looks.
const SHORTEST: Duration = Duration::from_millis(1);
/// Shortest time between two inspections of what is in the process: they cost more than a look at a ring.
const INSPECTION: Duration = Duration::from_millis(100);
/// What showing one event may cost, roughly the bytes of its text.
const EVENT_SHOWN: usize = 64 << 10;

/// Why it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Exited,
    Reverted,
    Interrupted,
    Count,
    Seconds,
    /// Whoever read our output has gone away.
    Unread,
}

impl End {
    const fn word(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Reverted => "reverted",
            Self::Interrupted => "interrupted",
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::Unread => "unread",
        }
    }

    fn said(self, pid: i32) -> String {
        match self {
            Self::Exited => format!("process {pid} has ended"),
            Self::Reverted => format!("process {pid} has no such patch any more"),
            Self::Interrupted | Self::Count | Self::Seconds | Self::Unread => "ended".to_owned(),
        }
    }
}

/// One patch that is followed.
struct Stream<'p> {
    id: String,
    info: PatchInfo,
    ring: EventRing,
    arena: ArenaView<'p>,
    cursor: Cursor,
    /// Losses that have been told.
    told: u64,
}

impl<'p> Stream<'p> {
    fn new(process: &'p Process, found: &Found) -> Option<Self> {
        let info = info(found)?;
        Some(Self {
            id: found.id.clone(),
            ring: info.events.clone()?,
            info,
            arena: ArenaView::lasting(process, found)?,
            cursor: Cursor::new(),
            told: 0,
        })
    }

    fn is(&self, found: &Found) -> bool {
        found.id == self.id && found.arena() == Some(self.arena.range())
    }
}

pub(super) fn run(args: &FollowArgs, as_json: bool) -> Result<Report, Failure> {
    let process = target::open(args.pid)?;
    let interrupted = signals().map_err(|error| {
        Failure::new(Exit::Internal, format!("can't wait for signals: {error}"))
    })?;
    let mut follower = Follower {
        args,
        process: &process,
        streams: Vec::new(),
        out: Output {
            as_json,
            printed: 0,
            limit: args.count,
        },
        dropped: 0,
        before: 0,
    };
    let found = follower.inspect()?;
    follower.take_up(&found);
    if follower.streams.is_empty() {
        return Err(nothing_to_follow(args, &found));
    }
    let end = follower.follow(found, &interrupted).map_err(|error| {
        Failure::new(
            Exit::Internal,
            format!("can't write to standard output: {error}"),
        )
    })?;
    let (events, dropped) = (follower.out.printed, follower.dropped);
    Ok(Report {
        text: format!("{}: {events} events, {dropped} lost\n", end.said(args.pid)),
        json: json!({
            "ok": true, "pid": args.pid, "ended": end.word(),
            "events": events, "events_dropped": dropped, "events_before": follower.before,
        }),
    })
}

/// A descriptor that becomes readable when somebody wants us to end.
fn signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    pipe::register(SIGINT, writer.try_clone()?)?;
    pipe::register(SIGTERM, writer)?;
    Ok(reader)
}

fn nothing_to_follow(args: &FollowArgs, found: &[Found]) -> Failure {
    let pid = args.pid;
    let failure = match &args.patch {
        Some(id) if !found.iter().any(|found| found.id == *id) => {
            Failure::new(Exit::Target, format!("the process has no live patch {id}"))
                .hint(format!("see `upatch status --pid {pid}`"))
        }
        Some(id) => Failure::new(Exit::Target, format!("patch {id} records no events"))
            .hint("a patch records events by upatch_event()"),
        None => Failure::new(Exit::Target, "the process has no patch that records events").hint(
            format!("a patch records events by upatch_event(); see `upatch status --pid {pid}`"),
        ),
    };
    failure.at(target::place(pid))
}

struct Follower<'p> {
    args: &'p FollowArgs,
    process: &'p Process,
    streams: Vec<Stream<'p>>,
    out: Output,
    dropped: u64,
    before: u64,
}

impl Follower<'_> {
    /// The live patches.
    fn inspect(&self) -> Result<Vec<Found>, Failure> {
        let inventory = inspect(self.process)
            .map_err(|error| Failure::from(error).at(target::place(self.args.pid)))?;
        let mut found = inventory.found;
        found.retain(|found| found.state == FoundState::Applied);
        Ok(found)
    }

    /// Begins to follow those that aren't followed yet.
    fn take_up(&mut self, found: &[Found]) {
        for found in found {
            let wanted = self.args.patch.as_ref().is_none_or(|id| found.id == *id);
            if wanted && !self.streams.iter().any(|stream| stream.is(found)) {
                self.streams.extend(Stream::new(self.process, found));
            }
        }
    }

    fn follow(&mut self, mut found: Vec<Found>, interrupted: &UnixStream) -> io::Result<End> {
        let deadline = self
            .args
            .seconds
            .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        let interval = Duration::from_millis(self.args.interval);
        let mut pause = interval;
        let mut inspected = Instant::now();
        loop {
            let ended = self.pause(pause, deadline, interrupted);
            // What is live is found out before the look, so that the look at a patch that is gone comes after its last event.
            match ended {
                Some(End::Exited) => found.clear(),
                _ if inspected.elapsed() < INSPECTION => {}
                _ => {
                    found = self.inspect().unwrap_or_default();
                    inspected = Instant::now();
                }
            }
            let fullest = match self.look(&found) {
                Ok(fullest) => fullest,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::Unread),
                Err(error) => return Err(error),
            };
            // A ring that fills up quickly is looked at more often, a quiet one less.
            pause = if fullest > 0.25 {
                (pause / 2).max(SHORTEST)
            } else {
                (pause * 2).min(interval)
            };
            let full = self.out.is_full().then_some(End::Count);
            let gone = self.streams.is_empty().then(|| {
                match self.pause(Duration::ZERO, None, interrupted) {
                    Some(End::Exited) => End::Exited,
                    _ => End::Reverted,
                }
            });
            if let Some(end) = full.or(ended).or(gone) {
                for mut stream in std::mem::take(&mut self.streams) {
                    stream.cursor.finish();
                    self.settle(&stream);
                }
                return Ok(end);
            }
        }
    }

    /// Waits; says why it is to end, if it is.
    fn pause(
        &self,
        pause: Duration,
        deadline: Option<Instant>,
        interrupted: &UnixStream,
    ) -> Option<End> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let pause = left.map_or(pause, |left| left.min(pause));
        let mut descriptors = [
            PollFd::new(self.process.pidfd(), PollFlags::POLLIN),
            PollFd::new(interrupted.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        // EINTR: the signal is in the pipe.
        let _ = poll(&mut descriptors, timeout);
        let came = |at: usize| descriptors[at].any().unwrap_or(false);
        if came(1) {
            Some(End::Interrupted)
        } else if came(0) {
            Some(End::Exited)
        } else {
            deadline
                .filter(|deadline| Instant::now() >= *deadline)
                .map(|_| End::Seconds)
        }
    }

    /// Prints what is new; gives how much of the fullest ring that was, 0 to 1.
    fn look(&mut self, found: &[Found]) -> io::Result<f64> {
        self.take_up(found);
        let mut fullest: f64 = 0.0;
        let several = self.streams.len() > 1;
        let clock = Clock::now();
        for mut stream in std::mem::take(&mut self.streams) {
            let (info, id, out) = (&stream.info, &stream.id, &mut self.out);
            let mut written = Ok(());
            let mut new = 0_u64;
            stream
                .cursor
                .look(&stream.ring, &stream.arena, u64::MAX, &mut |event| {
                    new += 1;
                    if written.is_ok() {
                        written = out.event(id, several, info, &event, clock);
                    }
                });
            let lost = stream.cursor.lost - stream.told;
            stream.told = stream.cursor.lost;
            written?;
            if lost > 0 {
                self.out.lost(&stream.id, lost)?;
            }
            fullest = fullest.max((new + lost) as f64 / stream.ring.slots as f64);
            if found.iter().any(|found| stream.is(found)) {
                self.streams.push(stream);
            } else {
                stream.cursor.finish();
                self.settle(&stream);
            }
        }
        io::stdout().flush()?;
        Ok(fullest)
    }

    fn settle(&mut self, stream: &Stream<'_>) {
        self.dropped += stream.cursor.lost;
        self.before += stream.cursor.before;
    }
}

struct Output {
    as_json: bool,
    printed: u64,
    limit: Option<u64>,
}

impl Output {
    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.printed >= limit)
    }

    fn event(
        &mut self,
        id: &str,
        several: bool,
        info: &PatchInfo,
        event: &RawEvent,
        clock: Clock,
    ) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        let mut json = to_json(info, event, clock, &mut Budget(EVENT_SHOWN));
        self.printed += 1;
        let mut out = io::stdout().lock();
        if self.as_json {
            json.insert("patch".to_owned(), id.into());
            writeln!(out, "{}", harmless(&Value::Object(json).to_string()))
        } else if several {
            writeln!(out, "{id}  {}", harmless(&to_line(&json)))
        } else {
            writeln!(out, "{}", harmless(&to_line(&json)))
        }
    }

    fn lost(&self, id: &str, lost: u64) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.as_json {
            writeln!(out, "{}", json!({"patch": id, "events_dropped": lost}))
        } else {
            writeln!(out, "-- {lost} events lost --")
        }
    }
}
