//! The system calls that a hook may make, and which of their arguments must be known.
//!
//! A table from syscalls(2) and the manual pages: number, and what memory the kernel writes or reads for it. Calls that
//! aren't in the table are refused even if the policy names them, because nobody would have looked at their arguments.

use super::memory::{Access, Memory};
use super::state::{RAX, RDX, State};
use super::value::Value;
use super::{CheckPolicy, Problem};

const RSI: u8 = 6;
const RDI: u8 = 7;
const R8: u8 = 8;
const R10: u8 = 10;
const NAMES: [(u8, &str); 5] = [
    (RDI, "rdi"),
    (RSI, "rsi"),
    (RDX, "rdx"),
    (R10, "r10"),
    (R8, "r8"),
];

/// Where the kernel accesses memory.
enum Argument {
    /// The kernel writes this many bytes to the address in the register; a null pointer is fine.
    Writes(u8, u64),
    /// The kernel writes as many bytes as the second register says.
    WritesCounted(u8, u8),
    /// One `struct iovec` of ours, whose memory is accessed so.
    OneVector {
        vector: u8,
        count: u8,
        access: Access,
    },
    /// One `struct iovec` that names memory of a process, which the kernel accesses without faulting.
    RemoteVector { vector: u8, count: u8 },
    /// The register holds this number.
    Is(u8, u64),
}

/// What must hold of each call's arguments.
fn arguments(number: u64) -> Option<&'static [Argument]> {
    use Argument::{Is, OneVector, RemoteVector, Writes, WritesCounted};
    Some(match number {
        // getpid, getuid, getgid, geteuid, getegid, gettid
        39 | 102 | 104 | 107 | 108 | 186 => &[],
        // prctl(PR_GET_NAME, buffer[16])
        157 => &[Is(RDI, 16), Writes(RSI, 16)],
        // clock_gettime(clock, timespec)
        228 => &[Writes(RSI, 16)],
        // getcpu(cpu, node, unused)
        309 => &[Writes(RDI, 4), Writes(RSI, 4), Is(RDX, 0)],
        // process_vm_readv(pid, local, 1, remote, 1, flags)
        310 => &[
            OneVector {
                vector: RSI,
                count: RDX,
                access: Access::Store,
            },
            RemoteVector {
                vector: R10,
                count: R8,
            },
        ],
        // process_vm_writev
        311 => &[
            OneVector {
                vector: RSI,
                count: RDX,
                access: Access::Load,
            },
            RemoteVector {
                vector: R10,
                count: R8,
            },
        ],
        // getrandom(buffer, len, flags)
        318 => &[WritesCounted(RDI, RSI)],
        _ => return None,
    })
}

/// The system call that writes where its caller wishes.
pub(crate) const PROCESS_VM_WRITEV: u32 = 311;

/// Proves that the system call about to be made is allowed and its arguments are harmless. Its number; what it writes to
/// the frame is in the state afterwards, unless it is [`PROCESS_VM_WRITEV`].
pub(crate) fn check(memory: Memory<'_>, state: &mut State) -> Result<u32, Problem> {
    let rax = state.reg(RAX);
    let number = rax
        .as_constant()
        .and_then(|number| u32::try_from(number).ok());
    let refused = || Problem::Syscall {
        known: rax.to_string(),
    };
    let number = number
        .filter(|number| is_listed(memory.policy, *number))
        .ok_or_else(refused)?;
    for argument in arguments(u64::from(number)).ok_or_else(refused)? {
        check_argument(memory, state, number, argument)?;
    }
    Ok(number)
}

fn is_listed(policy: &CheckPolicy, number: u32) -> bool {
    policy.syscalls.contains(&number)
}

fn check_argument(
    memory: Memory<'_>,
    state: &mut State,
    number: u32,
    argument: &Argument,
) -> Result<(), Problem> {
    let bad = |state: &State, register: u8| Problem::SyscallArgument {
        number,
        argument: NAMES
            .iter()
            .find(|name| name.0 == register)
            .map_or("?", |name| name.1),
        known: state.reg(register).to_string(),
    };
    match *argument {
        Argument::Is(register, wanted) => {
            if state.reg(register).as_constant() == Some(wanted) {
                Ok(())
            } else {
                Err(bad(state, register))
            }
        }
        Argument::Writes(register, size) => {
            let address = state.reg(register);
            if address.as_constant() == Some(0) {
                Ok(())
            } else {
                access(memory, state, address, size, Access::Store)
            }
        }
        Argument::WritesCounted(register, length) => {
            let Value::Num(length_known, _) = state.number(state.reg(length)) else {
                return Err(bad(state, length));
            };
            let address = state.reg(register);
            access(memory, state, address, length_known.umax(), Access::Store)
        }
        Argument::OneVector {
            vector,
            count,
            access: kind,
        } => {
            let (base, length) =
                one_vector(memory, state, vector, count).ok_or_else(|| bad(state, vector))?;
            let Value::Num(length, _) = state.number(length) else {
                return Err(bad(state, vector));
            };
            access(memory, state, base, length.umax(), kind)
        }
        Argument::RemoteVector { vector, count } => one_vector(memory, state, vector, count)
            .map(drop)
            .ok_or_else(|| bad(state, vector)),
    }
}

/// Base and length in the single iovec that `vector` points to, in the frame.
fn one_vector(memory: Memory<'_>, state: &State, vector: u8, count: u8) -> Option<(Value, Value)> {
    let Value::Stack(anchor, low, high) = state.reg(vector) else {
        return None;
    };
    if low != high || state.reg(count).as_constant() != Some(1) {
        return None;
    }
    memory
        .check(state, state.reg(vector), 16, Access::Load)
        .ok()?;
    Some((
        state.load(anchor, low, 8),
        state.load(anchor, low.saturating_add(8), 8),
    ))
}

fn access(
    memory: Memory<'_>,
    state: &mut State,
    address: Value,
    size: u64,
    kind: Access,
) -> Result<(), Problem> {
    use super::memory::Place;
    let place = memory.check(state, address, size, kind)?;
    if let (Place::Frame(anchor, low, high), Access::Store) = (place, kind) {
        state.store(
            anchor,
            low,
            high,
            i64::try_from(size).unwrap_or(i64::MAX),
            None,
        );
    }
    Ok(())
}
