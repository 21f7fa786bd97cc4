//! What the check knows about one 64-bit word: a number in a range, a register's value at the entry, a place in the frame.
//!
//! Plain arithmetic on abstract values, nothing about instructions. Invariant: every operation over-approximates: the
//! machine's result is always one of the values that the result stands for.

use super::link::Link;
use super::number::Number;

/// What an address in the frame is counted from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Anchor {
    /// rsp as it was when the hook was entered.
    Entry,
    /// rsp after it was rounded down to a multiple of 64 (`and rsp, -64`).
    Aligned,
}

/// Were the flags (or the vector registers) touched?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// They hold what they held at the entry.
    Entry,
    /// They hold something else.
    Changed,
}

/// One word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// A number, and what it was made from. Constants have no link.
    Num(Number, Option<Link>),
    /// What general-purpose register `n` held at the entry.
    Entry(u8),
    /// An address in the frame, between the two offsets from the anchor.
    Stack(Anchor, i64, i64),
    /// The address that a `call` inside the image pushed.
    Return(u64),
    /// What `pushfq` stored.
    Flags(Kept),
    /// The sign of rax's lowest bits (this many), spread over the word: what `cqo` and `cdq` leave in rdx.
    SignOfRax(u32),
    /// The address of the calling thread's `errno`, as the C library's `__errno_location` returned it.
    Errno,
}

impl Value {
    pub(crate) const TOP: Self = Self::Num(Number::TOP, None);

    pub(crate) const fn constant(number: u64) -> Self {
        Self::Num(Number::constant(number), None)
    }

    pub(crate) fn below_bits(bits: u32) -> Self {
        Self::Num(Number::below_bits(bits), None)
    }

    /// A number with its link, which a constant doesn't need.
    pub(crate) const fn linked(number: Number, link: Option<Link>) -> Self {
        match number.as_constant() {
            Some(_) => Self::Num(number, None),
            None => Self::Num(number, link),
        }
    }

    pub(crate) const fn as_constant(self) -> Option<u64> {
        match self {
            Self::Num(number, _) => number.as_constant(),
            Self::Entry(_)
            | Self::Stack(..)
            | Self::Return(_)
            | Self::Flags(_)
            | Self::SignOfRax(_)
            | Self::Errno => None,
        }
    }

    /// The number that the word holds; everything that is not known as a number can be any.
    pub(crate) const fn as_number(self) -> Number {
        match self {
            Self::Num(number, _) => number,
            Self::Entry(_)
            | Self::Stack(..)
            | Self::Return(_)
            | Self::Flags(_)
            | Self::SignOfRax(_)
            | Self::Errno => Number::TOP,
        }
    }

    /// What the number was made from.
    pub(crate) const fn link(self) -> Option<Link> {
        match self {
            Self::Num(_, link) => link,
            Self::Entry(_)
            | Self::Stack(..)
            | Self::Return(_)
            | Self::Flags(_)
            | Self::SignOfRax(_)
            | Self::Errno => None,
        }
    }

    /// The lowest `bits` bits, zero-extended.
    pub(crate) fn truncate(self, bits: u32) -> Self {
        if bits >= 64 {
            return self;
        }
        let number = self.as_number();
        let cut = number.truncate(bits);
        let link = if cut == number {
            self.link()
        } else if bits == 32 {
            self.link().map(|link| link.after_cut(number))
        } else {
            None
        };
        Self::linked(cut, link)
    }

    /// The lowest `bits` bits, sign-extended to 64.
    pub(crate) fn sign_extend(self, bits: u32) -> Self {
        let number = self.as_number();
        let extended = number.sign_extend(bits);
        // Where no sign bit can be set the number stays what it was.
        let link = self
            .link()
            .filter(|_| number.umax() < 1 << (bits - 1).min(63));
        Self::linked(extended, link)
    }

    /// `self + other` within `bits`, wrapping.
    pub(crate) fn add(self, other: Self, bits: u32) -> Self {
        match (self, other) {
            (Self::Num(a, link), Self::Num(b, other_link)) => {
                let link = match (a.as_constant(), b.as_constant()) {
                    (_, Some(amount)) => link.and_then(|link| link.after_add(a, amount, bits)),
                    (Some(amount), None) => {
                        other_link.and_then(|link| link.after_add(b, amount, bits))
                    }
                    (None, None) => None,
                };
                Self::linked(a.add(b).truncate(bits), link)
            }
            (Self::Stack(anchor, low, high), Self::Num(number, _))
            | (Self::Num(number, _), Self::Stack(anchor, low, high))
                if bits == 64 =>
            {
                let (least, most) = (number.wide.smin(), number.wide.smax());
                Self::stack(anchor, low.checked_add(least), high.checked_add(most))
            }
            (Self::Errno, other) | (other, Self::Errno)
                if bits == 64 && other.as_constant() == Some(0) =>
            {
                Self::Errno
            }
            _ => Self::below_bits(bits),
        }
    }

    /// `self - other` within `bits`, wrapping.
    pub(crate) fn sub(self, other: Self, bits: u32) -> Self {
        match (self, other) {
            (Self::Num(a, link), Self::Num(b, _)) => {
                let amount = b.as_constant().map(u64::wrapping_neg);
                let link = link
                    .zip(amount)
                    .and_then(|(link, amount)| link.after_add(a, amount, bits));
                Self::linked(a.sub(b).truncate(bits), link)
            }
            (Self::Stack(anchor, low, high), Self::Num(number, _)) if bits == 64 => {
                let (least, most) = (number.wide.smin(), number.wide.smax());
                Self::stack(anchor, low.checked_sub(most), high.checked_sub(least))
            }
            (Self::Stack(anchor, a, b), Self::Stack(other, c, d))
                if anchor == other && bits == 64 =>
            {
                match (a.checked_sub(d), b.checked_sub(c)) {
                    (Some(low), Some(high)) => {
                        Self::linked(Number::between(low as u64, high as u64), None)
                    }
                    _ => Self::TOP,
                }
            }
            _ => Self::below_bits(bits),
        }
    }

    /// A frame address unless it is absurdly far away.
    fn stack(anchor: Anchor, low: Option<i64>, high: Option<i64>) -> Self {
        const FAR: i64 = 1 << 40;
        match (low, high) {
            (Some(low), Some(high)) if low >= -FAR && high <= FAR => Self::Stack(anchor, low, high),
            _ => Self::TOP,
        }
    }

    /// What is true of both. With `widen`, a range that grew jumps to the next of these bounds (ascending) or of a few
    /// fixed ones, so that loops settle.
    pub(crate) fn join(self, new: Self, widen: Option<&[u64]>) -> Self {
        match (self, new) {
            _ if self == new => self,
            (Self::Num(a, link), Self::Num(b, other)) => {
                let link = link.filter(|_| link == other);
                let joined = match widen {
                    Some(bounds) => a.widen(b, bounds),
                    None => a.join(b),
                };
                Self::linked(joined, link)
            }
            (Self::Stack(anchor, a, b), Self::Stack(other, c, d))
                if anchor == other && widen.is_none() =>
            {
                Self::Stack(anchor, a.min(c), b.max(d))
            }
            _ => Self::TOP,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Num(number, _) => match number.as_constant() {
                Some(number) => write!(f, "{number:#x}"),
                None if number == Number::TOP => f.write_str("unknown"),
                None if number.wide == Number::TOP.wide => write!(
                    f,
                    "unknown, its low half {:#x}..={:#x}",
                    number.low.umin(),
                    number.low.umax()
                ),
                None => write!(f, "{:#x}..={:#x}", number.umin(), number.umax()),
            },
            Self::Entry(number) => {
                write!(
                    f,
                    "{} as at the entry",
                    crate::fragment::GPR_NAMES
                        .get(usize::from(number))
                        .unwrap_or(&"?")
                )
            }
            Self::Stack(anchor, low, high) => {
                let name = if anchor == Anchor::Entry {
                    "entry rsp"
                } else {
                    "aligned rsp"
                };
                if low == high {
                    write!(f, "{name}{low:+}")
                } else {
                    write!(f, "{name}{low:+}..={high:+}")
                }
            }
            Self::Return(at) => write!(f, "return address {at:#x}"),
            Self::Flags(_) => f.write_str("saved flags"),
            Self::SignOfRax(_) => f.write_str("the sign of rax"),
            Self::Errno => f.write_str("errno's address"),
        }
    }
}
