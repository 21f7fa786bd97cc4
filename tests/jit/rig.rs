//! A patch from assembly text, verified, compiled for a place, checked, and run with every register filled.

use upatch_abi::arena;
use upatch_jit::{CompiledPatch, GprSet, SiteRegs, VectorState, compile, private};
use upatch_tests::jit_diff::{checked, disassembly};
use upatch_tests::native::{Bindings, Cpu, Left, Mapping, Native};
use upatch_verifier::asm::assemble;
use upatch_verifier::verify::verify;
use upatch_verifier::{Policy, VerifiedProgram};

/// What a patch of these tests runs in.
pub(crate) struct Rig {
    pub(crate) arena: Mapping,
    pub(crate) private: Mapping,
    pub(crate) stack: Mapping,
    pub(crate) bindings: Bindings,
    /// Changes registers before a run.
    pub(crate) set: Vec<(u8, u64)>,
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) left: Left,
    pub(crate) before: Cpu,
    pub(crate) after: Cpu,
}

/// The address that patches of these tests are said to be at.
pub(crate) const SITE: u64 = 0x5555_5555_4321;

/// The places that every test program is compiled for: nothing free, much free, inside a function.
pub(crate) fn sites() -> Vec<SiteRegs> {
    let vectors = VectorState::detect().unwrap_or(VectorState::SSE);
    let entry = |free| SiteRegs {
        free,
        at_entry: true,
        gated: false,
        vectors,
    };
    vec![
        entry(GprSet::EMPTY),
        entry(GprSet::CALLER_SAVED),
        entry(GprSet(0x0c01)),
        SiteRegs {
            at_entry: false,
            ..entry(GprSet::EMPTY)
        },
        SiteRegs {
            gated: true,
            ..entry(GprSet::EMPTY)
        },
        SiteRegs {
            gated: true,
            ..entry(GprSet(0x0c01))
        },
        SiteRegs {
            at_entry: false,
            gated: true,
            ..entry(GprSet::EMPTY)
        },
    ]
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_window(arena::PAGE)
    }

    /// With an arena of this window.
    pub(crate) fn with_window(window: u64) -> Self {
        let size = (window + arena::SLACK) as usize;
        let arena = Mapping::new(size, window as usize).unwrap();
        let mut private = Mapping::new(private::BYTES as usize, 4096).unwrap();
        private.bytes_mut()[..8].copy_from_slice(&0x1234_5678_9abc_u64.to_le_bytes());
        private.bytes_mut()[private::GATE as usize] = 1;
        let bindings = Bindings {
            arena: arena.address(),
            externs: Vec::new(),
            site: SITE,
            private: private.address(),
        };
        Self {
            arena,
            private,
            stack: Mapping::new(256 << 10, 4096).unwrap(),
            bindings,
            set: Vec::new(),
        }
    }

    /// Verifies, compiles and checks.
    pub(crate) fn compile(&self, text: &str, site: &SiteRegs) -> CompiledPatch {
        let patch = compile(&verified(text), site);
        let listing = || disassembly(&patch.bytes[..patch.code_len], 0);
        checked(
            &patch,
            site,
            &self.bindings,
            self.arena.bytes().len() as u64,
        )
        .unwrap_or_else(|refusal| panic!("{refusal}\n{text}\n{}", listing()));
        patch
    }

    /// Runs the patch at a place and checks that everything else is as it was.
    pub(crate) fn run(&mut self, text: &str, site: &SiteRegs) -> Ran {
        let patch = self.compile(text, site);
        let native = Native::place(&patch.bytes, &patch.fixups, &self.bindings).unwrap();
        self.run_native(&native, &patch, site)
    }

    pub(crate) fn run_native(
        &mut self,
        native: &Native,
        patch: &CompiledPatch,
        site: &SiteRegs,
    ) -> Ran {
        let mut cpu = Cpu::filled(0xfeed_f00d);
        for (number, value) in &self.set {
            cpu.gpr[usize::from(*number)] = *value;
        }
        let mut before = cpu.clone();
        // SAFETY: verified and checked; the stack is this rig's.
        let left = unsafe { native.run(16, &mut cpu, &mut self.stack, !site.at_entry) };
        let top = self.stack.address() + self.stack.bytes().len() as u64 - 4096;
        before.gpr[4] = top + if left == Left::Return { 8 } else { 0 };
        let lost = site.free.union(patch.writes);
        let lost = match left {
            Left::Continue => lost,
            // A refused call changes only its result, and what nobody misses.
            Left::Return => lost.intersection(site.free).union(GprSet(0b101)),
        };
        let except: Vec<u8> = lost.iter().map(upatch_jit::Gpr::number).collect();
        let wrong = before.differences(&cpu, &except);
        assert!(
            wrong.is_empty(),
            "{wrong:?}\n{}",
            disassembly(&patch.bytes[..patch.code_len], 0)
        );
        if !site.at_entry {
            assert_eq!(before.flags, cpu.flags, "flags");
        }
        assert_eq!(cpu.flags & 0x400, 0, "the direction flag is set");
        Ran {
            left,
            before,
            after: cpu,
        }
    }

    /// A word of the arena.
    pub(crate) fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.arena.bytes()[at..at + 8].try_into().unwrap())
    }

    /// A word of the private data.
    pub(crate) fn private_word(&self, at: u64) -> u64 {
        let at = usize::try_from(at).unwrap();
        u64::from_le_bytes(self.private.bytes()[at..at + 8].try_into().unwrap())
    }
}

/// The program in `text`, proven.
pub(crate) fn verified(text: &str) -> VerifiedProgram {
    let policy = Policy {
        allow_write: true,
        max_steps: 1 << 26,
        ..Policy::default()
    };
    let program = assemble(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    verify(program, &policy).unwrap_or_else(|rejection| panic!("{rejection}\n{text}"))
}

/// A patch of two kinds, by place: at an entry it is `patch`, inside a function `patch_offset`.
pub(crate) fn of_kind(site: &SiteRegs, body: &str) -> String {
    with_arena(site, 4096, body)
}

/// The same with an arena of `len` bytes.
pub(crate) fn with_arena(site: &SiteRegs, len: u64, body: &str) -> String {
    let kind = if site.at_entry {
        "patch"
    } else {
        "patch_offset"
    };
    format!(".kind {kind}\n.arena {len}\n{body}")
}
