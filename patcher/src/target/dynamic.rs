//! The dynamic section: soname, dynamic symbols with their versions, relocations.
//!
//! Works without section headers and on images from memory, where ld.so has made some pointers absolute: those that
//! point into the loaded image are turned back (the vDSO's stay as they are). Unusable parts count as absent.

use goblin::elf::dynamic::{
    DF_TEXTREL, DT_GNU_HASH, DT_HASH, DT_JMPREL, DT_PLTGOT, DT_REL, DT_RELA, DT_STRTAB, DT_SYMTAB,
    DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERSYM, DynamicInfo,
};
use goblin::elf::section_header::{SHT_GNU_VERDEF, SHT_GNU_VERSYM};
use goblin::elf::{SectionHeader, Sym, Symtab, VerdefSection, VersymSection};
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{GnuHashTable, HashTable};

use super::address::{LoadBias, Svma};
use super::elf::{CTX, Headers, slice};
use super::symbols::text_at;

/// Most version definitions that are believed (libc has about 40).
const MAX_VERSIONS: usize = 4096;
/// Length of an `Elf64_Rela`.
const RELA_LEN: usize = 24;

/// Where the parts of the dynamic section lie in the image's bytes; all offsets are unchecked until used.
#[derive(Debug, Default)]
pub struct Dynamic {
    strings: (u64, u64),
    symbols: (u64, u64),
    versym: u64,
    versions: Vec<(u16, String)>,
    rela: (u64, u64),
    jmprel: (u64, u64),
    soname: Option<String>,
    textrel: bool,
}

/// One relocation with addend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// The place that is relocated.
    pub at: Svma,
    /// `R_X86_64_…`.
    pub kind: u32,
    /// Index of the symbol, 0 for none.
    pub symbol: u32,
    /// The addend.
    pub addend: i64,
}

/// The version that a dynamic symbol belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// `name@@VERSION`: what a plain `name` is linked to.
    pub default: bool,
}

impl Dynamic {
    pub(crate) fn parse(bytes: &[u8], headers: &Headers, bias: Option<LoadBias>) -> Self {
        let Ok(Some(mut dynamic)) = goblin::elf::Dynamic::parse(bytes, &headers.phdrs, CTX) else {
            return Self::default();
        };
        if let (Some(bias), Some(span)) = (bias, headers.span()) {
            for entry in &mut dynamic.dyns {
                let pointer = matches!(
                    entry.d_tag,
                    DT_STRTAB
                        | DT_SYMTAB
                        | DT_HASH
                        | DT_GNU_HASH
                        | DT_RELA
                        | DT_REL
                        | DT_JMPREL
                        | DT_PLTGOT
                        | DT_VERSYM
                        | DT_VERDEF
                        | DT_VERNEED
                );
                let stated = entry.d_val.wrapping_sub(bias.0);
                if pointer && span.contains(&stated) && !span.contains(&entry.d_val) {
                    entry.d_val = stated;
                }
            }
        }
        let info = DynamicInfo::new(&dynamic.dyns, &headers.phdrs);
        let mut this = Self {
            strings: (info.strtab as u64, info.strsz as u64),
            symbols: (info.symtab as u64, 0),
            versym: info.versym,
            versions: Vec::new(),
            rela: (info.rela as u64, info.relasz as u64),
            jmprel: (info.jmprel as u64, info.pltrelsz as u64),
            soname: None,
            textrel: info.textrel || info.flags & DF_TEXTREL != 0,
        };
        this.symbols.1 = count_symbols(bytes, &info);
        if info.soname != 0 {
            this.soname = this
                .string(bytes, info.soname as u64)
                .map(|name| String::from_utf8_lossy(name).into_owned());
        }
        // goblin takes the *number* of version definitions for a pointer: read from the entry itself.
        let count = dynamic
            .dyns
            .iter()
            .find(|entry| entry.d_tag == DT_VERDEFNUM)
            .map_or(0, |entry| entry.d_val);
        this.versions = this.definitions(
            bytes,
            info.verdef,
            usize::try_from(count).unwrap_or(0).min(MAX_VERSIONS),
        );
        this
    }

    /// `DT_SONAME`.
    #[must_use]
    pub fn soname(&self) -> Option<&str> {
        self.soname.as_deref()
    }

    /// Does ld.so write into the text (`DT_TEXTREL`, `DF_TEXTREL`)?
    #[must_use]
    pub const fn has_text_relocations(&self) -> bool {
        self.textrel
    }

    /// All dynamic symbols with name and version; `bytes` are the image's.
    pub(crate) fn symbols<'a>(
        &'a self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], Sym, Option<Version>)> {
        let (start, count) = (
            usize::try_from(self.symbols.0).unwrap_or(0),
            usize::try_from(self.symbols.1).unwrap_or(0),
        );
        let table = if start == 0 {
            Symtab::default()
        } else {
            Symtab::parse(bytes, start, count, CTX).unwrap_or_default()
        };
        let section = SectionHeader {
            sh_type: SHT_GNU_VERSYM,
            sh_offset: self.versym,
            sh_size: 2 * count as u64,
            ..SectionHeader::default()
        };
        let versions = match self.versym {
            0 => None,
            _ => slice(bytes, self.versym, section.sh_size)
                .and_then(|_| VersymSection::parse(bytes, &[section], CTX).ok().flatten()),
        };
        (0..table.len()).filter_map(move |index| {
            let symbol = table.get(index)?;
            let name = self.string(bytes, symbol.st_name as u64)?;
            let version = versions
                .as_ref()
                .and_then(|versions| versions.get_at(index))
                .and_then(|entry| {
                    let named = self
                        .versions
                        .iter()
                        .find(|(number, _)| *number == entry.version())?;
                    Some(Version {
                        name: named.1.clone(),
                        default: !entry.is_hidden(),
                    })
                });
            Some((name, symbol, version))
        })
    }

    /// Relocations with addend, those of the PLT last.
    pub(crate) fn relocations<'a>(
        &self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = Relocation> + use<'a> {
        let table = |(start, len): (u64, u64)| {
            let bytes = if start == 0 {
                None
            } else {
                slice(bytes, start, len)
            };
            relocations_in(bytes.unwrap_or_default())
        };
        table(self.rela).chain(table(self.jmprel))
    }

    fn string<'a>(&self, bytes: &'a [u8], at: u64) -> Option<&'a [u8]> {
        let available = (bytes.len() as u64).checked_sub(self.strings.0)?;
        text_at(
            slice(bytes, self.strings.0, self.strings.1.min(available))?,
            at,
        )
    }

    fn definitions(&self, bytes: &[u8], at: u64, count: usize) -> Vec<(u16, String)> {
        let Some(len) = (bytes.len() as u64).checked_sub(at).filter(|_| at != 0) else {
            return Vec::new();
        };
        let section = SectionHeader {
            sh_type: SHT_GNU_VERDEF,
            sh_offset: at,
            sh_size: len,
            sh_info: u32::try_from(count).unwrap_or(0),
            ..SectionHeader::default()
        };
        let Ok(Some(section)) = VerdefSection::parse(bytes, &[section], CTX) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for definition in section.iter() {
            if let Some(name) = definition
                .iter()
                .next()
                .and_then(|aux| self.string(bytes, aux.vda_name as u64))
            {
                names.push((
                    definition.vd_ndx & 0x7fff,
                    String::from_utf8_lossy(name).into_owned(),
                ));
            }
        }
        names
    }
}

/// The entries of a table of relocations with addend (`Elf64_Rela`).
pub(crate) fn relocations_in(table: &[u8]) -> impl Iterator<Item = Relocation> {
    table.as_chunks::<RELA_LEN>().0.iter().map(|entry| {
        let word = |at: usize| {
            let bytes = &entry[at..at + 8];
            bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        Relocation {
            at: Svma(word(0)),
            kind: (word(8) & 0xffff_ffff) as u32,
            symbol: (word(8) >> 32) as u32,
            addend: word(16).cast_signed(),
        }
    })
}

/// The dynamic section doesn't say how many symbols there are: the hash tables do.
fn count_symbols(bytes: &[u8], info: &DynamicInfo) -> u64 {
    let from = |at: u64| usize::try_from(at).ok().and_then(|at| bytes.get(at..));
    let gnu = info.gnu_hash.and_then(from).and_then(|table| {
        let table = GnuHashTable::<FileHeader64<LittleEndian>>::parse(LittleEndian, table).ok()?;
        table.symbol_table_length(LittleEndian)
    });
    let sysv = || {
        let table =
            HashTable::<FileHeader64<LittleEndian>>::parse(LittleEndian, info.hash.and_then(from)?)
                .ok()?;
        Some(table.symbol_table_length())
    };
    gnu.or_else(sysv).map_or(0, u64::from)
}
