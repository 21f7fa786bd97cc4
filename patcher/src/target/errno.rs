//! Where the target's libc keeps `errno`: through its `__errno_location`, or at a fixed distance from the thread pointer.
//!
//! glibc and musl export the function. A static program may hold none, because nobody called it; then `errno` is a thread-local
//! variable of the program itself, whose block ends at the thread pointer (x86-64 uses variant II of the TLS layout, psABI §3.4.6 and
//! Drepper, "ELF Handling For Thread-Local Storage", §3).

use goblin::elf::program_header::PT_TLS;
use object::LittleEndian;
use object::elf::STT_TLS;
use object::read::elf::SectionHeader;
use upatch_trampolines::Avma;

use super::elf::ElfImage;
use super::error::ResolveError;
use super::image::TargetImage;
use super::memory::TargetMemory;
use super::symbols::text_at;

/// How to reach `errno` of the calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// `int *__errno_location(void)`; an ordinary function of the psABI.
    Location(Avma),
    /// Bytes from the thread pointer (the fs base); negative.
    ThreadPointer(i64),
}

impl TargetImage {
    /// Finds `errno` of the process's libc.
    ///
    /// # Errors
    /// No libc that says where it is (several, or none, or a stripped static one).
    pub fn errno(&self, memory: &impl TargetMemory) -> Result<Errno, ResolveError> {
        let error = match self.find_function(memory, "__errno_location", None) {
            Ok(at) => return Ok(Errno::Location(at)),
            Err(error) => error,
        };
        let main = self.modules().iter().find(|module| module.is_main());
        let image = main.and_then(|main| main.image(memory).ok());
        image
            .and_then(|image| own_errno(&image))
            .map(Errno::ThreadPointer)
            .ok_or(error)
    }
}

/// Distance of the main program's own `errno` from the thread pointer.
fn own_errno(image: &ElfImage) -> Option<i64> {
    let tls = image.phdrs().iter().find(|phdr| phdr.p_type == PT_TLS)?;
    let size = tls.p_memsz.checked_next_multiple_of(tls.p_align.max(1))?;
    let file = image.sections()?;
    let table = file.elf_symbol_table();
    let strings = file
        .elf_section_table()
        .section(table.string_section())
        .ok()?;
    let strings = strings.data(LittleEndian, image.bytes()).ok()?;
    let symbol = table.iter().find(|symbol| {
        let name = text_at(strings, u64::from(symbol.st_name.get(LittleEndian)));
        symbol.st_info.0 & 0xf == STT_TLS.0
            && symbol.st_shndx.get(LittleEndian).0 != 0
            && matches!(name, Some(b"errno" | b"__libc_errno"))
    })?;
    let at = symbol.st_value.get(LittleEndian);
    // The variable must lie inside its block.
    let inside = at.checked_add(4)? <= tls.p_memsz;
    inside
        .then(|| {
            i64::try_from(at)
                .ok()?
                .checked_sub(i64::try_from(size).ok()?)
        })
        .flatten()
}
