//! Case files in bpf_conformance's format: one program, its memory, and what must come out.
//!
//! ```text
//! # comment
//! -- asm          text for `assemble`
//! -- raw          or slots as numbers, 0x…, first byte lowest (both: they must agree, which is the reader's to check)
//! -- mem          hex bytes that r1 points at; r2 is their number
//! -- result       r0 at the end, 0x… or decimal
//! -- error        or part of the message that refuses it
//! ```
//! Other sections of that format (`-- c`, `-- no register offset`) are for people and other tools.

use super::assemble_as;
use super::error::AsmError;
use crate::program::{Program, ProgramKind};

/// What must come out of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// r0 at the end.
    Result(u64),
    /// Refused or faulting; the message contains this.
    Error(String),
}

/// A case file, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Assembly text, on the lines where the file has it (the others are empty), so that errors name its lines.
    pub asm: Option<String>,
    /// The program as bytes.
    pub raw: Option<Vec<u8>>,
    /// What r1 points at.
    pub mem: Vec<u8>,
    /// What must come out.
    pub expected: Expected,
}

/// Why text is not a case.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum CaseError {
    #[error("line {line}: unknown section {name}")]
    UnknownSection { line: u32, name: String },
    #[error("line {line}: {text} is not a number")]
    BadNumber { line: u32, text: String },
    #[error("the case has neither -- asm nor -- raw")]
    NoProgram,
    #[error("the case has neither -- result nor -- error")]
    NothingExpected,
}

#[derive(Clone, Copy)]
enum Section {
    Ignored,
    Asm,
    Raw,
    Mem,
    Result,
    Error,
}

impl Case {
    /// Reads a case file.
    ///
    /// # Errors
    /// An unknown section, a bad number, or a missing part.
    pub fn parse(text: &str) -> Result<Self, CaseError> {
        let mut section = Section::Ignored;
        let (mut asm, mut raw, mut mem) = (String::new(), Vec::new(), Vec::new());
        let mut expected = None;
        for (line, content) in (1..).zip(text.lines()) {
            asm.push('\n');
            let content = content.trim_end();
            if let Some(name) = content.trim_start().strip_prefix("--") {
                section = match name.trim() {
                    "asm" => Section::Asm,
                    "raw" => Section::Raw,
                    "mem" => Section::Mem,
                    "result" => Section::Result,
                    "error" => Section::Error,
                    "c" | "no register offset" => Section::Ignored,
                    name => {
                        let name = name.to_owned();
                        return Err(CaseError::UnknownSection { line, name });
                    }
                };
                continue;
            }
            // Assembly has its own comments; elsewhere # begins one.
            let bare = content.split('#').next().unwrap_or("").trim();
            match section {
                Section::Ignored => {}
                Section::Asm => {
                    asm.pop();
                    asm += content;
                    asm.push('\n');
                }
                Section::Raw => {
                    for word in bare.split_whitespace() {
                        raw.extend_from_slice(&number(word, line)?.to_le_bytes());
                    }
                }
                Section::Mem => {
                    for word in bare.split_whitespace() {
                        let text = || word.to_owned();
                        let digits = word.strip_prefix("0x").unwrap_or(word);
                        let byte = u8::from_str_radix(digits, 16)
                            .map_err(|_| CaseError::BadNumber { line, text: text() })?;
                        mem.push(byte);
                    }
                }
                Section::Result if bare.is_empty() => {}
                Section::Result => expected = Some(Expected::Result(number(bare, line)?)),
                Section::Error if bare.is_empty() => {}
                Section::Error => expected = Some(Expected::Error(bare.to_owned())),
            }
        }
        let asm = Some(asm).filter(|asm| !asm.trim().is_empty());
        let raw = Some(raw).filter(|raw| !raw.is_empty());
        if asm.is_none() && raw.is_none() {
            return Err(CaseError::NoProgram);
        }
        Ok(Self {
            asm,
            raw,
            mem,
            expected: expected.ok_or(CaseError::NothingExpected)?,
        })
    }

    /// What kind of program it is: one on this memory.
    #[must_use]
    pub fn kind(&self) -> ProgramKind {
        ProgramKind::Memory {
            mem_len: u32::try_from(self.mem.len()).unwrap_or(u32::MAX),
        }
    }

    /// Assembles the text, if there is one.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn assemble(&self) -> Option<Result<Program, AsmError>> {
        let text = self.asm.as_deref()?;
        Some(assemble_as(text, self.kind()))
    }

    /// The program, from its text or else its bytes.
    ///
    /// # Errors
    /// The text has a mistake, the bytes are no instructions, or the instructions are no program; as text.
    pub fn program(&self) -> Result<Program, String> {
        if let Some(assembled) = self.assemble() {
            return assembled.map_err(|error| error.to_string());
        }
        let raw = self.raw.as_deref().unwrap_or(&[]);
        let insns = crate::decode::decode(raw).map_err(|error| error.to_string())?;
        Program::from_raw(self.kind(), insns).map_err(|error| error.to_string())
    }
}

fn number(word: &str, line: u32) -> Result<u64, CaseError> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word
            .parse()
            .ok()
            .or_else(|| word.parse().ok().map(i64::cast_unsigned)),
    };
    parsed.ok_or_else(|| CaseError::BadNumber {
        line,
        text: word.to_owned(),
    })
}
