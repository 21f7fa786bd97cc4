//! One frame's 512 bytes of stack: which bytes are initialised, and what was stored where.
//!
//! Offsets are from the frame pointer, -512 to -1; inside they are indexes 0 to 511. Invariant: cells are sorted, don't
//! overlap, and all their bytes are initialised; a byte that is initialised but in no cell holds some number's byte.

use super::scalar::Scalar;
use super::value::Value;
use crate::insn::Size;

/// Bytes of a frame (Linux: MAX_BPF_STACK).
pub(crate) const FRAME: i64 = 512;

/// A value that was stored as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    pub(crate) start: u16,
    pub(crate) size: Size,
    pub(crate) value: Value,
}

impl Cell {
    fn end(self) -> usize {
        usize::from(self.start) + usize::from(self.size.bytes())
    }

    fn overlaps(self, start: usize, end: usize) -> bool {
        usize::from(self.start) < end && start < self.end()
    }
}

/// A set of stack bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bytes([u64; 8]);

impl Bytes {
    pub(crate) const NONE: Self = Self([0; 8]);
    pub(crate) const ALL: Self = Self([u64::MAX; 8]);

    pub(crate) fn has(&self, index: usize) -> bool {
        self.0
            .get(index / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(crate) fn insert(&mut self, start: usize, end: usize) {
        for index in start..end {
            if let Some(word) = self.0.get_mut(index / 64) {
                *word |= 1 << (index % 64);
            }
        }
    }

    pub(crate) fn remove(&mut self, start: usize, end: usize) {
        for index in start..end {
            if let Some(word) = self.0.get_mut(index / 64) {
                *word &= !(1 << (index % 64));
            }
        }
    }

    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word &= other;
        }
        self
    }

    pub(crate) fn or(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
        self
    }

    pub(crate) fn without(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word &= !other;
        }
        self
    }

    /// The first byte of `start..end` that is missing.
    pub(crate) fn first_missing(&self, start: usize, end: usize) -> Option<usize> {
        (start..end).find(|index| !self.has(*index))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// Why a read of the stack says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    /// The byte at this offset from the frame pointer was never written.
    Uninit(i64),
    /// The bytes are part of a pointer that was stored at this offset.
    PartOfPointer(i64),
}

/// The stack of one frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stack {
    init: Bytes,
    cells: Vec<Cell>,
}

fn index(offset: i64) -> usize {
    // SANITY: callers have checked -512 <= offset <= 0; a value outside saturates and reads as uninitialised.
    usize::try_from(offset + FRAME).unwrap_or(usize::MAX / 2)
}

pub(crate) fn offset(index: usize) -> i64 {
    index as i64 - FRAME
}

impl Stack {
    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(crate) fn cells_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.cells.iter_mut().map(|cell| &mut cell.value)
    }

    pub(crate) fn init(&self) -> &Bytes {
        &self.init
    }

    /// Forgets what is stored in a range. What is left of a number that is cut are bytes of some number; what is left
    /// of a pointer counts as uninitialised.
    fn forget(&mut self, start: usize, end: usize) {
        let init = &mut self.init;
        self.cells.retain(|cell| {
            if !cell.overlaps(start, end) {
                return true;
            }
            if !matches!(cell.value, Value::Number(..)) {
                init.remove(usize::from(cell.start), cell.end());
            }
            false
        });
    }

    /// Stores `value` at a known offset.
    pub(crate) fn write(&mut self, offset: i64, size: Size, value: Value) {
        let start = index(offset);
        let end = start + usize::from(size.bytes());
        self.forget(start, end);
        self.init.insert(start, end);
        let Ok(start) = u16::try_from(start) else {
            return;
        };
        let at = self.cells.partition_point(|cell| cell.start < start);
        self.cells.insert(at, Cell { start, size, value });
    }

    /// `length` bytes from `offset` on now hold some number each.
    pub(crate) fn fill(&mut self, offset: i64, length: i64) {
        let start = index(offset);
        let end = start + index(length - FRAME);
        self.forget(start, end);
        self.init.insert(start, end);
    }

    /// Some bytes of a range may have been written, others not: what was initialised still is, as some number.
    pub(crate) fn smudge(&mut self, offset: i64, length: i64) {
        let start = index(offset);
        let end = start + index(length - FRAME);
        self.forget(start, end);
    }

    /// The cells that have bytes of a range.
    fn overlapping(&self, start: usize, end: usize) -> &[Cell] {
        let first = self.cells.partition_point(|cell| cell.end() <= start);
        let behind = self
            .cells
            .partition_point(|cell| usize::from(cell.start) < end);
        self.cells.get(first..behind).unwrap_or_default()
    }

    /// What a load of `size` at a known offset gives, zero-extended.
    pub(crate) fn read(&self, at: i64, size: Size) -> Result<Value, Unreadable> {
        let start = index(at);
        let end = start + usize::from(size.bytes());
        if let Some(missing) = self.init.first_missing(start, end) {
            return Err(Unreadable::Uninit(offset(missing)));
        }
        for cell in self.overlapping(start, end) {
            let cell_start = usize::from(cell.start);
            if cell_start == start && cell.size == size {
                return Ok(cell.value);
            }
            let Value::Number(scalar, _) = cell.value else {
                return Err(Unreadable::PartOfPointer(offset(cell_start)));
            };
            if cell_start <= start && end <= cell.end() {
                let shift = Scalar::constant((start - cell_start) as u64 * 8);
                let shifted = scalar.alu(crate::insn::AluOp::Rsh, crate::insn::Width::W64, shift);
                return Ok(Value::number(shifted.zero_extend(size)));
            }
        }
        self.check_numbers(start, end)?;
        Ok(Value::number(self.compose(start, size)))
    }

    /// Joins neighbouring constants to a larger one; else any number of that size.
    fn compose(&self, start: usize, size: Size) -> Scalar {
        let mut known = 0u64;
        let mut next = start;
        let end = start + usize::from(size.bytes());
        for cell in self.overlapping(start, end) {
            let constant = match cell.value {
                Value::Number(scalar, _) => scalar.as_constant(),
                Value::Uninit | Value::Pointer(..) | Value::Callback(_) => None,
            };
            let (Some(value), true) = (
                constant,
                usize::from(cell.start) == next && cell.end() <= end,
            ) else {
                return Scalar::of_size(size);
            };
            known |= value << ((next - start) * 8);
            next = cell.end();
        }
        if next == end {
            Scalar::constant(known)
        } else {
            Scalar::of_size(size)
        }
    }

    fn check_numbers(&self, start: usize, end: usize) -> Result<(), Unreadable> {
        let pointer = self
            .overlapping(start, end)
            .iter()
            .find(|cell| !matches!(cell.value, Value::Number(..)));
        match pointer {
            Some(cell) => Err(Unreadable::PartOfPointer(offset(usize::from(cell.start)))),
            None => Ok(()),
        }
    }

    /// Are all bytes of a range initialised and none of them part of a pointer?
    pub(crate) fn check_bytes(&self, offset_from: i64, length: i64) -> Result<(), Unreadable> {
        let start = index(offset_from);
        let end = start + index(length - FRAME);
        if let Some(missing) = self.init.first_missing(start, end) {
            return Err(Unreadable::Uninit(offset(missing)));
        }
        self.check_numbers(start, end)
    }

    /// Would [`Self::clean`] change nothing?
    pub(crate) fn is_clean(&self, live: &Bytes, precise: &Bytes) -> bool {
        self.init.without(live).is_empty()
            && self.cells.iter().all(|cell| {
                let mut bytes = usize::from(cell.start)..cell.end();
                !matches!(cell.value, Value::Number(..)) || bytes.any(|index| precise.has(index))
            })
    }

    /// Forgets all bytes outside `live`, and of numbers outside `precise` all but that they are numbers.
    pub(crate) fn clean(&mut self, live: &Bytes, precise: &Bytes) {
        self.init = self.init.and(live);
        let init = self.init;
        self.cells.retain(|cell| {
            let range = usize::from(cell.start)..cell.end();
            let number = matches!(cell.value, Value::Number(..));
            if number {
                // A number is worth keeping when all of it is readable and someone decides by it.
                range.clone().all(|index| init.has(index))
                    && range.clone().any(|index| precise.has(index))
            } else {
                range.clone().all(|index| init.has(index))
            }
        });
    }

    /// After [`Self::clean`] dropped part of a pointer, its other bytes must not pass as a number's.
    pub(crate) fn live_with_whole_pointers(&self, live: &Bytes) -> Bytes {
        let mut whole = *live;
        for cell in &self.cells {
            let (start, end) = (usize::from(cell.start), cell.end());
            if !matches!(cell.value, Value::Number(..)) && (start..end).any(|index| live.has(index))
            {
                whole.insert(start, end);
            }
        }
        whole
    }

    /// An over-approximation of both; `merge` joins or widens values.
    pub(crate) fn merge(&self, newer: &Self, merge: impl Fn(Value, Value) -> Value) -> Self {
        let mut result = Self {
            init: self.init.and(&newer.init),
            cells: Vec::new(),
        };
        // A cell in both at the same place is merged. Any other cell becomes loose bytes: of a number that is fine, of
        // a pointer the bytes are given up.
        for (own, other) in [(self, newer), (newer, self)] {
            for cell in &own.cells {
                let same = other
                    .cells
                    .iter()
                    .find(|candidate| candidate.start == cell.start && candidate.size == cell.size);
                if same.is_none() && !matches!(cell.value, Value::Number(..)) {
                    result.init.remove(usize::from(cell.start), cell.end());
                }
            }
        }
        for cell in &self.cells {
            let Some(other) = newer
                .cells
                .iter()
                .find(|candidate| candidate.start == cell.start && candidate.size == cell.size)
            else {
                continue;
            };
            let value = merge(cell.value, other.value);
            if value == Value::Uninit {
                result.init.remove(usize::from(cell.start), cell.end());
            } else {
                result.cells.push(Cell { value, ..*cell });
            }
        }
        result.cells.retain(|cell| {
            (usize::from(cell.start)..cell.end()).all(|index| result.init.has(index))
        });
        result
    }
}
