//! Bounds of functions by `.eh_frame`, the only ones that a stripped binary has.
//!
//! The section is found by `PT_GNU_EH_FRAME`, else by its name, and read from front to back: the header's search table is
//! not trusted, because hostile numbers in it could lead a binary search anywhere.

use gimli::{BaseAddresses, CieOrFde, EhFrame, EhFrameHdr, LittleEndian, Pointer, UnwindSection};
use object::{Object, ObjectSection};

use super::address::Svma;
use super::elf::ElfImage;

/// Most frame descriptions that are read (Chromium has about 800,000).
const MAX_FRAMES: usize = 4 << 20;

/// One frame description entry: the code of a function, or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// First address.
    pub start: Svma,
    /// Length in bytes; not 0.
    pub len: u64,
}

impl Frame {
    /// Does the entry describe the instruction at `at`?
    #[must_use]
    pub fn covers(&self, at: Svma) -> bool {
        at.since(self.start).is_some_and(|into| into < self.len)
    }
}

pub(crate) fn parse(image: &ElfImage) -> Vec<Frame> {
    let mut frames = Vec::new();
    let Some((section, address)) = by_header(image).or_else(|| by_section(image)) else {
        return frames;
    };
    let bases = BaseAddresses::default().set_eh_frame(address.0);
    let section = EhFrame::new(section, LittleEndian);
    let mut entries = section.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else {
            continue;
        };
        let (start, len) = (Svma(fde.initial_address()), fde.len());
        let sane = len > 0 && start.0.checked_add(len).is_some() && image.is_code(start);
        if sane {
            frames.push(Frame { start, len });
        }
        if frames.len() >= MAX_FRAMES {
            break;
        }
    }
    frames.sort_unstable();
    frames
}

fn by_header(image: &ElfImage) -> Option<(&[u8], Svma)> {
    let (at, len) = image.eh_frame_hdr()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(at.0);
    let header = EhFrameHdr::new(image.at(at, len)?, LittleEndian)
        .parse(&bases, 8)
        .ok()?;
    let Pointer::Direct(address) = header.eh_frame_ptr() else {
        return None;
    };
    Some((image.from(Svma(address))?, Svma(address)))
}

fn by_section(image: &ElfImage) -> Option<(&[u8], Svma)> {
    let file = image.sections()?;
    let section = file.section_by_name(".eh_frame")?;
    let at = Svma(section.address());
    Some((image.at(at, section.size())?, at))
}
