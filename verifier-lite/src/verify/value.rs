//! What a register or a stack cell holds, as the verifier knows it.
//!
//! A pointer is a region and an offset; the address is `start of the region + offset`, modulo 2^64. Numbers that were
//! copied from one another carry a [`Link`], so that a check of one copy refines all.

use super::scalar::Scalar;
use crate::insn::{AluOp, Pc, Width};

/// What a pointer points into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Region {
    /// ctx: not memory, the JIT turns accesses into registers. The offset is constant.
    Ctx,
    /// The stack of frame `frame` (0: the program itself); offset 0 is its end, the frame pointer.
    Stack {
        /// Index into the state's frames.
        frame: u8,
    },
    /// Read-only data object.
    Data {
        /// Index into the program's data.
        object: u32,
    },
    /// The arena. An address that nobody knows is one with an unknown offset.
    Arena,
    /// The memory of [`crate::ProgramKind::Memory`].
    Memory,
}

/// "This number is `base + delta`", where `base` is some number that never changes; narrow: its low 32 bits,
/// zero-extended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) base: u32,
    pub(crate) delta: u64,
    pub(crate) narrow: bool,
}

/// What a register or a stack cell holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// Nothing was written.
    Uninit,
    /// A number. Constants have no link.
    Number(Scalar, Option<Link>),
    /// An address.
    Pointer(Region, Scalar),
    /// The address of a subprogram, to be passed as a callback.
    Callback(Pc),
}

impl Value {
    /// A number that nothing is known of.
    pub(crate) const ANY: Self = Self::Number(Scalar::TOP, None);

    pub(crate) const fn number(scalar: Scalar) -> Self {
        Self::Number(scalar, None)
    }

    pub(crate) const fn constant(value: u64) -> Self {
        Self::Number(Scalar::constant(value), None)
    }

    /// A number with its link, which a constant doesn't need.
    pub(crate) const fn linked(scalar: Scalar, link: Option<Link>) -> Self {
        match scalar.as_constant() {
            Some(_) => Self::Number(scalar, None),
            None => Self::Number(scalar, link),
        }
    }

    /// The number, if it is one; an address in the arena counts as an unknown number.
    pub(crate) const fn as_number(self) -> Option<Scalar> {
        match self {
            Self::Number(scalar, _) => Some(scalar),
            Self::Pointer(Region::Arena, _) => Some(Scalar::TOP),
            Self::Uninit | Self::Pointer(..) | Self::Callback(_) => None,
        }
    }

    pub(crate) const fn link(self) -> Option<Link> {
        match self {
            Self::Number(_, link) => link,
            Self::Uninit | Self::Pointer(..) | Self::Callback(_) => None,
        }
    }

    /// An over-approximation of both; what can't be one value is uninitialised.
    pub(crate) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Number(a, link), Self::Number(b, other_link)) => {
                let link = if link == other_link { link } else { None };
                Self::linked(a.join(b), link)
            }
            (Self::Pointer(region, a), Self::Pointer(other_region, b))
                if region == other_region =>
            {
                Self::Pointer(region, a.join(b))
            }
            (Self::Callback(a), Self::Callback(b)) if a == b => self,
            (
                Self::Uninit | Self::Number(..) | Self::Pointer(..) | Self::Callback(_),
                Self::Uninit | Self::Number(..) | Self::Pointer(..) | Self::Callback(_),
            ) => Self::Uninit,
        }
    }

    /// Like [`Self::join`], but lets bounds that grow do so in few steps.
    pub(crate) fn widen(self, newer: Self, limits: &[i64]) -> Self {
        match (self, newer) {
            (Self::Number(a, link), Self::Number(b, other_link)) => {
                let link = if link == other_link { link } else { None };
                Self::linked(a.widen(b, limits), link)
            }
            (Self::Pointer(region, a), Self::Pointer(other_region, b))
                if region == other_region =>
            {
                Self::Pointer(region, a.widen(b, limits))
            }
            (
                Self::Uninit | Self::Number(..) | Self::Pointer(..) | Self::Callback(_),
                Self::Uninit | Self::Number(..) | Self::Pointer(..) | Self::Callback(_),
            ) => self.join(newer),
        }
    }

    /// Like [`Self::widen`], but gives up everything that changes.
    pub(crate) fn give_up(self, newer: Self) -> Self {
        match (self, newer) {
            (Self::Number(a, link), Self::Number(b, other))
                if !(b.is_within(a) && link == other) =>
            {
                Self::ANY
            }
            (Self::Pointer(region, a), Self::Pointer(other, b))
                if region == other && !b.is_within(a) =>
            {
                Self::Pointer(region, Scalar::TOP)
            }
            (
                Self::Uninit | Self::Number(..) | Self::Pointer(..) | Self::Callback(_),
                Self::Uninit | Self::Number(..) | Self::Pointer(..) | Self::Callback(_),
            ) => self.join(newer),
        }
    }

    /// The link of the result of `self + amount` (64 bits: modulo 2^64; 32 bits: of the low halves).
    pub(crate) fn link_after_add(self, width: Width, amount: u64) -> Option<Link> {
        let Self::Number(scalar, Some(link)) = self else {
            return None;
        };
        match width {
            Width::W64 => (!link.narrow).then_some(Link {
                delta: link.delta.wrapping_add(amount),
                ..link
            }),
            Width::W32 => {
                let amount = i64::from(amount as u32 as i32);
                let exact = i128::from(scalar.wide.umin) + i128::from(amount) >= 0
                    && i128::from(scalar.wide.umax) + i128::from(amount) <= i128::from(u32::MAX);
                Some(Link {
                    delta: link.delta.wrapping_add(amount as u64),
                    narrow: link.narrow || !exact,
                    ..link
                })
            }
        }
    }

    /// The link of the low half of `self`, zero-extended.
    pub(crate) fn link_after_cut(self) -> Option<Link> {
        let Self::Number(scalar, Some(link)) = self else {
            return None;
        };
        Some(Link {
            narrow: link.narrow || !scalar.fits_low(),
            ..link
        })
    }
}

/// What a number with `link` is, when one with link `of` to the same base is known to be `known`; `None` if nothing.
pub(crate) fn derive(known: Scalar, of: Link, link: Link) -> Option<Scalar> {
    if of.base != link.base {
        return None;
    }
    let difference = Scalar::constant(link.delta.wrapping_sub(of.delta));
    let low = known.alu(AluOp::Add, Width::W32, difference).low;
    if link.narrow {
        return Some(Scalar::from_low(low));
    }
    let mut derived = if of.narrow {
        Scalar::TOP
    } else {
        known.alu(AluOp::Add, Width::W64, difference)
    };
    derived.low = low;
    // `meet` lets the two halves learn from each other.
    derived.meet(Scalar::TOP)
}
