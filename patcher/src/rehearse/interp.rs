//! The scene in the reference interpreter.

use upatch_abi::ctx::CtxField;
use upatch_jit::interp::{Fault, HelperFault, Helpers, Input, Machine, Memory, World, ctx_bytes};
use upatch_verifier::program::{Extern, ProgramKind};
use upatch_verifier::{VerifiedProgram, program};

use super::{ARENA, Call, Outcome, STACK_POINTER, Scene};

/// Instructions before it gives up; the time limit of the child comes first as a rule.
const STEP_LIMIT: u64 = 1 << 32;

/// The interpreter's world with the scene's functions in it.
struct Outside<'s> {
    world: World,
    scene: &'s Scene,
    calls: Vec<Call>,
}

impl Helpers for Outside<'_> {
    fn call(&mut self, id: u32, args: [u64; 5], memory: &mut Memory) -> Result<u64, HelperFault> {
        self.world.call(id, args, memory)
    }

    fn call_extern(
        &mut self,
        external: &Extern,
        args: [u64; 5],
        _memory: &mut Memory,
    ) -> Result<u64, HelperFault> {
        let nth = self
            .calls
            .iter()
            .filter(|call| call.name == external.name)
            .count();
        let result = self.scene.result(&external.name, nth);
        self.calls.push(Call::new(external, args, result));
        Ok(result)
    }
}

/// Runs the patch; `return_address` is what lies at rsp.
///
/// # Errors
/// The program did what was proven impossible: an error of ours.
pub fn interpret(
    verified: &VerifiedProgram,
    scene: &Scene,
    return_address: u64,
) -> Result<Outcome, Fault> {
    let mut user = scene.pieces();
    let mut stack = vec![0; super::native::stack_page_len()];
    stack[..8].copy_from_slice(&return_address.to_le_bytes());
    user.insert(STACK_POINTER, stack);
    let mut outside = Outside {
        world: World {
            user,
            ..this_process()
        },
        scene,
        calls: Vec::new(),
    };
    let input = Input {
        ctx: ctx_bytes(|field| scene.field(field)),
        memory: Vec::new(),
        arena_base: ARENA,
        arena: scene.arena.clone(),
        step_limit: STEP_LIMIT,
    };
    let output = Machine::verified(verified).run(&input, &mut outside);
    let r0 = output.r0?;
    let is_probe = verified.program().kind() == program::ProgramKind::Probe;
    let returned = r0 == 1 && !is_probe;
    let written = |field: CtxField| {
        let start = usize::from(field.offset());
        let bytes = output.ctx.get(start..start + 8);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    let mut gpr = scene.gpr;
    for field in CtxField::ALL {
        let Some(number) = field.gpr() else { continue };
        let is_result = matches!(field, CtxField::Rax | CtxField::Rdx);
        if let Some(place) = gpr.get_mut(usize::from(number))
            // A call that is refused hands back its arguments' registers, and the result.
            && (!returned || is_result)
        {
            *place = written(field);
        }
    }
    debug_assert!(!matches!(
        verified.program().kind(),
        ProgramKind::Memory { .. }
    ));
    let mut memory = outside.world.user;
    memory.remove(&STACK_POINTER);
    Ok(Outcome {
        returned,
        gpr,
        arena: output.arena,
        memory,
        calls: outside.calls,
        errno: outside.world.errno,
        steps: Some(output.steps),
    })
}

/// Who and where we are, so that helpers that ask say the same in both engines.
fn this_process() -> World {
    let pid = u64::from(std::process::id());
    let tid = nix::unistd::gettid().as_raw().unsigned_abs();
    let uid = nix::unistd::getuid().as_raw();
    let gid = nix::unistd::getgid().as_raw();
    let mut comm = [0; 16];
    let name = std::fs::read("/proc/thread-self/comm").unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    for (to, from) in comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    World {
        pid_tgid: pid << 32 | u64::from(tid),
        uid_gid: u64::from(gid) << 32 | u64::from(uid),
        cpu: u32::try_from(super::native::processor()).unwrap_or(0),
        comm,
        ..World::default()
    }
}
