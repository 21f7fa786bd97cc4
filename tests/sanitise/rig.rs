//! A case of tests/cases/sanitise, proven, compiled and checked once, then run many times as machine code, and in the
//! interpreter, which must agree in everything.
//!
//! The program's memory is one page, with a page behind it that nobody can read: what a case is to read is put at the
//! first one's end, so that a byte too many is noticed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use upatch::build::{BuildRequest, build};
use upatch::object::{GlobalInfo, PatchObject, link};
use upatch_abi::ctx::{self, CtxField};
use upatch_abi::{arena, verdict};
use upatch_jit::interp::{self, Input, Machine, World};
use upatch_jit::{GprSet, SiteRegs, VectorState, compile, private};
use upatch_tests::jit_diff::checked;
use upatch_tests::native::{Bindings, Cpu, Left, Mapping, Native};
use upatch_verifier::verify::{Event, Trace, verify_traced};
use upatch_verifier::{Policy, VerifiedProgram};

/// Bytes of the page that can be read.
pub(crate) const PAGE: usize = 4096;
/// Instructions that the verifier may visit for one case: far more than any takes, and a fraction of a second.
const VISITS: u64 = 20_000;
/// Runs that are interpreted too: the first so many, where the edges are, then one of [`SAMPLE`]. (Interpreting is slow.)
const FIRST: u64 = 2_000;
const SAMPLE: u64 = 10;
const SITE: u64 = 0x5555_5555_4321;
/// Numbers of the argument registers: rdi, rsi, rdx, rcx.
const ARGUMENTS: [u8; 4] = [7, 6, 2, 1];
const RAX: usize = 0;

pub(crate) struct Rig {
    verified: VerifiedProgram,
    native: Native,
    bindings: Bindings,
    globals: Vec<GlobalInfo>,
    initial: Vec<u8>,
    arena: Mapping,
    stack: Mapping,
    user: Mapping,
    runs: u64,
    _private: Mapping,
}

/// What a run left.
pub(crate) struct Ran {
    /// What the patch returned in the function's stead; `None` if the call goes on.
    pub(crate) result: Option<i64>,
    /// The argument registers afterwards.
    pub(crate) arguments: [u64; 4],
    arena: Vec<u8>,
    globals: Vec<GlobalInfo>,
}

/// Changes the arena while code runs on it.
pub(crate) struct Editor {
    base: u64,
    len: u64,
}

impl Editor {
    /// Stores one byte at an offset.
    pub(crate) fn byte(&self, at: u64, byte: u8) {
        assert!(at < self.len);
        // SAFETY: within the mapping, which outlives the thread; nobody has a reference to it meanwhile.
        let place = unsafe { AtomicU8::from_ptr((self.base + at) as *mut u8) };
        place.store(byte, Ordering::SeqCst);
    }

    /// Stores a word at an offset, a multiple of 4.
    pub(crate) fn word(&self, at: u64, word: u32) {
        assert!(at + 4 <= self.len && at.is_multiple_of(4));
        // SAFETY: as above, and aligned.
        let place = unsafe { AtomicU32::from_ptr((self.base + at) as *mut u32) };
        place.store(word, Ordering::SeqCst);
    }
}

struct Visits(u64);

impl Trace for Visits {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Before { .. } => self.0 += 1,
            Event::Pruned { .. } => {}
        }
    }
}

impl Rig {
    /// Builds, verifies, compiles and checks cases/sanitise/NAME.c.
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let request = BuildRequest {
            source: Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cases/sanitise/{name}.c")),
            output: Some(folder.path().join("patch.o")),
            clang_args: ["-Wall", "-Wextra", "-Werror"].map(Into::into).to_vec(),
        };
        let report = build(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
        let object = PatchObject::parse(&report.bytes).unwrap();
        let verified = verified(name, &object);
        let site = SiteRegs {
            free: GprSet::EMPTY,
            at_entry: true,
            gated: false,
            vectors: VectorState::detect().unwrap_or(VectorState::SSE),
        };
        let patch = compile(&verified, &site);
        let window = arena::window_for(object.arena().len).unwrap();
        let arena = Mapping::new((window + arena::SLACK) as usize, window as usize).unwrap();
        let private = Mapping::new(private::BYTES as usize, PAGE).unwrap();
        let bindings = Bindings {
            arena: arena.address(),
            externs: Vec::new(),
            site: SITE,
            private: private.address(),
        };
        checked(&patch, &site, &bindings, arena.bytes().len() as u64)
            .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let mut initial = vec![0; arena.bytes().len()];
        for segment in &object.arena().initial {
            let at = segment.offset as usize;
            initial[at..at + segment.bytes.len()].copy_from_slice(&segment.bytes);
        }
        let user = Mapping::new(2 * PAGE, PAGE).unwrap();
        let behind = (user.address() + PAGE as u64) as *mut libc::c_void;
        // SAFETY: the second page is this mapping's, and nothing refers to its content.
        let done = unsafe { libc::mprotect(behind, PAGE, libc::PROT_NONE) };
        assert_eq!(done, 0);
        Self {
            native: Native::place(&patch.bytes, &patch.fixups, &bindings).unwrap(),
            verified,
            bindings,
            globals: object.arena().globals.clone(),
            initial,
            arena,
            stack: Mapping::new(256 << 10, PAGE).unwrap(),
            user,
            runs: 0,
            _private: private,
        }
    }

    /// Where the page that can't be read begins.
    pub(crate) fn edge(&self) -> u64 {
        self.user.address() + PAGE as u64
    }

    /// Changes what runs find in a variable of the arena.
    pub(crate) fn set(&mut self, name: &str, at: usize, bytes: &[u8]) {
        let global = find(&self.globals, name);
        assert!(
            at + bytes.len() <= global.size as usize,
            "{name} is smaller"
        );
        let start = global.offset as usize + at;
        self.initial[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Runs it on a NUL-terminated string; the other arguments are `more`.
    pub(crate) fn run_str(&mut self, text: &[u8], more: [u64; 3]) -> Ran {
        let mut text = text.to_vec();
        text.push(0);
        self.run_bytes(&text, more)
    }

    /// Runs it with the address of these bytes, which are the last that can be read.
    pub(crate) fn run_bytes(&mut self, bytes: &[u8], [second, third, fourth]: [u64; 3]) -> Ran {
        let address = self.edge() - bytes.len() as u64;
        self.run(bytes, [address, second, third, fourth]).0
    }

    /// Runs it with `bytes` at the readable page's end; also gives that page as the run left it.
    pub(crate) fn run(&mut self, bytes: &[u8], arguments: [u64; 4]) -> (Ran, Vec<u8>) {
        let mut page = vec![0xa5; PAGE - bytes.len()];
        page.extend_from_slice(bytes);
        let mut cpu = Cpu::filled(0xfeed_f00d);
        for (number, value) in ARGUMENTS.iter().zip(arguments) {
            cpu.gpr[usize::from(*number)] = value;
        }
        self.runs += 1;
        let interpret = self.runs <= FIRST || self.runs.is_multiple_of(SAMPLE);
        let interpreted = interpret.then(|| self.interpret(&cpu, page.clone()));

        // SAFETY: the first page is readable and writable, and nobody else refers to it.
        let real = unsafe { std::slice::from_raw_parts_mut(self.user.address() as *mut u8, PAGE) };
        real.copy_from_slice(&page);
        self.arena.bytes_mut().copy_from_slice(&self.initial);
        // SAFETY: verified and checked; the stack is this rig's.
        let left = unsafe { self.native.run(16, &mut cpu, &mut self.stack, false) };
        let native = Ran {
            result: (left == Left::Return).then(|| cpu.gpr[RAX].cast_signed()),
            arguments: ARGUMENTS.map(|number| cpu.gpr[usize::from(number)]),
            arena: self.arena.bytes().to_vec(),
            globals: self.globals.clone(),
        };
        if let Some((interpreted, user)) = interpreted {
            assert_eq!(native.result, interpreted.result, "as machine code");
            assert!(native.arena == interpreted.arena, "another arena");
            assert!(real == user, "other memory of the program");
            if native.result.is_none() {
                assert_eq!(native.arguments, interpreted.arguments);
            }
        }
        (native, real.to_vec())
    }

    /// Runs the machine code on a string again and again while `edit` changes the arena in another thread; what it returned,
    /// each result once.
    pub(crate) fn run_beside(
        &mut self,
        text: &[u8],
        runs: u32,
        edit: impl Fn(&Editor) + Sync,
    ) -> BTreeSet<i64> {
        let mut page = vec![0; PAGE - text.len() - 1];
        page.extend_from_slice(text);
        page.push(0);
        // SAFETY: as in `run`.
        let real = unsafe { std::slice::from_raw_parts_mut(self.user.address() as *mut u8, PAGE) };
        real.copy_from_slice(&page);
        let address = self.edge() - text.len() as u64 - 1;
        self.arena.bytes_mut().copy_from_slice(&self.initial);
        let editor = Editor {
            base: self.arena.address(),
            len: self.arena.bytes().len() as u64,
        };
        let over = AtomicBool::new(false);
        let mut results = BTreeSet::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    edit(&editor);
                }
            });
            for _ in 0..runs {
                let mut cpu = Cpu::filled(1);
                cpu.gpr[usize::from(ARGUMENTS[0])] = address;
                // SAFETY: as in `run`.
                unsafe { self.native.run(16, &mut cpu, &mut self.stack, false) };
                results.insert(cpu.gpr[RAX].cast_signed());
            }
            over.store(true, Ordering::Relaxed);
        });
        results
    }

    /// Where a variable of the arena lies in it.
    pub(crate) fn offset(&self, name: &str) -> u64 {
        find(&self.globals, name).offset
    }

    fn interpret(&self, cpu: &Cpu, page: Vec<u8>) -> (Ran, Vec<u8>) {
        let at = self.user.address();
        let mut world = World::default();
        world.user.insert(at, page);
        let input = Input {
            ctx: interp::ctx_bytes(|field| match field {
                CtxField::Rip => SITE,
                _ => field.gpr().map_or(0, |number| cpu.gpr[usize::from(number)]),
            }),
            arena_base: self.bindings.arena,
            arena: self.initial.clone(),
            step_limit: self.verified.facts().max_steps,
            ..Input::default()
        };
        let output = Machine::verified(&self.verified).run(&input, &mut world);
        let register = |number: u8| {
            let field = CtxField::ALL
                .into_iter()
                .find(|field| field.gpr() == Some(number));
            let at = usize::from(field.unwrap().offset());
            u64::from_le_bytes(output.ctx[at..at + 8].try_into().unwrap())
        };
        assert_eq!(output.ctx.len(), ctx::SIZE as usize);
        let r0 = output
            .r0
            .clone()
            .unwrap_or_else(|fault| panic!("the interpreter: {fault}"));
        let ran = Ran {
            result: (r0 == verdict::UPATCH_RETURN).then(|| register(0).cast_signed()),
            arguments: ARGUMENTS.map(register),
            arena: output.arena,
            globals: self.globals.clone(),
        };
        (ran, world.user.remove(&at).unwrap())
    }
}

impl Ran {
    /// What the patch returned.
    pub(crate) fn returned(&self) -> i64 {
        self.result.expect("the patch ends the call")
    }

    /// A variable's bytes.
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        let global = find(&self.globals, name);
        let start = global.offset as usize;
        &self.arena[start..start + global.size as usize]
    }

    /// A variable's bytes up to its first NUL.
    pub(crate) fn text(&self, name: &str) -> &[u8] {
        let bytes = self.bytes(name);
        let nul = bytes.iter().position(|byte| *byte == 0);
        &bytes[..nul.unwrap_or(bytes.len())]
    }

    /// The numbers that an array of u64 holds.
    pub(crate) fn number(&self, name: &str, index: usize) -> u64 {
        u64::from_le_bytes(
            self.bytes(name)[8 * index..8 * index + 8]
                .try_into()
                .unwrap(),
        )
    }
}

fn find<'g>(globals: &'g [GlobalInfo], name: &str) -> &'g GlobalInfo {
    let found = globals.iter().find(|global| global.name == name);
    found.unwrap_or_else(|| panic!("no variable {name}"))
}

fn verified(name: &str, object: &PatchObject) -> VerifiedProgram {
    let program = link(object, &object.programs()[0]).unwrap();
    let policy = Policy {
        allow_write: true,
        ..Policy::default()
    };
    let mut visits = Visits(0);
    let verified = verify_traced(program, &policy, &mut visits)
        .unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
    let facts = verified.facts();
    println!(
        "{name}: {} visits, at most {} steps, {} bytes of stack",
        visits.0, facts.max_steps, facts.total_stack
    );
    assert!(
        visits.0 < VISITS,
        "{name} takes {} visits to verify",
        visits.0
    );
    verified
}
