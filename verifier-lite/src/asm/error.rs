//! Why text is not a program: place, what is wrong, and what would help.

use crate::program::MalformedProgram;

/// A mistake in assembly text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {what}{}", self.hint().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct AsmError {
    /// Line from 1.
    pub line: u32,
    /// Column from 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub what: AsmErrorKind,
}

/// What is wrong with assembly text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum AsmErrorKind {
    #[error("unexpected character {found:?}")]
    BadCharacter { found: char },
    #[error("the string has no end")]
    UnterminatedString,
    #[error("unknown escape \\{found}")]
    BadEscape { found: char },
    #[error("{text} is not a number of at most 64 bits")]
    BadNumber { text: String },
    #[error("{value} is out of range for {what}")]
    OutOfRange { value: i128, what: &'static str },
    #[error("expected {expected}, found {found}")]
    Expected {
        expected: &'static str,
        found: String,
    },
    #[error("unknown instruction {name}")]
    UnknownMnemonic {
        name: String,
        nearest: Option<String>,
    },
    #[error("unknown directive {name}")]
    UnknownDirective { name: String },
    #[error("{name} is not supported")]
    Unsupported { name: String, instead: &'static str },
    #[error("no register {name}")]
    BadRegister { name: String },
    #[error("unknown label {name}")]
    UnknownLabel { name: String },
    #[error("label {name} is defined twice")]
    DuplicateLabel { name: String },
    #[error("unknown data object or arena variable {name}")]
    UnknownName { name: String },
    #[error("unknown external function {name}")]
    UnknownExtern { name: String },
    #[error("unknown helper {name}")]
    UnknownHelper { name: String },
    #[error("{name} is declared twice")]
    DuplicateName { name: String },
    #[error("{name} is not the target of a call or callback")]
    NotAFunction { name: String },
    #[error("arena variable {name} overlaps another or lies outside the arena")]
    BadGlobal { name: String },
    #[error("the jump goes to slot {target}, outside the program")]
    BadTarget { target: i64 },
    #[error(transparent)]
    Malformed(MalformedProgram),
}

impl AsmError {
    /// What would help, if anything is known to.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &self.what {
            AsmErrorKind::UnknownMnemonic { nearest, .. } => {
                nearest.as_ref().map(|name| format!("did you mean {name}?"))
            }
            AsmErrorKind::Unsupported { instead, .. } => Some((*instead).to_owned()),
            AsmErrorKind::UnknownDirective { .. } => Some(
                "directives are .kind .name .arena .global .data .extern .function .repeat .line"
                    .to_owned(),
            ),
            AsmErrorKind::BadRegister { .. } => Some("registers are %r0 to %r10".to_owned()),
            AsmErrorKind::UnknownName { .. } => {
                Some("declare it with .data or .global, or write arena+OFFSET".to_owned())
            }
            AsmErrorKind::UnknownExtern { .. } => {
                Some("declare it with .extern name(parameters) -> result".to_owned())
            }
            AsmErrorKind::UnknownHelper { .. } => {
                Some("a function of this program is called with: call local NAME".to_owned())
            }
            AsmErrorKind::Malformed(MalformedProgram::FallsThrough { .. }) => {
                Some("end every function with exit or ja".to_owned())
            }
            AsmErrorKind::BadCharacter { .. }
            | AsmErrorKind::UnterminatedString
            | AsmErrorKind::BadEscape { .. }
            | AsmErrorKind::BadNumber { .. }
            | AsmErrorKind::OutOfRange { .. }
            | AsmErrorKind::Expected { .. }
            | AsmErrorKind::UnknownLabel { .. }
            | AsmErrorKind::DuplicateLabel { .. }
            | AsmErrorKind::DuplicateName { .. }
            | AsmErrorKind::NotAFunction { .. }
            | AsmErrorKind::BadGlobal { .. }
            | AsmErrorKind::BadTarget { .. }
            | AsmErrorKind::Malformed(_) => None,
        }
    }
}
