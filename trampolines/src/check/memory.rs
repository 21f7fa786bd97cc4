//! Which memory the hook's code may touch: its own frame, the arena, its private data, its own literals, the
//! gate (read only).
//!
//! Doesn't know instructions beyond their memory operands. Invariant: an access that is allowed here can't fault and, if
//! it stores, changes nothing of the application's but what the policy names.

use iced_x86::{Instruction, Register, UsedMemory};

use super::number::Number;
use super::state::{RED_ZONE, State};
use super::value::{Anchor, Value};
use super::{CheckPolicy, Problem};
use crate::address::{Avma, AvmaRange};
use crate::displace::text_of;
use crate::function::SiteKind;
use crate::image::TrampolineImage;

/// Bytes of `errno`.
const ERRNO_BYTES: u64 = 4;

/// Where an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The frame, between two offsets from an anchor.
    Frame(Anchor, i64, i64),
    /// Known addresses outside the frame; the value that a load gives, if that is known.
    Elsewhere(Option<u64>),
}

/// Load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Load,
    Store,
}

/// Number of a general-purpose register of any width, `None` for others.
pub(crate) fn gpr(register: Register) -> Option<u8> {
    let full = register.full_register();
    if full.is_gpr64() {
        u8::try_from(full.number()).ok()
    } else {
        None
    }
}

/// The rules for one image.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub(crate) image: &'a TrampolineImage,
    pub(crate) policy: &'a CheckPolicy,
}

impl Memory<'_> {
    /// Evaluates a memory operand's address in `state`; `Err` for segments that the policy doesn't allow.
    pub(crate) fn address(&self, state: &State, used: &UsedMemory) -> Value {
        let mut address = Value::constant(used.displacement());
        if let Some(base) = gpr(used.base()) {
            address = address.add(state.number(state.reg(base)), 64);
        } else if used.base() != Register::None && used.base() != Register::RIP {
            return Value::TOP;
        }
        if let Some(index) = gpr(used.index()) {
            let index = state.number(state.reg(index));
            let scaled = match (used.scale(), index) {
                (1, _) => index,
                (scale, Value::Num(number, _)) => {
                    let scaled = number.mul(Number::constant(u64::from(scale)), 64);
                    Value::Num(scaled, None)
                }
                _ => Value::TOP,
            };
            address = address.add(scaled, 64);
        } else if used.index() != Register::None {
            return Value::TOP;
        }
        // 32-bit addressing truncates.
        let narrow = |register: Register| register.is_gpr32();
        if narrow(used.base()) || narrow(used.index()) {
            address.truncate(32)
        } else {
            address
        }
    }

    /// May `size` bytes at `address` be accessed?
    pub(crate) fn check(
        &self,
        state: &State,
        address: Value,
        size: u64,
        access: Access,
    ) -> Result<Place, Problem> {
        match address {
            Value::Stack(anchor, low, high) => self.frame(state, anchor, low, high, size, access),
            Value::Num(number, _) => self.absolute(number, size, access),
            // An int (errno(3)): nothing else lies there that a hook may touch.
            Value::Errno if size == ERRNO_BYTES => Ok(Place::Elsewhere(None)),
            Value::Entry(_)
            | Value::Return(_)
            | Value::Flags(_)
            | Value::SignOfRax(_)
            | Value::Errno => Err(Problem::Memory {
                access: word(access),
                address: address.to_string(),
                size,
            }),
        }
    }

    /// A thread-local word, `fs:offset`.
    pub(crate) fn thread_local(
        &self,
        insn: &Instruction,
        used: &UsedMemory,
        access: Access,
    ) -> Result<Place, Problem> {
        let problem = || Problem::ThreadLocal {
            text: text_of(insn),
        };
        if used.segment() != Register::FS
            || used.base() != Register::None
            || used.index() != Register::None
        {
            return Err(problem());
        }
        let windows = match access {
            Access::Load => &self.policy.tls_reads,
            Access::Store => &self.policy.tls_writes,
        };
        let first = used.displacement() as i64;
        let last = first
            .checked_add(used.memory_size().size() as i64)
            .ok_or_else(problem)?;
        let allowed = windows.iter().any(|window| {
            window.offset <= first && last <= window.offset.saturating_add(i64::from(window.len))
        });
        if allowed {
            Ok(Place::Elsewhere(None))
        } else {
            Err(problem())
        }
    }

    fn frame(
        &self,
        state: &State,
        anchor: Anchor,
        low: i64,
        high: i64,
        size: u64,
        access: Access,
    ) -> Result<Place, Problem> {
        let bytes = i64::try_from(size).unwrap_or(i64::MAX);
        let (first, last) = (
            state.bounds(anchor, low).0,
            state.bounds(anchor, high).1.saturating_add(bytes),
        );
        let problem = || Problem::Memory {
            access: word(access),
            address: Value::Stack(anchor, low, high).to_string(),
            size,
        };
        let ceiling = match (access, self.image.displaced.kind()) {
            // The return address may be read, never written.
            (Access::Load, _) => 8,
            (Access::Store, SiteKind::Entry) => 0,
            // The function interrupted in its middle may use 128 bytes below its rsp.
            (Access::Store, SiteKind::Offset) => -RED_ZONE,
        };
        if access == Access::Store && last > 0 {
            return Err(Problem::AboveFrame { offset: high, size });
        }
        if first < -i64::from(self.image.stack_bytes) || last > ceiling {
            return Err(problem());
        }
        let Some((rsp_anchor, rsp)) = state.rsp() else {
            return Err(problem());
        };
        let below = if anchor == rsp_anchor {
            low < rsp - RED_ZONE
        } else {
            first < state.bounds(rsp_anchor, rsp).1 - RED_ZONE
        };
        if below {
            Err(Problem::BelowRedZone { offset: first })
        } else {
            Ok(Place::Frame(anchor, low, high))
        }
    }

    fn absolute(&self, address: Number, size: u64, access: Access) -> Result<Place, Problem> {
        let (low, high) = (address.umin(), address.umax());
        let problem = || Problem::Memory {
            access: word(access),
            address: Value::Num(address, None).to_string(),
            size,
        };
        let end = high.checked_add(size).ok_or_else(problem)?;
        let touched = AvmaRange {
            start: Avma(low),
            end: Avma(end),
        };
        let inside = |window: AvmaRange| {
            !window.is_empty() && window.start <= touched.start && touched.end <= window.end
        };
        let gate = self
            .policy
            .gate
            .map_or(AvmaRange::new(Avma(0), 0), |gate| AvmaRange::new(gate, 1));
        if access == Access::Store && gate.overlaps(&touched) {
            return Err(problem());
        }
        if inside(self.policy.arena) || inside(self.policy.private) || inside(gate) {
            return Ok(Place::Elsewhere(None));
        }
        if access == Access::Load && inside(self.image.data) {
            return Ok(Place::Elsewhere(if low == high {
                self.literal(low, size)
            } else {
                None
            }));
        }
        Err(problem())
    }

    /// The literal of 1, 2, 4 or 8 bytes at `at` in the image.
    fn literal(&self, at: u64, size: u64) -> Option<u64> {
        let start = usize::try_from(at.checked_sub(self.image.at.0)?).ok()?;
        let len = usize::try_from(size).ok().filter(|len| *len <= 8)?;
        let field = self.image.bytes.get(start..start.checked_add(len)?)?;
        let mut word = [0; 8];
        word[..len].copy_from_slice(field);
        Some(u64::from_le_bytes(word))
    }
}

const fn word(access: Access) -> &'static str {
    match access {
        Access::Load => "load",
        Access::Store => "store",
    }
}
