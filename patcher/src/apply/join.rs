//! Where compiler and trampolines meet: they don't know each other, so their common words are translated here.

use upatch_jit as jit;
use upatch_trampolines::check::TlsWindow;
use upatch_trampolines::{
    Avma, AvmaRange, Bindings, CheckPolicy, Fixup, FixupKind, Fragment, GprSet, Liveness,
};

use crate::patching::Placement;

/// Most bytes of the target's stack that a patch may use, called functions excluded. Thread stacks of 64 KiB exist; most
/// of it is vector state around calls of the application.
const MAX_STACK: u32 = 32 << 10;

/// The compiler's result in the words of the trampolines.
#[must_use]
pub(crate) fn fragment(patch: &jit::CompiledPatch) -> Fragment {
    let slack = if patch.arena_window == 0 {
        0
    } else {
        upatch_abi::arena::SLACK
    };
    Fragment {
        bytes: patch.bytes.clone(),
        code_len: patch.code_len,
        fixups: patch.fixups.iter().map(fixup).collect(),
        stack_bytes: patch.stack_bytes,
        arena_len: patch.arena_window + slack,
        calls_application: patch.calls_application,
    }
}

fn fixup(from: &jit::Fixup) -> Fixup {
    let kind = match from.kind {
        jit::FixupKind::Continue => FixupKind::Continue,
        jit::FixupKind::Arena(offset) => FixupKind::Arena(offset),
        jit::FixupKind::Extern(number) => FixupKind::Extern(number),
        jit::FixupKind::Site => FixupKind::Site,
        jit::FixupKind::Private(offset) => FixupKind::Private(offset),
        jit::FixupKind::Gate => FixupKind::Gate,
    };
    Fixup { at: from.at, kind }
}

/// The trampolines' set of free registers in the words of the compiler.
#[must_use]
pub(crate) fn site_registers(
    liveness: &Liveness,
    at_entry: bool,
    gated: bool,
    vectors: jit::VectorState,
) -> jit::SiteRegs {
    jit::SiteRegs {
        free: jit::GprSet(liveness.free.0),
        at_entry,
        gated,
        vectors,
    }
}

/// What the image's fixups are filled with.
#[must_use]
pub(crate) fn bindings(placement: &Placement, externs: &[Avma]) -> Bindings {
    Bindings {
        arena_base: placement.arena.start,
        externs: externs.to_vec(),
        private_base: placement.private.start,
        gate: placement.gate,
    }
}

/// What the machine-code check lets this patch do at this site.
#[must_use]
pub(crate) fn policy(
    patch: &jit::CompiledPatch,
    liveness: &Liveness,
    vectors: jit::VectorState,
    placement: &Placement,
    externs: &[Avma],
) -> CheckPolicy {
    let thread_pointer = TlsWindow { offset: 0, len: 8 };
    CheckPolicy {
        free: liveness.free,
        clobberable: liveness.clobberable,
        may_write: GprSet(patch.writes.0),
        flags_free: liveness.flags_free,
        externs: externs.to_vec(),
        errno_location: std::iter::zip(&patch.extern_names, externs)
            .find(|(name, _)| *name == "__errno_location")
            .map(|(_, at)| *at),
        arena: placement.arena,
        private: AvmaRange::new(placement.private.start, patch.private_bytes),
        gate: placement.gate,
        syscalls: patch.syscalls.iter().copied().collect(),
        tls_reads: if patch.reads_thread_pointer {
            vec![thread_pointer]
        } else {
            Vec::new()
        },
        vectors: patch
            .calls_application
            .then_some(upatch_trampolines::check::VectorState {
                mask: u64::from(vectors.mask),
                bytes: vectors.bytes,
            }),
        ..CheckPolicy::strict(MAX_STACK)
    }
}
