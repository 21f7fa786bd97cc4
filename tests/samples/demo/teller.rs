//! How the story is written down: a title for each program, a label for each step, commands as one would type them.
//!
//! Decides colours (on a terminal only) and which paths are shortened; a line is never longer than it must be.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use upatch_tests::child;
use upatch_tests::upatch::upatch;

/// What a line is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Label {
    /// The program does wrong.
    Before,
    /// What the operator types, and what it answers.
    Operator(&'static str),
    /// The program does right.
    After,
    /// It does wrong again, as it should without the patch.
    AsBefore,
    /// Goes on with the line above.
    Note,
}

/// Writes to standard output.
#[derive(Debug)]
pub(crate) struct Teller {
    colour: bool,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !code.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A line as it is.
    pub(crate) fn text(&self, text: &str) {
        println!("{text}");
        // Best effort: a reader that is gone is noticed by println.
        let _ = std::io::stdout().flush();
    }

    /// The heading of an act.
    pub(crate) fn title(&self, text: &str) {
        self.text(&format!("\n{}", self.paint("1", text)));
    }

    /// One step.
    pub(crate) fn line(&self, label: Label, text: &str) {
        let (word, code) = match label {
            Label::Before => ("before", "31"),
            Label::Operator(word) => (word, "36"),
            Label::After => ("after", "32"),
            Label::AsBefore => ("as before", "33"),
            Label::Note => ("", ""),
        };
        self.text(&format!(
            "  {}  {text}",
            self.paint(code, &format!("{word:<9}"))
        ));
    }

    /// A command of the operator's, on as many lines as it takes.
    pub(crate) fn command(&self, word: &'static str, command: &str) {
        for (number, line) in command.lines().enumerate() {
            let (label, prompt) = match number {
                0 => (Label::Operator(word), '$'),
                _ => (Label::Note, '>'),
            };
            self.line(label, &self.paint("1", &format!("{prompt} {line}")));
        }
    }

    /// The lines of a patch's source from its program on.
    pub(crate) fn source(&self, sample: &str, source: &str) {
        self.line(
            Label::Operator("patch"),
            &format!("samples/{sample}/patch.c, the part that does it:"),
        );
        let lines = source.lines().skip_while(|line| !line.starts_with("SEC("));
        for line in lines {
            let line = line.replace('\t', "    ");
            self.line(Label::Note, &self.paint("2", &format!("  {line}")));
        }
    }

    /// Runs `upatch` and shows what a user would see, with the folders that the programs lie in cut off.
    pub(crate) fn run(&self, word: &'static str, args: &[&str], folders: &[&Path]) -> Result<()> {
        self.command(
            word,
            &shortened(&format!("upatch {}", args.join(" ")), folders),
        );
        let shown = child::run(upatch().args(args), Duration::from_secs(60))?;
        ensure!(
            shown.code == 0,
            "upatch {}: {}",
            args.join(" "),
            shown.stderr
        );
        for line in shown.stdout.lines() {
            self.line(Label::Note, &shortened(line, folders));
        }
        Ok(())
    }
}

/// The text with paths relative to `folders`, and build-ids cut to the eight digits that are enough.
pub(crate) fn shortened(text: &str, folders: &[&Path]) -> String {
    let cut = |text: String, folder: &&Path| text.replace(&format!("{}/", folder.display()), "");
    let text = folders.iter().fold(text.to_owned(), cut);
    let word = |word: &str| {
        let is_id = word.len() == 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id {
            word[..8].to_owned()
        } else {
            word.to_owned()
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A duration in milliseconds, as people say it.
pub(crate) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}
