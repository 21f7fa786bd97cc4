//! A patch site: a place in the text of a running process, with the bytes that its ELF file has there.

use std::sync::Arc;

use upatch_trampolines::function::{CodePart, FunctionText};
use upatch_trampolines::{Avma, AvmaRange, JUMP_LEN};

use super::address::Svma;
use super::elf::{ElfImage, Source};
use super::error::{Foreign, MappingFault, ResolveError};
use super::memory::{SameFile, TargetMemory};
use super::module::Module;
use super::plt::Plt;
use crate::process::maps::Maps;

/// A place that may be patched, if its instructions allow it.
///
/// Holding a `PatchSite` tells you: the module has one of the build-ids that were asked for; `bytes` is the whole function as
/// its file has it (or, where no file could be opened, its memory: [`PatchSite::source`]); the site begins an instruction; no
/// relocation writes into the function; and its text was mapped private, executable and not writable when it was resolved.
///
/// Only [`super::TargetImage::resolve`] makes one:
///
/// ```compile_fail,E0451
/// # fn forge(module: std::sync::Arc<upatch::target::Module>) {
/// let site = upatch::target::PatchSite { module };
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PatchSite {
    pub(super) module: Arc<Module>,
    pub(super) image: Arc<ElfImage>,
    pub(super) plt: Plt,
    pub(super) function: Option<String>,
    pub(super) start: Svma,
    pub(super) site: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) padding: Vec<u8>,
    pub(super) parts: Vec<(Svma, Vec<u8>)>,
    pub(super) entry_points: Vec<Svma>,
}

impl PatchSite {
    /// The module: path, name, build-id, load bias.
    #[must_use]
    pub const fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// The function's name as in the symbol table; `None` in a stripped binary.
    #[must_use]
    pub fn function(&self) -> Option<&str> {
        self.function.as_deref()
    }

    /// Stated address of the site.
    #[must_use]
    pub const fn svma(&self) -> Svma {
        self.start.plus(self.site as u64)
    }

    /// Address of the site in the process.
    #[must_use]
    pub fn avma(&self) -> Avma {
        self.module.bias().avma(self.svma())
    }

    /// Where the whole function lies in the process.
    #[must_use]
    pub fn range(&self) -> AvmaRange {
        AvmaRange::new(self.module.bias().avma(self.start), self.bytes.len() as u64)
    }

    /// Is the site the function's first instruction?
    #[must_use]
    pub const fn is_entry(&self) -> bool {
        self.site == 0
    }

    /// The function's bytes as they should be.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes behind the function that belong to no other: to the next symbol or frame, at most to the next multiple of
    /// 16. Whether they are padding is the reader's question.
    #[must_use]
    pub fn padding(&self) -> &[u8] {
        &self.padding
    }

    /// Were the bytes taken from the file or from memory?
    #[must_use]
    pub fn source(&self) -> Source {
        self.image.source()
    }

    /// All that the trampolines need of the original code.
    #[must_use]
    pub fn text(&self) -> FunctionText {
        let bias = self.module.bias();
        let mut text = FunctionText::new(self.range().start, self.bytes.clone(), self.site)
            .with_bytes_after(self.padding.clone());
        text.parts = self
            .parts
            .iter()
            .map(|(at, bytes)| CodePart {
                at: bias.avma(*at),
                bytes: bytes.clone(),
            })
            .collect();
        text.entry_points = self.entry_points.iter().map(|at| bias.avma(*at)).collect();
        text
    }

    /// Does a call to `to` leave the module? Stubs of the procedure linkage table do.
    #[must_use]
    pub fn is_outside_module(&self, to: Avma) -> bool {
        let stated = self.module.bias().svma(to);
        !self.module.range().contains(to)
            || !self.image.is_code(stated)
            || self.plt.is_stub(&self.image, stated)
    }

    /// Where the sections of the procedure linkage table lie; empty without section headers.
    #[must_use]
    pub fn plt_ranges(&self) -> Vec<AvmaRange> {
        let bias = self.module.bias();
        self.plt
            .ranges()
            .iter()
            .map(|(start, len)| AvmaRange::new(bias.avma(*start), *len))
            .collect()
    }

    /// Is the text still mapped as it must be, and does memory hold the bytes of the file: function, padding and parts?
    ///
    /// # Errors
    /// [`ResolveError::NotMapped`], [`ResolveError::Mapping`], [`ResolveError::TextChanged`] naming the first byte that
    /// differs, or the process can't be read.
    pub fn compare_memory(&self, memory: &impl TargetMemory) -> Result<(), ResolveError> {
        self.compare_memory_patched(memory, self.avma(), &[])
    }

    /// As [`PatchSite::compare_memory`], but at `at` the bytes of a poke must be in place of the file's. What of them
    /// lies outside function and padding is not looked at.
    ///
    /// # Errors
    /// As [`PatchSite::compare_memory`].
    pub fn compare_memory_patched(
        &self,
        memory: &impl TargetMemory,
        at: Avma,
        poked: &[u8],
    ) -> Result<(), ResolveError> {
        let start = self.range().start;
        let maps = memory
            .mappings()
            .map_err(|source| ResolveError::Unreadable { at: start, source })?;
        self.check_mapping(&maps)?;
        let mut expected = [self.bytes(), self.padding()].concat();
        for (index, byte) in poked.iter().enumerate() {
            let into = at.plus(index as u64).since(start);
            let place = into.and_then(|into| expected.get_mut(usize::try_from(into).ok()?));
            if let Some(place) = place {
                *place = *byte;
            }
        }
        self.compare(memory, &maps, start, &expected)?;
        self.parts.iter().try_for_each(|(at, bytes)| {
            self.compare(memory, &maps, self.module.bias().avma(*at), bytes)
        })
    }

    /// Every page of the function must be private, executable, not writable, and of the module's file.
    pub(super) fn check_mapping(&self, maps: &Maps) -> Result<(), ResolveError> {
        let range = self.range();
        let module = self.module.path();
        let mut at = range.start;
        while at < range.end {
            let own = self.module.mappings();
            let mapping = maps.find(at).filter(|mapping| {
                let same = own.iter().any(|own| own.same_file(mapping));
                // The same byte of the file, not another mapping of it that took the place.
                let offset = own.iter().find_map(|own| own.file_offset(at));
                same && (offset.is_none() || offset == mapping.file_offset(at))
            });
            let Some(mapping) = mapping else {
                return Err(ResolveError::NotMapped {
                    module: module.to_owned(),
                    at,
                });
            };
            let perms = mapping.perms;
            let fault = match (perms.shared, perms.write, perms.exec) {
                (true, _, _) => Some(MappingFault::Shared),
                (false, true, _) => Some(MappingFault::Writable),
                (false, false, false) => Some(MappingFault::NotExecutable),
                (false, false, true) => None,
            };
            if let Some(why) = fault {
                return Err(ResolveError::Mapping {
                    module: module.to_owned(),
                    at,
                    perms,
                    why,
                });
            }
            at = mapping.range.end;
        }
        Ok(())
    }

    fn compare(
        &self,
        memory: &impl TargetMemory,
        maps: &Maps,
        at: Avma,
        file: &[u8],
    ) -> Result<(), ResolveError> {
        let mut now = vec![0; file.len()];
        memory
            .read_exact_at(at, &mut now)
            .map_err(|source| ResolveError::Unreadable { at, source })?;
        let differing = file.iter().zip(&now).position(|(file, now)| file != now);
        let site = Some(self.site).filter(|_| at == self.range().start);
        // Bytes that come from memory can't differ from it, but a probe is a probe.
        let suspect = differing.or_else(|| {
            let site = site.filter(|_| self.source() == Source::Memory)?;
            let probe = probe_at(maps, at.plus(site as u64), now.get(site..)?);
            probe.map(|_| site)
        });
        let Some(index) = suspect else { return Ok(()) };
        let here = at.plus(index as u64);
        // Where the file has a jump at the site too, only its operand differs: look at the whole instruction.
        let begins = [
            Some(index),
            site.filter(|site| *site < index && index - site < JUMP_LEN),
        ];
        let foreign = begins.into_iter().flatten().find_map(|begin| {
            let (at, code) = (at.plus(begin as u64), now.get(begin..)?);
            probe_at(maps, at, code).or_else(|| jump_at(at, code))
        });
        let foreign = foreign.unwrap_or(Foreign::Unknown);
        Err(ResolveError::TextChanged {
            module: self.module.path().to_owned(),
            at: here,
            file: file[index],
            memory: now[index],
            foreign,
        })
    }
}

/// The kernel's probes at an instruction (FACTS 6b): `int3`, or `call` into `[uprobes-trampoline]`.
fn probe_at(maps: &Maps, at: Avma, code: &[u8]) -> Option<Foreign> {
    match code.first()? {
        0xcc => Some(Foreign::UprobeOrBreakpoint),
        0xe8 => {
            let to = target_of(at, code)?;
            maps.find(to)
                .filter(|mapping| mapping.is_pseudo("[uprobes-trampoline]"))
                .map(|_| Foreign::OptimizedUprobe)
        }
        _ => None,
    }
}

fn jump_at(at: Avma, code: &[u8]) -> Option<Foreign> {
    (code.first() == Some(&0xe9))
        .then(|| target_of(at, code))?
        .map(|to| Foreign::Jump { to })
}

/// Where a five-byte jump or call at `at` leads.
fn target_of(at: Avma, code: &[u8]) -> Option<Avma> {
    let field: [u8; 4] = code.get(1..5)?.try_into().ok()?;
    Some(
        at.plus(5)
            .plus(i64::from(i32::from_le_bytes(field)).cast_unsigned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_jumps_are_told_apart() {
        let text = "\
1000-2000 r-xp 00000000 fe:01 7 /bin/a\n\
5000-6000 r-xp 00000000 00:00 0                          [uprobes-trampoline]\n";
        let maps = Maps::parse(text.as_bytes()).unwrap();
        let at = Avma(0x1000);
        let call = |to: u64| [&[0xe8][..], &((to as i64 - 0x1005) as i32).to_le_bytes()].concat();
        let foreign = probe_at(&maps, at, &call(0x5010));
        assert_eq!(foreign, Some(Foreign::OptimizedUprobe));
        assert_eq!(probe_at(&maps, at, &call(0x1800)), None);
        assert_eq!(probe_at(&maps, at, &call(0x9000)), None);
        assert_eq!(probe_at(&maps, at, &[0xe8, 0, 0]), None);
        assert_eq!(probe_at(&maps, at, &[]), None);
        assert_eq!(
            probe_at(&maps, at, &[0xcc]),
            Some(Foreign::UprobeOrBreakpoint)
        );
        let jump = jump_at(at, &[0xe9, 0xfb, 0xff, 0xff, 0xff]);
        assert_eq!(jump, Some(Foreign::Jump { to: Avma(0x1000) }));
        assert_eq!(jump_at(at, &[0xeb, 0]), None);
    }
}
