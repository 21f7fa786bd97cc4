//! What a command says when it can't do its work: what, where, why, what would help, and the exit code.
//!
//! Every stage's error becomes a [`Failure`] in one place (`cli::explain`), so that messages speak with one voice and
//! the exit codes of the contract are decided once.

use serde_json::{Value, json};

use super::terminal;

/// Exit codes (DESIGN, contract).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Internal error or I/O.
    Internal = 1,
    /// Wrong use of the command line.
    Usage = 2,
    /// The object is malformed, or the verifier rejected it.
    Object = 3,
    /// The target was not found, or isn't what the patch was made for.
    Target = 4,
    /// Refused for safety; the target is unchanged.
    Refused = 5,
    /// No permission.
    Permission = 6,
    /// Some of several targets failed.
    Partial = 7,
    /// Somebody else changed our bytes.
    Contested = 8,
}

/// A command's failure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Process exit code.
    pub exit: Exit,
    /// What went wrong and why.
    pub message: String,
    /// Where: a file and line, a process, a function.
    pub place: Option<String>,
    /// What would help.
    pub hint: Option<String>,
    /// What became of each process, if there were several.
    pub several: Option<Box<Several>>,
}

/// What a command for several processes has to say although not all is well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Several {
    /// About those that are well, for people.
    pub text: String,
    /// An object for each process.
    pub processes: Vec<Value>,
    /// Those that were not looked at, and why.
    pub skipped: Vec<Value>,
    /// What went wrong with each of the others.
    pub failures: Vec<Failure>,
}

impl Failure {
    /// A failure with this message; place and hint are added by [`Self::at`] and [`Self::hint`].
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            place: None,
            hint: None,
            several: None,
        }
    }

    /// The same, with its place unless one is known already.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place.get_or_insert(place.into());
        self
    }

    /// The same, with what would help unless that is known already.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }

    /// The same, with what became of each of several processes.
    #[must_use]
    pub fn with_processes(
        mut self,
        text: String,
        processes: Vec<Value>,
        skipped: Vec<Value>,
        failures: Vec<Self>,
    ) -> Self {
        self.several = Some(Box::new(Several {
            text,
            processes,
            skipped,
            failures,
        }));
        self
    }

    /// As the contract's JSON object; `code` is the exit code.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "ok": false,
            "error": {
                "code": self.exit as u8,
                "message": self.message,
                "where": self.place,
                "hint": self.hint,
            }
        });
        if let Some(several) = &self.several {
            json["processes"] = several.processes.clone().into();
            json["skipped"] = several.skipped.clone().into();
        }
        json
    }

    /// What [`Self::to_json`] gave, read back: a child process's failure becomes its parent's.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let error = value.get("error")?;
        let exit = match error.get("code")?.as_u64()? {
            1 => Exit::Internal,
            2 => Exit::Usage,
            3 => Exit::Object,
            4 => Exit::Target,
            5 => Exit::Refused,
            6 => Exit::Permission,
            7 => Exit::Partial,
            8 => Exit::Contested,
            _ => return None,
        };
        let text = |name: &str| Some(error.get(name)?.as_str()?.to_owned());
        Some(Self {
            exit,
            message: text("message")?,
            place: text("where"),
            hint: text("hint"),
            several: None,
        })
    }

    /// As text for standard error, with styles.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (bad, strong, faint) = (terminal::BAD, terminal::STRONG, terminal::FAINT);
        let failures = self.several.iter().flat_map(|several| &several.failures);
        let mut text: String = failures.map(Self::to_text).collect();
        text += &format!("{bad}upatch:{bad:#} {}\n", self.message);
        if let Some(place) = &self.place {
            text.push_str(&format!("  {faint}where:{faint:#} {place}\n"));
        }
        // A rejection's text has its hint already.
        if let Some(hint) = self
            .hint
            .as_ref()
            .filter(|hint| !self.message.contains(*hint))
        {
            text.push_str(&format!("  {strong}hint:{strong:#}  {hint}\n"));
        }
        text
    }
}
