//! A process that a test started, ended by its id on every path out of the test.
//!
//! Decides: the child dies with its guard, and with the thread that started it. Doesn't know what the child is.
//! Invariant: nothing here waits without a limit, and no process is ever signalled by name.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a driver may take for one answer. Far above what any of them needs, also on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A child process, ended and reaped when dropped: killed, unless it was given another way to end.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    end: i32,
}

impl Child {
    /// Starts `command`. The child is killed should the calling thread end without dropping the guard.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        Self::spawn_ended_by(command, libc::SIGKILL)
    }

    /// Starts `command`, which is ended by the signal `end`, and killed only if it hasn't obeyed after [`PATIENCE`]: for
    /// programs that clean up behind themselves.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn spawn_ended_by(command: &mut Command, end: i32) -> Result<Self> {
        // SAFETY: prctl(2) is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, end) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let inner = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
        Ok(Self { inner, end })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// Sends it the signal `number`.
    ///
    /// # Errors
    /// kill(2) fails. A process that has ended already and was waited for is no error.
    pub fn signal(&mut self, number: i32) -> Result<()> {
        if self.inner.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        Ok(kill(pid, Signal::try_from(number)?)?)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.inner.try_wait(), Ok(None))
    }

    /// Waits at most `limit` for the process to end.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("process {} still runs after {limit:?}", self.pid());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Best effort: it may have ended by itself, and there is nobody to tell.
        if self.end != libc::SIGKILL && self.signal(self.end).is_ok() {
            let _ = self.wait(PATIENCE);
        }
        let _ = self.inner.kill();
        let _ = self.inner.wait();
    }
}

/// What a finished command said.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `command` to its end and collects what it printed.
///
/// # Errors
/// It can't be started, or still runs after `limit` (and is then killed).
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let mut child = Child::spawn(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    let stdout = collect(
        child
            .inner
            .stdout
            .take()
            .context("no pipe for standard output")?,
    );
    let stderr = collect(
        child
            .inner
            .stderr
            .take()
            .context("no pipe for standard error")?,
    );
    let status = child.wait(limit).with_context(|| format!("{command:?}"))?;
    // A grandchild may hold the pipes open, so reading is bounded too.
    let text = |from: Receiver<String>| {
        from.recv_timeout(PATIENCE)
            .context("standard output stays open")
    };
    Ok(Finished {
        code: status.code().unwrap_or(-1),
        stdout: text(stdout)?,
        stderr: text(stderr)?,
    })
}

fn collect(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// A driver's answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The line it printed.
    Line(String),
    /// It died of this signal instead.
    Signal(i32),
    /// It exited with this code instead.
    Exit(i32),
}

impl Answer {
    /// Shorthand for a printed line.
    pub fn line(text: &str) -> Self {
        Self::Line(text.to_owned())
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(text) => f.write_str(text),
            Self::Signal(libc::SIGSEGV) => f.write_str("killed by SIGSEGV"),
            Self::Signal(libc::SIGABRT) => f.write_str("killed by SIGABRT"),
            Self::Signal(number) => write!(f, "killed by signal {number}"),
            Self::Exit(code) => write!(f, "exited with {code}"),
        }
    }
}

/// A driver: a child that answers each line on its standard input with one line.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Driver {
    /// Starts a driver and waits for its first line, `ready`.
    ///
    /// # Errors
    /// It can't be started or says something else.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = Child::spawn(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        )?;
        let stdin = child.inner.stdin.take().context("no pipe to the driver")?;
        let stdout = child
            .inner
            .stdout
            .take()
            .context("no pipe from the driver")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut driver = Self {
            child,
            stdin,
            lines,
        };
        match driver.answer()? {
            Answer::Line(line) if line == "ready" => Ok(driver),
            other => bail!("the driver did not start: {other}"),
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Sends one command and waits for its answer, which may be the driver's death.
    ///
    /// # Errors
    /// Nothing happens for [`PATIENCE`].
    pub fn ask(&mut self, command: &str) -> Result<Answer> {
        // A broken pipe means that the driver is gone; how, is told by `answer`.
        let _ = writeln!(self.stdin, "{command}");
        self.answer().with_context(|| format!("asked `{command}`"))
    }

    fn answer(&mut self) -> Result<Answer> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(Answer::Line(line)),
            Err(RecvTimeoutError::Timeout) => bail!("no answer from the driver for {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait(PATIENCE)?;
                Ok(match status.signal() {
                    Some(signal) => Answer::Signal(signal),
                    None => Answer::Exit(status.code().unwrap_or(-1)),
                })
            }
        }
    }
}

/// All executable bytes of a process's files: program, libraries, linker.
///
/// # Errors
/// It is gone, or can't be read.
pub fn text_of(pid: u32) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut text = Vec::new();
    for line in maps
        .lines()
        .filter(|line| line.contains(" r-xp ") && line.contains(" /"))
    {
        let (range, _) = line.split_once(' ').context("a line without a range")?;
        let (start, end) = range.split_once('-').context("not a range")?;
        let start = u64::from_str_radix(start, 16)?;
        let len = u64::from_str_radix(end, 16)? - start;
        let mut bytes = vec![0; usize::try_from(len)?];
        memory.read_exact_at(&mut bytes, start)?;
        text.extend(bytes);
    }
    ensure!(text.len() > 4096, "no text in {maps}");
    Ok(text)
}
