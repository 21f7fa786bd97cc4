//! One instruction's text to an `Insn`, its references by name left open.
//!
//! Knows the mnemonics of ubpf and bpf_conformance and ours for what those lack. Doesn't know where labels and data
//! are: it hands back a [`Reference`] beside the instruction.

use super::error::{AsmError, AsmErrorKind};
use super::lex::{Cursor, TokenKind};
use super::suggest::unknown;
use crate::insn::{
    AddrSpaceCast, AluOp, AtomicOp, Callee, CmpOp, EndianOp, Imm64, Insn, Operand, Pc, Reg, Size,
    Width,
};

/// What an instruction refers to by name or distance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reference {
    None,
    /// A label.
    Label(String),
    /// Slots from the next instruction.
    Relative(i64),
    /// A data object or arena variable, and bytes from its start.
    Named(String, u64),
    /// An external function.
    Extern(String),
}

/// An instruction whose target, callee or address is filled in later.
pub(super) struct Parsed {
    pub(super) insn: Insn,
    pub(super) reference: Reference,
    /// Column of the reference.
    pub(super) column: u32,
}

const NOWHERE: Pc = Pc(0);

pub(super) const ALU: [(&str, AluOp); 14] = [
    ("add", AluOp::Add),
    ("sub", AluOp::Sub),
    ("mul", AluOp::Mul),
    ("div", AluOp::Div),
    ("sdiv", AluOp::SDiv),
    ("or", AluOp::Or),
    ("and", AluOp::And),
    ("lsh", AluOp::Lsh),
    ("rsh", AluOp::Rsh),
    ("mod", AluOp::Mod),
    ("smod", AluOp::SMod),
    ("xor", AluOp::Xor),
    ("mov", AluOp::Mov),
    ("arsh", AluOp::Arsh),
];

pub(super) const CMP: [(&str, CmpOp); 11] = [
    ("jeq", CmpOp::Eq),
    ("jne", CmpOp::Ne),
    ("jgt", CmpOp::Gt),
    ("jge", CmpOp::Ge),
    ("jlt", CmpOp::Lt),
    ("jle", CmpOp::Le),
    ("jsgt", CmpOp::SGt),
    ("jsge", CmpOp::SGe),
    ("jslt", CmpOp::SLt),
    ("jsle", CmpOp::SLe),
    ("jset", CmpOp::Set),
];

pub(super) const ENDIAN: [(&str, EndianOp); 4] = [
    ("le", EndianOp::ToLe),
    ("be", EndianOp::ToBe),
    ("swap", EndianOp::Swap),
    ("bswap", EndianOp::Swap),
];

pub(super) const MOVSX: [(&str, Size, Width); 5] = [
    ("movsx832", Size::B, Width::W32),
    ("movsx864", Size::B, Width::W64),
    ("movsx1632", Size::H, Width::W32),
    ("movsx1664", Size::H, Width::W64),
    ("movsx3264", Size::W, Width::W64),
];

pub(super) const SIZES: [(&str, Size); 4] = [
    ("b", Size::B),
    ("h", Size::H),
    ("w", Size::W),
    ("dw", Size::DW),
];

fn lookup<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

/// `add32` is `add` at 32 bits, `add` and `add64` at 64.
fn split_width(name: &str) -> (&str, Width) {
    if let Some(base) = name.strip_suffix("32") {
        (base, Width::W32)
    } else {
        (name.strip_suffix("64").unwrap_or(name), Width::W64)
    }
}

/// Parses one instruction; the cursor stands on its mnemonic.
pub(super) fn parse(cursor: &mut Cursor) -> Result<Parsed, AsmError> {
    let start = (cursor.line(), cursor.column());
    let name = cursor.word("an instruction")?;
    let mut parsed = Parsed {
        insn: Insn::Exit,
        reference: Reference::None,
        column: start.1,
    };
    let (base, width) = split_width(&name);
    if let Some(insn) = arithmetic(&name, cursor)? {
        parsed.insn = insn;
    } else if let Some(insn) = memory(&name, cursor)? {
        parsed.insn = insn;
    } else if let Some(op) = lookup(&CMP, base) {
        let dst = cursor.reg()?;
        cursor.comma()?;
        let src = operand(cursor)?;
        cursor.comma()?;
        target(cursor, &mut parsed)?;
        parsed.insn = Insn::JumpIf {
            op,
            width,
            dst,
            src,
            target: NOWHERE,
        };
    } else {
        match name.as_str() {
            "ja" | "ja32" | "gotol" => {
                target(cursor, &mut parsed)?;
                parsed.insn = Insn::Jump { target: NOWHERE };
            }
            "may_goto" => {
                target(cursor, &mut parsed)?;
                parsed.insn = Insn::MayGoto { target: NOWHERE };
            }
            "lddw" => lddw(cursor, &mut parsed)?,
            "call" => call(cursor, &mut parsed)?,
            "exit" => {}
            _ => {
                return Err(AsmError {
                    line: start.0,
                    column: start.1,
                    what: unknown(name),
                });
            }
        }
    }
    cursor.end()?;
    Ok(parsed)
}

fn arithmetic(name: &str, cursor: &mut Cursor) -> Result<Option<Insn>, AsmError> {
    let (base, width) = split_width(name);
    if let Some(op) = lookup(&ALU, base) {
        let dst = cursor.reg()?;
        cursor.comma()?;
        let src = operand(cursor)?;
        return Ok(Some(Insn::Alu {
            op,
            width,
            dst,
            src,
        }));
    }
    if base == "neg" {
        let dst = cursor.reg()?;
        return Ok(Some(Insn::Neg { width, dst }));
    }
    if let Some(&(_, from, width)) = MOVSX.iter().find(|(known, ..)| *known == name) {
        let dst = cursor.reg()?;
        cursor.comma()?;
        let src = cursor.reg()?;
        return Ok(Some(Insn::MovSx {
            width,
            from,
            dst,
            src,
        }));
    }
    for (prefix, op) in ENDIAN {
        let bits = match name.strip_prefix(prefix) {
            Some("16") => 16,
            Some("32") => 32,
            Some("64") => 64,
            _ => continue,
        };
        let dst = cursor.reg()?;
        return Ok(Some(Insn::Endian { op, bits, dst }));
    }
    if name == "addr_space_cast" {
        let dst = cursor.reg()?;
        cursor.comma()?;
        let src = cursor.reg()?;
        cursor.comma()?;
        let cast = cursor.number_as("a cast (1 or 0x10000)", |value| match value {
            1 => Some(AddrSpaceCast::FromArena),
            0x10000 => Some(AddrSpaceCast::ToArena),
            _ => None,
        })?;
        return Ok(Some(Insn::AddrSpaceCast { cast, dst, src }));
    }
    Ok(None)
}

fn memory(name: &str, cursor: &mut Cursor) -> Result<Option<Insn>, AsmError> {
    if let Some(rest) = name.strip_prefix("ldx") {
        let (signed, size) = match (lookup(&SIZES, rest), rest.strip_prefix('s')) {
            (Some(size), _) => (false, size),
            (None, Some(rest)) => match lookup(&SIZES, rest) {
                Some(size @ (Size::B | Size::H | Size::W)) => (true, size),
                Some(Size::DW) | None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let dst = cursor.reg()?;
        cursor.comma()?;
        let (base, off) = address(cursor)?;
        return Ok(Some(Insn::Load {
            size,
            signed,
            dst,
            base,
            off,
        }));
    }
    if let Some(size) = name.strip_prefix("stx").and_then(|s| lookup(&SIZES, s)) {
        let (base, off) = address(cursor)?;
        cursor.comma()?;
        let src = Operand::Reg(cursor.reg()?);
        return Ok(Some(Insn::Store {
            size,
            base,
            off,
            src,
        }));
    }
    if let Some(size) = name.strip_prefix("st").and_then(|s| lookup(&SIZES, s)) {
        let (base, off) = address(cursor)?;
        cursor.comma()?;
        let src = Operand::Imm(immediate(cursor)?);
        return Ok(Some(Insn::Store {
            size,
            base,
            off,
            src,
        }));
    }
    match name {
        "lock" => atomic(cursor).map(Some),
        "load_acquire" => {
            let size = size(cursor)?;
            let dst = cursor.reg()?;
            cursor.comma()?;
            let (base, off) = address(cursor)?;
            Ok(Some(Insn::LoadAcquire {
                size,
                dst,
                base,
                off,
            }))
        }
        "store_release" => {
            let size = size(cursor)?;
            let (base, off) = address(cursor)?;
            cursor.comma()?;
            let src = cursor.reg()?;
            Ok(Some(Insn::StoreRelease {
                size,
                base,
                off,
                src,
            }))
        }
        _ => Ok(None),
    }
}

/// After `lock`: `[fetch] add|or|and|xor[32]`, `fetch_add…`, `xchg[32]`, `cmpxchg[32]`.
fn atomic(cursor: &mut Cursor) -> Result<Insn, AsmError> {
    let fetch_word = cursor.eat_word("fetch");
    let at = (cursor.line(), cursor.column());
    let name = cursor.word("an atomic operation")?;
    let (base, width) = split_width(&name);
    let (fetch, base) = match base.strip_prefix("fetch_") {
        Some(base) => (true, base),
        None => (fetch_word, base),
    };
    let op = match base {
        "add" => AtomicOp::Add { fetch },
        "or" => AtomicOp::Or { fetch },
        "and" => AtomicOp::And { fetch },
        "xor" => AtomicOp::Xor { fetch },
        "xchg" => AtomicOp::Xchg,
        "cmpxchg" => AtomicOp::CmpXchg,
        _ => {
            return Err(AsmError {
                line: at.0,
                column: at.1,
                what: AsmErrorKind::Expected {
                    expected: "add, or, and, xor, xchg or cmpxchg",
                    found: name,
                },
            });
        }
    };
    let (base, off) = address(cursor)?;
    cursor.comma()?;
    let src = cursor.reg()?;
    let size = match width {
        Width::W32 => Size::W,
        Width::W64 => Size::DW,
    };
    Ok(Insn::Atomic {
        op,
        size,
        base,
        off,
        src,
    })
}

/// A number, `arena+16`, `NAME+3` or `func LABEL`.
fn lddw(cursor: &mut Cursor, parsed: &mut Parsed) -> Result<(), AsmError> {
    let dst = cursor.reg()?;
    cursor.comma()?;
    parsed.column = cursor.column();
    let imm = if cursor.eat_word("func") {
        parsed.reference = Reference::Label(cursor.word("a label")?);
        Imm64::Subprog(NOWHERE)
    } else if let Some(TokenKind::Word(name)) = cursor.peek() {
        let name = name.clone();
        cursor.advance();
        let offset = if cursor.eat('+') {
            cursor.number_as("an offset", |value| u64::try_from(value).ok())?
        } else {
            0
        };
        if name != "arena" {
            parsed.reference = Reference::Named(name, offset);
        }
        Imm64::Arena { offset }
    } else {
        Imm64::Const(cursor.number_as("a 64-bit number", |value| {
            u64::try_from(value)
                .or_else(|_| i64::try_from(value).map(i64::cast_unsigned))
                .ok()
        })?)
    };
    parsed.insn = Insn::LdImm64 { dst, imm };
    Ok(())
}

fn call(cursor: &mut Cursor, parsed: &mut Parsed) -> Result<(), AsmError> {
    parsed.column = cursor.column();
    let callee = if cursor.eat_word("local") {
        parsed.column = cursor.column();
        if matches!(cursor.peek(), Some(TokenKind::Word(_))) {
            parsed.reference = Reference::Label(cursor.word("a label")?);
        } else {
            target(cursor, parsed)?;
        }
        Callee::Subprog(NOWHERE)
    } else if cursor.eat_word("extern") {
        parsed.reference = Reference::Extern(cursor.word("the name of an external function")?);
        Callee::Extern(0)
    } else if matches!(cursor.peek(), Some(TokenKind::Word(word)) if word == "runtime") {
        return Err(cursor.error(AsmErrorKind::Unsupported {
            name: "call runtime".to_owned(),
            instead: "declare the function with .extern and write: call extern NAME",
        }));
    } else {
        cursor.eat_word("helper");
        parsed.column = cursor.column();
        if let Some(TokenKind::Word(name)) = cursor.peek() {
            let helper = upatch_abi::helpers::HELPERS
                .iter()
                .find(|helper| helper.name == name)
                .ok_or_else(|| cursor.error(AsmErrorKind::UnknownHelper { name: name.clone() }))?;
            cursor.advance();
            Callee::Helper(helper.id)
        } else {
            Callee::Helper(cursor.number_as("the id of a helper", |value| value.try_into().ok())?)
        }
    };
    parsed.insn = Insn::Call { callee };
    Ok(())
}

/// A label, or `+N` or `-N` slots.
fn target(cursor: &mut Cursor, parsed: &mut Parsed) -> Result<(), AsmError> {
    parsed.column = cursor.column();
    parsed.reference = match cursor.peek() {
        Some(TokenKind::Word(_)) => Reference::Label(cursor.word("a label")?),
        Some(TokenKind::Punct('+' | '-')) => {
            Reference::Relative(cursor.number_as("a jump distance", |value| {
                i32::try_from(value).ok().map(i64::from)
            })?)
        }
        _ => return Err(cursor.expected("a label, +N or -N")),
    };
    Ok(())
}

fn operand(cursor: &mut Cursor) -> Result<Operand, AsmError> {
    if cursor.is_reg() {
        cursor.reg().map(Operand::Reg)
    } else {
        immediate(cursor).map(Operand::Imm)
    }
}

/// 32 bits: as a signed or unsigned number, or as the 64-bit number that it is sign-extended to.
fn immediate(cursor: &mut Cursor) -> Result<i32, AsmError> {
    cursor.number_as("a 32-bit immediate", |value| {
        i32::try_from(value)
            .or_else(|_| u32::try_from(value).map(u32::cast_signed))
            .ok()
            .or_else(|| i32::try_from(u64::try_from(value).ok()?.cast_signed()).ok())
    })
}

/// `[%r1]`, `[%r1+8]`, `[%r10-8]`.
fn address(cursor: &mut Cursor) -> Result<(Reg, i16), AsmError> {
    cursor.punct('[', "an address like [%r1+8]")?;
    let base = cursor.reg()?;
    let off = if cursor.peek() == Some(&TokenKind::Punct(']')) {
        0
    } else if matches!(cursor.peek(), Some(TokenKind::Punct('+' | '-'))) {
        cursor.number_as("a 16-bit offset", |value| value.try_into().ok())?
    } else {
        return Err(cursor.expected("+, - or ]"));
    };
    cursor.punct(']', "]")?;
    Ok((base, off))
}

fn size(cursor: &mut Cursor) -> Result<Size, AsmError> {
    let size = match cursor.peek() {
        Some(TokenKind::Word(word)) => lookup(&SIZES, word),
        _ => None,
    };
    let size = size.ok_or_else(|| cursor.expected("a size: b, h, w or dw"))?;
    cursor.advance();
    Ok(size)
}
