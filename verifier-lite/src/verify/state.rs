//! An abstract state: the frames of a call chain with their registers and stacks, and whether ctx->ax was written.
//!
//! A state stands for every concrete machine state that agrees with it. [`State::covers`] is the subset test that
//! pruning rests on; [`State::clean`] replaces what nobody reads again by less, so that more states are covered. Cleaned
//! states are what exploration goes on with, so a mistake in liveness could refuse a program, never accept one.

use std::collections::HashMap;
use std::rc::Rc;

use super::liveness::{At, Liveness};
use super::scalar::Scalar;
use super::stack::{Bytes, Cell, Stack};
use super::value::{Link, Region, Value, derive};
use crate::insn::{Pc, Reg, Width};

/// One function's activation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    /// r0 to r9; r10 is the frame's own stack.
    pub(crate) regs: [Value; 10],
    pub(crate) stack: Stack,
    /// Index of the function.
    pub(crate) subprog: usize,
    /// The call that made it (the program itself: 0).
    pub(crate) call: Pc,
    /// Was it called by `bpf_loop`?
    pub(crate) callback: bool,
}

impl Frame {
    pub(crate) fn new(subprog: usize, call: Pc, callback: bool) -> Self {
        Self {
            regs: [Value::Uninit; 10],
            stack: Stack::default(),
            subprog,
            call,
            callback,
        }
    }

    /// Is there nothing in it that `at` says is not read again?
    fn is_clean(&self, at: &At) -> bool {
        let regs = self
            .regs
            .iter()
            .enumerate()
            .all(|(number, value)| match value {
                Value::Uninit => true,
                Value::Number(..) => {
                    at.live.has_reg(number) && (at.precise.has_reg(number) || *value == Value::ANY)
                }
                Value::Pointer(..) | Value::Callback(_) => at.live.has_reg(number),
            });
        regs && self.stack.is_clean(&at.live.stack, &at.precise.stack)
    }
}

/// Calls, the program itself included (Linux: MAX_CALL_FRAMES).
pub(crate) const MAX_FRAMES: usize = 8;

/// An abstract machine state. There is always at least one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) frames: Vec<Rc<Frame>>,
    /// Was ctx->ax written on every path here?
    pub(crate) ax_written: bool,
    /// Numbers that are the bitwise or of two others: clang checks `a >= 32 || b >= 32` as `(a | b) > 31`.
    ors: Vec<Or>,
    /// Where r0 was set, for rejections only.
    pub(crate) result_at: Option<Pc>,
}

/// The number with link `result` is the bitwise or of those with links `parts`: of all 64 bits, or of the low halves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Or {
    result: Link,
    parts: [Link; 2],
    width: Width,
}

/// Ors that are remembered at once.
const ORS: usize = 8;

impl State {
    /// A state with one frame.
    pub(crate) fn new(frame: Frame) -> Self {
        Self {
            frames: vec![Rc::new(frame)],
            ax_written: false,
            ors: Vec::new(),
            result_at: None,
        }
    }

    pub(crate) fn top(&self) -> u8 {
        // SANITY: at most MAX_FRAMES frames.
        (self.frames.len() - 1) as u8
    }

    pub(crate) fn frame(&self) -> &Frame {
        // SANITY: there is always at least one frame.
        &self.frames[self.frames.len() - 1]
    }

    pub(crate) fn frame_mut(&mut self) -> &mut Frame {
        let last = self.frames.len() - 1;
        Rc::make_mut(&mut self.frames[last])
    }

    pub(crate) fn frame_at(&self, frame: u8) -> &Frame {
        &self.frames[usize::from(frame)]
    }

    pub(crate) fn frame_at_mut(&mut self, frame: u8) -> &mut Frame {
        Rc::make_mut(&mut self.frames[usize::from(frame)])
    }

    pub(crate) fn reg(&self, reg: Reg) -> Value {
        match self.frame().regs.get(reg.index()) {
            Some(value) => *value,
            None => Value::Pointer(Region::Stack { frame: self.top() }, Scalar::constant(0)),
        }
    }

    /// Writes r0 to r9; r10 is refused before.
    pub(crate) fn set(&mut self, reg: Reg, value: Value) {
        if let Some(slot) = self.frame_mut().regs.get_mut(reg.index()) {
            *slot = value;
        }
    }

    /// The number with link `result` is the or of those with links `parts`.
    pub(crate) fn remember_or(&mut self, result: Link, parts: [Link; 2], width: Width) {
        if self.ors.len() == ORS {
            self.ors.remove(0);
        }
        self.ors.push(Or {
            result,
            parts,
            width,
        });
    }

    /// After a number with `link` turned out to be `known`: refines every copy, and what it was made of. False: this path
    /// is impossible.
    pub(crate) fn learn(&mut self, link: Link, known: Scalar) -> bool {
        if !self.learn_copies(link, known) {
            return false;
        }
        // An or comes after its parts, so this ends.
        let ors: Vec<Or> = self
            .ors
            .iter()
            .copied()
            .filter(|or| or.result == link)
            .collect();
        ors.iter().all(|or| {
            let limit = known.limit_of_parts(or.width);
            or.parts.iter().all(|part| self.learn(*part, limit))
        })
    }

    fn learn_copies(&mut self, link: Link, known: Scalar) -> bool {
        let mut possible = true;
        let mut update = |value: &mut Value| {
            if let Value::Number(scalar, Some(own)) = value
                && let Some(derived) = derive(known, link, *own)
            {
                match scalar.meet(derived) {
                    Some(both) => *value = Value::linked(both, Some(*own)),
                    None => possible = false,
                }
            }
        };
        let base = link.base;
        for frame in &mut self.frames {
            let concerned = frame
                .regs
                .iter()
                .chain(frame.stack.cells().iter().map(|cell| &cell.value))
                .any(|value| value.link().is_some_and(|own| own.base == base));
            if concerned {
                let frame = Rc::make_mut(frame);
                frame.regs.iter_mut().for_each(&mut update);
                frame.stack.cells_mut().for_each(&mut update);
            }
        }
        possible
    }

    /// Are the same functions active, called from the same places?
    pub(crate) fn is_same_shape(&self, other: &Self) -> bool {
        self.frames.len() == other.frames.len()
            && self.frames.iter().zip(&other.frames).all(|(a, b)| {
                a.subprog == b.subprog && a.call == b.call && a.callback == b.callback
            })
    }

    /// Does `self` stand for every machine state that `newer` stands for?
    pub(crate) fn covers(&self, newer: &Self) -> bool {
        if self.ax_written && !newer.ax_written || !self.is_same_shape(newer) {
            return false;
        }
        let mut links = Links::default();
        // The innermost frame differs most often.
        for (old, new) in self.frames.iter().zip(&newer.frames).rev() {
            if Rc::ptr_eq(old, new) && links.is_untouched_by(old) {
                continue;
            }
            for (old, new) in old.regs.iter().zip(&new.regs) {
                if !links.covers(*old, *new) {
                    return false;
                }
            }
            if !links.stack_covers(&old.stack, &new.stack) {
                return false;
            }
        }
        true
    }

    /// Forgets what nobody reads again when execution goes on at `pc` in the innermost frame.
    pub(crate) fn clean(&mut self, pc: Pc, liveness: &Liveness) {
        let last = self.frames.len() - 1;
        for index in 0..=last {
            let at = if index == last {
                liveness.at(pc)
            } else {
                liveness.after_call(self.frames[index + 1].call, self.frames[index].subprog)
            };
            // Frames are shared between states: one that is clean stays so.
            if self.frames[index].is_clean(&at) {
                continue;
            }
            let frame = Rc::make_mut(&mut self.frames[index]);
            for (number, value) in frame.regs.iter_mut().enumerate() {
                if !at.live.has_reg(number) {
                    *value = Value::Uninit;
                } else if let (Value::Number(..), false) = (&value, at.precise.has_reg(number)) {
                    *value = Value::ANY;
                }
            }
            let live = frame.stack.live_with_whole_pointers(&at.live.stack);
            frame.stack.clean(&live, &at.precise.stack);
        }
        self.drop_single_links();
        // Ors matter between the operation and the comparison; remembered states do without them.
        self.ors.clear();
    }

    /// A link that only one value has says nothing.
    fn drop_single_links(&mut self) {
        let mut seen: HashMap<u32, u32> = HashMap::new();
        for frame in &self.frames {
            for value in frame
                .regs
                .iter()
                .chain(frame.stack.cells().iter().map(|cell| &cell.value))
            {
                if let Some(link) = value.link() {
                    *seen.entry(link.base).or_default() += 1;
                }
            }
        }
        let is_single = |value: &Value| {
            value
                .link()
                .is_some_and(|link| seen.get(&link.base) == Some(&1))
        };
        let drop = |value: &mut Value| {
            if is_single(value)
                && let Value::Number(scalar, _) = *value
            {
                *value = Value::number(scalar);
            }
        };
        for frame in &mut self.frames {
            let mut values = frame
                .regs
                .iter()
                .chain(frame.stack.cells().iter().map(|cell| &cell.value));
            if values.any(is_single) {
                let frame = Rc::make_mut(frame);
                frame.regs.iter_mut().for_each(drop);
                frame.stack.cells_mut().for_each(drop);
            }
        }
    }

    /// How much memory it takes, in units of a few kilobytes.
    pub(crate) fn weight(&self) -> usize {
        let cells: usize = self
            .frames
            .iter()
            .map(|frame| frame.stack.cells().len())
            .sum();
        1 + cells / 16
    }

    /// An over-approximation of two states of the same shape; `merge` joins or widens values.
    pub(crate) fn merge(&self, newer: &Self, merge: impl Fn(Value, Value) -> Value + Copy) -> Self {
        let frames = self
            .frames
            .iter()
            .zip(&newer.frames)
            .map(|(old, new)| {
                let mut regs = old.regs;
                for (value, newer) in regs.iter_mut().zip(&new.regs) {
                    *value = merge(*value, *newer);
                }
                Rc::new(Frame {
                    regs,
                    stack: old.stack.merge(&new.stack, merge),
                    ..(**old).clone()
                })
            })
            .collect();
        Self {
            frames,
            ax_written: self.ax_written && newer.ax_written,
            ors: Vec::new(),
            result_at: None,
        }
    }
}

/// Which number of the newer state plays the part of a link's base in the older one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The base of this link, plus that much.
    Linked(u32, u64),
    /// This constant.
    Constant(u64),
}

/// The correspondence of links between two states, built while they are compared.
#[derive(Default)]
struct Links(HashMap<u32, Role>);

impl Links {
    fn is_untouched_by(&self, frame: &Frame) -> bool {
        frame
            .regs
            .iter()
            .chain(frame.stack.cells().iter().map(|cell| &cell.value))
            .all(|value| value.link().is_none())
    }

    fn covers(&mut self, old: Value, new: Value) -> bool {
        match (old, new) {
            (Value::Uninit, _) => true,
            (Value::Number(a, link), Value::Number(b, other)) => {
                b.is_within(a) && link.is_none_or(|link| self.correspond(link, b, other))
            }
            (Value::Pointer(region, a), Value::Pointer(other, b)) => {
                region == other && b.is_within(a)
            }
            (Value::Callback(a), Value::Callback(b)) => a == b,
            (
                Value::Number(..) | Value::Pointer(..) | Value::Callback(_),
                Value::Uninit | Value::Number(..) | Value::Pointer(..) | Value::Callback(_),
            ) => false,
        }
    }

    /// May the new number stand where the old one, linked to others, stood?
    fn correspond(&mut self, old: Link, new: Scalar, new_link: Option<Link>) -> bool {
        let role = match (new.as_constant(), new_link) {
            (Some(value), _) if !old.narrow => Role::Constant(value.wrapping_sub(old.delta)),
            (None, Some(link)) if link.narrow == old.narrow => {
                Role::Linked(link.base, link.delta.wrapping_sub(old.delta))
            }
            (Some(_) | None, Some(_) | None) => return false,
        };
        *self.0.entry(old.base).or_insert(role) == role
    }

    fn stack_covers(&mut self, old: &Stack, new: &Stack) -> bool {
        if !old.init().without(new.init()).is_empty() {
            return false;
        }
        for cell in old.cells() {
            let start = super::stack::offset(usize::from(cell.start));
            let Ok(value) = new.read(start, cell.size) else {
                return false;
            };
            if !self.covers(cell.value, value) {
                return false;
            }
        }
        // Loose bytes of the old state are a number's: in the new state they may not be part of a pointer.
        new.cells()
            .iter()
            .all(|cell| self.fits_loose_bytes(old, cell))
    }

    fn fits_loose_bytes(&self, old: &Stack, cell: &Cell) -> bool {
        if matches!(cell.value, Value::Number(..)) {
            return true;
        }
        let mut own = Bytes::NONE;
        own.insert(
            usize::from(cell.start),
            usize::from(cell.start) + usize::from(cell.size.bytes()),
        );
        own.and(old.init()).is_empty()
            || old
                .cells()
                .iter()
                .any(|other| other.start == cell.start && other.size == cell.size)
    }
}
