//! The gate test: what the images of a patch with several sites begin with.
//!
//! ```text
//! at a function's entry, a register free        flags to be kept, nothing free
//!   movabs r11, gate                              lea rsp, [rsp-128]        inside a function only
//!   cmp byte [r11], 0                             pushfq
//!   je Continue                                   push rax
//!   …the patch                                    movabs rax, gate
//!                                                 cmp byte [rax], 0
//!                                                 pop rax
//!                                                 jne open
//!                                                 popfq; lea rsp, [rsp+128]; jmp Continue
//!                                           open: popfq; lea rsp, [rsp+128]
//!                                                 …the patch
//! ```
//! The images of one patch may be further apart than 2 GiB, so the gate is read by its absolute address. A prefix: the code
//! behind it is the same as without, and a patch with one site has none of it.

use upatch_verifier::insn::Width::W64;

use crate::asm::{Assembler, Cond, Gpr, GprSet, Mem, Size};
use crate::frame::RED_ZONE;
use crate::options::SiteRegs;
use crate::patch::FixupKind;

/// The prefix's length is a multiple of this, so that literals behind it stay aligned.
const ALIGN: usize = 16;

/// A gate test and the stack that it takes.
pub(crate) struct Gate {
    pub(crate) asm: Assembler,
    pub(crate) stack_bytes: u32,
}

/// The gate test for a place. `seen` are the registers that the program reads by ctx, `reads_flags` whether it reads the flags.
pub(crate) fn gate(site: &SiteRegs, seen: GprSet, reads_flags: bool) -> Gate {
    let mut asm = Assembler::new();
    let inside = !site.at_entry;
    // Inside a function everything is live.
    let free = if inside {
        GprSet::EMPTY
    } else {
        site.free.minus(seen)
    };
    let spare = [Gpr::R11, Gpr::R10, Gpr::Rax]
        .into_iter()
        .chain(free.iter())
        .find(|reg| free.contains(*reg));
    let reg = spare.unwrap_or(Gpr::Rax);
    let keep_flags = inside || reads_flags;
    let red_zone = i32::try_from(RED_ZONE).unwrap_or(0);
    let mut stack_bytes = 0;
    if inside {
        asm.lea(W64, Gpr::Rsp, Mem::at(Gpr::Rsp, -red_zone));
        stack_bytes += RED_ZONE;
    }
    if keep_flags {
        asm.pushfq();
        stack_bytes += 8;
    }
    if spare.is_none() {
        asm.push(reg);
        stack_bytes += 8;
    }
    asm.mov_address(reg, FixupKind::Gate);
    asm.cmp_mi(Size::B, Mem::at(reg, 0), 0);
    if spare.is_none() {
        asm.pop(reg);
    }
    if keep_flags {
        let open = asm.label();
        asm.jcc(Cond::Ne, open);
        put_back(&mut asm, inside);
        asm.jmp_out(FixupKind::Continue);
        asm.bind(open);
        put_back(&mut asm, inside);
    } else {
        asm.jcc_out(Cond::E, FixupKind::Continue);
    }
    while !asm.len().is_multiple_of(ALIGN) {
        asm.nop();
    }
    Gate { asm, stack_bytes }
}

fn put_back(asm: &mut Assembler, inside: bool) {
    asm.popfq();
    if inside {
        let up = i32::try_from(RED_ZONE).unwrap_or(0);
        asm.lea(W64, Gpr::Rsp, Mem::at(Gpr::Rsp, up));
    }
}
