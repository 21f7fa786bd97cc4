//! Verified BPF to address-free x86-64, and the reference interpreter.
#![forbid(unsafe_code)]

mod analysis;
pub mod asm;
mod compile;
mod frame;
pub mod interp;
mod lower;
mod options;
mod patch;
pub mod private;
mod regs;
mod runtime;

pub use asm::{Gpr, GprSet};
pub use compile::{compile, compile_function, compile_raw};
pub use options::{SiteRegs, VectorState};
pub use patch::{CompiledPatch, Fixup, FixupKind, RawCode};
