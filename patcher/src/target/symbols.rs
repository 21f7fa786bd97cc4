//! Symbols of one image: which names have which definitions.
//!
//! Decides what counts as a definition of code (not undefined entries, not PLT addresses in a non-PIE's dynamic symbols),
//! and merges aliases; doesn't choose between namesakes.

use std::collections::BTreeMap;
use std::fmt;

use goblin::elf::sym::{STB_LOCAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE};

use object::read::elf::SectionHeader;

use super::address::Svma;
use super::demangle;
use super::dynamic::Version;
use super::elf::ElfImage;

/// Longest name of a symbol or library; longer ones don't count (C++ templates reach several KiB).
const MAX_NAME: usize = 16 << 10;
const SHN_UNDEF: u16 = 0;
const SHN_LORESERVE: u16 = 0xff00;

/// What a symbol of code stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolKind {
    /// A function, or a label in code without a type (assembly).
    Code,
    /// A resolver that returns the address of the implementation (`STT_GNU_IFUNC`).
    Ifunc,
}

/// How far a symbol is visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// `static`.
    Local,
    /// Global that others may override at link time.
    Weak,
    /// Global.
    Global,
}

/// One definition of code, as borrowed from a symbol table.
#[derive(Debug, Clone)]
pub(crate) struct RawSymbol<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) version: Option<Version>,
    pub(crate) at: Svma,
    pub(crate) size: u64,
    pub(crate) kind: SymbolKind,
    pub(crate) binding: Binding,
}

/// All that the symbol tables say about one address under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Name, without version; as in the symbol table.
    pub name: String,
    /// Versions under which it is exported.
    pub versions: Vec<Version>,
    /// Address.
    pub at: Svma,
    /// Length in bytes; 0 if no symbol says.
    pub size: u64,
    /// Function or resolver.
    pub kind: SymbolKind,
    /// The widest visibility.
    pub binding: Binding,
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for version in &self.versions {
            write!(
                f,
                "{}{}",
                if version.default { "@@" } else { "@" },
                version.name
            )?;
        }
        let binding = match self.binding {
            Binding::Local => "local",
            Binding::Weak => "weak",
            Binding::Global => "global",
        };
        write!(f, " at {} ({binding}, {} bytes)", self.at, self.size)
    }
}

/// Calls `see` for every definition of code in the dynamic symbols and the symbol table.
pub(crate) fn for_each<'a>(
    image: &'a ElfImage,
    code: &ElfImage,
    see: &mut dyn FnMut(RawSymbol<'_>),
) {
    let mut visit =
        |name: &[u8], info: u8, section: u16, value: u64, size: u64, version: Option<Version>| {
            let at = Svma(value);
            let kind = match info & 0xf {
                STT_FUNC | STT_NOTYPE => SymbolKind::Code,
                STT_GNU_IFUNC => SymbolKind::Ifunc,
                _ => return,
            };
            // SHN_ABS and the like are numbers, not places.
            if section == SHN_UNDEF
                || section >= SHN_LORESERVE
                || name.is_empty()
                || !code.is_code(at)
            {
                return;
            }
            let binding = match info >> 4 {
                STB_LOCAL => Binding::Local,
                STB_WEAK => Binding::Weak,
                _ => Binding::Global,
            };
            // The linker writes versions of definitions into the names of the symbol table.
            let (name, version) = match name.iter().position(|&byte| byte == b'@') {
                Some(sign) if sign > 0 => {
                    let rest = &name[sign + 1..];
                    let (text, default) = rest
                        .strip_prefix(b"@")
                        .map_or((rest, false), |rest| (rest, true));
                    (
                        &name[..sign],
                        Some(Version {
                            name: String::from_utf8_lossy(text).into_owned(),
                            default,
                        }),
                    )
                }
                _ => (name, version),
            };
            see(RawSymbol {
                name,
                version,
                at,
                size,
                kind,
                binding,
            });
        };
    // Names may share their ends, so together they can be longer than the string table, but not by much.
    let mut budget = image.bytes().len().saturating_mul(4);
    let mut affordable = |name: &[u8]| match budget.checked_sub(name.len()) {
        Some(rest) => {
            budget = rest;
            true
        }
        None => false,
    };
    for (name, symbol, version) in image.dynamic().symbols(image.bytes()) {
        if !affordable(name) {
            break;
        }
        let section = u16::try_from(symbol.st_shndx).unwrap_or(SHN_UNDEF);
        visit(
            name,
            symbol.st_info,
            section,
            symbol.st_value,
            symbol.st_size,
            version,
        );
    }
    let Some(file) = image.sections() else { return };
    let little = object::LittleEndian;
    let table = file.elf_symbol_table();
    let strings = file.elf_section_table().section(table.string_section());
    let Ok(strings) = strings.and_then(|section| section.data(little, image.bytes())) else {
        return;
    };
    for symbol in table.iter() {
        let Some(name) = text_at(strings, u64::from(symbol.st_name.get(little))) else {
            continue;
        };
        if !affordable(name) {
            break;
        }
        let section = symbol.st_shndx.get(little);
        visit(
            name,
            symbol.st_info.0,
            section.0,
            symbol.st_value.get(little),
            symbol.st_size.get(little),
            None,
        );
    }
}

/// The text that ends with NUL at an offset of a string table, if it isn't longer than any real name.
pub(crate) fn text_at(strings: &[u8], at: u64) -> Option<&[u8]> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    let rest = &rest[..rest.len().min(MAX_NAME)];
    rest.iter()
        .position(|&byte| byte == 0)
        .map(|end| &rest[..end])
}

/// How a name is meant to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    AsInTable,
    Demangled,
}

/// All definitions of `name` in an image that holds its own code; see `find_function` and `resolve` for how it is read.
#[must_use]
pub fn definitions_of(image: &ElfImage, name: &str) -> Vec<Definition> {
    definitions(image, image, name)
}

/// All definitions of `name` (`f`, `f@VERSION`, `f@@VERSION`), aliases at one address merged, sorted by address: exact names, or
/// if there are none, demangled ones.
pub(crate) fn definitions(image: &ElfImage, code: &ElfImage, name: &str) -> Vec<Definition> {
    let exact = collect(image, code, name, Spelling::AsInTable);
    if exact.is_empty() {
        collect(image, code, name, Spelling::Demangled)
    } else {
        exact
    }
}

fn collect(image: &ElfImage, code: &ElfImage, wanted: &str, spelling: Spelling) -> Vec<Definition> {
    let (name, version) = match (spelling, wanted.split_once('@')) {
        (Spelling::AsInTable, Some((name, version))) if !name.is_empty() => (name, Some(version)),
        _ => (wanted, None),
    };
    let mut found: BTreeMap<Svma, Definition> = BTreeMap::new();
    for_each(image, code, &mut |symbol| {
        let same = match spelling {
            Spelling::AsInTable => symbol.name == name.as_bytes(),
            Spelling::Demangled => demangle::is_called(symbol.name, name),
        };
        if same {
            add(&mut found, &symbol);
        }
    });
    let mut found: Vec<Definition> = found.into_values().collect();
    if let Some(version) = version {
        let (version, default) = version
            .strip_prefix('@')
            .map_or((version, false), |version| (version, true));
        found.retain(|one| {
            one.versions
                .iter()
                .any(|own| own.name == version && (own.default || !default))
        });
    }
    found
}

fn add(found: &mut BTreeMap<Svma, Definition>, symbol: &RawSymbol<'_>) {
    let entry = found.entry(symbol.at).or_insert_with(|| Definition {
        name: String::from_utf8_lossy(symbol.name).into_owned(),
        versions: Vec::new(),
        at: symbol.at,
        size: symbol.size,
        kind: symbol.kind,
        binding: symbol.binding,
    });
    entry.size = entry.size.max(symbol.size);
    entry.binding = entry.binding.max(symbol.binding);
    entry.kind = entry.kind.max(symbol.kind);
    if let Some(version) = &symbol.version
        && !entry.versions.contains(version)
    {
        entry.versions.push(version.clone());
    }
}

/// The function whose symbol has a size and covers `at`; of several the one that begins last, then the widest visible.
pub(crate) fn covering(image: &ElfImage, code: &ElfImage, at: Svma) -> Option<Definition> {
    let mut found: BTreeMap<Svma, Definition> = BTreeMap::new();
    for_each(image, code, &mut |symbol| {
        if at.since(symbol.at).is_some_and(|into| into < symbol.size) && !is_part(symbol.name) {
            add(&mut found, &symbol);
        }
    });
    found.into_values().next_back()
}

/// Is it the name of a split-off part of a function (gcc's `f.cold`, `f.part.0` is a function of its own)?
pub(crate) fn is_part(name: &[u8]) -> bool {
    name.windows(5).any(|window| window == b".cold")
}

/// Are these the same but for one letter too many, missing or wrong, or two that changed places?
fn is_one_slip(one: &[u8], other: &[u8]) -> bool {
    let same = std::iter::zip(one, other)
        .take_while(|(a, b)| a == b)
        .count();
    let (one, other) = (&one[same..], &other[same..]);
    let same = std::iter::zip(one.iter().rev(), other.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    match (&one[..one.len() - same], &other[..other.len() - same]) {
        ([_], [] | [_]) | ([], [_]) => true,
        ([a, b], [c, d]) => a == d && b == c,
        _ => false,
    }
}

/// Names that contain `name` (or the other way round) or differ by a slip, for the error message: at most `limit`, shortest first.
pub(crate) fn similar(image: &ElfImage, code: &ElfImage, name: &str, limit: usize) -> Vec<String> {
    let wanted = name
        .trim_start_matches('_')
        .split('@')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut names: Vec<String> = Vec::new();
    if wanted.len() < 3 {
        return names;
    }
    for_each(image, code, &mut |symbol| {
        if symbol.name.len() > 200 || names.len() > 10_000 {
            return;
        }
        let own = String::from_utf8_lossy(symbol.name);
        let lower = own.to_ascii_lowercase();
        let contained = lower.contains(&wanted) || (lower.len() > 4 && wanted.contains(&lower));
        if contained || is_one_slip(lower.as_bytes(), wanted.as_bytes()) {
            names.push(own.into_owned());
        }
    });
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.dedup();
    names.truncate(limit);
    names
}
