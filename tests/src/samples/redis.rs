//! The fetched Redis server on a unix socket, a client for it, and the dump that it should not accept.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Scratch;
use crate::child::{Child, PATIENCE};
use crate::packages::Package;

/// A running Redis server with one client connected.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    connection: BufReader<UnixStream>,
    program: PathBuf,
}

/// A reply in Redis's protocol (RESP2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status or number, as text.
    Text(String),
    /// An error.
    Error(String),
    /// A string of any bytes.
    Bytes(Vec<u8>),
    /// No such thing.
    Nil,
    /// Several.
    Many(Vec<Reply>),
    /// The server has closed the connection.
    Closed,
}

impl Redis {
    /// Starts the server: redis-check-rdb of redis-tools is the server itself when it is called by that name.
    ///
    /// # Errors
    /// It doesn't start or doesn't answer.
    pub fn start(package: &Package, scratch: &Scratch) -> Result<Self> {
        let package = package.copy_to(scratch.path())?;
        let program = package.file("usr/bin/redis-check-rdb");
        let socket = scratch.path().join("redis.sock");
        let mut command = Command::new(&program);
        command.arg0("redis-server").args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--enable-debug-command",
            "yes",
            "--enable-protected-configs",
            "yes",
            "--unixsocket",
        ]);
        command.arg(&socket).arg("--dir").arg(scratch.path());
        command.env("LD_LIBRARY_PATH", package.library_path());
        scratch
            .as_ordinary_user(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = Child::spawn(&mut command)?;
        let connection = connect(&socket).context("the Redis server")?;
        let mut redis = Self {
            child,
            connection: BufReader::new(connection),
            program,
        };
        ensure!(
            redis.command(&[b"PING"])? == Reply::Text("PONG".to_owned()),
            "the Redis server doesn't answer"
        );
        Ok(redis)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The server's executable.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Waits for the server to end, which it does by itself only when it crashes.
    ///
    /// # Errors
    /// It still runs.
    pub fn crashed(&mut self) -> Result<()> {
        self.child.wait(PATIENCE).map(|_| ())
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// The reply doesn't come or can't be understood. A closed connection is a reply.
    pub fn command(&mut self, words: &[&[u8]]) -> Result<Reply> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(
                format!("${}\r\n", word.len())
                    .bytes()
                    .chain(word.iter().copied())
                    .chain(*b"\r\n"),
            );
        }
        if self.connection.get_mut().write_all(&request).is_err() {
            return Ok(Reply::Closed);
        }
        self.reply(0)
    }

    fn reply(&mut self, depth: u32) -> Result<Reply> {
        ensure!(depth < 16, "a reply nested too deep");
        let mut line = String::new();
        match self.connection.read_line(&mut line) {
            Ok(0) => return Ok(Reply::Closed),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Ok(Reply::Closed);
            }
            other => other.context("no reply from the Redis server")?,
        };
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("an empty reply")?;
        let length = |limit: i64| -> Result<Option<usize>> {
            let length: i64 = rest.parse()?;
            ensure!(length <= limit, "a reply of {length}");
            Ok(usize::try_from(length).ok())
        };
        match kind {
            "+" | ":" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            "$" => {
                let Some(length) = length(1 << 20)? else {
                    return Ok(Reply::Nil);
                };
                let mut bytes = vec![0; length + 2];
                self.connection.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Reply::Bytes(bytes))
            }
            "*" => {
                let Some(length) = length(1 << 10)? else {
                    return Ok(Reply::Nil);
                };
                (0..length)
                    .map(|_| self.reply(depth + 1))
                    .collect::<Result<_>>()
                    .map(Reply::Many)
            }
            _ => bail!("not a reply: {line}"),
        }
    }
}

/// Connects to a server that is just starting.
pub(super) fn connect(socket: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Err(error) => {
                return Err(error).with_context(|| format!("connecting to {}", socket.display()));
            }
        }
    }
}

/// Bytes at the end of every dump: RDB version (2) and CRC-64 (8).
const FOOTER: usize = 10;
/// A stream's dump ends with its consumers: their number (1), here one with a name of one letter (2), when it was
/// seen (8), the number of its pending entries (1), and one of those (16).
const ONE_CONSUMER: usize = 1 + 2 + 8 + 1 + 16;

/// From the dump of a stream that has one pending entry, held by one consumer with a name of one letter, makes one
/// whose pending entry belongs to nobody. The checksum is right, so that only a check of the meaning can notice.
///
/// # Errors
/// The dump is not of that shape.
pub fn without_consumer(dump: &[u8]) -> Result<Vec<u8>> {
    let body = dump
        .len()
        .checked_sub(FOOTER + ONE_CONSUMER)
        .context("too short for such a dump")?;
    let (checked, sum) = dump.split_at(dump.len() - 8);
    ensure!(
        sum == crc64(checked).to_le_bytes(),
        "the checksum is not the one that Redis uses"
    );
    ensure!(dump[body] == 1, "not exactly one consumer");
    let mut corrupt = dump[..body].to_vec();
    corrupt.push(0);
    corrupt.extend(&dump[dump.len() - FOOTER..dump.len() - 8]);
    corrupt.extend(crc64(&corrupt).to_le_bytes());
    Ok(corrupt)
}

/// CRC-64 with the Jones polynomial, reflected, no inversion: the one in Redis's dumps.
fn crc64(bytes: &[u8]) -> u64 {
    const REFLECTED: u64 = 0xad93_d235_94c9_35a9_u64.reverse_bits();
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ REFLECTED
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc64_has_the_published_check_value() {
        assert_eq!(super::crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }
}
