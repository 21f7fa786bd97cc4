//! The scene as machine code: memory mapped where the scene says, fixups filled, entered with its registers.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use upatch_jit::{CompiledPatch, FixupKind, GprSet, SiteRegs, VectorState, private};
use upatch_verifier::VerifiedProgram;
use upatch_verifier::program::ProgramKind;

use super::{ARENA, Call, MAX_EXTERNS, Outcome, PAGE, STACK_BELOW, STACK_POINTER, Scene};
use crate::process::native::{
    FixedMemory, Registers, continue_address, enter_patch, return_address,
};

/// No `errno` was set: no system sets it to this.
const UNSET: i32 = i32::MIN;
static ERRNO: AtomicI32 = AtomicI32::new(UNSET);
/// Number and arguments of each call, in their order; and the results to give, by number.
static CALLS: Mutex<Vec<(usize, [u64; 5])>> = Mutex::new(Vec::new());
static RESULTS: Mutex<Vec<Vec<u64>>> = Mutex::new(Vec::new());

/// What stands for the program's function number `N`.
extern "C" fn function<const N: usize>(a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let nth = calls.iter().filter(|(number, _)| *number == N).count();
    calls.push((N, [a, b, c, d, e]));
    let results = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mine = results.get(N).map_or(&[][..], Vec::as_slice);
    mine.get(nth).or(mine.last()).copied().unwrap_or(0)
}

extern "C" fn errno_location() -> *const AtomicI32 {
    &raw const ERRNO
}

macro_rules! functions {
    ($($number:literal)*) => { [$(function::<$number> as extern "C" fn(u64, u64, u64, u64, u64) -> u64),*] };
}

const FUNCTIONS: [extern "C" fn(u64, u64, u64, u64, u64) -> u64; MAX_EXTERNS] =
    functions!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);

/// Bytes of stack from rsp to the end of its page.
pub(super) fn stack_page_len() -> usize {
    (PAGE - STACK_POINTER % PAGE) as usize
}

/// The processor that this thread stays on from now on.
pub(super) fn processor() -> usize {
    let this = Pid::from_raw(0);
    let first = sched_getaffinity(this)
        .ok()
        .and_then(|allowed| (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false)));
    let Some(cpu) = first else { return 0 };
    let mut only = CpuSet::new();
    // Where it fails, bpf_get_smp_processor_id may differ between the engines.
    let _ = only.set(cpu).and_then(|()| sched_setaffinity(this, &only));
    cpu
}

/// The address that a refused call returns to.
#[must_use]
pub fn return_to() -> u64 {
    return_address()
}

/// Runs the patch. Once in the life of a process.
///
/// # Errors
/// Memory can't be mapped where the scene wants it.
pub fn execute(verified: &VerifiedProgram, scene: &Scene) -> io::Result<Outcome> {
    let site = SiteRegs {
        // Nothing is free, so every register must be as before or as ctx has it.
        free: GprSet::EMPTY,
        at_entry: verified.program().kind() != ProgramKind::PatchOffset,
        gated: false,
        vectors: VectorState::detect().unwrap_or(VectorState::SSE),
    };
    let compiled = upatch_jit::compile(verified, &site);
    let mut pages = Vec::new();
    for (at, bytes) in scene.pieces() {
        let mut memory = FixedMemory::map(at, bytes.len())?;
        memory.write(0, &bytes);
        pages.push((at, memory));
    }
    let stack_start = (STACK_POINTER & !(PAGE - 1)) - STACK_BELOW;
    let mut stack = FixedMemory::map(stack_start, (STACK_BELOW + PAGE) as usize)?;
    let pointer = usize::try_from(STACK_POINTER - stack_start).unwrap_or(0);
    stack.write(pointer, &return_address().to_le_bytes());
    let arena_len = match compiled.arena_window {
        0 => verified.program().arena().len,
        window => window + upatch_abi::arena::SLACK,
    };
    let mut arena = None;
    if arena_len > 0 {
        let whole = upatch_jit::interp::arena_size(verified.program().arena().len).unwrap_or(0);
        let mut memory = FixedMemory::map(ARENA, whole)?;
        memory.write(0, &scene.arena);
        arena = Some(memory);
    }
    let externs = verified.program().externs();
    *RESULTS.lock().unwrap_or_else(PoisonError::into_inner) = externs
        .iter()
        .map(|external| {
            scene
                .results
                .get(&external.name)
                .cloned()
                .unwrap_or_default()
        })
        .collect();
    let mut private_data = vec![0_u64; compiled.private_bytes.div_ceil(8) as usize];
    if let Some(seed) = private_data.get_mut((private::RANDOM / 8) as usize) {
        *seed = 1;
    }
    let code = filled(
        &compiled,
        scene,
        externs.len(),
        private_data.as_mut_ptr() as u64,
    );
    let mut registers = Registers {
        gpr: scene.gpr,
        flags: scene.flags,
    };
    let returned = enter_patch(&code, &mut registers)?;
    drop(private_data);
    // Where it continues, rsp is the entry's; where it returned, the return address is gone from the stack.
    let gone = if returned { 8 } else { 0 };
    registers.gpr[4] = registers.gpr[4].wrapping_sub(gone);
    let calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut counted: Vec<usize> = vec![0; externs.len()];
    let calls = calls
        .iter()
        .filter_map(|(number, arguments)| {
            let external = externs.get(*number)?;
            let nth = counted.get_mut(*number)?;
            let result = scene.result(&external.name, *nth);
            *nth += 1;
            Some(Call::new(external, *arguments, result))
        })
        .collect();
    let errno = ERRNO.load(Ordering::Relaxed);
    Ok(Outcome {
        returned,
        gpr: registers.gpr,
        arena: arena.map_or_else(Vec::new, |arena| arena.bytes()),
        memory: pages
            .iter()
            .map(|(at, memory)| (*at, memory.bytes()))
            .collect(),
        calls,
        errno: (errno != UNSET).then_some(errno),
        steps: None,
    })
}

/// The code with its fixups filled, and behind it the jump to where it continues.
fn filled(compiled: &CompiledPatch, scene: &Scene, externs: usize, private_at: u64) -> Vec<u8> {
    let mut bytes = compiled.bytes.clone();
    bytes.resize(bytes.len().next_multiple_of(16), 0xcc);
    let pad = bytes.len();
    // jmp [rip]; address
    bytes.extend_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
    bytes.extend_from_slice(&continue_address().to_le_bytes());
    for fixup in &compiled.fixups {
        let address = match fixup.kind {
            FixupKind::Continue => {
                let distance = i32::try_from(pad - fixup.at).unwrap_or(i32::MAX) - 4;
                if let Some(field) = bytes.get_mut(fixup.at..fixup.at + 4) {
                    field.copy_from_slice(&distance.to_le_bytes());
                }
                continue;
            }
            FixupKind::Arena(offset) => ARENA + offset,
            // Behind the program's own functions comes `__errno_location`.
            FixupKind::Extern(number) if number as usize >= externs => {
                errno_location as *const () as u64
            }
            FixupKind::Extern(number) => FUNCTIONS
                .get(number as usize)
                .map_or(0, |function| *function as *const () as u64),
            FixupKind::Site => scene.site,
            FixupKind::Private(offset) => private_at + offset,
            // There is none: it was compiled without.
            FixupKind::Gate => 0,
        };
        if let Some(field) = bytes.get_mut(fixup.at..fixup.at + 8) {
            field.copy_from_slice(&address.to_le_bytes());
        }
    }
    bytes
}
