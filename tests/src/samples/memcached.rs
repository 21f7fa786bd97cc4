//! The fetched memcached with four threads on a unix socket, sessions with it, and a load that checks every reply.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::Scratch;
use super::redis::connect;
use crate::child::Child;
use crate::packages::Package;

/// A running memcached. It deals its connections out to its threads in turn.
#[derive(Debug)]
pub struct Memcached {
    child: Child,
    socket: PathBuf,
    program: PathBuf,
}

impl Memcached {
    /// How many worker threads it has.
    pub const THREADS: usize = 4;

    /// Starts the server.
    ///
    /// # Errors
    /// It doesn't start or can't be reached.
    pub fn start(package: &Package, scratch: &Scratch) -> Result<Self> {
        let package = package.copy_to(scratch.path())?;
        let program = package.file("usr/bin/memcached");
        let socket = scratch.path().join("memcached.sock");
        let mut command = Command::new(&program);
        command
            .arg("-s")
            .arg(&socket)
            .args(["-m", "64", "-t"])
            .arg(Self::THREADS.to_string());
        command.env("LD_LIBRARY_PATH", package.library_path());
        scratch
            .as_ordinary_user(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = Child::spawn(&mut command)?;
        let server = Self {
            child,
            socket,
            program,
        };
        server.connect()?;
        Ok(server)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The server's executable.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The server doesn't accept it.
    pub fn connect(&self) -> Result<Session> {
        Ok(Session(BufReader::new(
            connect(&self.socket).context("memcached")?,
        )))
    }
}

/// One connection.
#[derive(Debug)]
pub struct Session(BufReader<UnixStream>);

impl Session {
    /// Sends a line, with or without data after it, and reads one line.
    ///
    /// # Errors
    /// No answer.
    pub fn command(&mut self, command: &str) -> Result<String> {
        write!(self.0.get_mut(), "{command}\r\n")?;
        self.line()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.0
                .read_line(&mut line)
                .context("no answer from memcached")?
                > 0,
            "memcached closed the connection"
        );
        Ok(line.trim_end().to_owned())
    }

    /// Stores `value` with an expiry in memcached's terms: 0 for never, else seconds or a date.
    ///
    /// # Errors
    /// It was not stored.
    pub fn set(&mut self, key: &str, expiry: i64, value: &str) -> Result<()> {
        let answer = self.command(&format!("set {key} 0 {expiry} {}\r\n{value}", value.len()))?;
        ensure!(answer == "STORED", "set {key}: {answer}");
        Ok(())
    }

    /// Reads a value back.
    ///
    /// # Errors
    /// The answer is not one.
    pub fn get(&mut self, key: &str) -> Result<Option<String>> {
        let head = self.command(&format!("get {key}"))?;
        if head == "END" {
            return Ok(None);
        }
        ensure!(
            head.starts_with(&format!("VALUE {key} 0 ")),
            "get {key}: {head}"
        );
        let value = self.line()?;
        ensure!(self.line()? == "END", "get {key}: no end");
        Ok(Some(value))
    }

    /// How many seconds a value will live still: -1 for ever; `None` when there is no such value.
    ///
    /// # Errors
    /// The answer is not one.
    pub fn time_to_live(&mut self, key: &str) -> Result<Option<i64>> {
        let answer = self.command(&format!("mg {key} t"))?;
        match answer.strip_prefix("HD t") {
            Some(seconds) => Ok(Some(seconds.parse()?)),
            None if answer == "EN" => Ok(None),
            None => bail!("mg {key} t: {answer}"),
        }
    }
}

/// Clients that store and read back without pause, each on its own connection, until told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<u64>>>,
}

/// What the clients saw.
#[derive(Debug, Clone, Copy)]
pub struct LoadReport {
    /// Requests that were answered; every answer was right, or there is no report.
    pub requests: u64,
}

impl Load {
    /// Starts `clients` clients; each stores values for `expiry`.
    ///
    /// # Errors
    /// A connection fails.
    pub fn start(server: &Memcached, clients: usize, expiry: i64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let sessions: Vec<Session> = (0..clients)
            .map(|_| server.connect())
            .collect::<Result<_>>()?;
        let start = |(number, session)| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || client(number, session, expiry, &stop))
        };
        let clients = sessions.into_iter().enumerate().map(start).collect();
        Ok(Self { stop, clients })
    }

    /// Ends the load.
    ///
    /// # Errors
    /// A request failed or was answered wrongly.
    pub fn finish(mut self) -> Result<LoadReport> {
        self.stop.store(true, Ordering::Relaxed);
        let mut requests = 0;
        for client in self.clients.drain(..) {
            requests += client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(LoadReport { requests })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn client(number: usize, mut session: Session, expiry: i64, stop: &AtomicBool) -> Result<u64> {
    let mut requests = 0;
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (
            format!("load-{number}-{}", requests % 50),
            format!("value-{requests}"),
        );
        session.set(&key, expiry, &value)?;
        let found = session.get(&key)?;
        ensure!(
            found.as_deref() == Some(&*value),
            "stored {value} under {key}, got {found:?}"
        );
        requests += 2;
    }
    Ok(requests)
}
