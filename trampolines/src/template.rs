//! A trampoline before it has an address: hook code and displaced instructions, joined by `place`.
//!
//! ```text
//! at ┌──────────────────────────────┐ entry, aligned to 64
//!    │ fragment: code, literals     │──┐ Continue (or falls through, when the jump would be the code's last instruction)
//!    ├──────────────────────────────┤◄─┘
//!    │ displaced instructions       │
//!    │ jmp resume                   │──► original text   (absent when they end in a jump, a call or ret)
//!    │ int3 …                       │
//!    └──────────────────────────────┘
//! ```
//!
//! Code and literals stay together because code refers to literals relative to rip. Doesn't judge the fragment: that is
//! the machine-code check. Invariant: an image's bytes contain no unfilled fixup and its jump back lands at the resume address.

use crate::address::{Avma, AvmaRange};
use crate::displace::{DisplacedInsns, JUMP_LEN};
use crate::fragment::{Fixup, FixupKind, Fragment};
use crate::image::TrampolineImage;
use crate::plan::IpMap;
use crate::relocate::{self, TooFar};

/// Images begin at multiples of this (a cache line).
pub const IMAGE_ALIGN: u64 = 64;

const INT3: u8 = 0xcc;

/// What the fixups of a fragment are filled with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bindings {
    /// First address of the arena window.
    pub arena_base: Avma,
    /// Addresses of the application's functions, by number.
    pub externs: Vec<Avma>,
    /// First address of the image's private writable data.
    pub private_base: Avma,
    /// The gate byte, if the patch has one.
    pub gate: Option<Avma>,
}

/// Why a template can't be placed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlaceError {
    /// The address is not a multiple of [`IMAGE_ALIGN`].
    #[error("{at} is not a multiple of 64")]
    Misaligned {
        /// The address.
        at: Avma,
    },
    /// The image would leave the address space.
    #[error("an image at {at} would wrap around")]
    Wraps {
        /// The address.
        at: Avma,
    },
    /// A 32-bit displacement doesn't reach: between site and image, or from a displaced instruction to its operand.
    #[error("{what} doesn't reach from {at} in 32 bits")]
    TooFar {
        /// Where the image would lie.
        at: Avma,
        /// What needs to reach: an instruction or a jump.
        what: String,
    },
    /// A fixup lies outside the bytes or overlaps another one.
    #[error("fixup {index} lies outside the fragment or over another one")]
    BadFixup {
        /// Its number in the fragment.
        index: usize,
    },
    /// A fixup names an external function that there is no binding for.
    #[error("external function {number} is not bound")]
    UnboundExtern {
        /// Its number.
        number: u32,
    },
    /// The fragment tests a gate that there is no binding for.
    #[error("there is no gate")]
    NoGate,
    /// The fragment claims more code than it has bytes.
    #[error("the fragment has {len} bytes and claims {code_len} of code")]
    BadCodeLen {
        /// Claimed.
        code_len: usize,
        /// Present.
        len: usize,
    },
}

/// Hook code and displaced instructions, without an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrampolineTemplate {
    fragment: Fragment,
    displaced: DisplacedInsns,
}

impl TrampolineTemplate {
    /// Joins hook code and the instructions that it makes room for.
    #[must_use]
    pub const fn new(fragment: Fragment, displaced: DisplacedInsns) -> Self {
        Self {
            fragment,
            displaced,
        }
    }

    /// An upper bound of the image's length in bytes, whatever its address; a multiple of [`IMAGE_ALIGN`].
    #[must_use]
    pub fn max_len(&self) -> usize {
        let len = self.fragment.bytes.len() + self.displaced.max_len() + JUMP_LEN;
        len.next_multiple_of(IMAGE_ALIGN as usize)
    }

    /// The displaced instructions.
    #[must_use]
    pub const fn displaced(&self) -> &DisplacedInsns {
        &self.displaced
    }

    /// The hook code.
    #[must_use]
    pub const fn fragment(&self) -> &Fragment {
        &self.fragment
    }

    /// The image at `at`, which must be a multiple of [`IMAGE_ALIGN`] and within ±2 GiB of the site and of everything
    /// that the displaced instructions refer to.
    ///
    /// # Errors
    ///
    /// Something doesn't reach, or the fragment's fixups don't fit its bytes and the bindings.
    pub fn place(&self, at: Avma, bindings: &Bindings) -> Result<TrampolineImage, PlaceError> {
        let (fragment, displaced) = (&self.fragment, &self.displaced);
        if !at.0.is_multiple_of(IMAGE_ALIGN) {
            return Err(PlaceError::Misaligned { at });
        }
        if at.0.checked_add(self.max_len() as u64).is_none() {
            return Err(PlaceError::Wraps { at });
        }
        if fragment.code_len > fragment.bytes.len() {
            return Err(PlaceError::BadCodeLen {
                code_len: fragment.code_len,
                len: fragment.bytes.len(),
            });
        }
        let too_far = |what: &str| {
            let what = what.to_owned();
            move |_: TooFar| PlaceError::TooFar { at, what }
        };
        check_fixups(fragment)?;
        // A jump to what follows it is nothing; other branches to that jump arrive at the same place.
        let tail = if ends_in_continue(fragment) {
            JUMP_LEN
        } else {
            0
        };
        let mut bytes = fragment.bytes.clone();
        bytes.truncate(bytes.len() - tail);
        let code = AvmaRange::new(at, (fragment.code_len - tail) as u64);
        let data = AvmaRange {
            start: code.end,
            end: at.plus(bytes.len() as u64),
        };

        let displaced_at = data.end;
        let mut pairs = Vec::new();
        for each in &displaced.insns {
            let here = at.plus(bytes.len() as u64);
            pairs.push((Avma(each.insn.ip()), here));
            relocate::encode(each, here, &mut bytes).map_err(too_far("a displaced instruction"))?;
        }
        if let Some(resume) = displaced.resume() {
            let here = at.plus(bytes.len() as u64);
            pairs.push((resume, here));
            relocate::jump(here, resume, &mut bytes).map_err(too_far("the jump back"))?;
        }
        let displaced_copy = AvmaRange {
            start: displaced_at,
            end: at.plus(bytes.len() as u64),
        };
        for fixup in &fragment.fixups {
            fill(
                &mut bytes,
                at,
                fixup,
                displaced_at,
                displaced.site(),
                bindings,
            )?;
        }
        bytes.resize(bytes.len().next_multiple_of(16), INT3);

        let mut jump = Vec::new();
        relocate::jump(displaced.site(), at, &mut jump)
            .map_err(too_far("the jump to the image"))?;
        Ok(TrampolineImage {
            at,
            bytes,
            code,
            data,
            displaced_copy,
            displaced: displaced.clone(),
            jump,
            ips: IpMap::new(pairs),
            stack_bytes: fragment.stack_bytes,
            calls_application: fragment.calls_application,
        })
    }
}

/// Width of a fixup's field in bytes.
const fn width(kind: FixupKind) -> usize {
    match kind {
        FixupKind::Continue => 4,
        FixupKind::Arena(_)
        | FixupKind::Extern(_)
        | FixupKind::Site
        | FixupKind::Private(_)
        | FixupKind::Gate => 8,
    }
}

/// Each field inside the fragment (a branch's inside its code), none over another.
fn check_fixups(fragment: &Fragment) -> Result<(), PlaceError> {
    let mut fields: Vec<(usize, usize, usize)> = Vec::new();
    for (index, fixup) in fragment.fixups.iter().enumerate() {
        let limit = if fixup.kind == FixupKind::Continue {
            fragment.code_len
        } else {
            fragment.bytes.len()
        };
        let end = fixup
            .at
            .checked_add(width(fixup.kind))
            .filter(|end| *end <= limit);
        fields.push((fixup.at, end.ok_or(PlaceError::BadFixup { index })?, index));
    }
    fields.sort_unstable();
    match fields.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(PlaceError::BadFixup { index: pair[1].2 }),
        None => Ok(()),
    }
}

/// Is the fragment's last instruction, with nothing behind it, a `jmp rel32` to the displaced instructions?
fn ends_in_continue(fragment: &Fragment) -> bool {
    let Some(start) = fragment.bytes.len().checked_sub(JUMP_LEN) else {
        return false;
    };
    let last = Fixup {
        at: start + 1,
        kind: FixupKind::Continue,
    };
    // 0xe9 could be the end of a longer instruction: a fixup of a jcc is preceded by 0f 8x, never by e9.
    fragment.code_len == fragment.bytes.len()
        && fragment.bytes[start] == 0xe9
        && fragment.fixups.contains(&last)
}

/// Writes one fixup's field. The Continue fixup of a dropped jump lies behind the code and is skipped.
fn fill(
    bytes: &mut [u8],
    at: Avma,
    fixup: &Fixup,
    displaced_at: Avma,
    site: Avma,
    bindings: &Bindings,
) -> Result<(), PlaceError> {
    let address = match fixup.kind {
        FixupKind::Continue => {
            let next = at.plus(fixup.at as u64 + 4);
            if next > displaced_at {
                return Ok(());
            }
            let displacement =
                relocate::rel32(next, displaced_at).map_err(|_| PlaceError::TooFar {
                    at,
                    what: "a jump inside the image".to_owned(),
                })?;
            bytes[fixup.at..fixup.at + 4].copy_from_slice(&displacement.to_le_bytes());
            return Ok(());
        }
        FixupKind::Arena(offset) => bindings.arena_base.plus(offset),
        FixupKind::Extern(number) => usize::try_from(number)
            .ok()
            .and_then(|index| bindings.externs.get(index).copied())
            .ok_or(PlaceError::UnboundExtern { number })?,
        FixupKind::Site => site,
        FixupKind::Private(offset) => bindings.private_base.plus(offset),
        FixupKind::Gate => bindings.gate.ok_or(PlaceError::NoGate)?,
    };
    bytes[fixup.at..fixup.at + 8].copy_from_slice(&address.0.to_le_bytes());
    Ok(())
}
