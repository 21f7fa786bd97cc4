//! The fetched beanstalkd on a unix socket, and sessions with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::Scratch;
use super::redis::connect;
use crate::child::Child;
use crate::packages::Package;

/// A running beanstalkd without a log.
#[derive(Debug)]
pub struct Beanstalkd {
    child: Child,
    socket: PathBuf,
    program: PathBuf,
}

impl Beanstalkd {
    /// Starts the server.
    ///
    /// # Errors
    /// It doesn't start or can't be reached.
    pub fn start(package: &Package, scratch: &Scratch) -> Result<Self> {
        let package = package.copy_to(scratch.path())?;
        let program = package.file("usr/bin/beanstalkd");
        let socket = scratch.path().join("beanstalkd.sock");
        let mut command = Command::new(&program);
        command
            .arg("-l")
            .arg(format!("unix:{}", socket.display()))
            .env("LD_LIBRARY_PATH", package.library_path());
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
    pub fn connect(&self) -> Result<Producer> {
        Ok(Producer(BufReader::new(
            connect(&self.socket).context("beanstalkd")?,
        )))
    }
}

/// A producer's connection.
#[derive(Debug)]
pub struct Producer(BufReader<UnixStream>);

/// What the server has made of a job: seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// Until it becomes ready.
    pub delay: u64,
    /// How long a worker may keep it.
    pub ttr: u64,
}

impl Producer {
    fn command(&mut self, command: &str) -> Result<String> {
        write!(self.0.get_mut(), "{command}\r\n")?;
        let mut line = String::new();
        ensure!(
            self.0
                .read_line(&mut line)
                .context("no answer from beanstalkd")?
                > 0,
            "beanstalkd closed the connection"
        );
        Ok(line.trim_end().to_owned())
    }

    /// Puts a job of `size` bytes into a tube: its number, or the server's refusal.
    ///
    /// # Errors
    /// No answer that makes sense.
    pub fn put(
        &mut self,
        tube: &str,
        delay: u32,
        ttr: u32,
        size: usize,
    ) -> Result<Result<u64, String>> {
        let using = self.command(&format!("use {tube}"))?;
        ensure!(using == format!("USING {tube}"), "use {tube}: {using}");
        let answer = self.command(&format!(
            "put 1 {delay} {ttr} {size}\r\n{}",
            "x".repeat(size)
        ))?;
        Ok(match answer.strip_prefix("INSERTED ") {
            Some(id) => Ok(id.parse()?),
            None => Err(answer),
        })
    }

    /// As [`Producer::put`], then looks at the job and deletes it.
    ///
    /// # Errors
    /// The job was refused or can't be looked at.
    pub fn made(&mut self, tube: &str, delay: u32, ttr: u32, size: usize) -> Result<Job> {
        let id = match self.put(tube, delay, ttr, size)? {
            Ok(id) => id,
            Err(refusal) => bail!("a job of {size} bytes for {tube}: {refusal}"),
        };
        let head = self.command(&format!("stats-job {id}"))?;
        let length: usize = head
            .strip_prefix("OK ")
            .with_context(|| head.clone())?
            .parse()?;
        let mut stats = vec![0; length + 2];
        self.0.read_exact(&mut stats)?;
        let stats = String::from_utf8(stats)?;
        let number = |key: &str| -> Result<u64> {
            let line = stats.lines().find_map(|line| line.strip_prefix(key));
            Ok(line
                .with_context(|| format!("no {key} in {stats}"))?
                .parse()?)
        };
        let job = Job {
            id,
            delay: number("delay: ")?,
            ttr: number("ttr: ")?,
        };
        let deleted = self.command(&format!("delete {id}"))?;
        ensure!(deleted == "DELETED", "delete {id}: {deleted}");
        Ok(job)
    }
}
