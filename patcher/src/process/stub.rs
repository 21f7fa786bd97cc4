//! The few bytes of code with which a thread of the target makes a system call for us, and where they can lie.
//!
//! ```text
//! undo:  syscall; xchg edi, eax; mov eax, close    rsp ─► r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rcx rdx rsi rdi rax
//! call:  syscall                                          rflags rip │ scratch, 128 bytes │ red zone, 128 bytes │ ◄─ original rsp
//!        pop r15 … pop rax; popfq; ret 256
//! ```
//!
//! A thread that is let go anywhere in the stub, because we were killed, makes the call (or not), pops its own registers
//! and goes on where it was. No floating point, no breakpoint, no single step; the restart block of an interrupted sleep
//! survives, which rt_sigreturn would destroy. Who begins at `undo` also closes the descriptor that the call has opened:
//! for one that nobody could find again.
//!
//! It lies where bytes are executable but never executed: behind the end of an executable segment, in the rest of its
//! last page. The write goes to a private copy of the page, not to the file. A stub found there was left by a killed
//! `upatch`; it harms nobody.

use upatch_trampolines::{Avma, AvmaRange};

use super::handle::Process;
use super::maps::{Mapping, Maps};
use super::memory::{Memory, MemoryError};
use super::sys::Regs;
use super::tracee;

/// `syscall`, `xchg edi, eax`, `mov eax, 3` (`SYS_close`); `syscall`, fifteen pops, `popfq`, `ret 256`.
pub(super) const STUB: [u8; 38] = [
    0x0f, 0x05, 0x97, 0xb8, 0x03, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d,
    0x41, 0x5c, 0x5d, 0x5b, 0x41, 0x5b, 0x41, 0x5a, 0x41, 0x59, 0x41, 0x58, 0x59, 0x5a, 0x5e, 0x5f,
    0x58, 0x9d, 0xc2, 0x00, 0x01, 0xcc,
];
/// Where `call` begins.
const CALL_AT: u64 = 8;

/// Where in the stub a call begins, and so what becomes of it when nobody takes its result any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// What it did stays.
    Call,
    /// The descriptor that it opened is closed again.
    Undo,
}
/// Bytes below the stack pointer that belong to the interrupted function; psABI §3.2.2.
const RED_ZONE: u64 = 128;
/// Room for a name or a small structure that a system call reads.
pub(super) const SCRATCH_LEN: usize = 128;
const FRAME_WORDS: usize = 17;
/// Stack that must be mapped below rsp: red zone, scratch, frame, and room for the signal frame of a killed session.
pub(super) const STACK_ROOM: u64 = RED_ZONE + SCRATCH_LEN as u64 + 8 * FRAME_WORDS as u64 + 4096;
/// The stub ends this many bytes before the end of the page.
const FROM_END: u64 = 64;
const PAGE: u64 = 4096;

/// Address of the scratch bytes of a thread that was stopped with `regs`.
pub(super) fn scratch_at(regs: &Regs) -> Avma {
    Avma(regs.rsp).plus((RED_ZONE + SCRATCH_LEN as u64).wrapping_neg())
}

/// Bytes that scratch memory and frame take together.
pub(super) const BELOW_LEN: usize = SCRATCH_LEN + 8 * FRAME_WORDS;

/// Where they begin.
pub(super) fn below_at(regs: &Regs) -> Avma {
    Avma(regs.rsp).plus((RED_ZONE + BELOW_LEN as u64).wrapping_neg())
}

/// The frame, and the address at which the stub expects it.
pub(super) fn frame(regs: &Regs) -> (Avma, Vec<u8>) {
    let r = tracee::restarted_by_hand(regs);
    let words: [u64; FRAME_WORDS] = [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rcx, r.rdx, r.rsi,
        r.rdi, r.rax, r.eflags, r.rip,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    (
        scratch_at(regs).plus((bytes.len() as u64).wrapping_neg()),
        bytes,
    )
}

/// A place for the stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StubPlace {
    pub(super) at: Avma,
    /// The stub of an earlier session lies there already; somebody may still be about to leave it.
    pub(super) inherited: bool,
}

impl StubPlace {
    pub(crate) fn range(&self) -> AvmaRange {
        AvmaRange::new(self.at, STUB.len() as u64)
    }

    /// Where a thread begins.
    pub(super) fn entry(&self, entry: Entry) -> Avma {
        match entry {
            Entry::Call => self.at.plus(CALL_AT),
            Entry::Undo => self.at,
        }
    }

    /// Writes the stub, unless it is there.
    pub(super) fn write(&self, memory: &Memory) -> Result<(), MemoryError> {
        if self.inherited {
            Ok(())
        } else {
            memory.write(self.at, &STUB)
        }
    }

    /// Puts the zeros back.
    pub(crate) fn erase(&self, memory: &Memory) -> Result<(), MemoryError> {
        memory.write(self.at, &[0; STUB.len()])
    }
}

/// All places of a process, in the order of addresses: tails of executable segments that hold zeros or the stub.
pub(super) fn places(memory: &Memory, maps: &Maps) -> Vec<StubPlace> {
    maps.iter()
        .filter_map(|mapping| place_in(memory, maps, mapping))
        .collect()
}

/// Where stubs that a killed `upatch` left begin.
pub(crate) fn inherited_in(memory: &Memory, maps: &Maps) -> Vec<Avma> {
    let places = places(memory, maps).into_iter();
    let places = places.filter(|place| place.inherited);
    places.map(|place| place.at).collect()
}

/// Stubs that a killed `upatch` left.
pub(crate) fn inherited(process: &Process) -> Vec<StubPlace> {
    let maps = process.maps().unwrap_or_default();
    places(process.memory(), &maps)
        .into_iter()
        .filter(|place| place.inherited)
        .collect()
}

fn place_in(memory: &Memory, maps: &Maps, text: &Mapping) -> Option<StubPlace> {
    let named = text.path().is_some() || text.is_pseudo("[vdso]");
    if !named || !text.perms.exec || text.perms.write || text.perms.shared {
        return None;
    }
    let same_file = |other: &&Mapping| {
        other.dev == text.dev && other.inode == text.inode && other.backing == text.backing
    };
    let first = maps
        .iter()
        .filter(same_file)
        .rfind(|first| first.offset == 0 && first.range.start <= text.range.start)?;
    let end = executable_end(memory, first.range.start, text)?;
    let at = text.range.end.plus(FROM_END.wrapping_neg());
    if at < end.plus(16) {
        return None;
    }
    let bytes = memory.read_vec(at, usize::try_from(FROM_END).ok()?).ok()?;
    let (stub, rest) = bytes.split_at(STUB.len());
    let zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    match (zero(rest), zero(stub), stub == STUB) {
        (true, true, _) => Some(StubPlace {
            at,
            inherited: false,
        }),
        (true, _, true) => Some(StubPlace {
            at,
            inherited: true,
        }),
        (_, _, _) => None,
    }
}

/// Where the executable segment ends whose last page is `text`'s last page, by the program headers in memory.
/// System V gABI, ch. 5: Elf64_Ehdr and Elf64_Phdr.
fn executable_end(memory: &Memory, base: Avma, text: &Mapping) -> Option<Avma> {
    let header = memory.read_vec(base, 64).ok()?;
    let half = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let word =
        |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if !header.starts_with(b"\x7fELF\x02\x01") || half(54)? != 56 {
        return None;
    }
    let (phoff, phnum) = (word(&header, 32)?, usize::from(half(56)?));
    let table = memory.read_vec(base.plus(phoff), phnum.min(64) * 56).ok()?;
    const PT_LOAD: u32 = 1;
    const PF_X: u32 = 1;
    let mut bias = None;
    for segment in table.chunks_exact(56) {
        let flags = u32::from_le_bytes(segment[4..8].try_into().ok()?);
        if u32::from_le_bytes(segment[..4].try_into().ok()?) != PT_LOAD {
            continue;
        }
        let (address, file_size, memory_size) =
            (word(segment, 16)?, word(segment, 32)?, word(segment, 40)?);
        let bias = *bias.get_or_insert(base.0.wrapping_sub(address & !(PAGE - 1)));
        let end = bias
            .wrapping_add(address)
            .wrapping_add(file_size.max(memory_size));
        let inside = end > text.range.start.0 && end <= text.range.end.0;
        if flags & PF_X != 0 && inside && text.range.end.0 - end < PAGE {
            return Some(Avma(end));
        }
    }
    None
}
