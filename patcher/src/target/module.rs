//! One loaded ELF module: which mappings belong together, where it lies, what it is called.
//!
//! A file is a module wherever an executable mapping of it agrees with its program headers: files that a program merely
//! maps to read them are none, and a library that is loaded twice (dlmopen) is two.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use goblin::elf::dynamic::{DT_NULL, DT_SONAME, DT_STRTAB};
use goblin::elf::program_header::PT_DYNAMIC;
use upatch_trampolines::{Avma, AvmaRange};

use super::address::{LoadBias, Svma};
use super::build_id::BuildId;
use super::bytes::Bytes;
use super::elf::{self, ElfError, ElfImage, Headers, PAGE};
use super::error::{ModuleId, ResolveError};
use super::memory::{SameFile, TargetMemory};
use crate::process::maps::{Backing, Mapping, Maps};

/// Longest dynamic section that is read from memory.
const MAX_DYNAMIC: u64 = 64 << 10;
/// Longest soname.
const MAX_SONAME: usize = 256;

/// A loaded ELF file, or the vDSO.
#[derive(Debug)]
pub struct Module {
    path: PathBuf,
    deleted: bool,
    main: bool,
    soname: Option<String>,
    bias: LoadBias,
    range: AvmaRange,
    build_id: Option<BuildId>,
    headers: Headers,
    mappings: Vec<Mapping>,
    image: OnceLock<Result<Arc<ElfImage>, ElfError>>,
}

impl Module {
    /// All modules of a process, in the order of addresses; `entry` is any address inside the main program.
    pub(crate) fn find_all(
        memory: &impl TargetMemory,
        maps: &Maps,
        main: Option<Avma>,
    ) -> Vec<Self> {
        let mut modules: Vec<Self> = Vec::new();
        for mapping in maps
            .iter()
            .filter(|mapping| mapping.perms.exec && may_hold_elf(mapping))
        {
            let known = modules.iter().any(|module| {
                module.range.contains(mapping.range.start)
                    && module.mappings.iter().any(|own| own == mapping)
            });
            if known {
                continue;
            }
            if let Some(mut module) = Self::at(memory, maps, mapping) {
                module.main = main.is_some_and(|main| module.range.contains(main));
                modules.push(module);
            }
        }
        modules.sort_by_key(|module| module.range.start);
        modules
    }

    /// The module to which an executable mapping belongs.
    fn at(memory: &impl TargetMemory, maps: &Maps, text: &Mapping) -> Option<Self> {
        let agrees = |headers: &Headers| headers.bias_of(text.range.start, text.offset, true);
        // The header usually lies in the nearest mapping of the file's first byte, at or before the text.
        let header = maps.iter().rfind(|one| {
            one.same_file(text) && one.offset == 0 && one.range.start <= text.range.start
        });
        let in_memory = header.and_then(|header| {
            let headers = headers_in_memory(memory, header.range.start)?;
            let bias = agrees(&headers)?;
            let first = headers.segments().find(|segment| segment.offset < PAGE)?;
            let stated = Svma(first.svma.0.wrapping_sub(first.offset));
            (bias.avma(stated) == header.range.start).then_some((headers, bias))
        });
        let (headers, bias) = in_memory.or_else(|| {
            let headers = headers_in_file(&memory.open_mapping_file(text).ok()?)?;
            agrees(&headers).map(|bias| (headers, bias))
        })?;
        let span = headers.span()?;
        let range = AvmaRange::new(bias.avma(Svma(span.start)), span.end - span.start);
        let mappings: Vec<Mapping> = maps
            .overlapping(range)
            .filter(|one| one.same_file(text))
            .cloned()
            .collect();
        let (path, deleted) = match &text.backing {
            Backing::File { path, deleted } => (path.clone(), *deleted),
            Backing::Pseudo(name) => (PathBuf::from(name), false),
            Backing::Anonymous => return None,
        };
        Some(Self {
            path,
            deleted,
            main: false,
            soname: soname_in_memory(memory, &headers, bias),
            bias,
            range,
            build_id: elf::build_id_in_memory(memory, &headers, bias),
            headers,
            mappings,
            image: OnceLock::new(),
        })
    }

    /// Path as the process sees it (`/memfd:name` for a memfd, `[vdso]` for the vDSO).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Last part of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    /// `DT_SONAME`.
    #[must_use]
    pub fn soname(&self) -> Option<&str> {
        self.soname.as_deref()
    }

    /// Is it the main program?
    #[must_use]
    pub const fn is_main(&self) -> bool {
        self.main
    }

    /// Was its file deleted or replaced?
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// AVMA minus SVMA.
    #[must_use]
    pub const fn bias(&self) -> LoadBias {
        self.bias
    }

    /// From its first page to its last; other mappings may lie in gaps between its segments.
    #[must_use]
    pub const fn range(&self) -> AvmaRange {
        self.range
    }

    /// The build-id that lies in the process's memory.
    #[must_use]
    pub const fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// Mappings of its file, as they were when the snapshot was taken.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// How errors list it.
    #[must_use]
    pub fn id(&self) -> ModuleId {
        ModuleId {
            path: self.path.clone(),
            at: self.range.start,
            build_id: self.build_id.clone(),
        }
    }

    /// Is `name` its path, its file name, its soname, or `exe` for the main program?
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        (name == "exe" && self.main)
            || self.soname.as_deref() == Some(name)
            || self.name() == name
            || self.path == Path::new(name)
    }

    /// The ELF image: from the file where it can be opened, else from memory. Read once.
    ///
    /// # Errors
    /// Not usable, or the file's build-id isn't the one in memory.
    pub fn image(&self, memory: &impl TargetMemory) -> Result<Arc<ElfImage>, ResolveError> {
        let image = self
            .image
            .get_or_init(|| self.load(memory).map(Arc::new))
            .as_ref()
            .map_err(|error| ResolveError::Elf {
                module: self.path.clone(),
                error: error.clone(),
            })?;
        if image.build_id() == self.build_id.as_ref() {
            Ok(Arc::clone(image))
        } else {
            Err(ResolveError::FileChanged {
                module: self.path.clone(),
                file: image.build_id().cloned(),
                memory: self.build_id.clone(),
            })
        }
    }

    fn load(&self, memory: &impl TargetMemory) -> Result<ElfImage, ElfError> {
        for mapping in &self.mappings {
            if let Ok(file) = memory.open_mapping_file(mapping)
                && let Ok(bytes) = Bytes::of_file(&file)
            {
                return ElfImage::from_file(bytes);
            }
        }
        ElfImage::from_memory(memory, self.headers.clone(), self.bias)
    }
}

fn may_hold_elf(mapping: &Mapping) -> bool {
    match &mapping.backing {
        Backing::File { .. } => true,
        Backing::Pseudo(name) => name == "[vdso]",
        Backing::Anonymous => false,
    }
}

fn headers_in_memory(memory: &impl TargetMemory, at: Avma) -> Option<Headers> {
    let mut header = [0; Headers::LEN];
    memory.read_exact_at(at, &mut header).ok()?;
    let read = |range: std::ops::Range<u64>| {
        let unreadable = |error: String| ElfError::Unreadable {
            at: at.plus(range.start),
            error,
        };
        let mut table = vec![
            0;
            usize::try_from(range.end - range.start)
                .map_err(|error| unreadable(error.to_string()))?
        ];
        memory
            .read_exact_at(at.plus(range.start), &mut table)
            .map_err(|error| unreadable(error.to_string()))?;
        Ok(table)
    };
    Headers::parse(&header, read).ok()
}

/// Only what is needed: an executable mapping may be a compiler's gigabyte of generated code.
fn headers_in_file(file: &File) -> Option<Headers> {
    let mut header = [0; Headers::LEN];
    file.read_exact_at(&mut header, 0).ok()?;
    let read = |range: std::ops::Range<u64>| {
        let malformed = |what: String| ElfError::Malformed { what };
        let len = usize::try_from(range.end - range.start);
        let mut table = vec![0; len.map_err(|error| malformed(error.to_string()))?];
        let done = file.read_exact_at(&mut table, range.start);
        done.map_err(|error| malformed(error.to_string()))?;
        Ok(table)
    };
    Headers::parse(&header, read).ok()
}

fn soname_in_memory(
    memory: &impl TargetMemory,
    headers: &Headers,
    bias: LoadBias,
) -> Option<String> {
    let phdr = headers
        .phdrs
        .iter()
        .find(|phdr| phdr.p_type == PT_DYNAMIC)?;
    let mut section = vec![0; usize::try_from(phdr.p_memsz.min(MAX_DYNAMIC)).ok()?];
    memory
        .read_exact_at(bias.avma(Svma(phdr.p_vaddr)), &mut section)
        .ok()?;
    let (mut strings, mut name) = (None, None);
    for entry in section.as_chunks::<16>().0 {
        let word = |at: usize| {
            entry[at..at + 8]
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        match word(0) {
            DT_NULL => break,
            DT_STRTAB => strings = Some(word(8)),
            DT_SONAME => name = Some(word(8)),
            _ => (),
        }
    }
    // ld.so makes the pointer absolute, for the vDSO it stays as stated.
    let span = headers.span()?;
    let strings = strings?;
    let strings = if span.contains(&strings) {
        bias.avma(Svma(strings))
    } else {
        Avma(strings)
    };
    let at = strings.plus(name?);
    let mut text = [0; MAX_SONAME];
    // The name may lie right before an unmapped page.
    let to_page_end = usize::try_from(PAGE - at.0 % PAGE).unwrap_or(MAX_SONAME);
    if memory.read_exact_at(at, &mut text).is_err() {
        memory
            .read_exact_at(at, text.get_mut(..to_page_end)?)
            .ok()?;
    }
    let end = text.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&text[..end])
        .ok()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}
