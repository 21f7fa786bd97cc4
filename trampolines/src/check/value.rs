//! What the check knows about one 64-bit word: a number in a range, a register's value at the entry, a place in the frame.
//!
//! Plain arithmetic on abstract values, nothing about instructions. Invariant: every operation over-approximates: the
//! machine's result is always one of the values that the result stands for.

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
    /// A number between the two, both included, unsigned.
    Num(u64, u64),
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
    pub(crate) const TOP: Self = Self::Num(0, u64::MAX);

    pub(crate) const fn constant(number: u64) -> Self {
        Self::Num(number, number)
    }

    pub(crate) const fn below_bits(bits: u32) -> Self {
        Self::Num(0, mask(bits))
    }

    pub(crate) const fn as_constant(self) -> Option<u64> {
        match self {
            Self::Num(low, high) if low == high => Some(low),
            Self::Num(..)
            | Self::Entry(_)
            | Self::Stack(..)
            | Self::Return(_)
            | Self::Flags(_)
            | Self::SignOfRax(_)
            | Self::Errno => None,
        }
    }

    /// The range of the number that the word holds; everything that is not known as a number can be any.
    pub(crate) const fn range(self) -> (u64, u64) {
        match self {
            Self::Num(low, high) => (low, high),
            Self::Entry(_)
            | Self::Stack(..)
            | Self::Return(_)
            | Self::Flags(_)
            | Self::SignOfRax(_)
            | Self::Errno => (0, u64::MAX),
        }
    }

    /// The lowest `bits` bits, zero-extended.
    pub(crate) const fn truncate(self, bits: u32) -> Self {
        if bits >= 64 {
            return self;
        }
        match self {
            Self::Num(low, high) if high <= mask(bits) => Self::Num(low, high),
            Self::Num(low, high) if low == high => Self::constant(low & mask(bits)),
            Self::Num(..)
            | Self::Entry(_)
            | Self::Stack(..)
            | Self::Return(_)
            | Self::Flags(_)
            | Self::SignOfRax(_)
            | Self::Errno => Self::below_bits(bits),
        }
    }

    /// The lowest `bits` bits, sign-extended to 64.
    pub(crate) const fn sign_extend(self, bits: u32) -> Self {
        if bits >= 64 {
            return self;
        }
        let low_part = self.truncate(bits);
        match low_part {
            Self::Num(low, high) if high <= mask(bits - 1) => Self::Num(low, high),
            Self::Num(low, high) if low > mask(bits - 1) => {
                Self::Num(low | !mask(bits), high | !mask(bits))
            }
            Self::Num(..)
            | Self::Entry(_)
            | Self::Stack(..)
            | Self::Return(_)
            | Self::Flags(_)
            | Self::SignOfRax(_)
            | Self::Errno => Self::TOP,
        }
    }

    /// `self + other`, wrapping.
    pub(crate) fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Num(a, b), Self::Num(c, d)) => {
                let (low, low_carry) = a.overflowing_add(c);
                let (high, high_carry) = b.overflowing_add(d);
                if low_carry == high_carry {
                    Self::Num(low, high)
                } else {
                    Self::TOP
                }
            }
            (Self::Stack(anchor, low, high), Self::Num(c, d))
            | (Self::Num(c, d), Self::Stack(anchor, low, high)) => {
                // A range that straddles the sign is not one range of offsets.
                if (c as i64) > (d as i64) {
                    return Self::TOP;
                }
                Self::stack(
                    anchor,
                    low.checked_add(c as i64),
                    high.checked_add(d as i64),
                )
            }
            (Self::Errno, Self::Num(0, 0)) | (Self::Num(0, 0), Self::Errno) => Self::Errno,
            _ => Self::TOP,
        }
    }

    /// `self - other`, wrapping.
    pub(crate) fn sub(self, other: Self) -> Self {
        match (self, other) {
            (Self::Num(a, b), Self::Num(c, d)) => {
                let (low, low_borrow) = a.overflowing_sub(d);
                let (high, high_borrow) = b.overflowing_sub(c);
                if low_borrow == high_borrow {
                    Self::Num(low, high)
                } else {
                    Self::TOP
                }
            }
            (Self::Stack(anchor, low, high), Self::Num(c, d)) if (c as i64) <= (d as i64) => {
                Self::stack(
                    anchor,
                    low.checked_sub(d as i64),
                    high.checked_sub(c as i64),
                )
            }
            _ => Self::TOP,
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

    /// `self & other` of numbers (alignment of rsp is handled where it happens).
    pub(crate) const fn and(self, other: Self) -> Self {
        let ((a, b), (c, d)) = (self.range(), other.range());
        if a == b && c == d {
            return Self::constant(a & c);
        }
        Self::Num(0, if b < d { b } else { d })
    }

    /// `self | other` and `self ^ other`: no bit above the highest of both.
    pub(crate) const fn or_xor(self, other: Self) -> Self {
        let ((_, b), (_, d)) = (self.range(), other.range());
        Self::below_bits(64 - (b | d).leading_zeros())
    }

    /// `self << count` within `bits`.
    pub(crate) const fn shl(self, count: u32, bits: u32) -> Self {
        let (low, high) = self.range();
        if count < bits && high <= mask(bits) >> count {
            Self::Num(low << count, high << count)
        } else {
            Self::below_bits(bits)
        }
    }

    /// `self >> count`, unsigned.
    pub(crate) const fn shr(self, count: u32) -> Self {
        let (low, high) = self.range();
        if count < 64 {
            Self::Num(low >> count, high >> count)
        } else {
            Self::TOP
        }
    }

    /// `self * factor` within `bits`.
    pub(crate) fn mul(self, factor: u64, bits: u32) -> Self {
        let (low, high) = self.range();
        match high.checked_mul(factor) {
            Some(product) if product <= mask(bits) => Self::Num(low.wrapping_mul(factor), product),
            Some(_) | None => Self::below_bits(bits),
        }
    }

    /// What is true of both. With `widen`, a range that grew jumps to the next of these bounds (ascending) or of a few
    /// fixed ones, so that loops settle.
    pub(crate) fn join(self, new: Self, widen: Option<&[u64]>) -> Self {
        match (self, new) {
            _ if self == new => self,
            (Self::Num(a, b), Self::Num(c, d)) => {
                let low = if c < a && widen.is_some() {
                    0
                } else {
                    a.min(c)
                };
                let high = match widen {
                    Some(bounds) if d > b => bounds
                        .iter()
                        .copied()
                        .chain([0xffff_ffff])
                        .find(|bound| *bound >= d)
                        .unwrap_or(u64::MAX),
                    Some(_) | None => b.max(d),
                };
                Self::Num(low, high)
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

/// The lowest `bits` (0-64) bits.
pub(crate) const fn mask(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::TOP => f.write_str("unknown"),
            Self::Num(low, high) if low == high => write!(f, "{low:#x}"),
            Self::Num(low, high) => write!(f, "{low:#x}..={high:#x}"),
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
