//! Which code of a module is only a jump to another one: the procedure linkage table.
//!
//! Sections name it where there are any. Without section headers a stub is known by its jump through a slot that ld.so fills
//! (a relocation of the kind that binds functions).

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use object::{Object, ObjectSection};

use super::address::Svma;
use super::elf::ElfImage;

const SECTIONS: [&str; 5] = [".plt", ".plt.got", ".plt.sec", ".plt.bnd", ".iplt"];
const R_X86_64_GLOB_DAT: u32 = 6;
/// `R_X86_64_JUMP_SLOT`: a slot of the PLT.
pub(crate) const R_X86_64_JUMP_SLOT: u32 = 7;
/// `R_X86_64_IRELATIVE`: a slot that holds what a resolver returns.
pub(crate) const R_X86_64_IRELATIVE: u32 = 37;
/// An entry has 16 bytes; `endbr64` and `bnd jmp` fit.
const STUB_LEN: u64 = 16;

/// Does this relocation fill a slot with the address of a function?
pub(crate) fn binds_functions(kind: u32) -> bool {
    matches!(
        kind,
        R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT | R_X86_64_IRELATIVE
    )
}

/// The stubs of one module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plt {
    /// Start and length of each section.
    ranges: Vec<(Svma, u64)>,
    /// Slots of the global offset table that hold functions, sorted.
    slots: Vec<Svma>,
}

impl Plt {
    pub(crate) fn of(image: &ElfImage) -> Self {
        let ranges = image.sections().map_or_else(Vec::new, |file| {
            let plt = file
                .sections()
                .filter(|section| section.name().is_ok_and(|name| SECTIONS.contains(&name)));
            plt.map(|section| (Svma(section.address()), section.size()))
                .collect()
        });
        let relocations = image.relocations().into_iter();
        let mut slots: Vec<Svma> = relocations
            .filter(|relocation| binds_functions(relocation.kind))
            .map(|relocation| relocation.at)
            .collect();
        slots.sort_unstable();
        Self { ranges, slots }
    }

    pub(crate) fn ranges(&self) -> &[(Svma, u64)] {
        &self.ranges
    }

    /// Is the code at `at` a stub?
    pub(crate) fn is_stub(&self, image: &ElfImage, at: Svma) -> bool {
        let listed = self
            .ranges
            .iter()
            .any(|(start, len)| at.since(*start).is_some_and(|into| into < *len));
        listed || self.jumps_through_slot(image, at)
    }

    fn jumps_through_slot(&self, image: &ElfImage, at: Svma) -> bool {
        let Some(code) = image.from(at) else {
            return false;
        };
        let code = &code[..code.len().min(STUB_LEN as usize)];
        let mut decoder = Decoder::with_ip(64, code, at.0, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            match instruction.code() {
                Code::Endbr64 => (),
                Code::Jmp_rm64 => {
                    return instruction.op0_kind() == OpKind::Memory
                        && instruction.memory_base() == Register::RIP
                        && self
                            .slots
                            .binary_search(&Svma(instruction.ip_rel_memory_address()))
                            .is_ok();
                }
                _ => return false,
            }
        }
        false
    }
}
