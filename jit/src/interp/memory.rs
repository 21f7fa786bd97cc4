//! The interpreter's memory: disjoint regions at made-up addresses, nothing between them.
//!
//! Decides whether an access is inside a region and allowed; knows nothing of instructions. Invariant: an access never
//! spans two regions, because every region is followed by a gap.

use upatch_abi::arena;
use upatch_abi::ctx::{self, CtxField};
use upatch_verifier::ProgramKind;

/// Where ctx lies.
pub const CTX_BASE: u64 = 0x6000_0000_0000;
/// Where the memory of [`ProgramKind::Memory`] lies.
pub const MEMORY_BASE: u64 = 0x6100_0000_0000;
/// Where the first read-only data object lies.
pub const DATA_BASE: u64 = 0x6200_0000_0000;
/// Where the code lies: a callback's address is this plus 8 bytes a slot. Not readable.
pub const CODE_BASE: u64 = 0x6300_0000_0000;
/// End of the first stack frame; deeper frames lie below, [`FRAME_STRIDE`] apart.
pub const STACK_TOP: u64 = 0x7000_0000_0000;
/// Distance of frames: more than the largest frame, so that an overflow is a fault.
pub const FRAME_STRIDE: u64 = 4096;

/// Why an access is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum MemoryFault {
    #[error("{len} bytes at {addr:#x} lie outside every region")]
    OutOfBounds { addr: u64, len: u64 },
    #[error("{addr:#x} may not be written")]
    ReadOnly { addr: u64 },
    #[error("{addr:#x} is read before it is written")]
    Uninitialised { addr: u64 },
}

/// Who may write a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writable {
    /// Everybody.
    Yes,
    /// Nobody.
    No,
    /// ctx: fields by the program's kind.
    Ctx(ProgramKind),
}

/// Some bytes at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// Address of the first byte.
    pub base: u64,
    /// Content.
    pub bytes: Vec<u8>,
    /// Who may write it.
    pub writable: Writable,
    /// Per byte: has it been written? `None`: all of it counts as written.
    pub written: Option<Vec<bool>>,
}

impl Region {
    /// Bytes that count as written.
    #[must_use]
    pub fn new(base: u64, bytes: Vec<u8>, writable: Writable) -> Self {
        Self {
            base,
            bytes,
            writable,
            written: None,
        }
    }

    /// The index of `addr`, if `len` bytes from there are inside.
    fn index(&self, addr: u64, len: usize) -> Option<usize> {
        let start = usize::try_from(addr.checked_sub(self.base)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.bytes.len()).then_some(start)
    }

    fn may_write(&self, at: usize) -> bool {
        match self.writable {
            Writable::Yes => true,
            Writable::No => false,
            Writable::Ctx(kind) => {
                let field = u16::try_from(at).ok().and_then(CtxField::containing);
                field.is_some_and(|field| match kind {
                    ProgramKind::PatchEntry => field.writable_at_entry(),
                    ProgramKind::PatchOffset => field.writable_at_offset(),
                    ProgramKind::Probe => false,
                    ProgramKind::Memory { .. } => true,
                })
            }
        }
    }
}

/// All regions that a program can reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory {
    regions: Vec<Region>,
    fixed: usize,
}

impl Memory {
    /// ctx, the memory argument, the arena, then read-only data; stack frames come and go behind these.
    pub(super) fn new(fixed: Vec<Region>) -> Self {
        Self {
            fixed: fixed.len(),
            regions: fixed,
        }
    }

    pub(super) fn push_frame(&mut self, size: u16, track: bool) {
        let depth = self.regions.len() - self.fixed;
        let end = STACK_TOP - FRAME_STRIDE * depth as u64;
        self.regions.push(Region {
            base: end - u64::from(size),
            bytes: vec![0; size.into()],
            writable: Writable::Yes,
            written: track.then(|| vec![false; size.into()]),
        });
    }

    pub(super) fn pop_frame(&mut self) {
        if self.regions.len() > self.fixed {
            self.regions.pop();
        }
    }

    /// What r10 holds in the innermost frame: the end of its stack.
    pub(super) fn frame_pointer(&self) -> u64 {
        self.regions
            .last()
            .map_or(STACK_TOP, |frame| frame.base + frame.bytes.len() as u64)
    }

    /// Takes the content of the region that begins at `base`.
    pub(super) fn take(&mut self, base: u64) -> Vec<u8> {
        let found = self.regions.iter_mut().find(|region| region.base == base);
        found.map_or_else(Vec::new, |region| std::mem::take(&mut region.bytes))
    }

    /// `len` bytes at `addr`.
    ///
    /// # Errors
    /// They are not all inside one region, or one of them was never written.
    pub fn read(&self, addr: u64, len: usize) -> Result<&[u8], MemoryFault> {
        let outside = MemoryFault::OutOfBounds {
            addr,
            len: len as u64,
        };
        let mut found = self.regions.iter().filter_map(|region| {
            let start = region.index(addr, len)?;
            Some((region, start))
        });
        let (region, start) = found.next().ok_or(outside)?;
        if let Some(written) = region.written.as_deref().and_then(|all| all.get(start..))
            && let Some(hole) = written.iter().take(len).position(|written| !written)
        {
            let addr = addr.wrapping_add(hole as u64);
            return Err(MemoryFault::Uninitialised { addr });
        }
        region.bytes.get(start..start + len).ok_or(outside)
    }

    /// Writes `bytes` at `addr`.
    ///
    /// # Errors
    /// They are not all inside one region, or may not be written.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let len = bytes.len();
        let outside = MemoryFault::OutOfBounds {
            addr,
            len: len as u64,
        };
        let mut found = self.regions.iter_mut().filter_map(|region| {
            let start = region.index(addr, len)?;
            Some((region, start))
        });
        let (region, start) = found.next().ok_or(outside)?;
        if let Some(locked) = (start..start + len).find(|at| !region.may_write(*at)) {
            let addr = region.base.wrapping_add(locked as u64);
            return Err(MemoryFault::ReadOnly { addr });
        }
        let target = region.bytes.get_mut(start..start + len).ok_or(outside)?;
        target.copy_from_slice(bytes);
        if let Some(written) = region.written.as_mut().and_then(|all| all.get_mut(start..)) {
            written
                .iter_mut()
                .take(len)
                .for_each(|written| *written = true);
        }
        Ok(())
    }

    /// A number of 1, 2, 4 or 8 bytes, little-endian, zero-extended.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn load(&self, addr: u64, len: u8) -> Result<u64, MemoryFault> {
        let bytes = self.read(addr, len.into())?;
        let mut wide = [0; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(u64::from_le_bytes(wide))
    }

    /// Stores the low 1, 2, 4 or 8 bytes of a number, little-endian.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn store(&mut self, addr: u64, len: u8, value: u64) -> Result<(), MemoryFault> {
        let bytes = value.to_le_bytes();
        self.write(addr, bytes.get(..len.into()).unwrap_or(&bytes))
    }
}

/// The address that a masked arena access goes to: `addr` confined to the window (helpers-abi/src/arena.rs). The access
/// may run up to 7 bytes into the slack behind it.
#[must_use]
pub fn confine(base: u64, window: u64, addr: u64) -> u64 {
    base | (addr & window.wrapping_sub(1))
}

/// ctx of these registers, as bytes.
#[must_use]
pub fn ctx_bytes(value: impl Fn(CtxField) -> u64) -> [u8; ctx::SIZE as usize] {
    let mut bytes = [0; ctx::SIZE as usize];
    let (fields, _) = bytes.as_chunks_mut::<8>();
    for (to, field) in fields.iter_mut().zip(CtxField::ALL) {
        *to = value(field).to_le_bytes();
    }
    bytes
}

/// Bytes that an arena of `len` bytes takes with its slack, if there is such an arena.
#[must_use]
pub fn arena_size(len: u64) -> Option<usize> {
    usize::try_from(arena::window_for(len)? + arena::SLACK).ok()
}
