//! The entry points: what is compiled to what.

use upatch_verifier::facts::{RawProgram, VerifiedProgram};

use crate::asm::{Assembler, GprSet};
use crate::gate::gate;
use crate::lower::{self, Lowered, Shape};
use crate::options::{SiteRegs, VectorState};
use crate::patch::{CodeMark, CodePart, CompiledPatch, Fixup, FixupKind, RawCode};

/// Compiles a patch or probe for a place. Cannot fail: everything that could be wrong was refused by the verifier.
///
/// The code is entered at byte 0 with the registers of the patched place. It continues by a jump to
/// [`FixupKind::Continue`] with every register as at the entry, but those that the program wrote through ctx and those in
/// `site.free`; at a place inside a function the flags and the red zone survive too. Or it returns in the function's
/// stead, with rax and rdx as ctx has them and every register kept that is not in `site.free`. Vector registers, x87 and
/// mxcsr are never changed.
#[must_use]
pub fn compile(verified: &VerifiedProgram, site: &SiteRegs) -> CompiledPatch {
    if !lower::has_ctx(verified.program()) {
        return nothing();
    }
    let site = SiteRegs {
        // A function hands callee-saved registers back, whatever it does with them itself.
        free: site.free.intersection(GprSet::CALLER_SAVED),
        ..*site
    };
    let lowered = lower::lower(verified.program(), verified.facts(), Shape::Patch(site));
    let lowered = if site.gated {
        behind_gate(&site, lowered)
    } else {
        lowered
    };
    CompiledPatch {
        reads_thread_pointer: lowered.calls_application,
        bytes: lowered.bytes,
        code_len: lowered.code_len,
        fixups: lowered.fixups,
        stack_bytes: lowered.stack_bytes,
        arena_window: lowered.arena_window,
        private_bytes: lowered.private_bytes,
        calls_application: lowered.calls_application,
        extern_names: lowered.extern_names,
        syscalls: lowered.syscalls,
        writes: lowered.writes,
        marks: lowered.marks,
    }
}

/// The same code behind a gate test. Code refers to itself relative to rip, so moving all of it changes nothing.
fn behind_gate(site: &SiteRegs, lowered: Lowered) -> Lowered {
    let gate = gate(site, lowered.seen, lowered.reads_flags);
    let shift = gate.asm.len();
    let (mut bytes, mut fixups) = gate.asm.finish();
    bytes.extend_from_slice(&lowered.bytes);
    fixups.extend(lowered.fixups.iter().map(|fixup| Fixup {
        at: fixup.at + shift,
        kind: fixup.kind,
    }));
    let gate_mark = CodeMark {
        at: 0,
        part: CodePart::Gate,
    };
    let shifted = lowered.marks.iter().map(|mark| CodeMark {
        at: mark.at + shift,
        part: mark.part,
    });
    Lowered {
        bytes,
        fixups,
        marks: std::iter::once(gate_mark).chain(shifted).collect(),
        code_len: lowered.code_len + shift,
        stack_bytes: lowered.stack_bytes.max(gate.stack_bytes),
        ..lowered
    }
}

/// A program that takes memory instead of ctx has no meaning at a patched place: the call continues.
fn nothing() -> CompiledPatch {
    let mut asm = Assembler::new();
    asm.jmp_out(FixupKind::Continue);
    let (bytes, fixups) = asm.finish();
    CompiledPatch {
        code_len: bytes.len(),
        bytes,
        fixups,
        stack_bytes: 0,
        arena_window: 0,
        private_bytes: 0,
        calls_application: false,
        extern_names: Vec::new(),
        syscalls: std::collections::BTreeSet::new(),
        reads_thread_pointer: false,
        writes: GprSet::EMPTY,
        marks: vec![CodeMark {
            at: 0,
            part: CodePart::Continue,
        }],
    }
}

/// Compiles a program that nobody verified to a C function `u64 f(u8 *memory, u64 len)`, for conformance cases and
/// `upatch run --raw`: it runs in a child process, and nothing turns it into a patch. A function's caller keeps nothing in
/// vector registers across it (psABI), so that calls of the application save only x87 and SSE state.
#[must_use]
pub fn compile_raw(raw: &RawProgram) -> RawCode {
    function(lower::lower(
        raw.program(),
        raw.facts(),
        Shape::Function(VectorState::SSE),
    ))
}

/// Compiles a verified program that takes memory to a C function `u64 f(u8 *memory, u64 len)`.
#[must_use]
pub fn compile_function(verified: &VerifiedProgram) -> RawCode {
    function(lower::lower(
        verified.program(),
        verified.facts(),
        Shape::Function(VectorState::SSE),
    ))
}

fn function(lowered: Lowered) -> RawCode {
    RawCode {
        bytes: lowered.bytes,
        code_len: lowered.code_len,
        fixups: lowered.fixups,
        arena_window: lowered.arena_window,
        private_bytes: lowered.private_bytes,
        extern_names: lowered.extern_names,
    }
}
