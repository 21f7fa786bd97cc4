//! Does what is passed to a helper, an external function or a subprogram satisfy its prototype?

use upatch_abi::helpers::{self, Arg};

use super::check::Rules;
use super::describe;
use super::kernel_names;
use super::obligations::arg_reg;
use super::place::{self, Failure, Place, Want};
use super::scalar::Scalar;
use super::state::{MAX_FRAMES, State};
use super::value::{Region, Value};
use crate::insn::{Pc, Reg, Size};
use crate::program::{Extern, ExternParam};

/// The largest size that memory is asked to have: 1 GiB.
const MAX_SIZE: u64 = 1 << 30;

pub(crate) fn available(rules: Rules<'_>, id: u32) -> Result<(), Failure> {
    if let Some(helper) = helpers::by_id(id) {
        if helper.destructive && !rules.policy.allow_write {
            return Err(Failure::new(
                helper.name,
                "a patch must not write the program's memory unless that is allowed",
                format!("{} writes it", helper.name),
            )
            .hint("allow it with --allow-write"));
        }
        return Ok(());
    }
    let (name, known) = match kernel_names::kernel_name(id) {
        Some(name) => (
            name.clone(),
            format!("helper {id} is the kernel's {name}, which upatch doesn't have"),
        ),
        None => (format!("helper {id}"), format!("there is no helper {id}")),
    };
    Err(
        Failure::new(name, "a call must go to a helper that upatch has", known)
            .hint(kernel_names::instead(id)),
    )
}

pub(crate) fn chain(rules: Rules<'_>, state: &State, target: Pc) -> Result<(), Failure> {
    let subprogs = rules.program.subprogs();
    let callee = rules.functions.get(&target).copied();
    let name = callee
        .and_then(|index| subprogs.get(index))
        .map_or_else(String::new, |subprog| subprog.name.clone());
    if let Some(callee) = callee
        && state.frames.iter().any(|frame| frame.subprog == callee)
    {
        return Err(Failure::new(
            name.clone(),
            "functions must not call themselves, directly or through others",
            format!("{name} is already running in this chain of calls"),
        )
        .hint("write it as a loop"));
    }
    if state.frames.len() >= MAX_FRAMES {
        return Err(Failure::new(
            name,
            format!("at most {MAX_FRAMES} functions must be active at once"),
            format!("{} are", state.frames.len()),
        ));
    }
    Ok(())
}

fn must_be_number(
    rules: Rules<'_>,
    state: &State,
    reg: Reg,
    what: &str,
) -> Result<Scalar, Failure> {
    match state.reg(reg) {
        Value::Number(scalar, _) => Ok(scalar),
        Value::Uninit | Value::Pointer(..) | Value::Callback(_) => Err(Failure::new(
            describe::reg(reg),
            format!("{what} must be a number"),
            rules.known(state, reg),
        )),
    }
}

pub(crate) fn helper_arg(
    rules: Rules<'_>,
    state: &State,
    helper: u32,
    index: u8,
    arg: Arg,
) -> Result<(), Failure> {
    let name = helpers::by_id(helper).map_or("the helper", |helper| helper.name);
    let reg = arg_reg(index);
    let what = format!("argument {} of {name}", index + 1);
    match arg {
        Arg::Scalar => must_be_number(rules, state, reg, &what).map(|_| ()),
        Arg::UserAddress => match state.reg(reg) {
            Value::Number(..) | Value::Pointer(Region::Arena, _) => Ok(()),
            Value::Uninit | Value::Pointer(..) | Value::Callback(_) => Err(Failure::new(
                describe::reg(reg),
                format!("{what} must be an address in the program's memory"),
                rules.known(state, reg),
            )),
        },
        Arg::ReadMemory { size } => {
            memory(rules, state, reg, SizeArg::of_helper(size), false, &what).and_then(|place| {
                match place {
                    Some((place, length)) => place::check_readable(state, place, length),
                    None => Ok(()),
                }
            })
        }
        Arg::WriteMemory { size } => {
            memory(rules, state, reg, SizeArg::of_helper(size), true, &what).map(|_| ())
        }
        Arg::Size { zero_ok } => {
            let size = must_be_number(rules, state, reg, &what)?;
            if !zero_ok && size.low.umin == 0 {
                return Err(Failure::new(
                    describe::reg(reg),
                    format!("{what}, a size, must not be zero"),
                    rules.known(state, reg),
                )
                .hint("check it before the call"));
            }
            Ok(())
        }
        Arg::ConstString => const_string(rules, state, reg, &what),
        Arg::Callback => match state.reg(reg) {
            Value::Callback(target) => chain(rules, state, target),
            Value::Uninit | Value::Number(..) | Value::Pointer(..) => Err(Failure::new(
                describe::reg(reg),
                format!("{what} must be a static function of the patch"),
                rules.known(state, reg),
            )),
        },
        Arg::CallbackContext => match state.reg(reg) {
            Value::Number(..)
            | Value::Pointer(
                Region::Stack { .. } | Region::Arena | Region::Data { .. } | Region::Memory,
                _,
            ) => Ok(()),
            Value::Pointer(Region::Ctx, _) | Value::Uninit | Value::Callback(_) => {
                Err(Failure::new(
                    describe::reg(reg),
                    format!("{what} must be a number or a pointer to the stack or the arena"),
                    rules.known(state, reg),
                )
                .hint("put ctx into a struct on the stack and pass its address"))
            }
        },
        Arg::Zero => {
            let value = must_be_number(rules, state, reg, &what)?;
            if value.as_constant() == Some(0) {
                return Ok(());
            }
            Err(Failure::new(
                describe::reg(reg),
                format!("{what} must be zero"),
                rules.known(state, reg),
            ))
        }
    }
}

/// The register that holds the size of a memory argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeArg {
    pub(crate) reg: Reg,
    /// The callee's parameter is a u32: the upper half of the register is nothing to it, and may hold anything.
    pub(crate) narrow: bool,
}

impl SizeArg {
    /// The size that a helper sees: the kernel's prototypes have u32 sizes, and our routines read the low half.
    pub(crate) const fn of_helper(index: u8) -> Self {
        Self {
            reg: arg_reg(index),
            narrow: true,
        }
    }

    /// The size that an external function sees, by its parameter.
    pub(crate) fn of_extern(function: &Extern, index: u8) -> Self {
        let param = function.params.get(usize::from(index));
        Self {
            reg: arg_reg(index),
            narrow: matches!(param, Some(ExternParam::Scalar { bytes: 4 })),
        }
    }

    /// The size as the callee sees it.
    pub(crate) fn cut(self, length: Scalar) -> Scalar {
        if self.narrow {
            length.zero_extend(Size::W)
        } else {
            length
        }
    }
}

/// The memory argument in `reg` whose size is in `size`: where it is and how long it may be; `None` if the size is zero.
pub(crate) fn memory(
    rules: Rules<'_>,
    state: &State,
    reg: Reg,
    size_arg: SizeArg,
    write: bool,
    what: &str,
) -> Result<Option<(Place, i64)>, Failure> {
    let pointer = state.reg(reg);
    let Value::Pointer(region, offset) = pointer else {
        let failure = Failure::new(
            describe::reg(reg),
            format!("{what} must point to memory of the patch: its stack or the arena"),
            rules.known(state, reg),
        );
        return Err(match pointer {
            Value::Number(..) => failure.hint(
                "memory of the program is copied first: bpf_probe_read_user(), bpf_probe_read_user_str()",
            ),
            _ => failure,
        });
    };
    if region == Region::Ctx {
        return Err(Failure::new(
            describe::reg(reg),
            format!("{what} must point to memory of the patch; ctx is not memory"),
            rules.known(state, reg),
        )
        .hint("copy the register to a variable"));
    }
    let SizeArg { reg: size, .. } = size_arg;
    let length = match state.reg(size) {
        Value::Number(length, _) => size_arg.cut(length),
        Value::Uninit => {
            return Err(Failure::new(
                describe::reg(size),
                format!("{} must be written before it is read", describe::reg(size)),
                rules.known(state, size),
            ));
        }
        Value::Pointer(..) | Value::Callback(_) => {
            return Err(Failure::new(
                describe::reg(size),
                format!("the size of {what} must be a number"),
                rules.known(state, size),
            ));
        }
    };
    if length.wide.umax > MAX_SIZE {
        return Err(Failure::new(
            describe::reg(size),
            format!("the size of {what} must have a known upper bound"),
            rules.known(state, size),
        )
        .hint("compare it, as an unsigned number, with the size of the memory before the call"));
    }
    if length.wide.umax == 0 {
        return Ok(None);
    }
    // SANITY: at most 1 GiB.
    let longest = length.wide.umax as i64;
    let want = Want {
        reg,
        off: 0,
        length: longest,
        write,
    };
    let place = place::resolve(rules.program, state, want)
        .map_err(|failure| about_size(rules, state, failure, size, length))?;
    if place == Place::ArenaMasked && offset != Scalar::TOP {
        let of = format!("the {} bytes of the arena", place::window(rules.program));
        let failure = want.outside(rules.program, region, offset, &of);
        return Err(about_size(rules, state, failure, size, length));
    }
    if place == Place::ArenaMasked {
        return Err(Failure::new(
            describe::place(rules.program, region, offset, 0),
            format!("{what} must be memory of known place and size"),
            rules.known(state, reg),
        )
        .hint(
            "pass the address of an arena variable with a checked index, or go through the stack",
        ));
    }
    Ok(Some((place, longest)))
}

/// Says what is known of the size, too, when it varies.
fn about_size(
    rules: Rules<'_>,
    state: &State,
    mut failure: Failure,
    size: Reg,
    length: Scalar,
) -> Failure {
    if length.as_constant().is_none() {
        failure.known = format!("{}; {}", failure.known, rules.known(state, size));
        failure.subject = describe::reg(size);
        failure.hint =
            Some("compare the size with the size of the memory before the call".to_owned());
    }
    failure
}

fn const_string(rules: Rules<'_>, state: &State, reg: Reg, what: &str) -> Result<(), Failure> {
    let must = format!("{what} must be a constant string that ends with a zero byte");
    if let Value::Pointer(Region::Data { object }, offset) = state.reg(reg)
        && let Some(start) = offset.as_constant().and_then(|at| usize::try_from(at).ok())
        && let Some(data) = rules.program.data().get(object as usize)
    {
        let terminated = data
            .bytes
            .get(start..)
            .is_some_and(|rest| rest.contains(&0));
        return if terminated {
            Ok(())
        } else {
            Err(Failure::new(
                describe::data(rules.program, object),
                must,
                format!("`{}` has no zero byte from there on", data.name),
            ))
        };
    }
    Err(
        Failure::new(describe::reg(reg), must, rules.known(state, reg))
            .hint("pass a string literal"),
    )
}

pub(crate) fn extern_arg(
    rules: Rules<'_>,
    state: &State,
    function: u32,
    index: u8,
    param: ExternParam,
) -> Result<(), Failure> {
    let Some(function) = rules.program.externs().get(function as usize) else {
        return Ok(());
    };
    let name = &function.name;
    let reg = arg_reg(index);
    let what = format!("argument {} of {name}", index + 1);
    let value = state.reg(reg);
    let is_null = value == Value::constant(0);
    let null_refused = || {
        Failure::new(
            describe::reg(reg),
            format!("{what} must not be null"),
            rules.known(state, reg),
        )
        .hint("annotate the parameter with __nullable if the function takes null")
    };
    match param {
        ExternParam::Scalar { .. } => must_be_number(rules, state, reg, &what).map(|_| ()),
        ExternParam::AppPointer { nullable } => {
            if is_null && !nullable {
                return Err(null_refused());
            }
            match value {
                Value::Number(..) => Ok(()),
                Value::Uninit | Value::Pointer(..) | Value::Callback(_) => Err(Failure::new(
                    describe::reg(reg),
                    format!("{what} must be a pointer of the application"),
                    rules.known(state, reg),
                )
                .hint(
                    "the application could keep it: memory of the patch is only passed where the parameter is \
                     annotated with its size (__sz)",
                )),
            }
        }
        ExternParam::SizedMemory {
            size,
            nullable,
            readonly,
        } => {
            if is_null {
                return if nullable {
                    Ok(())
                } else {
                    Err(null_refused())
                };
            }
            let size = SizeArg::of_extern(function, size);
            match memory(rules, state, reg, size, !readonly, &what)? {
                Some((place, length)) => place::check_readable(state, place, length),
                None => Ok(()),
            }
        }
        ExternParam::ConstString { nullable } => {
            if is_null {
                return if nullable {
                    Ok(())
                } else {
                    Err(null_refused())
                };
            }
            const_string(rules, state, reg, &what)
        }
    }
}
