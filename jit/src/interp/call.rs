//! Calls, returns and bpf_loop.
//!
//! Knows the calling convention (RFC 9669 §2.2): r1 to r5 are arguments and lost, r6 to r9 are the caller's, every call has
//! a stack frame of its own.

use upatch_abi::helpers::{LOOP, MAX_LOOPS};
use upatch_abi::verdict::{UPATCH_CONTINUE, UPATCH_RETURN};
use upatch_verifier::facts::Verdict;
use upatch_verifier::insn::{Callee, Pc, Reg, Size};
use upatch_verifier::program::{ExternRet, ProgramKind};
use upatch_verifier::semantics;

use super::machine::{Fault, MAX_FRAMES};
use super::memory::CODE_BASE;
use super::run::Run;

const E2BIG: u64 = (-7_i64).cast_unsigned();
const EINVAL: u64 = (-22_i64).cast_unsigned();

/// r0 to r5, as bits.
const CLOBBERED: u16 = 0b11_1111;
/// r6 to r9.
const SAVED: u16 = 0b11_1100_0000;

/// One call in progress.
pub(super) struct Frame {
    /// Where the caller goes on.
    resume: Pc,
    /// The caller's r6 to r9, and which of them were written.
    saved: [u64; 4],
    saved_written: u16,
    /// The call is bpf_loop's.
    iteration: Option<Iteration>,
}

/// Where a bpf_loop stands.
#[derive(Clone, Copy)]
struct Iteration {
    callback: Pc,
    index: u64,
    count: u64,
    context: u64,
}

impl Run<'_, '_> {
    pub(super) fn call(&mut self, at: Pc, callee: Callee) -> Result<(), Fault> {
        let [_, args @ .., _, _, _, _, _] = self.regs;
        let r0 = match callee {
            Callee::Subprog(target) => return self.enter(at, target, None),
            Callee::Helper(LOOP) => return self.begin_loop(at, args),
            Callee::Helper(id) => self
                .helpers
                .call(id, args, &mut self.memory)
                .map(Some)
                .map_err(|fault| Fault::Helper { at, fault })?,
            Callee::Extern(index) => {
                let externs = self.machine.program.externs();
                let external = externs
                    .get(index as usize)
                    .ok_or(Fault::NoInstruction { at })?;
                let result = self
                    .helpers
                    .call_extern(external, args, &mut self.memory)
                    .map_err(|fault| Fault::Helper { at, fault })?;
                extend(external.ret, result)
            }
        };
        self.forget(CLOBBERED);
        if let Some(r0) = r0 {
            self.set(Reg::R0, r0);
        }
        Ok(())
    }

    /// Pushes a frame and goes to `target`; r1 to r5 are the arguments as they stand.
    fn enter(&mut self, at: Pc, target: Pc, iteration: Option<Iteration>) -> Result<(), Fault> {
        // The program itself is a frame too.
        if self.frames.len() + 1 >= MAX_FRAMES {
            return Err(Fault::TooDeep { at });
        }
        let [_, _, _, _, _, _, saved @ .., _] = self.regs;
        self.frames.push(Frame {
            resume: self.pc,
            saved,
            saved_written: self.written & SAVED,
            iteration,
        });
        // r0 and r6 to r9 are the callee's to write first.
        self.forget(SAVED | 1);
        self.enter_frame(target);
        self.pc = target;
        Ok(())
    }

    pub(super) fn enter_frame(&mut self, target: Pc) {
        let subprog = self.machine.program.subprog_of(target);
        let stack = subprog.and_then(|index| self.machine.facts.stack.get(index));
        self.memory
            .push_frame(stack.copied().unwrap_or(0), self.machine.strict);
        self.set(Reg::R10, self.memory.frame_pointer());
    }

    pub(super) fn exit(&mut self, at: Pc) -> Result<Option<u64>, Fault> {
        let Some(frame) = self.frames.pop() else {
            return self.verdict(at).map(Some);
        };
        self.memory.pop_frame();
        let [_, _, _, _, _, _, regs @ .., _] = &mut self.regs;
        *regs = frame.saved;
        self.written = (self.written & !SAVED) | frame.saved_written;
        self.set(Reg::R10, self.memory.frame_pointer());
        self.pc = frame.resume;
        match frame.iteration {
            None => self.forget(CLOBBERED & !1),
            Some(iteration) => self.next_iteration(at, iteration)?,
        }
        Ok(None)
    }

    fn verdict(&self, at: Pc) -> Result<u64, Fault> {
        let proven = self.machine.facts.verdict.get(at.index()).copied();
        let proven = proven.flatten().ok_or(Fault::Unreachable { at })?;
        let r0 = match (proven, self.machine.program.kind()) {
            // A probe's r0 may be anything, also unwritten.
            (Verdict::Ignored, ProgramKind::Probe) => self.reg(Reg::R0),
            _ => self.get(at, Reg::R0)?,
        };
        let holds = match proven {
            Verdict::Continue => r0 == UPATCH_CONTINUE,
            Verdict::Return => r0 == UPATCH_RETURN,
            Verdict::Dynamic => r0 <= 1,
            Verdict::Ignored => true,
        };
        if holds {
            Ok(r0)
        } else {
            Err(Fault::WrongVerdict { at, r0, proven })
        }
    }

    // bpf_loop(count, callback, context, 0).

    fn begin_loop(&mut self, at: Pc, args: [u64; 5]) -> Result<(), Fault> {
        let [count, callback, context, flags, _] = args;
        // The kernel's prototype has a u32 count.
        let count = u64::from(count as u32);
        if flags != 0 || count > MAX_LOOPS {
            self.forget(CLOBBERED);
            self.set(Reg::R0, if flags != 0 { EINVAL } else { E2BIG });
            return Ok(());
        }
        let target = callback.checked_sub(CODE_BASE).map(|bytes| bytes / 8);
        let target = target.and_then(|slot| u32::try_from(slot).ok()).map(Pc);
        let known = target.filter(|target| {
            let mut subprogs = self.machine.program.subprogs().iter();
            subprogs.any(|subprog| subprog.start == *target)
        });
        let callback = known.ok_or(Fault::BadCallback {
            at,
            value: callback,
        })?;
        let iteration = Iteration {
            callback,
            index: 0,
            count,
            context,
        };
        self.iterate(at, iteration)
    }

    fn iterate(&mut self, at: Pc, iteration: Iteration) -> Result<(), Fault> {
        self.forget(CLOBBERED);
        if iteration.index == iteration.count {
            self.set(Reg::R0, iteration.count);
            return Ok(());
        }
        self.set(Reg::R1, iteration.index);
        self.set(Reg::R2, iteration.context);
        self.enter(at, iteration.callback, Some(iteration))
    }

    /// After a callback returned: the next one, or the end with the number of callbacks that ran.
    fn next_iteration(&mut self, at: Pc, iteration: Iteration) -> Result<(), Fault> {
        let stop = self.get(at, Reg::R0)? != 0;
        let index = iteration.index + 1;
        let count = if stop { index } else { iteration.count };
        self.iterate(
            at,
            Iteration {
                index,
                count,
                ..iteration
            },
        )
    }
}

/// An external function's result in all 64 bits, or `None` if it has none.
fn extend(ret: ExternRet, result: u64) -> Option<u64> {
    let (bytes, signed) = match ret {
        ExternRet::Void => return None,
        ExternRet::Scalar { bytes, signed } => (bytes, signed),
    };
    let size = match bytes {
        1 => Size::B,
        2 => Size::H,
        4 => Size::W,
        _ => Size::DW,
    };
    Some(if signed {
        semantics::sign_extend(size, result)
    } else {
        semantics::zero_extend(size, result)
    })
}
