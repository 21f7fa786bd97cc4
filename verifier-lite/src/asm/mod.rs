//! Text to a `Program`, in the syntax of ubpf and bpf_conformance with additions of ours.
//!
//! ```text
//! # sum of an array                     comments: # ; //
//!     mov %r0, 0
//! again:                                labels; the first exit is also labelled `exit`
//!     jeq %r2, 0, exit                  or +N, -N in slots
//!     ldxdw %r3, [%r1+0]
//!     lock fetch add [%r10-8], %r3
//!     call local f                      call 5, call bpf_ktime_get_ns, call extern name
//!     lddw %r1, arena+16                or a number, NAME+3, func LABEL
//!     may_goto again
//!     addr_space_cast %r1, %r1, 1
//!     load_acquire dw %r0, [%r1+0]
//!     exit
//! ```
//! Directives are listed in `directive`. Decides spelling only: what is a program at all says [`Program::new`]. Total on any
//! text: every mistake is an error with line and column.

mod case;
mod directive;
mod error;
mod instruction;
mod lex;
mod suggest;

use std::collections::BTreeMap;

pub use case::{Case, CaseError, Expected};
pub use error::{AsmError, AsmErrorKind};

use self::directive::FunctionDecl;
use self::instruction::Reference;
use self::lex::{Cursor, TokenKind};
use crate::insn::{Callee, Imm64, Insn, Pc};
use crate::program::{
    Arena, DataObject, Extern, LineInfo, MAX_SLOTS, MalformedProgram, Program, ProgramKind,
    ProgramParts, find_subprogs,
};

/// Assembles a program. Without a `.kind` it is [`ProgramKind::Memory`] of no bytes.
///
/// # Errors
/// The first mistake, with its place.
pub fn assemble(text: &str) -> Result<Program, AsmError> {
    assemble_as(text, ProgramKind::Memory { mem_len: 0 })
}

/// Assembles a program that is of `kind` unless its `.kind` says otherwise.
///
/// # Errors
/// The first mistake, with its place.
pub fn assemble_as(text: &str, kind: ProgramKind) -> Result<Program, AsmError> {
    let mut assembly = Assembly {
        kind,
        name: "main".to_owned(),
        insns: Vec::new(),
        places: Vec::new(),
        labels: BTreeMap::new(),
        names: BTreeMap::new(),
        references: Vec::new(),
        data: Vec::new(),
        arena: Arena::default(),
        externs: Vec::new(),
        functions: Vec::new(),
        lines: Vec::new(),
    };
    for (number, line) in (1..).zip(text.lines()) {
        assembly.line(line, number)?;
    }
    assembly.finish()
}

/// A reference by name that stands at a slot.
struct Open {
    at: usize,
    reference: Reference,
    line: u32,
    column: u32,
}

/// The program so far.
struct Assembly {
    kind: ProgramKind,
    name: String,
    insns: Vec<Insn>,
    /// Line and column of each slot's text.
    places: Vec<(u32, u32)>,
    labels: BTreeMap<String, Pc>,
    /// Names of data objects, arena variables and external functions (one space), with line and column.
    names: BTreeMap<String, (u32, u32)>,
    references: Vec<Open>,
    data: Vec<DataObject>,
    arena: Arena,
    externs: Vec<Extern>,
    functions: Vec<FunctionDecl>,
    lines: Vec<LineInfo>,
}

impl Assembly {
    fn pc(&self) -> Pc {
        Pc(u32::try_from(self.insns.len()).unwrap_or(u32::MAX))
    }

    fn declare(&mut self, name: &str, line: u32, column: u32) -> Result<(), AsmError> {
        if name != "arena" && !self.names.contains_key(name) {
            self.names.insert(name.to_owned(), (line, column));
            return Ok(());
        }
        Err(AsmError {
            line,
            column,
            what: AsmErrorKind::DuplicateName {
                name: name.to_owned(),
            },
        })
    }

    fn line(&mut self, text: &str, number: u32) -> Result<(), AsmError> {
        if let Some(rest) = text.trim_start().strip_prefix(".line ") {
            let info = directive::source_line(self.pc(), rest, number)?;
            // A second line for the same instruction replaces the first.
            self.lines.retain(|line| line.pc != info.pc);
            self.lines.push(info);
            return Ok(());
        }
        let mut cursor = Cursor::new(text, number)?;
        while let (Some(TokenKind::Word(name)), Some(TokenKind::Punct(':'))) =
            (cursor.peek(), cursor.peek_second())
        {
            let name = name.clone();
            if self.labels.insert(name.clone(), self.pc()).is_some() {
                return Err(cursor.error(AsmErrorKind::DuplicateLabel { name }));
            }
            cursor.advance();
            cursor.advance();
        }
        match cursor.peek() {
            None => Ok(()),
            Some(TokenKind::Word(name)) if name == ".repeat" => self.repeat(&mut cursor),
            Some(TokenKind::Word(name)) if name.starts_with('.') => {
                directive::parse(self, &mut cursor)
            }
            Some(_) => self.instruction(&mut cursor),
        }
    }

    /// `.repeat N INSTRUCTION`, for jumps that are far.
    fn repeat(&mut self, cursor: &mut Cursor) -> Result<(), AsmError> {
        cursor.advance();
        let times: u32 = cursor.number_as("a number of times", |value| value.try_into().ok())?;
        let start = cursor.position();
        for _ in 0..times {
            cursor.rewind(start);
            self.instruction(cursor)?;
        }
        Ok(())
    }

    fn instruction(&mut self, cursor: &mut Cursor) -> Result<(), AsmError> {
        if self.insns.len() >= MAX_SLOTS {
            let slots = self.insns.len() + 1;
            return Err(cursor.error(AsmErrorKind::Malformed(MalformedProgram::TooLong { slots })));
        }
        let place = (cursor.line(), cursor.column());
        let parsed = instruction::parse(cursor)?;
        if parsed.reference != Reference::None {
            self.references.push(Open {
                at: self.insns.len(),
                reference: parsed.reference,
                line: place.0,
                column: parsed.column,
            });
        }
        self.insns.push(parsed.insn);
        self.places.push(place);
        if parsed.insn.slots() == 2 {
            self.insns.push(Insn::LdImm64Tail);
            self.places.push(place);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Program, AsmError> {
        // bpf_conformance's convention: `exit` names the first exit unless the text defines it.
        if let Some(first) = self.insns.iter().position(|insn| *insn == Insn::Exit) {
            let first = Pc(u32::try_from(first).unwrap_or(u32::MAX));
            self.labels.entry("exit".to_owned()).or_insert(first);
        }
        for open in std::mem::take(&mut self.references) {
            self.resolve(&open).map_err(|what| AsmError {
                line: open.line,
                column: open.column,
                what,
            })?;
        }
        self.check_globals()?;
        let places = std::mem::take(&mut self.places);
        let malformed = |error: MalformedProgram| {
            let place = error.at().and_then(|at| places.get(at.index()).copied());
            let (line, column) = place.unwrap_or((1, 1));
            AsmError {
                line,
                column,
                what: AsmErrorKind::Malformed(error),
            }
        };
        let mut subprogs = find_subprogs(&self.insns).map_err(malformed)?;
        for subprog in subprogs.iter_mut().skip(1) {
            let mut named = self.labels.iter().filter(|(_, pc)| **pc == subprog.start);
            if let Some((name, _)) = named.next() {
                subprog.name.clone_from(name);
            }
        }
        if let Some(first) = subprogs.first_mut() {
            first.name.clone_from(&self.name);
        }
        for decl in &self.functions {
            let start = self.labels.get(&decl.label);
            let found = subprogs
                .iter_mut()
                .find(|subprog| Some(&subprog.start) == start);
            let subprog = found.ok_or_else(|| AsmError {
                line: decl.line,
                column: decl.column,
                what: AsmErrorKind::NotAFunction {
                    name: decl.label.clone(),
                },
            })?;
            subprog.name.clone_from(&decl.label);
            subprog.global = decl.global;
            subprog.args = decl.args;
        }
        Program::new(ProgramParts {
            kind: self.kind,
            name: self.name,
            insns: self.insns,
            subprogs,
            data: self.data,
            arena: self.arena,
            externs: self.externs,
            lines: self.lines,
        })
        .map_err(malformed)
    }

    fn resolve(&mut self, open: &Open) -> Result<(), AsmErrorKind> {
        let (address, index) = match &open.reference {
            Reference::None => return Ok(()),
            Reference::Label(name) => {
                let target = self.labels.get(name).copied();
                let target =
                    target.ok_or_else(|| AsmErrorKind::UnknownLabel { name: name.clone() })?;
                return self.set_target(open.at, i64::from(target.0));
            }
            Reference::Relative(delta) => {
                let at = i64::try_from(open.at).unwrap_or(i64::MAX);
                return self.set_target(open.at, at.saturating_add(1).saturating_add(*delta));
            }
            Reference::Named(name, offset) => (Some(self.address(name, *offset)?), 0),
            Reference::Extern(name) => {
                let index = self.externs.iter().position(|known| known.name == *name);
                let index = index.and_then(|index| u32::try_from(index).ok());
                let unknown = || AsmErrorKind::UnknownExtern { name: name.clone() };
                (None, index.ok_or_else(unknown)?)
            }
        };
        match (self.insns.get_mut(open.at), address) {
            (Some(Insn::LdImm64 { imm, .. }), Some(address)) => *imm = address,
            (Some(Insn::Call { callee }), None) => *callee = Callee::Extern(index),
            // A reference is only made together with one of these.
            _ => {}
        }
        Ok(())
    }

    fn address(&self, name: &str, offset: u64) -> Result<Imm64, AsmErrorKind> {
        if let Some(global) = self.arena.globals.iter().find(|known| known.name == name) {
            return Ok(Imm64::Arena {
                offset: global.offset.saturating_add(offset),
            });
        }
        let object = self.data.iter().position(|known| known.name == name);
        let object = object.and_then(|object| u32::try_from(object).ok());
        Ok(Imm64::Data {
            object: object.ok_or_else(|| AsmErrorKind::UnknownName {
                name: name.to_owned(),
            })?,
            offset: u32::try_from(offset).map_err(|_| AsmErrorKind::OutOfRange {
                value: offset.into(),
                what: "an offset",
            })?,
        })
    }

    fn set_target(&mut self, at: usize, slot: i64) -> Result<(), AsmErrorKind> {
        let end = self.insns.len();
        let inside = u32::try_from(slot)
            .ok()
            .filter(|slot| (*slot as usize) < end);
        let to = Pc(inside.ok_or(AsmErrorKind::BadTarget { target: slot })?);
        if let Some(
            Insn::Jump { target }
            | Insn::JumpIf { target, .. }
            | Insn::MayGoto { target }
            | Insn::Call {
                callee: Callee::Subprog(target),
            }
            | Insn::LdImm64 {
                imm: Imm64::Subprog(target),
                ..
            },
        ) = self.insns.get_mut(at)
        {
            *target = to;
        }
        Ok(())
    }

    /// Sorts the arena's variables; they must be disjoint and inside.
    fn check_globals(&mut self) -> Result<(), AsmError> {
        self.arena.globals.sort_by_key(|global| global.offset);
        let mut end = 0;
        for global in &self.arena.globals {
            let behind = global.offset.checked_add(global.size);
            match behind.filter(|behind| global.offset >= end && *behind <= self.arena.len) {
                Some(behind) => end = behind,
                None => {
                    let place = self.names.get(&global.name).copied().unwrap_or((1, 1));
                    return Err(AsmError {
                        line: place.0,
                        column: place.1,
                        what: AsmErrorKind::BadGlobal {
                            name: global.name.clone(),
                        },
                    });
                }
            }
        }
        Ok(())
    }
}
