//! The reference interpreter: what a BPF program does, written to be read.
//!
//! The JIT is compared with it, the verifier is tested against it, conformance cases run on it. It follows RFC 9669 and
//! nothing else, trusts no fact without checking it, and never panics: whatever can go wrong is a [`Fault`].
//!
//! ```text
//! VerifiedProgram ─┐                              ┌→ r0 or Fault
//!                  ├→ Machine ─run(Input, World)→ ┼→ ctx, memory, arena afterwards
//! RawProgram ──────┘                              └→ executed instructions
//! ```
//! A verified program is held to what was proven: an access that is not as `Facts::access` says, an uninitialised
//! register or stack byte, a slot said to be unreachable, a frame larger than said are faults. A raw program begins with
//! zeros in registers and stack, so that it has one result.

mod call;
mod helpers;
mod machine;
mod memory;
mod run;

pub use helpers::{ExternFn, HelperFault, Helpers, World};
pub use machine::{Fault, Input, MAX_FRAMES, Machine, Output};
pub use memory::{
    CODE_BASE, CTX_BASE, DATA_BASE, FRAME_STRIDE, MEMORY_BASE, Memory, MemoryFault, Region,
    STACK_TOP, Writable, arena_size, confine, ctx_bytes,
};

#[cfg(test)]
mod tests;
