//! What arithmetic, comparisons and atomics do to numbers: the one concrete implementation, used by the reference
//! interpreter, and by the verifier's tests as the truth that abstract values must contain.
//!
//! Total functions on `u64`; knows nothing of registers, memory or programs. 32-bit operations look at the low halves
//! and zero-extend their result (RFC 9669 §4.1).

use crate::insn::{AluOp, AtomicOp, CmpOp, EndianOp, Size, Width};

/// `a op b` (RFC 9669 §4.1). An immediate operand comes sign-extended to 64 bits.
#[must_use]
pub fn alu(op: AluOp, width: Width, a: u64, b: u64) -> u64 {
    match width {
        Width::W64 => alu64(op, a, b),
        Width::W32 => u64::from(alu32(op, a as u32, b as u32)),
    }
}

fn alu64(op: AluOp, a: u64, b: u64) -> u64 {
    let (sa, sb) = (a.cast_signed(), b.cast_signed());
    // wrapping_shl and its family mask the count to the width, as the RFC does.
    match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b).unwrap_or(0),
        AluOp::SDiv if b == 0 => 0,
        AluOp::SDiv => sa.wrapping_div(sb).cast_unsigned(),
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Lsh => a.wrapping_shl(b as u32),
        AluOp::Rsh => a.wrapping_shr(b as u32),
        AluOp::Mod => a.checked_rem(b).unwrap_or(a),
        AluOp::SMod if b == 0 => a,
        AluOp::SMod => sa.wrapping_rem(sb).cast_unsigned(),
        AluOp::Xor => a ^ b,
        AluOp::Mov => b,
        AluOp::Arsh => sa.wrapping_shr(b as u32).cast_unsigned(),
    }
}

fn alu32(op: AluOp, a: u32, b: u32) -> u32 {
    let (sa, sb) = (a.cast_signed(), b.cast_signed());
    match op {
        AluOp::Add => a.wrapping_add(b),
        AluOp::Sub => a.wrapping_sub(b),
        AluOp::Mul => a.wrapping_mul(b),
        AluOp::Div => a.checked_div(b).unwrap_or(0),
        AluOp::SDiv if b == 0 => 0,
        AluOp::SDiv => sa.wrapping_div(sb).cast_unsigned(),
        AluOp::Or => a | b,
        AluOp::And => a & b,
        AluOp::Lsh => a.wrapping_shl(b),
        AluOp::Rsh => a.wrapping_shr(b),
        AluOp::Mod => a.checked_rem(b).unwrap_or(a),
        AluOp::SMod if b == 0 => a,
        AluOp::SMod => sa.wrapping_rem(sb).cast_unsigned(),
        AluOp::Xor => a ^ b,
        AluOp::Mov => b,
        AluOp::Arsh => sa.wrapping_shr(b).cast_unsigned(),
    }
}

/// Two's complement negation (RFC 9669 §4.1).
#[must_use]
pub fn neg(width: Width, a: u64) -> u64 {
    match width {
        Width::W64 => a.wrapping_neg(),
        Width::W32 => u64::from((a as u32).wrapping_neg()),
    }
}

/// The low `from` bytes of `a`, sign-extended to `width` (RFC 9669 §4.1, MOVSX).
#[must_use]
pub fn movsx(width: Width, from: Size, a: u64) -> u64 {
    let wide = sign_extend(from, a);
    match width {
        Width::W64 => wide,
        Width::W32 => u64::from(wide as u32),
    }
}

/// The low `from` bytes of `a`, sign-extended to 64 bits (loads, RFC 9669 §5.2).
#[must_use]
pub fn sign_extend(from: Size, a: u64) -> u64 {
    match from {
        Size::B => i64::from(a as i8),
        Size::H => i64::from(a as i16),
        Size::W => i64::from(a as i32),
        Size::DW => a.cast_signed(),
    }
    .cast_unsigned()
}

/// The low `from` bytes of `a`, zero-extended to 64 bits.
#[must_use]
pub fn zero_extend(from: Size, a: u64) -> u64 {
    match from {
        Size::B => u64::from(a as u8),
        Size::H => u64::from(a as u16),
        Size::W => u64::from(a as u32),
        Size::DW => a,
    }
}

/// Byte order conversion of the low `bits` on a little-endian machine, zero-extended (RFC 9669 §4.2). Other widths than
/// 16 and 32 count as 64.
#[must_use]
pub fn endian(op: EndianOp, bits: u8, a: u64) -> u64 {
    match (op, bits) {
        (EndianOp::ToLe, 16) => u64::from(a as u16),
        (EndianOp::ToLe, 32) => u64::from(a as u32),
        (EndianOp::ToLe, _) => a,
        (EndianOp::ToBe | EndianOp::Swap, 16) => u64::from((a as u16).swap_bytes()),
        (EndianOp::ToBe | EndianOp::Swap, 32) => u64::from((a as u32).swap_bytes()),
        (EndianOp::ToBe | EndianOp::Swap, _) => a.swap_bytes(),
    }
}

/// Is the jump taken (RFC 9669 §4.3)? An immediate operand comes sign-extended to 64 bits.
#[must_use]
pub fn compare(op: CmpOp, width: Width, a: u64, b: u64) -> bool {
    // Sign extension keeps both the signed and the unsigned order of 32-bit numbers.
    let (a, b) = match width {
        Width::W64 => (a, b),
        Width::W32 => (sign_extend(Size::W, a), sign_extend(Size::W, b)),
    };
    let (sa, sb) = (a.cast_signed(), b.cast_signed());
    match op {
        CmpOp::Eq => a == b,
        CmpOp::Ne => a != b,
        CmpOp::Gt => a > b,
        CmpOp::Ge => a >= b,
        CmpOp::Lt => a < b,
        CmpOp::Le => a <= b,
        CmpOp::SGt => sa > sb,
        CmpOp::SGe => sa >= sb,
        CmpOp::SLt => sa < sb,
        CmpOp::SLe => sa <= sb,
        CmpOp::Set => a & b != 0,
    }
}

/// What an atomic leaves behind (RFC 9669 §5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtomicResult {
    /// What memory holds afterwards; the caller stores its low `size` bytes.
    pub memory: u64,
    /// What src holds afterwards.
    pub src: u64,
    /// What r0 holds afterwards.
    pub r0: u64,
}

/// An atomic read-modify-write of `size` on memory that holds `old` (zero-extended).
#[must_use]
pub fn atomic(op: AtomicOp, size: Size, old: u64, src: u64, r0: u64) -> AtomicResult {
    let (memory, fetch) = match op {
        AtomicOp::Add { fetch } => (old.wrapping_add(src), fetch),
        AtomicOp::Or { fetch } => (old | src, fetch),
        AtomicOp::And { fetch } => (old & src, fetch),
        AtomicOp::Xor { fetch } => (old ^ src, fetch),
        AtomicOp::Xchg => (src, true),
        AtomicOp::CmpXchg => {
            let equal = zero_extend(size, r0) == old;
            return AtomicResult {
                memory: if equal { src } else { old },
                src,
                r0: old,
            };
        }
    };
    AtomicResult {
        memory,
        src: if fetch { old } else { src },
        r0,
    }
}
