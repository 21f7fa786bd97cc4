//! BPF instructions (the only decoder), the text assembler and disassembler, and the proof that a patch is safe.
//!
//! ```text
//! bytes ─decode→ Insn… ─Program::new→ Program ─verify→ VerifiedProgram { program, facts }
//! text  ─assemble→ ────┘
//! ```
//! Pure: knows nothing of ELF, x86 or processes.
#![forbid(unsafe_code)]

pub mod asm;
pub mod decode;
pub mod disasm;
pub mod encode;
pub mod facts;
pub mod insn;
pub mod program;
pub mod semantics;
mod slot;
pub mod verify;

pub use asm::{AsmError, assemble, assemble_as};
pub use facts::{Access, Facts, RawProgram, Verdict, VerifiedProgram};
pub use insn::{Insn, Pc, Reg};
pub use program::{MalformedProgram, Program, ProgramKind, ProgramParts};
pub use verify::{Policy, Rejection, verify};
