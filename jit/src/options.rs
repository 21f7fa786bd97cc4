//! What the compiler is told of the place and the processor; never asked of the machine it runs on, except in
//! [`VectorState::detect`].

use crate::asm::GprSet;

/// The patched place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteRegs {
    /// Caller-saved registers whose value at the entry matters to nobody.
    pub free: GprSet,
    /// A function's entry (flags are dead, there is no red zone, the call may be refused), not a place inside it.
    pub at_entry: bool,
    /// Is the patch one of several sites, all of which begin with a test of the gate?
    pub gated: bool,
    /// The vector state to save around calls of the application.
    pub vectors: VectorState,
}

/// Which vector state a called function could change, and how large its XSAVE area is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VectorState {
    /// State components (bits of XCR0): x87, SSE, AVX, opmasks, upper ZMM halves.
    pub mask: u32,
    /// Bytes of the area in standard format, a multiple of 64. The compacted format takes no more.
    pub bytes: u32,
    /// Does the processor have XSAVEC, which skips what is in its initial state?
    pub compact: bool,
}

/// x87 (0), SSE (1), AVX (2), opmasks (5), upper halves of zmm0-15 (6), zmm16-31 (7).
const COMPONENTS: u32 = 0b1110_0111;

impl VectorState {
    /// What every x86-64 processor with XSAVE has: x87 and SSE.
    pub const SSE: Self = Self {
        mask: 3,
        bytes: 576,
        compact: false,
    };

    /// This processor's (SDM vol. 1 §13.2: CPUID leaf 0Dh; sub-leaf n gives a component's size and offset).
    ///
    /// Components that the operating system leaves off are excluded; `None` without XSAVE.
    #[must_use]
    pub fn detect() -> Option<Self> {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        // CPUID.1:ECX.OSXSAVE
        if __cpuid(0).eax < 0xd || __cpuid(1).ecx >> 27 & 1 == 0 {
            return None;
        }
        // EAX of sub-leaf 0 is what the processor supports. What XCR0 has switched on is what user programs can see of
        // it; EBX is the area's size for that, so components beyond it are off.
        let leaf = __cpuid_count(0xd, 0);
        let mut state = Self {
            compact: __cpuid_count(0xd, 1).eax & 2 != 0,
            ..Self::SSE
        };
        for component in 2..32 {
            if COMPONENTS & leaf.eax >> component << component & 1 << component == 0 {
                continue;
            }
            let part = __cpuid_count(0xd, component);
            let end = part.eax.saturating_add(part.ebx);
            if part.eax != 0 && end <= leaf.ebx {
                state.mask |= 1 << component;
                state.bytes = state.bytes.max(end.next_multiple_of(64));
            }
        }
        Some(state)
    }
}
