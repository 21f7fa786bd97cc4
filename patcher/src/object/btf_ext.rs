//! Reads BTF.ext: which function and which source line an instruction belongs to, and CO-RE relocations.
//!
//! Positions are bytes in the section that a record names. It doesn't know whether such a section exists.

use super::btf::{Btf, BtfError, TypeId};
use super::bytes::{u16_at, u32_at};

const MAGIC: u16 = 0xeb9f;
/// Most records of one kind.
const MAX_RECORDS: usize = 1 << 17;
/// Most bytes of file names and source lines together: records can name one long string again and again.
const MAX_TEXT: usize = 32 << 20;

/// A function starts here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FunctionInfo<'a> {
    pub(super) section: &'a str,
    pub(super) offset: u32,
    /// A `Type::Function`, if the object is honest.
    pub(super) ty: TypeId,
}

/// A source line starts here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line<'a> {
    pub(super) section: &'a str,
    pub(super) offset: u32,
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// This instruction depends on a type's layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CoreRelocation<'a> {
    pub(super) section: &'a str,
    pub(super) offset: u32,
    pub(super) ty: TypeId,
    /// Indices from the type to the field, `0:14`.
    pub(super) access: &'a str,
    /// enum bpf_core_relo_kind (include/uapi/linux/bpf.h).
    pub(super) kind: u32,
}

/// The content of a `.BTF.ext` section.
#[derive(Debug, Default)]
pub(super) struct BtfExt<'a> {
    pub(super) functions: Vec<FunctionInfo<'a>>,
    pub(super) lines: Vec<Line<'a>>,
    pub(super) core: Vec<CoreRelocation<'a>>,
}

fn damaged(what: impl Into<String>) -> BtfError {
    BtfError {
        section: ".BTF.ext",
        what: what.into(),
    }
}

impl<'a> BtfExt<'a> {
    /// Reads a `.BTF.ext` section; its strings are those of `btf`.
    pub(super) fn parse(section: &[u8], btf: &Btf<'a>) -> Result<Self, BtfError> {
        if u16_at(section, 0) != Some(MAGIC) || section.get(2) != Some(&1) {
            return Err(damaged("it does not begin as BTF.ext of version 1"));
        }
        let header = u32_at(section, 4).ok_or_else(|| damaged("its header is too short"))?;
        let text = |offset| {
            btf.string(offset)
                .ok_or_else(|| damaged(format!("the string at {offset} is not text")))
        };
        let mut this = Self::default();
        let mut text_left = MAX_TEXT;
        records(section, header, 8, 8, &text, &mut |section, record| {
            let (offset, ty) = (word(record, 0), TypeId(word(record, 4)));
            this.functions.push(FunctionInfo {
                section,
                offset,
                ty,
            });
            Ok(())
        })?;
        records(section, header, 16, 16, &text, &mut |section, record| {
            let place = word(record, 12);
            let file = text(word(record, 4))?;
            // A line that is not UTF-8 or overlong must not make the object unusable.
            let line = btf.string(word(record, 8)).unwrap_or_default();
            text_left = text_left
                .checked_sub(file.len() + line.len())
                .ok_or_else(|| damaged("its source lines are too long"))?;
            this.lines.push(Line {
                section,
                offset: word(record, 0),
                file,
                text: line,
                line: place >> 10,
                column: place & 0x3ff,
            });
            Ok(())
        })?;
        // Older producers end the header before the CO-RE part.
        if header >= 32 {
            records(section, header, 24, 16, &text, &mut |section, record| {
                this.core.push(CoreRelocation {
                    section,
                    offset: word(record, 0),
                    ty: TypeId(word(record, 4)),
                    access: text(word(record, 8))?,
                    kind: word(record, 12),
                });
                Ok(())
            })?;
        }
        Ok(this)
    }
}

fn word(record: &[u8], at: usize) -> u32 {
    u32_at(record, at).unwrap_or_default()
}

/// Hands each record of the part whose place stands in the header at `place` to `take`; records have at least
/// `smallest` bytes.
fn records<'a>(
    bytes: &[u8],
    header: u32,
    place: usize,
    smallest: usize,
    text: &impl Fn(u32) -> Result<&'a str, BtfError>,
    take: &mut impl FnMut(&'a str, &[u8]) -> Result<(), BtfError>,
) -> Result<(), BtfError> {
    let short = || damaged("its records end too early");
    let (offset, len) = u32_at(bytes, place)
        .zip(u32_at(bytes, place + 4))
        .ok_or_else(|| damaged("its header is too short"))?;
    if len == 0 {
        return Ok(());
    }
    let start = (header as usize)
        .checked_add(offset as usize)
        .ok_or_else(short)?;
    let end = start.checked_add(len as usize).ok_or_else(short)?;
    let part = bytes
        .get(start..end)
        .ok_or_else(|| damaged("its records lie outside of it"))?;
    let size = u32_at(part, 0).ok_or_else(short)? as usize;
    if size < smallest || !size.is_multiple_of(4) {
        return Err(damaged(format!("its records have {size} bytes")));
    }
    let mut rest = &part[4..];
    let mut seen = 0_usize;
    while !rest.is_empty() {
        let (name, count) = u32_at(rest, 0).zip(u32_at(rest, 4)).ok_or_else(short)?;
        let section = text(name)?;
        let bytes = (count as usize).checked_mul(size).ok_or_else(short)?;
        seen = seen.saturating_add(count as usize);
        if seen > MAX_RECORDS {
            return Err(damaged("it has too many records"));
        }
        let body = rest
            .get(8..)
            .and_then(|rest| rest.get(..bytes))
            .ok_or_else(short)?;
        body.chunks_exact(size)
            .try_for_each(|record| take(section, record))?;
        rest = &rest[8 + bytes..];
    }
    Ok(())
}
