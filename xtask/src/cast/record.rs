//! A program's output on a pseudo-terminal, with the time of each piece, and its form as an asciicast (version 2).

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::pty::{Winsize, openpty};
use serde_json::json;

use crate::process::wait;

/// Columns of the terminal. The demo keeps to it.
pub(super) const COLUMNS: u16 = 120;

/// What a terminal showed: seconds since the start, and what came then.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recording {
    pub(super) command: String,
    pub(super) events: Vec<(f64, String)>,
}

/// Runs `program` to its end on a terminal; the recording begins with `command` as its prompt line.
///
/// # Errors
/// The program fails, or still runs after `limit`.
pub(super) fn record(mut program: Command, command: &str, limit: Duration) -> Result<Recording> {
    let size = Winsize {
        ws_row: 80,
        ws_col: COLUMNS,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(Some(&size), None).context("opening a pseudo-terminal")?;
    program
        .env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(terminal.slave.try_clone()?)
        .stderr(terminal.slave);
    let start = Instant::now();
    let child = program.spawn().context("starting the program")?;
    // It holds the last open ends of the terminal now but for the ones in `program`.
    drop(program);
    let (sender, receiver) = mpsc::channel();
    let mut master = File::from(terminal.master);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // When the last process has closed the terminal, reading it fails with EIO.
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            if sender
                .send((start.elapsed(), buffer[..count].to_vec()))
                .is_err()
            {
                break;
            }
        }
    });
    let status = wait(child, limit)?;
    let mut events = vec![(0.0, format!("$ {command}\r\n"))];
    let mut rest = Vec::new();
    while let Ok((at, bytes)) = receiver.recv_timeout(Duration::from_secs(5)) {
        print!("{}", String::from_utf8_lossy(&bytes));
        rest.extend(bytes);
        // Whole lines only: a piece may end within a character.
        if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
            let text = String::from_utf8(rest.drain(..=end).collect()).context("not UTF-8")?;
            // Milliseconds are enough for anybody who watches.
            let at = u32::try_from(at.as_millis()).context("a very long run")?;
            events.push((f64::from(at) / 1e3, text));
        }
    }
    ensure!(
        status.success(),
        "the program ended with {status}: nothing was recorded"
    );
    Ok(Recording {
        command: command.to_owned(),
        events,
    })
}

impl Recording {
    pub(super) fn to_asciicast(&self) -> Result<String> {
        let lines: usize = self
            .events
            .iter()
            .map(|(_, text)| text.matches('\n').count())
            .sum();
        let header = json!({
            "version": 2,
            "width": COLUMNS,
            "height": lines + 1,
            "title": self.command,
            "env": {"TERM": "xterm-256color"},
        });
        let mut text = format!("{header}\n");
        for (at, shown) in &self.events {
            text += &format!("{}\n", serde_json::to_string(&json!([at, "o", shown]))?);
        }
        Ok(text)
    }

    #[cfg(test)]
    pub(super) fn from_asciicast(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let header: serde_json::Value =
            serde_json::from_str(lines.next().context("an empty recording")?)?;
        let event = |line: &str| -> Result<(f64, String)> {
            let event: serde_json::Value = serde_json::from_str(line)?;
            let at = event[0].as_f64().context("an event without a time")?;
            let shown = event[2].as_str().context("an event without text")?;
            Ok((at, shown.to_owned()))
        };
        Ok(Self {
            command: header["title"].as_str().unwrap_or_default().to_owned(),
            events: lines.map(event).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_a_terminal_and_writes_what_it_reads() -> Result<()> {
        let mut program = Command::new("sh");
        program.args(["-c", "test -t 1 && printf 'a \\033[1mb\\033[0m \"ü\"\\n'"]);
        let recording = record(program, "sh", Duration::from_secs(20))?;
        let shown: String = recording
            .events
            .iter()
            .map(|(_, text)| text.as_str())
            .collect();
        assert_eq!(shown, "$ sh\r\na \x1b[1mb\x1b[0m \"ü\"\r\n");
        assert_eq!(
            Recording::from_asciicast(&recording.to_asciicast()?)?,
            recording
        );
        Ok(())
    }

    #[test]
    fn a_failed_run_is_not_recorded() {
        let failed = record(Command::new("false"), "false", Duration::from_secs(20));
        assert!(failed.is_err());
    }
}
