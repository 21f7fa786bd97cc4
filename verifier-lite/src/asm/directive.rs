//! Directives: everything of a program that is not an instruction.
//!
//! ```text
//! .kind patch | patch_offset | probe | memory LEN
//! .name NAME                          the program's name
//! .arena LEN                          bytes
//! .global NAME OFFSET SIZE [counter]  a variable in the arena
//! .data NAME "text\0\x7f"             read-only bytes
//! .extern name(u32, ptr?, mem[1], rdmem?[3], str?) -> s32
//! .function LABEL [global] [ARGS]     what BTF says of a function
//! .repeat N INSTRUCTION               the instruction N times
//! .line FILE:LINE[:COLUMN] text       of the instructions that follow
//! ```
//! Extern parameters: `u8` to `u64` and `s8` to `s64` numbers; `ptr` a pointer of the application; `mem[I]` memory whose
//! size is argument I (from 0), `rdmem[I]` the same, only read; `str` a constant string; `?` allows zero. Result: `void` or
//! a number.

use super::Assembly;
use super::error::{AsmError, AsmErrorKind};
use super::lex::{Cursor, TokenKind};
use crate::insn::Pc;
use crate::program::{
    ArenaGlobal, DataObject, Extern, ExternParam, ExternRet, LineInfo, ProgramKind,
};

/// A `.function` directive, applied once labels are known.
pub(super) struct FunctionDecl {
    pub(super) label: String,
    pub(super) global: bool,
    pub(super) args: Option<u8>,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Parses one directive; the cursor stands on its name.
pub(super) fn parse(assembly: &mut Assembly, cursor: &mut Cursor) -> Result<(), AsmError> {
    let start = (cursor.line(), cursor.column());
    let name = cursor.word("a directive")?;
    match name.as_str() {
        ".kind" => assembly.kind = kind(cursor)?,
        ".name" => assembly.name = cursor.word("a name")?,
        ".arena" => {
            assembly.arena.len =
                cursor.number_as("a size in bytes", |value| value.try_into().ok())?;
        }
        ".global" => {
            let at = cursor.column();
            let global = ArenaGlobal {
                name: cursor.word("a name")?,
                offset: cursor.number_as("an offset", |value| value.try_into().ok())?,
                size: cursor.number_as("a size", |value| value.try_into().ok())?,
                counter: cursor.eat_word("counter"),
            };
            assembly.declare(&global.name, cursor.line(), at)?;
            assembly.arena.globals.push(global);
        }
        ".data" => {
            let at = cursor.column();
            let name = cursor.word("a name")?;
            let Some(TokenKind::Bytes(bytes)) = cursor.peek() else {
                return Err(cursor.expected("a string"));
            };
            let bytes = bytes.clone();
            cursor.advance();
            assembly.declare(&name, cursor.line(), at)?;
            assembly.data.push(DataObject { name, bytes });
        }
        ".extern" => {
            let at = cursor.column();
            let external = external(cursor)?;
            assembly.declare(&external.name, cursor.line(), at)?;
            assembly.externs.push(external);
        }
        ".function" => {
            let column = cursor.column();
            assembly.functions.push(FunctionDecl {
                label: cursor.word("a label")?,
                global: cursor.eat_word("global"),
                args: match cursor.peek() {
                    None => None,
                    Some(_) => {
                        Some(cursor.number_as("a number of arguments, 0 to 5", |value| {
                            u8::try_from(value).ok().filter(|args| *args <= 5)
                        })?)
                    }
                },
                line: cursor.line(),
                column,
            });
        }
        _ => {
            return Err(AsmError {
                line: start.0,
                column: start.1,
                what: AsmErrorKind::UnknownDirective { name },
            });
        }
    }
    cursor.end()
}

/// `.line` takes the rest of its line as it is.
pub(super) fn source_line(pc: Pc, rest: &str, line: u32) -> Result<LineInfo, AsmError> {
    let rest = rest.trim_start();
    let (place, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let bad = || AsmError {
        line,
        column: 1,
        what: AsmErrorKind::Expected {
            expected: "FILE:LINE or FILE:LINE:COLUMN",
            found: place.to_owned(),
        },
    };
    let (head, last) = place.rsplit_once(':').ok_or_else(bad)?;
    let last: u32 = last.parse().map_err(|_| bad())?;
    let with_column = head
        .rsplit_once(':')
        .and_then(|(file, number)| Some((file, number.parse::<u32>().ok()?)));
    let (file, number, column) = match with_column {
        Some((file, number)) => (file, number, last),
        None => (head, last, 0),
    };
    Ok(LineInfo {
        pc,
        file: file.to_owned(),
        line: number,
        column,
        text: text.trim().to_owned(),
    })
}

fn kind(cursor: &mut Cursor) -> Result<ProgramKind, AsmError> {
    let kind = match cursor.peek() {
        Some(TokenKind::Word(word)) => match word.as_str() {
            "patch" => ProgramKind::PatchEntry,
            "patch_offset" => ProgramKind::PatchOffset,
            "probe" => ProgramKind::Probe,
            "memory" => {
                cursor.advance();
                let mem_len = cursor.number_as("a size in bytes", |value| value.try_into().ok())?;
                return Ok(ProgramKind::Memory { mem_len });
            }
            _ => return Err(cursor.expected("patch, patch_offset, probe or memory LEN")),
        },
        _ => return Err(cursor.expected("patch, patch_offset, probe or memory LEN")),
    };
    cursor.advance();
    Ok(kind)
}

fn external(cursor: &mut Cursor) -> Result<Extern, AsmError> {
    let name = cursor.word("the name of an external function")?;
    cursor.punct('(', "(")?;
    let mut params = Vec::new();
    if !cursor.eat(')') {
        loop {
            if params.len() == 5 {
                return Err(cursor.expected("at most five parameters"));
            }
            params.push(param(cursor)?);
            if cursor.eat(')') {
                break;
            }
            cursor.comma()?;
        }
    }
    if cursor.peek() != Some(&TokenKind::Arrow) {
        return Err(cursor.expected("-> and the result"));
    }
    cursor.advance();
    let ret = if cursor.eat_word("void") {
        ExternRet::Void
    } else {
        let (signed, bytes) = scalar(cursor, "void, or u8 to u64, or s8 to s64")?;
        ExternRet::Scalar { bytes, signed }
    };
    Ok(Extern { name, params, ret })
}

fn param(cursor: &mut Cursor) -> Result<ExternParam, AsmError> {
    if cursor.eat_word("ptr") {
        return Ok(ExternParam::AppPointer {
            nullable: cursor.eat('?'),
        });
    }
    if cursor.eat_word("str") {
        return Ok(ExternParam::ConstString {
            nullable: cursor.eat('?'),
        });
    }
    for (word, readonly) in [("mem", false), ("rdmem", true)] {
        if cursor.eat_word(word) {
            let nullable = cursor.eat('?');
            cursor.punct('[', "[ and the index of the size argument")?;
            let size = cursor.number_as("an index from 0 to 5", |value| {
                u8::try_from(value).ok().filter(|index| *index <= 5)
            })?;
            cursor.punct(']', "]")?;
            return Ok(ExternParam::SizedMemory {
                size,
                nullable,
                readonly,
            });
        }
    }
    let (_, bytes) = scalar(
        cursor,
        "a parameter: u8 to u64, s8 to s64, ptr, mem, rdmem or str",
    )?;
    Ok(ExternParam::Scalar { bytes })
}

/// `u8` … `s64`: signed, bytes.
fn scalar(cursor: &mut Cursor, expected: &'static str) -> Result<(bool, u8), AsmError> {
    let found = match cursor.peek() {
        Some(TokenKind::Word(word)) => match word.as_str() {
            "u8" => Some((false, 1)),
            "u16" => Some((false, 2)),
            "u32" => Some((false, 4)),
            "u64" => Some((false, 8)),
            "s8" => Some((true, 1)),
            "s16" => Some((true, 2)),
            "s32" => Some((true, 4)),
            "s64" => Some((true, 8)),
            _ => None,
        },
        _ => None,
    };
    let found = found.ok_or_else(|| cursor.expected(expected))?;
    cursor.advance();
    Ok(found)
}
