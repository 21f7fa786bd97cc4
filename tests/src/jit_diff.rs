//! JIT = interpreter on generated verified programs, with every register watched and the machine code checked.
//!
//! Used by the `jit` test with a fixed number of programs and by `fuzz_jit` with a time limit. Each program is compiled for
//! a place of its kind with a random set of free registers, and runs a few times on random registers and memory. Compared
//! are the verdict, ctx, the arena, r0 of programs on memory, and everything that must not have changed.

use upatch_abi::arena;
use upatch_abi::ctx::CtxField;
use upatch_jit::interp::{self, Fault, HelperFault, Helpers, Input, Machine};
use upatch_jit::{CompiledPatch, Fixup, GprSet, SiteRegs, VectorState, private};
use upatch_trampolines::check::{self, CheckPolicy, TlsWindow};
use upatch_trampolines::{
    Avma, AvmaRange, Bindings as Places, Fixup as Place, FixupKind, Fragment, FunctionText,
    TrampolineTemplate, displace,
};
use upatch_verifier::insn::{AluOp, Callee, Insn, Operand, Reg};
use upatch_verifier::program::Extern;
use upatch_verifier::verify::verify;
use upatch_verifier::{Policy, Program, ProgramKind, VerifiedProgram};

use crate::native::{Bindings, Cpu, Left, Mapping, Native};
use crate::programs::{OBJECT, Random, generate};

/// Runs of each program.
const RUNS: u64 = 3;
/// Programs in one mapping.
const BATCH: usize = 64;
/// Bytes of the stack that code runs on.
const STACK: usize = 256 << 10;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Programs that the verifier accepted and that were run.
    pub programs: u64,
    /// Of these, patches and probes.
    pub patches: u64,
    /// Runs that ended and were compared.
    pub runs: u64,
    /// Runs that returned in the function's stead.
    pub returned: u64,
    /// Images that the machine-code check refused.
    pub refused: u64,
    /// Bytes of code.
    pub code_bytes: u64,
}

/// One program, ready to be placed.
struct Candidate {
    seed: u64,
    verified: VerifiedProgram,
    site: SiteRegs,
    bytes: Vec<u8>,
    fixups: Vec<Fixup>,
    patch: Option<CompiledPatch>,
}

/// Compares until `programs` programs were run or `done` says so.
///
/// # Errors
/// The first difference, with the seed that gives it.
pub fn compare(
    first_seed: u64,
    programs: u64,
    mut done: impl FnMut() -> bool,
) -> Result<Tally, String> {
    let mut place = Surroundings::new().map_err(|error| error.to_string())?;
    let mut tally = Tally::default();
    let mut seed = first_seed;
    while tally.programs < programs && !done() {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            batch.extend(candidate(seed));
            seed += 1;
        }
        place.run(&batch, &mut tally)?;
    }
    Ok(tally)
}

fn candidate(seed: u64) -> Option<Candidate> {
    let policy = Policy {
        max_visits: 4_000,
        ..Policy::default()
    };
    let mut random = Random::new(seed ^ 0x1234_5678);
    let program = adapted(generate(seed), &mut random);
    let verified = verify(program, &policy).ok()?;
    let at_entry = match verified.program().kind() {
        ProgramKind::PatchOffset => false,
        ProgramKind::Probe => random.chance(70),
        ProgramKind::PatchEntry | ProgramKind::Memory { .. } => true,
    };
    let free = if at_entry && random.chance(70) {
        GprSet(random.next() as u16).intersection(GprSet::CALLER_SAVED)
    } else {
        GprSet::EMPTY
    };
    let site = SiteRegs {
        free,
        at_entry,
        gated: random.chance(30),
        vectors: VectorState::detect().unwrap_or(VectorState::SSE),
    };
    let (bytes, fixups, patch) = match verified.program().kind() {
        ProgramKind::Memory { .. } => {
            let code = upatch_jit::compile_function(&verified);
            (code.bytes, code.fixups, None)
        }
        ProgramKind::PatchEntry | ProgramKind::PatchOffset | ProgramKind::Probe => {
            let patch = upatch_jit::compile(&verified, &site);
            (patch.bytes.clone(), patch.fixups.clone(), Some(patch))
        }
    };
    Some(Candidate {
        seed,
        verified,
        site,
        bytes,
        fixups,
        patch,
    })
}

/// The time is never the same twice: a random number takes its place. Some patches become patches inside a function.
fn adapted(program: Program, random: &mut Random) -> Program {
    let mut parts = program.into_parts();
    let inside = parts.kind == ProgramKind::PatchEntry && random.chance(30);
    if inside {
        parts.kind = ProgramKind::PatchOffset;
    }
    for insn in &mut parts.insns {
        match insn {
            Insn::Call {
                callee: Callee::Helper(id @ 5),
            } => *id = 7,
            Insn::Alu {
                op: AluOp::And,
                dst: Reg::R0,
                src: Operand::Imm(imm @ 1),
                ..
            } if inside => *imm = 0,
            _ => {}
        }
    }
    Program::new(parts).expect("the structure is as it was")
}

/// What the code runs in.
struct Surroundings {
    stack: Mapping,
    arena: Mapping,
    private: Mapping,
    bindings: Bindings,
}

impl Surroundings {
    fn new() -> std::io::Result<Self> {
        let size = (arena::PAGE + arena::SLACK) as usize;
        let arena = Mapping::new(size, arena::PAGE as usize)?;
        let private = Mapping::new(private::BYTES as usize, 4096)?;
        Ok(Self {
            stack: Mapping::new(STACK, 4096)?,
            bindings: Bindings {
                arena: arena.address(),
                externs: Vec::new(),
                site: 0x5555_5555_4321,
                private: private.address(),
            },
            arena,
            private,
        })
    }

    fn run(&mut self, batch: &[Candidate], tally: &mut Tally) -> Result<(), String> {
        let pieces: Vec<(&[u8], &[Fixup])> = batch
            .iter()
            .map(|candidate| (&candidate.bytes[..], &candidate.fixups[..]))
            .collect();
        let (native, starts) =
            Native::place_all(&pieces, &self.bindings).map_err(|error| error.to_string())?;
        for (candidate, start) in batch.iter().zip(starts) {
            let failed = |what: String| {
                let listing = candidate.verified.program().listing();
                let facts = candidate.verified.facts();
                format!(
                    "seed {}: {what}\nfree {:#x}, entry {}\n{listing}\n{:?}\n{}",
                    candidate.seed,
                    candidate.site.free.0,
                    candidate.site.at_entry,
                    facts.access,
                    disassembly(&candidate.bytes, native.address(start)),
                )
            };
            if let Some(patch) = &candidate.patch {
                tally.patches += 1;
                tally.code_bytes += patch.code_len as u64;
                if let Err(refusal) = self.check(patch, &candidate.site) {
                    tally.refused += 1;
                    if std::env::var_os("UPATCH_SHOW_REFUSED").is_some() {
                        println!("{}", failed(refusal));
                    }
                }
            }
            for run in 0..RUNS {
                self.once(candidate, &native, start, run, tally)
                    .map_err(failed)?;
            }
            tally.programs += 1;
        }
        Ok(())
    }

    /// Has the machine code checked as it would be in a trampoline.
    fn check(&self, patch: &CompiledPatch, site: &SiteRegs) -> Result<(), String> {
        // Of programs nobody would write some can't be followed: that is not to take most of the time.
        let arena = self.arena.bytes().len() as u64;
        checked_within(1_000, patch, site, &self.bindings, arena)
    }

    fn once(
        &mut self,
        candidate: &Candidate,
        native: &Native,
        start: usize,
        run: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let mut random = Random::new(candidate.seed.wrapping_mul(31) ^ run);
        let verified = &candidate.verified;
        let mut cpu = Cpu::filled(random.next());
        for reg in &mut cpu.gpr {
            if random.chance(70) {
                *reg = random.interesting();
            }
        }
        let mut input = Input {
            step_limit: verified.facts().max_steps.min(20_000),
            arena_base: self.bindings.arena,
            ..Input::default()
        };
        for _ in 0..OBJECT / 8 {
            input.memory.extend(random.interesting().to_le_bytes());
            input.arena.extend(random.interesting().to_le_bytes());
        }
        let rsp = self.stack.address() + STACK as u64 - 4096;
        cpu.gpr[4] = rsp;
        let site = self.bindings.site;
        input.ctx = interp::ctx_bytes(|field| match field {
            CtxField::Rip => site,
            CtxField::Cs => 0x33,
            CtxField::Ss => 0x2b,
            CtxField::OrigRax => u64::MAX,
            CtxField::Rflags => cpu.flags,
            _ => field.gpr().map_or(0, |number| cpu.gpr[usize::from(number)]),
        });
        let random_state = random.next() | 1;
        let mut world = Real {
            random: random_state,
        };
        let output = Machine::verified(verified).run(&input, &mut world);
        let r0 = match output.r0 {
            Ok(r0) => r0,
            Err(Fault::StepLimit { .. }) => return Ok(()),
            Err(fault) => return Err(format!("the interpreter faults: {fault}")),
        };
        let arena = self.arena.bytes_mut();
        arena.fill(0);
        arena[..input.arena.len()].copy_from_slice(&input.arena);
        self.private.bytes_mut()[..8].copy_from_slice(&random_state.to_le_bytes());
        self.private.bytes_mut()[private::GATE as usize] = 1;
        tally.runs += 1;
        if candidate.patch.is_none() {
            let mut memory = input.memory.clone();
            // SAFETY: verified, and it just ran to its end in the interpreter on the same memory.
            let got =
                unsafe { native.call(start, memory.as_mut_ptr() as u64, memory.len() as u64) };
            if got != r0 {
                return Err(format!("r0 is {got:#x}, should be {r0:#x}"));
            }
            if memory != output.memory {
                return Err("the memory differs".to_owned());
            }
        } else {
            let before = cpu.clone();
            // SAFETY: as above; the stack is ours.
            let left =
                unsafe { native.run(start, &mut cpu, &mut self.stack, !candidate.site.at_entry) };
            self.compare_cpu(candidate, (&before, &cpu), left, (r0, &output.ctx))?;
            tally.returned += u64::from(left == Left::Return);
        }
        if !output.arena.is_empty() && self.arena.bytes() != output.arena {
            return Err("the arena differs".to_owned());
        }
        Ok(())
    }

    fn compare_cpu(
        &self,
        candidate: &Candidate,
        (before, after): (&Cpu, &Cpu),
        left: Left,
        (r0, ctx): (u64, &[u8]),
    ) -> Result<(), String> {
        let patches = candidate.verified.program().kind() != ProgramKind::Probe;
        let expected = if patches && r0 == 1 {
            Left::Return
        } else {
            Left::Continue
        };
        if left != expected {
            return Err(format!("left by {left:?}, r0 should be {r0}"));
        }
        let mut wanted = before.clone();
        for field in CtxField::ALL {
            let at = usize::from(field.offset());
            if let Some(number) = field.gpr() {
                // A refused call changes its result only.
                let counts = left == Left::Continue || number == 0 || number == 2;
                if counts {
                    let word = ctx[at..at + 8].try_into().expect("eight bytes");
                    wanted.gpr[usize::from(number)] = u64::from_le_bytes(word);
                }
            }
        }
        wanted.gpr[4] = before.gpr[4] + if left == Left::Return { 8 } else { 0 };
        let written = candidate
            .patch
            .as_ref()
            .map_or(GprSet::EMPTY, |patch| patch.writes);
        let lost = match left {
            Left::Continue => candidate.site.free.minus(written),
            Left::Return => candidate
                .site
                .free
                .minus(written.intersection(GprSet(0b101))),
        };
        let except: Vec<u8> = lost.iter().map(upatch_jit::Gpr::number).collect();
        let mut wrong = wanted.differences(after, &except);
        if !candidate.site.at_entry && before.flags != after.flags {
            wrong.push(format!(
                "flags {:#x} became {:#x}",
                before.flags, after.flags
            ));
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    }
}

/// Builds the trampoline around `patch` and has its machine code checked, with the effort of `apply`.
///
/// # Errors
/// Why it can't be built, or is refused.
pub fn checked(
    patch: &CompiledPatch,
    site: &SiteRegs,
    bindings: &Bindings,
    arena_bytes: u64,
) -> Result<(), String> {
    let path_steps = CheckPolicy::strict(0).path_steps;
    checked_within(path_steps, patch, site, bindings, arena_bytes)
}

fn checked_within(
    path_steps: u32,
    patch: &CompiledPatch,
    site: &SiteRegs,
    bindings: &Bindings,
    arena_bytes: u64,
) -> Result<(), String> {
    // push rbp; mov rbp, rsp; mov eax, 1; mov ecx, 2; pop rbp; ret
    const FUNCTION: [u8; 16] = [
        0x55, 0x48, 0x89, 0xe5, 0xb8, 1, 0, 0, 0, 0xb9, 2, 0, 0, 0, 0x5d, 0xc3,
    ];
    let offset = if site.at_entry { 0 } else { 4 };
    let at = Avma(bindings.site - offset as u64);
    let text = FunctionText::new(at, FUNCTION.to_vec(), offset);
    let displaced = displace(&text).map_err(|error| error.to_string())?;
    let fragment = Fragment {
        bytes: patch.bytes.clone(),
        code_len: patch.code_len,
        fixups: patch.fixups.iter().map(translated).collect(),
        stack_bytes: patch.stack_bytes,
        arena_len: if patch.arena_window == 0 {
            0
        } else {
            arena_bytes
        },
        calls_application: patch.calls_application,
    };
    let externs: Vec<Avma> = bindings.externs.iter().map(|at| Avma(*at)).collect();
    let template = TrampolineTemplate::new(fragment, displaced);
    let gate = Avma(bindings.private + private::GATE);
    let places = Places {
        arena_base: Avma(bindings.arena),
        externs: externs.clone(),
        private_base: Avma(bindings.private),
        gate: Some(gate),
    };
    let near = Avma((bindings.site & !0xffff) + 0x10_0000);
    let image = template
        .place(near, &places)
        .map_err(|error| error.to_string())?;
    let set = |set: GprSet| upatch_trampolines::GprSet(set.0);
    let policy = CheckPolicy {
        free: set(site.free),
        clobberable: set(site.free),
        may_write: set(patch.writes),
        flags_free: site.at_entry,
        errno_location: patch
            .extern_names
            .iter()
            .position(|name| name == "__errno_location")
            .and_then(|number| externs.get(number).copied()),
        externs,
        arena: AvmaRange::new(Avma(bindings.arena), arena_bytes),
        private: AvmaRange::new(Avma(bindings.private), patch.private_bytes),
        gate: site.gated.then_some(gate),
        syscalls: patch.syscalls.iter().copied().collect(),
        tls_reads: if patch.reads_thread_pointer {
            vec![TlsWindow { offset: 0, len: 8 }]
        } else {
            Vec::new()
        },
        vectors: patch.calls_application.then_some(check::VectorState {
            mask: u64::from(site.vectors.mask),
            bytes: site.vectors.bytes,
        }),
        path_steps,
        ..CheckPolicy::strict(32 << 10)
    };
    check::check(&image, &policy)
        .map(drop)
        .map_err(|failure| failure.to_string())
}

fn translated(fixup: &Fixup) -> Place {
    use upatch_jit::FixupKind as From;
    Place {
        at: fixup.at,
        kind: match fixup.kind {
            From::Continue => FixupKind::Continue,
            From::Arena(offset) => FixupKind::Arena(offset),
            From::Extern(number) => FixupKind::Extern(number),
            From::Site => FixupKind::Site,
            From::Private(offset) => FixupKind::Private(offset),
            From::Gate => FixupKind::Gate,
        },
    }
}

/// Machine code as text, for failures.
#[must_use]
pub fn disassembly(bytes: &[u8], at: u64) -> String {
    use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
    let mut formatter = GasFormatter::new();
    let mut text = String::new();
    for insn in Decoder::with_ip(64, bytes, at, DecoderOptions::NONE) {
        text += &format!("{:#x} ", insn.ip());
        formatter.format(&insn, &mut text);
        text.push('\n');
    }
    text
}

/// This process as the interpreter's world: the same helpers give the same answers as in compiled code.
struct Real {
    random: u64,
}

impl Helpers for Real {
    fn call(
        &mut self,
        id: u32,
        args: [u64; 5],
        memory: &mut interp::Memory,
    ) -> Result<u64, HelperFault> {
        let mut world = interp::World::default();
        match id {
            7 => {
                let mut x = self.random;
                x ^= x >> 12;
                x ^= x << 25;
                x ^= x >> 27;
                self.random = x;
                return Ok(x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32);
            }
            16 => {
                // SAFETY: PR_GET_NAME writes 16 bytes.
                unsafe { libc::prctl(libc::PR_GET_NAME, world.comm.as_mut_ptr()) };
            }
            _ => {}
        }
        world.call(id, args, memory)
    }

    fn call_extern(
        &mut self,
        external: &Extern,
        _: [u64; 5],
        _: &mut interp::Memory,
    ) -> Result<u64, HelperFault> {
        let name = external.name.clone();
        Err(HelperFault::UnknownExtern { name })
    }
}
