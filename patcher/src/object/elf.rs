//! Reads what a relocatable BPF object needs of ELF (System V gABI, chapters 4 and 5): header, sections, symbols and
//! REL relocations. 64-bit, little-endian, machine BPF, nothing else.
//!
//! It knows nothing of what the sections mean. Invariant: everything handed out lies within the file, and sections
//! don't share bytes, so that whoever copies them copies no more than the file holds.

use super::bytes::{slice_at, str_at, u16_at, u32_at, u64_at};

const HEADER: usize = 64;
const SECTION_HEADER: usize = 64;
const SYMBOL: usize = 24;
const REL: usize = 16;

const ET_REL: u16 = 1;
const EM_BPF: u16 = 247;
const SHT_SYMTAB: u32 = 2;
const SHT_RELA: u32 = 4;
const SHT_NOBITS: u32 = 8;
const SHT_REL: u32 = 9;
const SHF_WRITE: u64 = 1;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;

/// Largest object, in bytes.
pub(super) const MAX_FILE: usize = 256 << 20;
/// Section names hold paths.
const MAX_NAME: usize = 4096;
const MAX_SYMBOLS: usize = 1 << 16;
const MAX_SECTIONS: u16 = 4096;
/// Most bytes of symbol names together: symbols can share one long name.
const MAX_SYMBOL_NAMES: usize = 16 << 20;
const MAX_RELOCATIONS: usize = 1 << 20;

/// Why a file isn't an object of ours.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ElfError {
    /// The first bytes are something else.
    #[error("the file is not an ELF file")]
    NotElf,
    /// ELF, but not ours.
    #[error("the file is {what}, not a 64-bit little-endian BPF object")]
    WrongKind {
        /// What it is.
        what: String,
    },
    /// More than the parser's limit.
    #[error("the object has too many {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// A table or section lies outside of the file.
    #[error("the object is truncated or damaged: {what} of {place} is outside of the file")]
    OutOfFile {
        /// What.
        what: &'static str,
        /// Of what.
        place: String,
    },
    /// Anything else that can't be.
    #[error("the object is damaged: {what}")]
    Damaged {
        /// What can't be.
        what: String,
    },
}

fn damaged(what: impl Into<String>) -> ElfError {
    ElfError::Damaged { what: what.into() }
}

/// One section.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    pub(super) name: &'a str,
    kind: u32,
    flags: u64,
    /// Empty if the section occupies no bytes in the file (`.bss`).
    pub(super) data: &'a [u8],
    /// Size in memory.
    pub(super) size: u64,
    /// A power of two, at least 1.
    pub(super) align: u64,
    link: u32,
    info: u32,
}

impl Section<'_> {
    /// Holds BPF instructions.
    pub(super) fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0 && self.kind != SHT_NOBITS
    }

    /// Is part of the program's memory, and no code.
    pub(super) fn is_data(&self) -> bool {
        self.flags & SHF_ALLOC != 0 && self.flags & SHF_EXECINSTR == 0
    }

    /// The program may write it.
    pub(super) fn is_writable(&self) -> bool {
        self.flags & SHF_WRITE != 0
    }
}

/// Where a symbol is defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Undefined,
    /// In the section of this index.
    Section(usize),
    /// Absolute, common, or a reserved index.
    Other,
}

/// What a symbol names (ELF64_ST_TYPE), as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SymbolKind {
    Object,
    Function,
    Section,
    Other,
}

/// One symbol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol<'a> {
    pub(super) name: &'a str,
    pub(super) kind: SymbolKind,
    /// Binding is global or weak, and visibility isn't hidden.
    pub(super) global: bool,
    pub(super) place: Place,
    pub(super) value: u64,
    pub(super) size: u64,
}

/// One REL relocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Relocation {
    /// Byte in the section that it changes.
    pub(super) offset: u64,
    /// Index in [`Elf::symbols`].
    pub(super) symbol: usize,
    /// R_BPF_…
    pub(super) kind: u32,
}

/// A parsed object.
#[derive(Debug)]
pub(super) struct Elf<'a> {
    pub(super) sections: Vec<Section<'a>>,
    pub(super) symbols: Vec<Symbol<'a>>,
}

impl<'a> Elf<'a> {
    /// Reads header, sections and symbols.
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, ElfError> {
        if file.len() > MAX_FILE {
            return Err(ElfError::TooMany { what: "bytes" });
        }
        let sections = sections(file)?;
        let symbols = symbols(&sections)?;
        Ok(Self { sections, symbols })
    }

    /// The only section of this name, or `None`.
    pub(super) fn section(&self, name: &str) -> Result<Option<usize>, ElfError> {
        let mut found = self
            .sections
            .iter()
            .enumerate()
            .filter(|(_, section)| section.name == name);
        let first = found.next();
        if found.next().is_some() {
            return Err(damaged(format!("two sections are named `{name}`")));
        }
        Ok(first.map(|(index, _)| index))
    }

    /// Relocations of the section with index `of`, by ascending offset, at most one per offset.
    pub(super) fn relocations(&self, of: usize) -> Result<Vec<Relocation>, ElfError> {
        let mut all = Vec::new();
        for section in &self.sections {
            if section.info as usize != of || !matches!(section.kind, SHT_REL | SHT_RELA) {
                continue;
            }
            if section.kind == SHT_RELA {
                return Err(damaged(format!(
                    "`{}` has explicit addends, which BPF objects do not have",
                    section.name
                )));
            }
            if !section.data.len().is_multiple_of(REL) {
                return Err(damaged(format!("`{}` ends inside an entry", section.name)));
            }
            if all.len() + section.data.len() / REL > MAX_RELOCATIONS {
                return Err(ElfError::TooMany {
                    what: "relocations",
                });
            }
            for entry in section.data.chunks_exact(REL) {
                let (Some(offset), Some(info)) = (u64_at(entry, 0), u64_at(entry, 8)) else {
                    break;
                };
                let symbol = (info >> 32) as usize;
                if symbol >= self.symbols.len() {
                    return Err(damaged(format!(
                        "a relocation in `{}` names symbol {symbol}, which does not exist",
                        section.name
                    )));
                }
                let kind = (info & 0xffff_ffff) as u32;
                all.push(Relocation {
                    offset,
                    symbol,
                    kind,
                });
            }
        }
        all.sort_by_key(|relocation| relocation.offset);
        match all.windows(2).find(|pair| pair[0].offset == pair[1].offset) {
            Some(pair) => Err(damaged(format!(
                "two relocations at offset {:#x}",
                pair[0].offset
            ))),
            None => Ok(all),
        }
    }
}

fn sections(file: &[u8]) -> Result<Vec<Section<'_>>, ElfError> {
    if file.get(..4) != Some(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    let header = |what| ElfError::OutOfFile {
        what,
        place: "the file header".into(),
    };
    let wrong = |what: &str| Err(ElfError::WrongKind { what: what.into() });
    match file.get(4) {
        Some(2) => {}
        Some(1) => return wrong("a 32-bit ELF file"),
        _ => return wrong("an ELF file of an unknown class"),
    }
    match file.get(5) {
        Some(1) => {}
        Some(2) => return wrong("a big-endian ELF file"),
        _ => return wrong("an ELF file of an unknown byte order"),
    }
    let file_type = u16_at(file, 16).ok_or_else(|| header("the type"))?;
    let machine = u16_at(file, 18).ok_or_else(|| header("the machine"))?;
    match machine {
        EM_BPF => {}
        62 => return wrong("an ELF file for x86-64"),
        other => return wrong(&format!("an ELF file for machine {other}")),
    }
    if file_type != ET_REL {
        return wrong("a BPF file that is not relocatable");
    }
    let table = u64_at(file, 40).ok_or_else(|| header("the section table"))?;
    let entry_size = u16_at(file, 58).ok_or_else(|| header("the section size"))?;
    let count = u16_at(file, 60).ok_or_else(|| header("the section count"))?;
    let names = u16_at(file, 62).ok_or_else(|| header("the name section"))?;
    if usize::from(entry_size) != SECTION_HEADER || file.len() < HEADER {
        return Err(damaged("the section table's entries do not have 64 bytes"));
    }
    if count > MAX_SECTIONS {
        return Err(ElfError::TooMany { what: "sections" });
    }
    let table = slice_at(file, table, u64::from(count) * SECTION_HEADER as u64)
        .ok_or_else(|| header("the section table"))?;
    let names = table
        .chunks_exact(SECTION_HEADER)
        .nth(usize::from(names))
        .and_then(|entry| slice_at(file, u64_at(entry, 24)?, u64_at(entry, 32)?))
        .ok_or_else(|| header("the section of names"))?;

    let mut sections = Vec::with_capacity(usize::from(count));
    let mut in_file = 0_u64;
    for entry in table.chunks_exact(SECTION_HEADER) {
        let section = section(file, names, entry)?;
        in_file = in_file.saturating_add(section.data.len() as u64);
        sections.push(section);
    }
    // Honest sections are disjoint. Without this a file of 1 MB could make us copy 64 GB.
    if in_file > file.len() as u64 {
        return Err(damaged("its sections overlap"));
    }
    Ok(sections)
}

fn section<'a>(file: &'a [u8], names: &'a [u8], entry: &[u8]) -> Result<Section<'a>, ElfError> {
    let word = |at| u32_at(entry, at).unwrap_or_default();
    let long = |at| u64_at(entry, at).unwrap_or_default();
    let name =
        str_at(names, word(0), MAX_NAME).ok_or_else(|| damaged("a section's name is not text"))?;
    let (kind, size) = (word(4), long(32));
    let data = if matches!(kind, 0 | SHT_NOBITS) {
        &[]
    } else {
        slice_at(file, long(24), size).ok_or_else(|| ElfError::OutOfFile {
            what: "the content",
            place: format!("section `{name}`"),
        })?
    };
    let align = long(48).max(1);
    if !align.is_power_of_two() {
        return Err(damaged(format!(
            "section `{name}` is aligned to {align} bytes"
        )));
    }
    Ok(Section {
        name,
        kind,
        flags: long(8),
        data,
        size,
        align,
        link: word(40),
        info: word(44),
    })
}

fn symbols<'a>(sections: &[Section<'a>]) -> Result<Vec<Symbol<'a>>, ElfError> {
    let mut tables = sections.iter().filter(|section| section.kind == SHT_SYMTAB);
    let Some(table) = tables.next() else {
        return Err(damaged("it has no symbol table"));
    };
    if tables.next().is_some() {
        return Err(damaged("it has two symbol tables"));
    }
    if !table.data.len().is_multiple_of(SYMBOL) {
        return Err(damaged("the symbol table ends inside an entry"));
    }
    if table.data.len() / SYMBOL > MAX_SYMBOLS {
        return Err(ElfError::TooMany { what: "symbols" });
    }
    let names = sections
        .get(table.link as usize)
        .ok_or_else(|| damaged("the symbol table has no names"))?
        .data;
    let mut symbols = Vec::with_capacity(table.data.len() / SYMBOL);
    let mut names_left = MAX_SYMBOL_NAMES;
    for entry in table.data.chunks_exact(SYMBOL) {
        let (info, other) = (entry[4], entry[5]);
        let name = str_at(names, u32_at(entry, 0).unwrap_or_default(), MAX_NAME)
            .ok_or_else(|| damaged("a symbol's name is not text"))?;
        names_left = names_left
            .checked_sub(name.len())
            .ok_or(ElfError::TooMany {
                what: "bytes in symbol names",
            })?;
        let place = match u16_at(entry, 6).unwrap_or_default() {
            0 => Place::Undefined,
            0xff00.. => Place::Other,
            index if usize::from(index) < sections.len() => Place::Section(usize::from(index)),
            index => {
                return Err(damaged(format!(
                    "symbol `{name}` is in section {index}, which does not exist"
                )));
            }
        };
        symbols.push(Symbol {
            name,
            kind: match info & 0xf {
                1 => SymbolKind::Object,
                2 => SymbolKind::Function,
                3 => SymbolKind::Section,
                _ => SymbolKind::Other,
            },
            // Visibility 1 and 2 are internal and hidden: libbpf treats such functions as static.
            global: matches!(info >> 4, 1 | 2) && !matches!(other & 3, 1 | 2),
            place,
            value: u64_at(entry, 8).unwrap_or_default(),
            size: u64_at(entry, 16).unwrap_or_default(),
        });
    }
    Ok(symbols)
}
