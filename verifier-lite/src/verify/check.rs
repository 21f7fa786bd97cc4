//! Does an obligation hold in a state? Pure: neither changes anything nor knows what comes next.

use std::collections::HashMap;

use upatch_abi::ctx::CtxField;

use super::check_call;
use super::check_exit;
use super::describe;
use super::obligations::{AccessKind, Obligation};
use super::place::{self, Failure, Place, Want};
use super::policy::Policy;
use super::state::State;
use super::tnum::{Bits, Tnum};
use super::value::{Region, Value};
use crate::insn::{AddrSpaceCast, AluOp, CmpOp, Operand, Pc, Reg, Size, Width};
use crate::program::{Program, ProgramKind};

/// What checks look things up in.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) program: &'a Program,
    pub(crate) policy: &'a Policy,
    /// Index of the function that begins at a slot.
    pub(crate) functions: &'a HashMap<Pc, usize>,
}

impl Rules<'_> {
    pub(crate) fn known(&self, state: &State, reg: Reg) -> String {
        format!(
            "{} is {}",
            describe::reg(reg),
            describe::value(self.program, state.reg(reg))
        )
        .replace("is points", "points")
        .replace("is never", "was never")
    }
}

/// Checks one obligation. Those that concern paths, not states, hold here.
pub(crate) fn check(
    rules: Rules<'_>,
    state: &State,
    obligation: Obligation,
) -> Result<(), Failure> {
    match obligation {
        Obligation::Initialised(reg) => initialised(rules, state, reg),
        Obligation::Number(reg) => number(rules, state, reg),
        Obligation::Writable(Reg::R10) => Err(Failure::new(
            "r10",
            "the frame pointer r10 is never written",
            "this instruction writes it",
        )),
        Obligation::Arithmetic {
            op,
            width,
            dst,
            src,
        } => arithmetic(rules, state, op, width, dst, src),
        Obligation::Comparable {
            op,
            width,
            dst,
            src,
        } => comparable(rules, state, op, width, dst, src),
        Obligation::Castable { cast, src } => castable(rules, state, cast, src),
        Obligation::Access {
            kind,
            base,
            off,
            size,
        } => access(rules, state, kind, base, off, size),
        Obligation::Storable {
            base,
            off,
            size,
            src,
        } => storable(rules, state, base, off, size, src),
        Obligation::HelperAvailable(id) => check_call::available(rules, id),
        Obligation::HelperArg { helper, index, arg } => {
            check_call::helper_arg(rules, state, helper, index, arg)
        }
        Obligation::ExternArg {
            function,
            index,
            param,
        } => check_call::extern_arg(rules, state, function, index, param),
        Obligation::CallChain(target) => check_call::chain(rules, state, target),
        Obligation::Verdict => check_exit::verdict(rules, state),
        Obligation::Result => check_exit::result(rules, state),
        Obligation::CallbackResult => check_exit::callback_result(rules, state),
        Obligation::Writable(_)
        | Obligation::Terminates
        | Obligation::Steps
        | Obligation::StackDepth
        | Obligation::OneKindOfMemory
        | Obligation::Provable => Ok(()),
    }
}

pub(crate) fn initialised(rules: Rules<'_>, state: &State, reg: Reg) -> Result<(), Failure> {
    if state.reg(reg) != Value::Uninit {
        return Ok(());
    }
    let name = describe::reg(reg);
    let failure = Failure::new(
        name.clone(),
        format!("{name} must be written before it is read"),
        rules.known(state, reg),
    );
    Err(if (1..=5).contains(&reg.number()) {
        failure.hint(
            "calls leave nothing in r1 to r5; in C this is a variable without a value on this path",
        )
    } else {
        failure.hint("in C this is a variable, or a result, without a value on this path")
    })
}

fn number(rules: Rules<'_>, state: &State, reg: Reg) -> Result<(), Failure> {
    if state.reg(reg).as_number().is_some() {
        return Ok(());
    }
    Err(Failure::new(
        describe::reg(reg),
        format!("{} must be a number", describe::reg(reg)),
        rules.known(state, reg),
    ))
}

fn arithmetic(
    rules: Rules<'_>,
    state: &State,
    op: AluOp,
    width: Width,
    dst: Reg,
    src: Operand,
) -> Result<(), Failure> {
    let left = if op == AluOp::Mov {
        Value::ANY
    } else {
        state.reg(dst)
    };
    let right = match src {
        Operand::Reg(reg) => state.reg(reg),
        Operand::Imm(imm) => Value::constant(i64::from(imm) as u64),
    };
    if left.as_number().is_some() && right.as_number().is_some() {
        return Ok(());
    }
    let pointer = if left.as_number().is_some() {
        match src {
            Operand::Reg(reg) => reg,
            Operand::Imm(_) => dst,
        }
    } else {
        dst
    };
    let fail = |must: &str| {
        Err(Failure::new(
            describe::reg(pointer),
            must,
            rules.known(state, pointer),
        ))
    };
    if width == Width::W32 {
        return fail(
            "a pointer must keep all its 64 bits: only 64-bit moves, additions and subtractions of it are allowed",
        );
    }
    match (op, left, right) {
        (AluOp::Mov, _, _) => Ok(()),
        (_, Value::Callback(_), _) | (_, _, Value::Callback(_)) => {
            fail("the address of a function must only be passed as a callback")
        }
        (AluOp::Add | AluOp::Sub, Value::Pointer(region, _), Value::Number(amount, _)) => moved(
            rules,
            state,
            region,
            pointer,
            amount.as_constant().is_some(),
            src,
        ),
        (AluOp::Add, Value::Number(amount, _), Value::Pointer(region, _)) => moved(
            rules,
            state,
            region,
            pointer,
            amount.as_constant().is_some(),
            Operand::Reg(dst),
        ),
        (AluOp::Sub, Value::Pointer(one, _), Value::Pointer(other, _)) if one == other => Ok(()),
        (AluOp::Sub, Value::Pointer(..), Value::Pointer(..)) => {
            fail("pointers that are subtracted must point into the same object")
        }
        _ => fail("a pointer must only be moved by adding or subtracting a number"),
    }
}

/// ctx is not memory: only constant offsets in it make sense.
fn moved(
    rules: Rules<'_>,
    state: &State,
    region: Region,
    pointer: Reg,
    constant: bool,
    amount: Operand,
) -> Result<(), Failure> {
    if region != Region::Ctx || constant {
        return Ok(());
    }
    let known = match amount {
        Operand::Reg(reg) => rules.known(state, reg),
        Operand::Imm(imm) => format!("the offset is {imm}"),
    };
    Err(Failure::new(
        describe::reg(pointer),
        "ctx must only be accessed at constant offsets",
        known,
    )
    .hint("select the register with if or switch instead of computing its place"))
}

fn comparable(
    rules: Rules<'_>,
    state: &State,
    op: CmpOp,
    width: Width,
    dst: Reg,
    src: Operand,
) -> Result<(), Failure> {
    let left = state.reg(dst);
    let right = match src {
        Operand::Reg(reg) => state.reg(reg),
        Operand::Imm(imm) => Value::constant(i64::from(imm) as u64),
    };
    if left.as_number().is_some() && right.as_number().is_some() {
        return Ok(());
    }
    let with_null = |value: Value| value == Value::constant(0);
    let equality = matches!(op, CmpOp::Eq | CmpOp::Ne) && width == Width::W64;
    let (subject, other) = match (left.as_number(), src) {
        (Some(_), Operand::Reg(reg)) => (reg, left),
        (Some(_) | None, Operand::Reg(_) | Operand::Imm(_)) => (dst, right),
    };
    let allowed = match (left, right) {
        (Value::Pointer(one, _), Value::Pointer(two, _)) => {
            one == two && width == Width::W64 && op != CmpOp::Set
        }
        _ => equality && with_null(other),
    };
    if allowed {
        return Ok(());
    }
    let known = match src {
        Operand::Reg(reg) => format!("{}; {}", rules.known(state, dst), rules.known(state, reg)),
        Operand::Imm(_) => rules.known(state, dst),
    };
    Err(Failure::new(
        describe::reg(subject),
        "a pointer must only be compared with null, or with a pointer into the same object",
        known,
    ))
}

fn castable(rules: Rules<'_>, state: &State, cast: AddrSpaceCast, src: Reg) -> Result<(), Failure> {
    if rules.program.arena().len == 0 {
        return Err(Failure::new(
            describe::reg(src),
            "an arena pointer needs an arena",
            "the program has no arena variable",
        )
        .hint("declare one: `type __arena name;`"));
    }
    if state.reg(src).as_number().is_some() {
        return Ok(());
    }
    let must = match cast {
        AddrSpaceCast::FromArena => {
            "what is cast from the arena must be an arena pointer or a number"
        }
        AddrSpaceCast::ToArena => "what is cast to the arena must point into the arena",
    };
    Err(Failure::new(
        describe::reg(src),
        must,
        rules.known(state, src),
    ))
}

fn access(
    rules: Rules<'_>,
    state: &State,
    kind: AccessKind,
    base: Reg,
    off: i16,
    size: Size,
) -> Result<(), Failure> {
    let length = i64::from(size.bytes());
    let want = Want {
        reg: base,
        off: i64::from(off),
        length,
        write: kind.writes(),
    };
    let place = place::resolve(rules.program, state, want)?;
    if let Place::Ctx(at) = place {
        return ctx_access(rules, kind, at);
    }
    if !matches!(kind, AccessKind::Read | AccessKind::Write) {
        aligned(rules, state, base, off, size)?;
    }
    if !kind.reads() {
        return Ok(());
    }
    if let (Place::Stack(frame, span), AccessKind::Read | AccessKind::Acquire) = (place, kind)
        && let Some(at) = span.exact()
    {
        let stack = &state.frame_at(frame).stack;
        return match stack.read(at, size) {
            Ok(_) => Ok(()),
            Err(unreadable) => Err(place::unreadable_stack(unreadable)),
        };
    }
    place::check_readable(state, place, length)
}

fn ctx_access(rules: Rules<'_>, kind: AccessKind, at: u16) -> Result<(), Failure> {
    let name = describe::ctx(i64::from(at));
    let Some(field) = CtxField::containing(at) else {
        return Ok(());
    };
    let (writable, who) = match rules.program.kind() {
        ProgramKind::PatchEntry => (
            field.writable_at_entry(),
            "a patch at a function's entry may write di, si, dx, cx, r8, r9 and ax",
        ),
        ProgramKind::PatchOffset => (
            field.writable_at_offset(),
            "a patch inside a function may write all general registers but sp",
        ),
        ProgramKind::Probe | ProgramKind::Memory { .. } => {
            (false, "a probe (SEC(\"uprobe/…\")) only reads ctx")
        }
    };
    match kind {
        AccessKind::Read => Ok(()),
        AccessKind::Write if writable => Ok(()),
        AccessKind::Write => {
            let failure = Failure::new(
                name.clone(),
                "a register of ctx must be one that this kind of program may write",
                format!("{name} is written; {who}"),
            );
            Err(if rules.program.kind() == ProgramKind::Probe {
                failure.hint(
                    "a program that changes registers is a patch: SEC(\"upatch/module:function\")",
                )
            } else {
                failure
            })
        }
        AccessKind::Atomic | AccessKind::Acquire | AccessKind::Release => Err(Failure::new(
            name.clone(),
            "ctx must be read and written by plain loads and stores",
            format!("{name} is accessed atomically"),
        )),
    }
}

/// An atomic that crosses a cache line would be a split lock (SDM vol. 3A §10.1.2.1): refused where it must be one.
fn aligned(
    rules: Rules<'_>,
    state: &State,
    base: Reg,
    off: i16,
    size: Size,
) -> Result<(), Failure> {
    let Value::Pointer(region, offset) = state.reg(base) else {
        return Ok(());
    };
    let bits = offset
        .wide
        .tnum
        .add(Tnum::constant(i64::from(off) as u64), Bits::B64);
    if bits.value & u64::from(size.bytes() - 1) == 0 {
        return Ok(());
    }
    Err(Failure::new(
        describe::place(rules.program, region, offset, i64::from(off)),
        format!(
            "an atomic access must be aligned to its {} bytes",
            size.bytes()
        ),
        rules.known(state, base),
    ))
}

fn storable(
    rules: Rules<'_>,
    state: &State,
    base: Reg,
    off: i16,
    size: Size,
    src: Reg,
) -> Result<(), Failure> {
    let value = state.reg(src);
    let (Value::Pointer(..) | Value::Callback(_)) = value else {
        return Ok(());
    };
    let want = Want {
        reg: base,
        off: i64::from(off),
        length: i64::from(size.bytes()),
        write: true,
    };
    let place = place::resolve(rules.program, state, want)?;
    let fail = |must: &str| Failure::new(describe::reg(src), must, rules.known(state, src));
    let in_arena = matches!(value, Value::Pointer(Region::Arena, _));
    match place {
        Place::Ctx(_) => Err(fail("what is written to ctx must be a number").hint(
            "the application would keep a pointer to memory of the patch, which is gone after the call or after revert",
        )),
        Place::Arena(_) | Place::ArenaMasked if in_arena => Ok(()),
        Place::Arena(_) | Place::ArenaMasked => {
            Err(fail("what is stored in the arena must be a number or an arena pointer").hint(
                "other processes and later calls read the arena: a pointer to the stack, to ctx or to the patch's data \
                 means nothing there",
            ))
        }
        Place::Memory | Place::Data(..) => Err(fail("what is stored in memory must be a number")),
        Place::Stack(frame, span) => {
            if in_arena && size != Size::DW {
                return Ok(());
            }
            if size != Size::DW || span.exact().is_none() {
                return Err(fail("a pointer must be stored whole, in 8 bytes at a known place of the stack"));
            }
            match value {
                Value::Pointer(Region::Stack { frame: of }, _) if of > frame => Err(fail(
                    "a pointer into a function's own stack must not be stored where it outlives the function",
                )),
                Value::Pointer(..) | Value::Callback(_) | Value::Number(..) | Value::Uninit => Ok(()),
            }
        }
    }
}
