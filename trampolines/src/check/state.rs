//! What is known between two instructions: sixteen registers, the words of the frame, flags, vector registers.
//!
//! Doesn't know instructions. Invariant: a slot is only known while nothing could have written to it: stores that may
//! overlap remove it, and so does an rsp that leaves it more than the red zone (psABI §3.2.2) below.

use std::collections::BTreeMap;

use super::link::{Base, Link, Or};
use super::number::Number;
use super::value::{Anchor, Kept, Value};

/// rax's number.
pub(crate) const RAX: u8 = 0;
/// rcx's number.
pub(crate) const RCX: u8 = 1;
/// rdx's number.
pub(crate) const RDX: u8 = 2;
/// rsp's number.
pub(crate) const RSP: u8 = 4;
/// rbp's number.
pub(crate) const RBP: u8 = 5;
/// Bytes below rsp that signal handlers leave alone (psABI §3.2.2).
pub(crate) const RED_ZONE: i64 = 128;
/// `and rsp, -64` lowers rsp by at most this.
pub(crate) const ALIGN_LOSS: i64 = 63;

/// A saved vector state: XSAVE area at this aligned offset, of this length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SavedVectors {
    pub(crate) offset: i64,
    pub(crate) len: i64,
    pub(crate) mask: u64,
}

/// An operand of a comparison: what it was, and in which register, while that is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compared {
    pub(crate) value: Value,
    pub(crate) register: Option<u8>,
}

/// The last comparison, while the flags are unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Comparison {
    pub(crate) left: Compared,
    pub(crate) right: Compared,
    pub(crate) bits: u32,
    /// `test`: of the bits that both have, not of the difference.
    pub(crate) bitwise: bool,
}

/// Ors that are remembered at once.
const ORS: usize = 8;
/// Ors of ors that a comparison is followed through.
const OR_DEPTH: u32 = 4;

/// Everything known at one point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    regs: [Value; 16],
    slots: BTreeMap<(Anchor, i64), (i64, Value)>,
    /// Offset from the entry's rsp at which rsp was rounded down.
    pub(crate) aligned_from: Option<i64>,
    pub(crate) flags: Kept,
    pub(crate) vectors: Kept,
    pub(crate) saved_vectors: Option<SavedVectors>,
    pub(crate) compared: Option<Comparison>,
    /// What the registers held at the entry, as far as comparisons have shown it.
    shown: [Number; 16],
    ors: Vec<Or>,
}

impl State {
    /// The state at the entry.
    pub(crate) fn entry() -> Self {
        let mut regs = [Value::TOP; 16];
        for (number, value) in (0u8..).zip(regs.iter_mut()) {
            *value = Value::Entry(number);
        }
        regs[usize::from(RSP)] = Value::Stack(Anchor::Entry, 0, 0);
        Self {
            regs,
            slots: BTreeMap::new(),
            aligned_from: None,
            flags: Kept::Entry,
            vectors: Kept::Entry,
            saved_vectors: None,
            compared: None,
            shown: [Number::TOP; 16],
            ors: Vec::new(),
        }
    }

    /// A register's value at the entry as a number, as far as comparisons have shown it; other values as they are.
    pub(crate) fn number(&self, value: Value) -> Value {
        match value {
            Value::Entry(number) => {
                let link = Link::to(Base::entry(number & 15));
                Value::linked(self.shown[usize::from(number & 15)], Some(link))
            }
            Value::Num(..)
            | Value::Stack(..)
            | Value::Return(_)
            | Value::Flags(_)
            | Value::SignOfRax(_)
            | Value::Errno => value,
        }
    }

    pub(crate) fn reg(&self, number: u8) -> Value {
        self.regs[usize::from(number & 15)]
    }

    pub(crate) fn set(&mut self, number: u8, value: Value) {
        if let Some(compared) = &mut self.compared {
            for operand in [&mut compared.left, &mut compared.right] {
                operand.register = operand.register.filter(|register| *register != number);
            }
        }
        if number == RAX && matches!(self.reg(RDX), Value::SignOfRax(_)) {
            self.regs[usize::from(RDX)] = Value::TOP;
        }
        self.regs[usize::from(number & 15)] = value;
        if number == RSP {
            self.forget_below_red_zone();
        }
    }

    /// Gives a register's number a link that its copies will share, unless it has one.
    pub(crate) fn share(&mut self, number: u8, base: Base) {
        if let Value::Num(known, None) = self.reg(number)
            && known.as_constant().is_none()
        {
            self.forget_base(base);
            self.regs[usize::from(number & 15)] = Value::linked(known, Some(Link::to(base)));
        }
    }

    /// The same for the number in a slot, which becomes known as one if it isn't.
    pub(crate) fn share_slot(&mut self, anchor: Anchor, offset: i64, size: i64, base: Base) {
        let overlapped = self.slots.iter().any(|((other, at), (len, _))| {
            *other == anchor
                && (*at, *len) != (offset, size)
                && *at < offset.saturating_add(size)
                && at.saturating_add(*len) > offset
        });
        if let (Value::Num(known, None), false) = (self.load(anchor, offset, size), overlapped)
            && known.as_constant().is_none()
        {
            self.forget_base(base);
            let linked = Value::linked(known, Some(Link::to(base)));
            self.slots.insert((anchor, offset), (size, linked));
        }
    }

    /// Before a base is handed out anew: no value, or or comparison speaks of the old one.
    pub(crate) fn forget_base(&mut self, base: Base) {
        let forget = |value: &mut Value| {
            if let Value::Num(known, Some(link)) = *value
                && link.base == base
            {
                *value = Value::Num(known, None);
            }
        };
        self.regs.iter_mut().for_each(forget);
        self.slots.values_mut().for_each(|(_, value)| forget(value));
        self.ors.retain(|or| !or.names(base));
        if let Some(compared) = &mut self.compared {
            forget(&mut compared.left.value);
            forget(&mut compared.right.value);
        }
    }

    /// The number with link `or.result` is the or of two others.
    pub(crate) fn remember_or(&mut self, or: Or) {
        if self.ors.len() == ORS {
            self.ors.remove(0);
        }
        self.ors.push(or);
    }

    /// After a number with `link` turned out to be `known`: narrows everything made from the same. False: this path is
    /// impossible.
    pub(crate) fn learn(&mut self, link: Link, known: Number) -> bool {
        self.learn_through(link, known, OR_DEPTH)
    }

    fn learn_through(&mut self, link: Link, known: Number, depth: u32) -> bool {
        let mut possible = true;
        let mut learn = |value: &mut Value| {
            if let Value::Num(number, Some(own)) = *value
                && let Some(derived) = own.derive(known, link)
            {
                match number.meet(derived) {
                    Some(both) => *value = Value::linked(both, Some(own)),
                    None => possible = false,
                }
            }
        };
        self.regs.iter_mut().for_each(&mut learn);
        self.slots.values_mut().for_each(|(_, value)| learn(value));
        if let Some(entry) = link.base.as_entry() {
            let shown = &mut self.shown[usize::from(entry)];
            let derived = Link::to(link.base).derive(known, link);
            match derived.map_or(Some(*shown), |derived| shown.meet(derived)) {
                Some(both) => *shown = both,
                None => possible = false,
            }
        }
        if !possible {
            return false;
        }
        let concerned: Vec<Or> = self
            .ors
            .iter()
            .copied()
            .filter(|or| depth > 0 && or.result.base == link.base)
            .collect();
        concerned.iter().all(|or| {
            let limit = or.limit(known, link);
            limit.is_none_or(|limit| {
                or.parts
                    .iter()
                    .all(|part| self.learn_through(*part, limit, depth - 1))
            })
        })
    }

    /// Narrows an address in the frame that a register holds (after a branch).
    pub(crate) fn narrow_stack(&mut self, number: u8, low: i64, high: i64) {
        if let Value::Stack(anchor, ..) = self.reg(number) {
            self.regs[usize::from(number & 15)] = Value::Stack(anchor, low, high);
        }
    }

    /// rsp, if it is known exactly.
    pub(crate) fn rsp(&self) -> Option<(Anchor, i64)> {
        match self.reg(RSP) {
            Value::Stack(anchor, low, high) if low == high => Some((anchor, low)),
            Value::Num(..)
            | Value::Entry(_)
            | Value::Stack(..)
            | Value::Return(_)
            | Value::Flags(_)
            | Value::SignOfRax(_)
            | Value::Errno => None,
        }
    }

    /// The lowest and highest offset from the entry's rsp that `offset` from `anchor` can be.
    pub(crate) fn bounds(&self, anchor: Anchor, offset: i64) -> (i64, i64) {
        match (anchor, self.aligned_from) {
            (Anchor::Entry, _) => (offset, offset),
            (Anchor::Aligned, Some(from)) => {
                let high = from.saturating_add(offset);
                (high.saturating_sub(ALIGN_LOSS), high)
            }
            // Without an alignment there is no such value; a bound that no check accepts.
            (Anchor::Aligned, None) => (i64::MIN, i64::MAX),
        }
    }

    /// Rounds rsp down to a multiple of 64; older addresses relative to an aligned rsp lose their meaning.
    pub(crate) fn align_rsp(&mut self, from: i64) {
        for value in &mut self.regs {
            forget_aligned(value);
        }
        self.slots.retain(|(anchor, _), _| *anchor == Anchor::Entry);
        for (_, value) in self.slots.values_mut() {
            forget_aligned(value);
        }
        self.saved_vectors = None;
        self.compared = None;
        self.aligned_from = Some(from);
        self.regs[usize::from(RSP)] = Value::Stack(Anchor::Aligned, 0, 0);
    }

    /// What `size` bytes at `offset` from `anchor` hold.
    pub(crate) fn load(&self, anchor: Anchor, offset: i64, size: i64) -> Value {
        match self.slots.get(&(anchor, offset)) {
            Some((known, value)) if *known == size => *value,
            Some((known, value)) if *known > size => self.number(*value).truncate(bits(size)),
            Some(_) | None => Value::below_bits(bits(size)),
        }
    }

    /// Forgets what a store of `size` bytes anywhere in `low..=high` could have changed, then remembers `value` if it is
    /// known where it went.
    pub(crate) fn store(
        &mut self,
        anchor: Anchor,
        low: i64,
        high: i64,
        size: i64,
        value: Option<Value>,
    ) {
        let (lowest, highest) = (
            self.bounds(anchor, low).0,
            self.bounds(anchor, high).1.saturating_add(size),
        );
        let from = self.aligned_from;
        let overlaps = |slot_anchor: Anchor, at: i64, len: i64| {
            if slot_anchor == anchor {
                return at < high.saturating_add(size) && at.saturating_add(len) > low;
            }
            let (first, last) = match (slot_anchor, from) {
                (Anchor::Entry, _) => (at, at),
                (Anchor::Aligned, Some(from)) => (
                    from.saturating_add(at).saturating_sub(ALIGN_LOSS),
                    from.saturating_add(at),
                ),
                (Anchor::Aligned, None) => (i64::MIN, i64::MAX),
            };
            first < highest && last.saturating_add(len) > lowest
        };
        self.slots
            .retain(|(slot_anchor, at), (len, _)| !overlaps(*slot_anchor, *at, *len));
        if self
            .saved_vectors
            .is_some_and(|saved| overlaps(Anchor::Aligned, saved.offset, saved.len))
        {
            self.saved_vectors = None;
        }
        if let (Some(value), true) = (value, low == high) {
            self.slots.insert((anchor, low), (size, value));
        }
    }

    /// Something of the application ran: what lies below rsp is lost, and so is every plain number in the frame, which
    /// it may have had a pointer to. Saved registers stay: it is trusted with its arguments, not with our frame.
    pub(crate) fn forget_after_call(&mut self) {
        let rsp = self.rsp();
        let kept = |state: &Self, anchor: Anchor, at: i64| {
            rsp.is_some_and(|(rsp_anchor, rsp_at)| {
                if anchor == rsp_anchor {
                    at >= rsp_at
                } else {
                    state.bounds(anchor, at).0 >= state.bounds(rsp_anchor, rsp_at).1
                }
            })
        };
        let slots = std::mem::take(&mut self.slots);
        self.slots = slots
            .into_iter()
            .filter(|((anchor, at), (_, value))| {
                !matches!(value, Value::Num(..)) && kept(self, *anchor, *at)
            })
            .collect();
        if self
            .saved_vectors
            .is_some_and(|saved| !kept(self, Anchor::Aligned, saved.offset))
        {
            self.saved_vectors = None;
        }
    }

    fn forget_below_red_zone(&mut self) {
        // In the middle of an instruction; at its end an unknown rsp is refused.
        let Some((anchor, offset)) = self.rsp() else {
            return;
        };
        let (_, highest) = self.bounds(anchor, offset);
        let from = self.aligned_from;
        let kept = |slot: Anchor, at: i64| {
            if slot == anchor {
                return at >= offset.saturating_sub(RED_ZONE);
            }
            let lowest = match (slot, from) {
                (Anchor::Entry, _) => at,
                (Anchor::Aligned, Some(from)) => from.saturating_add(at).saturating_sub(ALIGN_LOSS),
                (Anchor::Aligned, None) => i64::MIN,
            };
            lowest >= highest.saturating_sub(RED_ZONE)
        };
        self.slots.retain(|(slot, at), _| kept(*slot, *at));
        if self
            .saved_vectors
            .is_some_and(|saved| !kept(Anchor::Aligned, saved.offset))
        {
            self.saved_vectors = None;
        }
    }

    /// Does this state stand for all that `new` stands for?
    pub(crate) fn covers(&self, new: &Self) -> bool {
        let holds = |(own, other): (&Value, &Value)| {
            own == other || self.join_values(*own, new, *other, None) == *own
        };
        // Most are told apart by their registers.
        self.regs.iter().zip(&new.regs).all(holds) && self.join(new, None).is_none()
    }

    /// Forgets what is not needed, so that more states cover one another: registers, the frame below rsp, single bytes.
    pub(crate) fn forget_unneeded(&mut self, is_needed: impl Fn(u8) -> bool) {
        for number in (0..16).filter(|number| *number != RSP && !is_needed(*number)) {
            self.set(number, Value::TOP);
        }
        let Some(rsp) = self.rsp() else { return };
        self.slots
            .retain(|(anchor, at), (size, _)| *size > 1 && (*anchor != rsp.0 || *at >= rsp.1));
        self.drop_single_links();
    }

    /// A link that only one value has says nothing.
    fn drop_single_links(&mut self) {
        self.ors.clear();
        self.compared = None;
        let bases: Vec<Base> = self
            .regs
            .iter()
            .chain(self.slots.values().map(|(_, value)| value))
            .filter_map(|value| Some(value.link()?.base))
            .collect();
        let drop = |value: &mut Value| {
            if let Value::Num(number, Some(link)) = *value
                && link.base.as_entry().is_none()
                && bases.iter().filter(|base| **base == link.base).count() < 2
            {
                *value = Value::Num(number, None);
            }
        };
        self.regs.iter_mut().for_each(drop);
        self.slots.values_mut().for_each(|(_, value)| drop(value));
    }

    /// What is true in both states; `None` if that is `self`.
    pub(crate) fn join(&self, new: &Self, widen: Option<&[u64]>) -> Option<Self> {
        let mut joined = self.clone();
        for ((value, own), other) in joined.regs.iter_mut().zip(&self.regs).zip(&new.regs) {
            *value = self.join_values(*own, new, *other, widen);
        }
        for (shown, other) in joined.shown.iter_mut().zip(&new.shown) {
            // Only a comparison narrows these, so each join can only lose; to lose all at once keeps loops short.
            if shown != other {
                *shown = if widen.is_some() {
                    Number::TOP
                } else {
                    shown.join(*other)
                };
            }
        }
        joined
            .slots
            .retain(|key, (size, value)| match new.slots.get(key) {
                Some((other_size, other)) if other_size == size => {
                    *value = self.join_values(*value, new, *other, widen);
                    true
                }
                Some(_) | None => false,
            });
        joined.ors.retain(|or| new.ors.contains(or));
        if self.aligned_from != new.aligned_from {
            joined.aligned_from = None;
            joined
                .slots
                .retain(|(anchor, _), _| *anchor == Anchor::Entry);
            joined.regs.iter_mut().for_each(forget_aligned);
            joined
                .slots
                .values_mut()
                .for_each(|(_, value)| forget_aligned(value));
        }
        if self.flags != new.flags {
            joined.flags = Kept::Changed;
        }
        if self.vectors != new.vectors {
            joined.vectors = Kept::Changed;
        }
        if self.saved_vectors != new.saved_vectors || joined.aligned_from.is_none() {
            joined.saved_vectors = None;
        }
        if self.compared != new.compared {
            joined.compared = None;
        }
        (joined != *self).then_some(joined)
    }
}

impl State {
    /// Joins a value of this state and one of another; what a register held at the entry counts as a number where it
    /// meets one.
    fn join_values(&self, own: Value, new: &Self, other: Value, widen: Option<&[u64]>) -> Value {
        if own == other {
            return own;
        }
        self.number(own).join(new.number(other), widen)
    }
}

fn forget_aligned(value: &mut Value) {
    if matches!(value, Value::Stack(Anchor::Aligned, ..)) {
        *value = Value::TOP;
    }
}

/// Bytes as bits, at most 64.
pub(crate) const fn bits(size: i64) -> u32 {
    match size {
        1 => 8,
        2 => 16,
        4 => 32,
        _ => 64,
    }
}
