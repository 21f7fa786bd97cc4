//! A connection to PostgreSQL: as much of its protocol (version 3.0) as simple queries need.
//!
//! Decides what an answer is: rows, or the server's own error. A connection that breaks is an error of ours.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::samples::redis::connect;

/// Protocol 3.0.
const VERSION: u32 = 3 << 16;

/// Longer than any message in these tests.
const LONGEST: usize = 1 << 20;

/// A connection, served by one backend process.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<UnixStream>,
    backend: u32,
}

/// What a statement led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was executed; these are its rows, `None` for NULL.
    Rows(Vec<Vec<Option<String>>>),
    /// The server refused or failed.
    Error {
        /// SQLSTATE.
        code: String,
        /// The primary message.
        message: String,
    },
}

impl Outcome {
    /// The outcome of a statement without rows.
    pub fn done() -> Self {
        Self::Rows(Vec::new())
    }
}

impl Session {
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let stream = BufReader::new(connect(socket).context("PostgreSQL")?);
        let mut session = Self { stream, backend: 0 };
        let mut startup = VERSION.to_be_bytes().to_vec();
        startup.extend(b"user\0postgres\0database\0postgres\0application_name\0upatch\0\0");
        session.send(None, &startup)?;
        loop {
            match session.receive()? {
                (b'R', body) => ensure!(body == [0; 4], "the server wants a password"),
                (b'K', body) => {
                    let pid = body.first_chunk().context("a short message")?;
                    session.backend = u32::from_be_bytes(*pid);
                }
                (b'E', body) => bail!("the server refuses the connection: {:?}", error(&body)),
                (b'Z', _) => return Ok(session),
                _ => {}
            }
        }
    }

    /// The process id of the backend that serves this connection.
    pub fn backend(&self) -> u32 {
        self.backend
    }

    /// Executes one statement.
    ///
    /// # Errors
    /// The connection breaks. An error that the server reports is an [`Outcome`].
    pub fn query(&mut self, statement: &str) -> Result<Outcome> {
        self.send(Some(b'Q'), format!("{statement}\0").as_bytes())?;
        let mut outcome = Outcome::done();
        loop {
            let (kind, body) = self
                .receive()
                .with_context(|| format!("asked `{statement}`"))?;
            match (kind, &mut outcome) {
                (b'D', Outcome::Rows(rows)) => rows.push(row(&body)?),
                (b'E', _) => outcome = error(&body),
                (b'Z', _) => return Ok(outcome),
                // Column names, the statement's tag, notices, changed settings.
                (b'T' | b'C' | b'N' | b'S' | b'I', _) => {}
                (other, _) => bail!("asked `{statement}`: a message `{}`", char::from(other)),
            }
        }
    }

    /// Executes a statement that returns one value.
    ///
    /// # Errors
    /// It fails or returns anything else.
    pub fn value(&mut self, statement: &str) -> Result<String> {
        let outcome = self.query(statement)?;
        if let Outcome::Rows(rows) = &outcome
            && let [row] = &rows[..]
            && let [Some(value)] = &row[..]
        {
            return Ok(value.clone());
        }
        bail!("`{statement}`: {outcome:?}")
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len() + 4)?;
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend(length.to_be_bytes());
        message.extend(body);
        Ok(self.stream.get_mut().write_all(&message)?)
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream
            .read_exact(&mut head)
            .context("no answer from PostgreSQL")?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        ensure!(
            (4..LONGEST).contains(&length),
            "a message of {length} bytes"
        );
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

/// DataRow: the number of columns (2), each with its length (4; -1 for NULL) and text.
fn row(body: &[u8]) -> Result<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk().context("a short row")?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, behind) = rest.split_first_chunk().context("a short row")?;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (text, behind) = behind
            .split_at_checked(length.unwrap_or(0))
            .context("a short row")?;
        columns.push(length.map(|_| String::from_utf8_lossy(text).into_owned()));
        rest = behind;
    }
    Ok(columns)
}

/// ErrorResponse: fields of a letter and a text, each ended by NUL.
fn error(body: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(body);
    let field = |letter: char| {
        let found = text
            .split('\0')
            .find_map(|field| field.strip_prefix(letter));
        found.unwrap_or_default().to_owned()
    };
    Outcome::Error {
        code: field('C'),
        message: field('M'),
    }
}
