//! A trampoline at its address, and what the machine-code check makes of it.
//!
//! A [`TrampolineImage`] is bytes and the claims about them; only [`check`](crate::check()) turns it into a [`CheckedImage`], and
//! only that one gives a poke plan.

use crate::address::{Avma, AvmaRange};
use crate::displace::DisplacedInsns;
use crate::plan::{IpMap, PokePlan};

/// A trampoline's bytes for one address, not yet checked.
///
/// Holding a `TrampolineImage` tells you: all fixups are filled, the displaced instructions were encoded for this address,
/// and a `jmp rel32` from the site reaches it. Nothing about what the hook code does.
///
/// ```compile_fail,E0599
/// fn plan(image: upatch_trampolines::TrampolineImage) -> upatch_trampolines::PokePlan {
///     image.poke_plan()
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrampolineImage {
    pub(crate) at: Avma,
    pub(crate) bytes: Vec<u8>,
    pub(crate) code: AvmaRange,
    pub(crate) data: AvmaRange,
    pub(crate) displaced_copy: AvmaRange,
    pub(crate) displaced: DisplacedInsns,
    pub(crate) jump: Vec<u8>,
    pub(crate) ips: IpMap,
    pub(crate) stack_bytes: u32,
    pub(crate) calls_application: bool,
}

impl TrampolineImage {
    /// Where the image lies; the entry is the first byte.
    #[must_use]
    pub const fn range(&self) -> AvmaRange {
        AvmaRange::new(self.at, self.bytes.len() as u64)
    }

    /// What to write there.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The hook's instructions.
    #[must_use]
    pub const fn code(&self) -> AvmaRange {
        self.code
    }

    /// The hook's read-only data, possibly empty.
    #[must_use]
    pub const fn data(&self) -> AvmaRange {
        self.data
    }

    /// The copies of the displaced instructions, the jump back included.
    #[must_use]
    pub const fn displaced_copy(&self) -> AvmaRange {
        self.displaced_copy
    }

    /// The displaced instructions as they were.
    #[must_use]
    pub const fn displaced(&self) -> &DisplacedInsns {
        &self.displaced
    }

    /// Original addresses and their copies; the resume address is paired with the jump back.
    #[must_use]
    pub const fn ips(&self) -> &IpMap {
        &self.ips
    }

    /// Stack that the hook itself needs below the entry's rsp.
    #[must_use]
    pub const fn stack_bytes(&self) -> u32 {
        self.stack_bytes
    }

    /// Does the hook call functions of the application?
    #[must_use]
    pub const fn calls_application(&self) -> bool {
        self.calls_application
    }
}

/// An image whose machine code was followed on all paths and keeps the rules of [`check`](crate::check()).
///
/// Holding a `CheckedImage` tells you: it decodes, its branches stay inside or go where the displaced instructions went,
/// stack and registers are as promised at both exits, and it stores only into its own frame, the arena and its private
/// data.
///
/// ```compile_fail,E0451
/// fn forge(image: upatch_trampolines::TrampolineImage) -> upatch_trampolines::CheckedImage {
///     upatch_trampolines::CheckedImage { image }
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedImage {
    pub(crate) image: TrampolineImage,
}

impl CheckedImage {
    /// The image that was checked.
    #[must_use]
    pub const fn image(&self) -> &TrampolineImage {
        &self.image
    }

    /// The plan that turns the site into a jump to this image.
    #[must_use]
    pub fn poke_plan(&self) -> PokePlan {
        let image = &self.image;
        PokePlan {
            at: image.displaced.site(),
            old: image.displaced.original().to_vec(),
            new: image.jump.clone(),
            displaced: image.displaced.range(),
            ips: image.ips.clone(),
            image: image.range(),
        }
    }
}
