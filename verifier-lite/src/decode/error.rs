//! Why bytes are not instructions: the slot, the field, its value.

use crate::insn::Pc;
use crate::program::MAX_SLOTS;

/// A field of a slot, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields of RFC 9669 §3.1")]
pub enum Field {
    Dst,
    Src,
    Offset,
    Imm,
    Opcode,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dst => "dst",
            Self::Src => "src",
            Self::Offset => "offset",
            Self::Imm => "imm",
            Self::Opcode => "opcode",
        })
    }
}

/// Why bytes are not instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum DecodeError {
    #[error("{bytes} bytes are not a whole number of 8-byte slots")]
    TornSlot { bytes: usize },
    #[error("{slots} slots are more than {MAX_SLOTS}")]
    TooLong { slots: usize },
    #[error("slot {}: unknown opcode {opcode:#04x}", at.0)]
    UnknownOpcode { at: Pc, opcode: u8 },
    #[error("slot {}: {field} is not used by opcode {opcode:#04x} and must be 0, not {value}", at.0)]
    Reserved {
        at: Pc,
        opcode: u8,
        field: Field,
        value: i64,
    },
    #[error("slot {}: opcode {opcode:#04x} has no variant with {field} {value}", at.0)]
    UnknownVariant {
        at: Pc,
        opcode: u8,
        field: Field,
        value: i64,
    },
    #[error("slot {}: {field} names register r{number}, which does not exist", at.0)]
    BadRegister { at: Pc, field: Field, number: u8 },
    #[error("slot {}: the jump goes to slot {target}, outside the program", at.0)]
    BadTarget { at: Pc, target: i64 },
    #[error("slot {}: the second half of the 64-bit immediate is missing", at.0)]
    TornImm64 { at: Pc },
    #[error("slot {}: a 64-bit immediate of kind {src} (map, variable or BTF reference) needs the loader of the kernel", at.0)]
    KernelReference { at: Pc, src: u8 },
    #[error("slot {}: legacy packet access (LD_ABS, LD_IND) is not supported", at.0)]
    LegacyPacket { at: Pc },
    #[error("slot {}: a call through a register (callx) is not supported", at.0)]
    IndirectCall { at: Pc },
    #[error("slot {}: tail calls are not supported", at.0)]
    TailCall { at: Pc },
}
