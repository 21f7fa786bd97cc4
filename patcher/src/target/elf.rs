//! One ELF image as bytes with meaning: segments, build-id, dynamic section, function bounds, by stated address.
//!
//! Decides how bytes of a file (by file offset) and of a process's memory (by address) become one view; doesn't know
//! processes beyond reading the image. Every reader is total: any bytes give an image or an [`ElfError`]. goblin reads
//! headers and the dynamic section, because it manages without section headers and with images from memory; `object`
//! reads sections, where a file has them.

use std::ops::Range;
use std::sync::OnceLock;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{EM_X86_64, ET_DYN, ET_EXEC, Header};
use goblin::elf::program_header::{PF_X, PT_GNU_EH_FRAME, PT_LOAD, PT_NOTE, ProgramHeader};
use goblin::elf64::header::SIZEOF_EHDR;
use object::LittleEndian;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};
use upatch_trampolines::Avma;

use super::address::{LoadBias, Svma};
use super::build_id::BuildId;
use super::bytes::Bytes;
use super::dynamic::{self, Dynamic, Relocation};
use super::frames::{self, Frame};
use super::memory::TargetMemory;

/// All that is supported: 64-bit little-endian.
pub(crate) const CTX: Ctx = Ctx {
    container: Container::Big,
    le: Endian::Little,
};
/// Most program headers that are believed; real files have about a dozen.
const MAX_SEGMENTS: usize = 512;
/// Longest image that is read from memory.
const MAX_IMAGE: u64 = 512 << 20;
/// Most bytes of notes that are looked at.
const MAX_NOTES: u64 = 64 << 10;
/// x86-64 has 4 KiB pages.
pub(crate) const PAGE: u64 = 4096;

/// Bytes that are no ELF image we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not an ELF header, or one that contradicts itself.
    #[error("malformed ELF image: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// An ELF image of another machine or kind.
    #[error(
        "not an x86-64 executable or shared library (class {class}, machine {machine}, type {kind})"
    )]
    Unsupported {
        /// 1 for 32-bit, 2 for 64-bit.
        class: u8,
        /// `e_machine`.
        machine: u16,
        /// `e_type`.
        kind: u16,
    },
    /// The image in memory is longer than is read.
    #[error("ELF image of {len} bytes in memory is larger than the limit of {MAX_IMAGE}")]
    TooLarge {
        /// Its length.
        len: u64,
    },
    /// Reading it from memory failed.
    #[error("reading the ELF image from memory at {at} failed: {error}")]
    Unreadable {
        /// Where.
        at: Avma,
        /// The kernel's word.
        error: String,
    },
}

/// Where an image's bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The file: what the linker wrote.
    File,
    /// The process's memory: what is there now, probes and relocations of others included.
    Memory,
}

/// A `PT_LOAD` segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First stated address.
    pub svma: Svma,
    /// Length in memory, in bytes; not 0.
    pub memsz: u64,
    /// Length in the file, in bytes.
    pub filesz: u64,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// Executable.
    pub exec: bool,
}

/// The header and the program headers.
#[derive(Debug, Clone)]
pub struct Headers {
    /// Program headers as they stand in the file.
    pub phdrs: Vec<ProgramHeader>,
    /// Does the file state final addresses (non-PIE)?
    pub fixed: bool,
}

impl Headers {
    /// Length of an ELF64 header.
    pub const LEN: usize = SIZEOF_EHDR;

    /// Reads the header and asks `read` for the program headers: offset and length in the file.
    ///
    /// # Errors
    /// Malformed, or not for x86-64.
    pub fn parse(
        header: &[u8],
        read: impl FnOnce(Range<u64>) -> Result<Vec<u8>, ElfError>,
    ) -> Result<Self, ElfError> {
        let malformed = |what: &str| ElfError::Malformed {
            what: what.to_owned(),
        };
        if header.len() < SIZEOF_EHDR || !header.starts_with(b"\x7fELF") {
            return Err(malformed("no ELF header"));
        }
        // Class and byte order are looked at first: goblin reads the header as they say.
        let (class, order) = (header[4], header[5]);
        if class != 2 || order != 1 {
            return Err(ElfError::Unsupported {
                class,
                machine: 0,
                kind: 0,
            });
        }
        let header: Header = goblin::elf::Elf::parse_header(header)
            .map_err(|error| malformed(&error.to_string()))?;
        if header.e_machine != EM_X86_64 || !matches!(header.e_type, ET_EXEC | ET_DYN) {
            return Err(ElfError::Unsupported {
                class,
                machine: header.e_machine,
                kind: header.e_type,
            });
        }
        let count = usize::from(header.e_phnum);
        let size = ProgramHeader::size(CTX);
        if count == 0 || count > MAX_SEGMENTS || usize::from(header.e_phentsize) != size {
            return Err(malformed("number or size of program headers"));
        }
        let end = header
            .e_phoff
            .checked_add((count * size) as u64)
            .ok_or_else(|| malformed("offset of program headers"))?;
        let table = read(header.e_phoff..end)?;
        let phdrs = ProgramHeader::parse(&table, 0, count, CTX)
            .map_err(|error| malformed(&error.to_string()))?;
        Ok(Self {
            phdrs,
            fixed: header.e_type == ET_EXEC,
        })
    }

    /// The loaded segments, in the order of the file; those whose addresses overflow are left out.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        self.phdrs
            .iter()
            .filter(|phdr| phdr.p_type == PT_LOAD && phdr.p_memsz > 0)
            .filter_map(|phdr| {
                phdr.p_vaddr.checked_add(phdr.p_memsz)?;
                phdr.p_offset.checked_add(phdr.p_filesz)?;
                Some(Segment {
                    svma: Svma(phdr.p_vaddr),
                    memsz: phdr.p_memsz,
                    filesz: phdr.p_filesz.min(phdr.p_memsz),
                    offset: phdr.p_offset,
                    exec: phdr.p_flags & PF_X != 0,
                })
            })
    }

    /// Stated addresses from the first segment to the last, in whole pages.
    #[must_use]
    pub fn span(&self) -> Option<Range<u64>> {
        let start = self.segments().map(|segment| segment.svma.0).min()?;
        let end = self
            .segments()
            .map(|segment| segment.svma.0.saturating_add(segment.memsz))
            .max()?;
        Some(start & !(PAGE - 1)..end.checked_next_multiple_of(PAGE)?)
    }

    /// The load bias under which byte `offset` of the file (the beginning of a mapping) lies at `at`, by the first
    /// segment of matching kind that the mapping can belong to.
    #[must_use]
    pub fn bias_of(&self, at: Avma, offset: u64, exec: bool) -> Option<LoadBias> {
        self.segments()
            .filter(|segment| segment.exec == exec)
            .find_map(|segment| {
                let first = segment.offset & !(PAGE - 1);
                let end = segment.offset.checked_add(segment.filesz)?;
                let into = offset.checked_sub(first)?;
                (offset < end).then(|| {
                    LoadBias::between(at, Svma((segment.svma.0 & !(PAGE - 1)).wrapping_add(into)))
                })
            })
    }
}

/// An ELF image with its bytes.
#[derive(Debug)]
pub struct ElfImage {
    bytes: Bytes,
    source: Source,
    headers: Headers,
    /// Segments with `offset` into `bytes`.
    segments: Vec<Segment>,
    build_id: Option<BuildId>,
    dynamic: Dynamic,
    frames: OnceLock<Vec<Frame>>,
}

impl ElfImage {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// Malformed, or not for x86-64.
    pub fn from_file(bytes: Bytes) -> Result<Self, ElfError> {
        let headers = Headers::parse(&bytes, |range| {
            slice(&bytes, range.start, range.end - range.start)
                .map(<[u8]>::to_vec)
                .ok_or_else(|| ElfError::Malformed {
                    what: "program headers lie outside the file".to_owned(),
                })
        })?;
        Self::new(bytes, Source::File, headers, None)
    }

    /// Reads the image of a module that is loaded with `bias` from memory. Pages that can't be read count as zero.
    ///
    /// # Errors
    /// Larger than is read, or headers that contradict themselves.
    pub fn from_memory(
        memory: &impl TargetMemory,
        headers: Headers,
        bias: LoadBias,
    ) -> Result<Self, ElfError> {
        let malformed = |what: &str| ElfError::Malformed {
            what: what.to_owned(),
        };
        let span = headers
            .span()
            .ok_or_else(|| malformed("no loaded segment"))?;
        let len = span.end - span.start;
        if len > MAX_IMAGE {
            return Err(ElfError::TooLarge { len });
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| ElfError::TooLarge { len })?];
        for segment in headers.segments() {
            let start = (segment.svma.0 & !(PAGE - 1)).saturating_sub(span.start);
            let end = (segment.svma.0 + segment.memsz)
                .next_multiple_of(PAGE)
                .saturating_sub(span.start);
            let (Ok(first), Ok(last)) = (usize::try_from(start), usize::try_from(end)) else {
                continue;
            };
            let Some(target) = bytes.get_mut(first..last) else {
                continue;
            };
            read_what_is_there(
                memory,
                bias.avma(Svma(span.start.wrapping_add(start))),
                target,
            );
        }
        // From here on file offset = distance from the first page: the view is the same as that of a file.
        let mut moved = headers.clone();
        for phdr in &mut moved.phdrs {
            phdr.p_offset = phdr.p_vaddr.wrapping_sub(span.start);
            if phdr.p_type == PT_LOAD {
                phdr.p_filesz = phdr.p_memsz;
            }
        }
        Self::new(Bytes::Owned(bytes), Source::Memory, moved, Some(bias))
    }

    fn new(
        bytes: Bytes,
        source: Source,
        headers: Headers,
        bias: Option<LoadBias>,
    ) -> Result<Self, ElfError> {
        let mut segments: Vec<Segment> = headers.segments().collect();
        segments.sort_by_key(|segment| segment.svma);
        if segments.is_empty() {
            return Err(ElfError::Malformed {
                what: "no loaded segment".to_owned(),
            });
        }
        let build_id = headers
            .phdrs
            .iter()
            .filter(|phdr| phdr.p_type == PT_NOTE)
            .find_map(|phdr| {
                BuildId::in_notes(
                    slice(&bytes, phdr.p_offset, phdr.p_filesz.min(MAX_NOTES))?,
                    phdr.p_align,
                )
            });
        let dynamic = Dynamic::parse(&bytes, &headers, bias);
        Ok(Self {
            bytes,
            source,
            headers,
            segments,
            build_id,
            dynamic,
            frames: OnceLock::new(),
        })
    }

    /// Where the bytes came from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// All bytes: the file, or the image from its first page on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The build-id, if there is one.
    #[must_use]
    pub const fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// The dynamic section.
    #[must_use]
    pub const fn dynamic(&self) -> &Dynamic {
        &self.dynamic
    }

    /// Relocations that are applied when the image is loaded. A static program has no dynamic section to list them: there its
    /// own start-up code applies those of the sections (`.rela.plt`, `.rela.iplt`).
    #[must_use]
    pub fn relocations(&self) -> Vec<Relocation> {
        let listed: Vec<Relocation> = self.dynamic.relocations(&self.bytes).collect();
        if !listed.is_empty() {
            return listed;
        }
        let Some(file) = self.sections() else {
            return listed;
        };
        let plt = [".rela.plt", ".rela.iplt"].into_iter();
        let tables = plt.filter_map(|name| file.section_by_name(name)?.data().ok());
        tables.flat_map(dynamic::relocations_in).collect()
    }

    /// The loaded segments in the order of addresses; `offset` counts in [`ElfImage::bytes`].
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segment whose bytes in the file cover `at`.
    #[must_use]
    pub fn segment_of(&self, at: Svma) -> Option<&Segment> {
        self.segments.iter().find(|segment| {
            at.since(segment.svma)
                .is_some_and(|into| into < segment.filesz)
        })
    }

    /// `len` bytes at a stated address, if one segment holds them all.
    #[must_use]
    pub fn at(&self, at: Svma, len: u64) -> Option<&[u8]> {
        let segment = self.segment_of(at)?;
        let into = at.since(segment.svma)?;
        if into.checked_add(len)? > segment.filesz {
            return None;
        }
        slice(&self.bytes, segment.offset.checked_add(into)?, len)
    }

    /// All bytes from a stated address to the end of its segment.
    #[must_use]
    pub fn from(&self, at: Svma) -> Option<&[u8]> {
        let segment = self.segment_of(at)?;
        let into = at.since(segment.svma)?;
        let len = segment.filesz.checked_sub(into)?;
        let start = segment.offset.checked_add(into)?;
        let available = (self.bytes.len() as u64).checked_sub(start)?;
        slice(&self.bytes, start, len.min(available))
    }

    /// Does `at` lie in an executable segment?
    #[must_use]
    pub fn is_code(&self, at: Svma) -> bool {
        self.segment_of(at).is_some_and(|segment| segment.exec)
    }

    /// The file's sections and symbol tables; `None` for images from memory and files without section headers.
    #[must_use]
    pub fn sections(&self) -> Option<ElfFile64<'_, LittleEndian>> {
        match self.source {
            Source::File => ElfFile64::parse(&*self.bytes).ok(),
            Source::Memory => None,
        }
    }

    /// Bounds of functions by `.eh_frame`, sorted by address; empty if there is none.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        self.frames.get_or_init(|| frames::parse(self))
    }

    /// The program headers; `p_offset` counts in [`ElfImage::bytes`].
    pub(crate) fn phdrs(&self) -> &[ProgramHeader] {
        &self.headers.phdrs
    }

    /// Address of `.eh_frame_hdr`.
    pub(crate) fn eh_frame_hdr(&self) -> Option<(Svma, u64)> {
        let phdr = self
            .headers
            .phdrs
            .iter()
            .find(|phdr| phdr.p_type == PT_GNU_EH_FRAME)?;
        Some((Svma(phdr.p_vaddr), phdr.p_filesz))
    }
}

/// The bytes at a range that may be any nonsense.
pub(crate) fn slice(bytes: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let end = usize::try_from(start.checked_add(len)?).ok()?;
    bytes.get(usize::try_from(start).ok()?..end)
}

/// Reads a whole range, or else page by page what can be read.
fn read_what_is_there(memory: &impl TargetMemory, at: Avma, target: &mut [u8]) {
    if memory.read_exact_at(at, target).is_ok() {
        return;
    }
    target.fill(0);
    let mut here = at;
    for page in target.chunks_mut(PAGE as usize) {
        if memory.read_exact_at(here, page).is_err() {
            page.fill(0);
        }
        here = here.plus(PAGE);
    }
}

/// The build-id in a loaded module's memory.
pub(crate) fn build_id_in_memory(
    memory: &impl TargetMemory,
    headers: &Headers,
    bias: LoadBias,
) -> Option<BuildId> {
    headers
        .phdrs
        .iter()
        .filter(|phdr| phdr.p_type == PT_NOTE)
        .find_map(|phdr| {
            let mut notes = vec![0; usize::try_from(phdr.p_filesz.min(MAX_NOTES)).ok()?];
            memory
                .read_exact_at(bias.avma(Svma(phdr.p_vaddr)), &mut notes)
                .ok()?;
            BuildId::in_notes(&notes, phdr.p_align)
        })
}
