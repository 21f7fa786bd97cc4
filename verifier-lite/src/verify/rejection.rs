//! Why a program is refused: the place, what must hold there, what is known, and what would help.

use std::fmt;

use super::obligations::Obligation;
use super::place::Failure;
use crate::insn::Pc;
use crate::program::{LineInfo, Program};

/// A refusal before the program's lines were looked up.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) pc: Pc,
    pub(crate) obligation: Obligation,
    pub(crate) failure: Failure,
    pub(crate) path: Vec<(Pc, bool)>,
}

/// Why a program is refused.
///
/// Its `Display` is what `upatch verify` prints, several lines without a newline at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The instruction.
    pub pc: Pc,
    /// Name of the function that it is in.
    pub subprog: String,
    /// Its C line, if the object has line information.
    pub line: Option<LineInfo>,
    /// The instruction as the disassembler shows it.
    pub insn: String,
    /// What must hold, as data.
    pub obligation: Obligation,
    /// What must hold here, in words.
    pub must_hold: String,
    /// The register or variable it is about: `r2`, `stack fp-16`, `ctx->di`, an arena variable.
    pub subject: String,
    /// What is known instead.
    pub known: String,
    /// Branches on the way here, oldest first (the last 64): the conditional jump, and whether it was taken.
    pub path: Vec<(Pc, bool)>,
    /// What would help.
    pub hint: Option<String>,
}

impl Rejection {
    pub(crate) fn new(program: &Program, refused: Refused) -> Self {
        let Refused {
            pc,
            obligation,
            failure,
            path,
        } = refused;
        let subprog = program
            .subprog_of(pc)
            .and_then(|index| program.subprogs().get(index))
            .map_or_else(String::new, |subprog| subprog.name.clone());
        Self {
            pc,
            subprog,
            line: program.line_of(pc).cloned(),
            insn: program
                .shown(pc)
                .map_or_else(String::new, |shown| shown.to_string()),
            obligation,
            must_hold: failure.must,
            subject: failure.subject,
            known: failure.known,
            path,
            hint: failure.hint,
        }
    }
}

/// Branches of the path that are printed.
const SHOWN: usize = 8;

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            Some(line) => {
                write!(f, "{}:{}", line.file, line.line)?;
                if line.column > 0 {
                    write!(f, ":{}", line.column)?;
                }
                writeln!(f, ": in {}: {}", self.subprog, self.subject)?;
                if !line.text.trim().is_empty() {
                    writeln!(f, "  {:>5} | {}", line.line, line.text.trim())?;
                }
            }
            None => writeln!(
                f,
                "instruction {} of {}: {}",
                self.pc.0, self.subprog, self.subject
            )?,
        }
        writeln!(f, "  instruction: {}: {}", self.pc.0, self.insn)?;
        writeln!(f, "  must hold:   {}", self.must_hold)?;
        write!(f, "  known:       {}", self.known)?;
        if !self.path.is_empty() {
            write!(f, "\n  path:        ")?;
            let hidden = self.path.len().saturating_sub(SHOWN);
            if hidden > 0 {
                f.write_str("… ")?;
            }
            for (index, (pc, taken)) in self.path.iter().skip(hidden).enumerate() {
                let separator = if index > 0 { ", " } else { "" };
                write!(
                    f,
                    "{separator}{} {}",
                    pc.0,
                    if *taken { "taken" } else { "not taken" }
                )?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint:        {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}
