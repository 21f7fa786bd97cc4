//! The engines that live in this process, and how often each one ran.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use upatch_jit::interp::{Input, Machine, World};
use upatch_verifier::asm::Case;
use upatch_verifier::encode::encode_plain;
use upatch_verifier::insn::{AluOp, Callee, CmpOp, EndianOp, Imm64, Insn, Operand, Reg, Width};
use upatch_verifier::verify::Rejection;
use upatch_verifier::{RawProgram, VerifiedProgram};

const ENGINES: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    /// The reference interpreter, on the program as it is.
    Interpreter,
    /// Our verifier, then the interpreter with everything that was proven checked.
    Verifier,
    /// Compiled, in this process, as it is and from its proof.
    Jit,
    Rbpf,
    Kernel,
}

impl Engine {
    pub(crate) const ALL: [Self; ENGINES] = [
        Self::Interpreter,
        Self::Verifier,
        Self::Jit,
        Self::Rbpf,
        Self::Kernel,
    ];
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interpreter => "interpreter",
            Self::Verifier => "verifier",
            Self::Jit => "jit",
            Self::Rbpf => "rbpf",
            Self::Kernel => "kernel",
        })
    }
}

/// What became of one program on one engine.
#[derive(Debug)]
pub(crate) enum Ran {
    /// It came to its end.
    Ended { r0: u64, memory: Vec<u8> },
    /// The engine refuses it, as listed.
    Refused,
    /// The engine is not here, or known to be wrong about this program.
    NotApplicable,
}

/// Counts for the last line.
#[derive(Default)]
pub(crate) struct Tally {
    ended: [AtomicUsize; ENGINES],
    refused: [AtomicUsize; ENGINES],
    errors: AtomicUsize,
}

impl Tally {
    pub(crate) fn count(&self, engine: Engine, ran: &Ran) {
        let counters = match ran {
            Ran::Ended { .. } => &self.ended,
            Ran::Refused => &self.refused,
            Ran::NotApplicable => return,
        };
        if let Some(counter) = counters.get(engine as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for engine in Engine::ALL {
            let read = |counters: &[AtomicUsize; ENGINES]| {
                let counter = counters.get(engine as usize);
                counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
            };
            write!(f, "{engine} ran {}", read(&self.ended))?;
            match read(&self.refused) {
                0 => {}
                refused => write!(f, " and refused {refused} as listed")?,
            }
            f.write_str(", ")?;
        }
        write!(
            f,
            "{} wrong programs refused",
            self.errors.load(Ordering::Relaxed)
        )
    }
}

pub(crate) fn interpreter(raw: &RawProgram, case: &Case) -> Result<Ran, String> {
    interpret(Machine::raw(raw), case)
}

/// Runs the verified program; `listed` is the rejection that verifier-refuses.txt demands.
pub(crate) fn verifier(
    verified: &Result<VerifiedProgram, Box<Rejection>>,
    case: &Case,
    listed: Option<&str>,
) -> Result<Ran, String> {
    match (verified, listed) {
        (Ok(verified), None) => interpret(Machine::verified(verified), case),
        (Ok(_), Some(_)) => Err("accepted, though verifier-refuses.txt lists it".to_owned()),
        (Err(rejection), Some(part)) if rejection.to_string().contains(part) => Ok(Ran::Refused),
        (Err(rejection), _) => Err(format!("rejected: {rejection}")),
    }
}

fn interpret(machine: Machine<'_>, case: &Case) -> Result<Ran, String> {
    let input = Input {
        memory: case.mem.clone(),
        ..Input::default()
    };
    let output = machine.run(&input, &mut World::default());
    Ok(Ran::Ended {
        r0: output.r0.map_err(|fault| fault.to_string())?,
        memory: output.memory,
    })
}

/// rbpf's interpreter, for the programs that it is known to execute rightly.
pub(crate) fn rbpf(raw: &RawProgram, bytes: &[u8], case: &Case) -> Result<Ran, String> {
    if !raw.program().insns().iter().all(rbpf_is_right) {
        return Ok(Ran::NotApplicable);
    }
    let mut memory = case.mem.clone();
    // rbpf sets r1 only.
    let length = Insn::Alu {
        op: AluOp::Mov,
        width: Width::W64,
        dst: Reg::R2,
        src: Operand::Imm(i32::try_from(memory.len()).map_err(|error| error.to_string())?),
    };
    let mut with_length = encode_plain(&[length]).map_err(|error| error.to_string())?;
    with_length.extend_from_slice(bytes);
    let vm = rbpf::EbpfVmRaw::new(Some(&with_length)).map_err(|error| format!("{error:?}"))?;
    let r0 = vm
        .execute_program(&mut memory)
        .map_err(|error| format!("{error:?}"))?;
    Ok(Ran::Ended { r0, memory })
}

/// What rbpf 0.4.1 neither refuses nor gets wrong (found by these cases).
fn rbpf_is_right(insn: &Insn) -> bool {
    match *insn {
        Insn::Alu { op, .. } => !matches!(op, AluOp::SDiv | AluOp::SMod),
        Insn::Endian { op, .. } => op != EndianOp::Swap,
        Insn::LdImm64 { imm, .. } => matches!(imm, Imm64::Const(_)),
        Insn::Load { signed, .. } => !signed,
        // 64-bit unsigned comparisons zero-extend a negative immediate.
        Insn::JumpIf {
            op: CmpOp::Eq | CmpOp::Ne | CmpOp::Gt | CmpOp::Ge | CmpOp::Lt | CmpOp::Le,
            width: Width::W64,
            src: Operand::Imm(imm),
            ..
        } => imm >= 0,
        Insn::Call { callee } => matches!(callee, Callee::Subprog(_)),
        Insn::Neg { .. }
        | Insn::LdImm64Tail
        | Insn::Store { .. }
        | Insn::Jump { .. }
        | Insn::JumpIf { .. }
        | Insn::Exit => true,
        Insn::MovSx { .. }
        | Insn::AddrSpaceCast { .. }
        | Insn::Atomic { .. }
        | Insn::LoadAcquire { .. }
        | Insn::StoreRelease { .. }
        | Insn::MayGoto { .. } => false,
    }
}
