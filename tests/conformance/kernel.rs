//! The running kernel as an engine: a case becomes a program of type SYSCALL, is run once and unloaded.
//!
//! ```text
//! r6 = ctx                     ctx: the case's memory, then 8 bytes for r0
//! r1 = ctx, or 0 without memory; r2 = its length
//! call case                    the case is a function, so that all 64 bits of its r0 can be seen
//! *(u64 *)(r6 + length) = r0
//! r0 = 0; exit
//! case: …
//! ```
//! BPF_PROG_RUN copies ctx back. Everything is closed before `run` returns; nothing is pinned or attached.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use upatch_verifier::encode::encode_plain;
use upatch_verifier::insn::{AluOp, Callee, Insn, Operand, Pc, Reg, Size, Width};

pub(crate) enum Outcome {
    /// It ran.
    Ended { r0: u64, memory: Vec<u8> },
    /// The verifier refused it.
    Refused { log: String },
}

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_TYPE_SYSCALL: u32 = 31;
const BPF_F_SLEEPABLE: u32 = 1 << 4;

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The part of `union bpf_attr` that BPF_PROG_TEST_RUN reads.
#[repr(C)]
#[derive(Default)]
struct RunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// bpf(2).
fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live object of this size, all of it initialised; the addresses in it point at buffers that the
    // callers below keep alive across the call, with the sizes given beside them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// May this process load programs?
pub(crate) fn available() -> Result<(), String> {
    let nothing = encode_plain(&[set(Reg::R0, 0), Insn::Exit]).map_err(|e| e.to_string())?;
    match load(&nothing) {
        Ok(Ok(_program)) => Ok(()),
        Ok(Err(log)) => Err(format!("bpf(2) refuses the empty program: {log}")),
        Err(error) => Err(format!("bpf(2): {error}")),
    }
}

/// Runs a case's program on its memory.
pub(crate) fn run(case: &[u8], mem: &[u8]) -> Result<Outcome, String> {
    let length = mem.len().next_multiple_of(8);
    let mut bytes = prologue(mem.len(), length)?;
    bytes.extend_from_slice(case);
    let program = match load(&bytes).map_err(|error| format!("bpf(2): {error}"))? {
        Ok(program) => program,
        Err(log) => return Ok(Outcome::Refused { log }),
    };
    let mut ctx = mem.to_vec();
    ctx.resize(length + 8, 0xee);
    let mut attr = RunAttr {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        ctx_size_in: u32::try_from(ctx.len()).map_err(|error| error.to_string())?,
        ctx_in: ctx.as_mut_ptr() as u64,
        ..RunAttr::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr).map_err(|error| format!("BPF_PROG_TEST_RUN: {error}"))?;
    let (memory, r0) = ctx.split_at(length);
    let r0 = r0.try_into().map_err(|_| "ctx is too short".to_owned())?;
    Ok(Outcome::Ended {
        r0: u64::from_le_bytes(r0),
        memory: memory[..mem.len()].to_vec(),
    })
}

fn set(dst: Reg, imm: i32) -> Insn {
    Insn::Alu {
        op: AluOp::Mov,
        width: Width::W64,
        dst,
        src: Operand::Imm(imm),
    }
}

fn prologue(len: usize, result: usize) -> Result<Vec<u8>, String> {
    let copy = Insn::Alu {
        op: AluOp::Mov,
        width: Width::W64,
        dst: Reg::R6,
        src: Operand::Reg(Reg::R1),
    };
    let first = if len == 0 { set(Reg::R1, 0) } else { copy };
    let insns = [
        copy,
        first,
        set(
            Reg::R2,
            i32::try_from(len).map_err(|error| error.to_string())?,
        ),
        Insn::Call {
            callee: Callee::Subprog(Pc(7)),
        },
        Insn::Store {
            size: Size::DW,
            base: Reg::R6,
            off: i16::try_from(result).map_err(|error| error.to_string())?,
            src: Operand::Reg(Reg::R0),
        },
        set(Reg::R0, 0),
        Insn::Exit,
    ];
    encode_plain(&insns).map_err(|error| error.to_string())
}

/// Loads a program, or returns the verifier's log.
fn load(bytes: &[u8]) -> io::Result<Result<OwnedFd, String>> {
    let mut log = vec![0_u8; 1 << 20];
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_SYSCALL,
        insn_cnt: u32::try_from(bytes.len() / 8).map_err(io::Error::other)?,
        insns: bytes.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 1,
        log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
        log_buf: log.as_mut_ptr() as u64,
        prog_flags: BPF_F_SLEEPABLE,
        prog_name: *b"upatch_case\0\0\0\0\0",
        ..LoadAttr::default()
    };
    match bpf(BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => {
            let fd = i32::try_from(fd).map_err(io::Error::other)?;
            // SAFETY: BPF_PROG_LOAD returned a new file descriptor, and nobody else has it.
            Ok(Ok(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) && log[0] == 0 =>
        {
            Err(error)
        }
        Err(error) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let text = String::from_utf8_lossy(&log[..end]).into_owned();
            Ok(Err(format!("{text}({error})")))
        }
    }
}
