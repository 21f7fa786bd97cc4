//! Verified BPF to address-free x86-64, and the reference interpreter.
//!
//! ```text
//! VerifiedProgram ─analyse→ ops ─assign→ registers, frame ─lower→ CompiledPatch { bytes, fixups, needs }
//!                  constants,  free first,       one pass,
//!                  liveness,   ctx left alone    instruction by instruction
//!                  fusing
//! ```
//! Principles: compiling can't fail, whatever could be wrong was refused by the verifier; one pass, no intermediate
//! language, each BPF instruction becomes a few x86 ones that can be checked by looking; what is cheap to leave out is left out
//! before that pass; the code contains no address of anything, and nothing that depends on the machine that compiles.
//! Knows neither processes nor trampolines.
//!
//! # What a patch is made of
//! ```text
//! byte 0 ┌─────────────────────────────────────────┐ entered by a jump, registers as at the patched place
//!        │ gate test, if the patch has several sites │──closed──→ displaced instructions
//!        │ prologue: save what is overwritten      │
//!        │ main program                            │──ret──→ the caller (verdict UPATCH_RETURN)
//!        │ epilogue: restore                       │
//!        │ jmp Continue                            │───────→ displaced instructions (UPATCH_CONTINUE)
//!        ├─────────────────────────────────────────┤
//!        │ subprograms, callbacks   (call, ret)    │
//!        │ routines: helpers, guard (call, ret)    │
//!        ├─────────────────────────────────────────┤ code_len
//!        │ read-only data, rip-relative            │
//!        └─────────────────────────────────────────┘
//! ```
//!
//! # The frame
//! ```text
//! entry rsp →  return address                    at a function's entry
//!              the red zone, untouched           inside a function only: lea rsp, [rsp - 128]
//!              flags                             inside a function, or if ctx->flags is read
//!              entry values of written arguments if the program may refuse the call
//!              saved registers                   = the ctx fields of these registers
//!              BPF stack                         r10 is its upper end
//!              bpf_loop, guard, may_goto
//!       rsp →
//! ```
//! rsp stands still between BPF instructions, so r10 takes no register: `*(r10 - 8)` is `[rsp + n]`. A subprogram has a frame of
//! its own below its return address; where it reaches into ctx, a register points to the main frame.
//!
//! # Registers
//! ctx is no memory. A field whose register the code leaves alone is that register; one whose register is overwritten is
//! the slot it was saved to, and is restored from there on the way out, with what the program wrote. So a patch that calls
//! nothing takes first the registers that are free at the place, then those that it doesn't see as ctx, and leaves
//! arguments where they are: counting costs one push and pop, or nothing. A patch that calls routines or the application uses the C calling
//! convention instead, so that arguments are where they belong. Registers that instructions insist on (rcx for shifts,
//! rax and rdx for division, rax for compare-and-exchange) are not set apart: the two values trade places for that instruction.
//!
//! # Ways out
//! Continue restores all but free registers and ctx writes; return restores arguments too, as only rax and rdx are the
//! result. Flags are restored inside a function, where they may be live. Vector registers are never touched; around a call of
//! the application they are saved, with x87 and mxcsr. Such a patch is guarded against being entered again by what it calls
//! (`runtime/guard.rs`).
#![forbid(unsafe_code)]

mod analysis;
pub mod asm;
mod compile;
mod frame;
mod gate;
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
pub use patch::{CodeMark, CodePart, CompiledPatch, Fixup, FixupKind, RawCode};
