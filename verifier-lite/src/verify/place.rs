//! Where an access or a helper's memory argument leads, and whether it is in bounds.
//!
//! One function decides for checking and for the effect, so that they can't disagree. Nothing here changes a state.

use upatch_abi::{arena, ctx};

use super::describe;
use super::scalar::Scalar;
use super::stack::{FRAME, Unreadable};
use super::state::State;
use super::value::{Region, Value};
use crate::insn::Reg;
use crate::program::{Program, ProgramKind};

/// Why an obligation does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// The register or variable it is about.
    pub(crate) subject: String,
    /// What must hold.
    pub(crate) must: String,
    /// What is known instead.
    pub(crate) known: String,
    /// What would help.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(
        subject: impl Into<String>,
        must: impl Into<String>,
        known: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            must: must.into(),
            known: known.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Bytes of memory that an access may begin at: the lowest and the highest offset from the region's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

impl Span {
    pub(crate) const fn exact(self) -> Option<i64> {
        if self.low == self.high {
            Some(self.low)
        } else {
            None
        }
    }
}

/// Where an access leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// ctx at a constant offset inside one field.
    Ctx(u16),
    /// The stack of a frame, in bounds.
    Stack(u8, Span),
    /// A read-only object, in bounds.
    Data(u32, Span),
    /// The program's memory, in bounds.
    Memory,
    /// The arena, in bounds of its window.
    Arena(Span),
    /// The arena, who knows where: to be masked.
    ArenaMasked,
}

/// Length of the arena's window; an access may not begin so late that it ends behind it.
pub(crate) fn window(program: &Program) -> i64 {
    if program.arena().len == 0 {
        return 0;
    }
    arena::window_for(program.arena().len)
        .and_then(|window| i64::try_from(window).ok())
        .unwrap_or(0)
}

/// Offsets at which `length` bytes begin, if none can be out of `start..end`.
fn span(offset: Scalar, off: i64, length: i64, start: i64, end: i64) -> Option<Span> {
    let low = i128::from(offset.wide.smin) + i128::from(off);
    let high = i128::from(offset.wide.smax) + i128::from(off);
    (low >= i128::from(start) && high + i128::from(length) <= i128::from(end)).then_some(Span {
        low: low as i64,
        high: high as i64,
    })
}

/// A range of memory that something wants: `length` bytes at register `reg` plus `off`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) reg: Reg,
    pub(crate) off: i64,
    /// Bytes, at least 1.
    pub(crate) length: i64,
    pub(crate) write: bool,
}

impl Want {
    fn verb(self) -> &'static str {
        if self.write { "write" } else { "read" }
    }

    fn bytes(self) -> String {
        match self.length {
            1 => "1 byte".to_owned(),
            length => format!("{length} bytes"),
        }
    }

    pub(crate) fn outside(
        self,
        program: &Program,
        region: Region,
        offset: Scalar,
        of: &str,
    ) -> Failure {
        let must = format!(
            "the {} of {} must stay inside {of}",
            self.verb(),
            self.bytes()
        );
        let shown = describe::value(program, Value::Pointer(region, offset));
        let known = if self.off == 0 {
            format!("{} {shown}", describe::reg(self.reg))
        } else {
            format!(
                "{} {shown}, and the access is at {:+}",
                describe::reg(self.reg),
                self.off
            )
        };
        // Where the pointer may lead anywhere, there is no place to name.
        let anywhere = match region {
            Region::Stack { .. } => offset.as_constant().is_none() && offset.wide.smin < -FRAME,
            Region::Ctx | Region::Data { .. } | Region::Arena | Region::Memory => {
                offset.wide.smin < -i64::from(i32::MAX)
            }
        };
        let subject = if anywhere {
            describe::reg(self.reg)
        } else {
            describe::place(program, region, offset, self.off)
        };
        let failure = Failure::new(subject, must, known);
        if offset.as_constant().is_none() {
            failure
                .hint("compare the index with the size, as an unsigned number, before the access")
        } else {
            failure
        }
    }
}

/// Where `want` leads, in bounds; initialisation of stack bytes is not its question.
pub(crate) fn resolve(program: &Program, state: &State, want: Want) -> Result<Place, Failure> {
    let value = state.reg(want.reg);
    let Value::Pointer(region, offset) = value else {
        return Err(not_a_pointer(program, want, value));
    };
    match region {
        Region::Ctx => resolve_ctx(program, want, offset),
        Region::Stack { frame } => span(offset, want.off, want.length, -FRAME, 0)
            .map(|span| Place::Stack(frame, span))
            .ok_or_else(|| {
                want.outside(program, region, offset, "the 512 bytes of stack below fp")
            }),
        Region::Data { object } => {
            let length = program
                .data()
                .get(object as usize)
                .map_or(0, |data| data.bytes.len());
            let name = describe::data(program, object);
            if want.write {
                return Err(Failure::new(
                    describe::place(program, region, offset, want.off),
                    "what is written must be writable memory",
                    format!("`{name}` is read-only data"),
                )
                .hint("make it an arena variable: `type __arena name;`"));
            }
            span(offset, want.off, want.length, 0, length as i64)
                .map(|span| Place::Data(object, span))
                .ok_or_else(|| {
                    want.outside(
                        program,
                        region,
                        offset,
                        &format!("the {length} bytes of `{name}`"),
                    )
                })
        }
        Region::Memory => {
            let length = match program.kind() {
                ProgramKind::Memory { mem_len } => i64::from(mem_len),
                ProgramKind::PatchEntry | ProgramKind::PatchOffset | ProgramKind::Probe => 0,
            };
            span(offset, want.off, want.length, 0, length)
                .map(|_| Place::Memory)
                .ok_or_else(|| {
                    want.outside(
                        program,
                        region,
                        offset,
                        &format!("the {length} bytes of memory"),
                    )
                })
        }
        Region::Arena => Ok(
            match span(offset, want.off, want.length, 0, window(program)) {
                Some(span) => Place::Arena(span),
                None => Place::ArenaMasked,
            },
        ),
    }
}

fn not_a_pointer(program: &Program, want: Want, value: Value) -> Failure {
    let failure = Failure::new(
        describe::reg(want.reg),
        format!(
            "the {} of {} must go through a pointer to known memory",
            want.verb(),
            want.bytes()
        ),
        format!(
            "{} is {}",
            describe::reg(want.reg),
            describe::value(program, value)
        ),
    );
    let Value::Number(..) = value else {
        return failure;
    };
    failure.hint(if want.write {
        "an address of the program's memory is written by bpf_probe_write_user() (needs --allow-write)"
    } else {
        "an address of the program's memory is read by bpf_probe_read_user(); a pointer kept in the arena must have an \
         `__arena` type"
    })
}

fn resolve_ctx(program: &Program, want: Want, offset: Scalar) -> Result<Place, Failure> {
    let inside = offset
        .as_constant()
        .map(|value| (value as i64).wrapping_add(want.off))
        .and_then(|at| u16::try_from(at).ok())
        .filter(|at| i64::from(*at) + want.length <= i64::from(ctx::SIZE));
    let Some(at) = inside else {
        return Err(want.outside(
            program,
            Region::Ctx,
            offset,
            "the 168 bytes of struct pt_regs",
        ));
    };
    if i64::from(at) % want.length != 0 || i64::from(at % 8) + want.length > 8 {
        return Err(Failure::new(
            describe::ctx(i64::from(at)),
            format!(
                "the {} of {} must be aligned inside one register of ctx",
                want.verb(),
                want.bytes()
            ),
            format!("it is at byte {} of ctx", at),
        ));
    }
    Ok(Place::Ctx(at))
}

/// Are the stack bytes that a read touches initialised numbers? Other memory always is.
pub(crate) fn check_readable(state: &State, place: Place, length: i64) -> Result<(), Failure> {
    let Place::Stack(frame, span) = place else {
        return Ok(());
    };
    let stack = &state.frame_at(frame).stack;
    stack
        .check_bytes(span.low, span.high - span.low + length)
        .map_err(unreadable_stack)
}

/// The failure for stack bytes that can't be read.
pub(crate) fn unreadable_stack(unreadable: Unreadable) -> Failure {
    match unreadable {
        Unreadable::Uninit(at) => Failure::new(
            format!("stack {}", describe::stack(at)),
            "stack bytes must be written before they are read",
            format!(
                "the byte at {} was never written on this path",
                describe::stack(at)
            ),
        )
        .hint("initialise the variable where it is declared; padding of a struct counts too"),
        Unreadable::PartOfPointer(at) => Failure::new(
            format!("stack {}", describe::stack(at)),
            "a stored pointer must be read back whole",
            format!("a pointer is stored at {}", describe::stack(at)),
        ),
    }
}
