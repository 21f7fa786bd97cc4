//! The states that were seen at one instruction, found again without looking at all of them.
//!
//! A state covers another only if each of its constant registers holds the same constant there. So states are kept by
//! which registers are constants and what these are; a loop that was unrolled a thousand times, differing in its counter
//! only, then has each of its states in a place of its own.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::graph::NodeId;
use super::state::State;
use super::value::Value;

/// States remembered at one instruction; beyond that older ones are forgotten.
const MOST: usize = 8192;

/// States of one kind that a newer one is compared with: where paths differ in ranges, few of the older ones ever cover it.
const LOOKED_AT: usize = 64;

/// States of the current path that a newer one is compared with: an endless loop is recognised if it comes back to the
/// same state within so many rounds. Others end with the analysis budget.
const PERIOD: usize = 64;

/// A state and the point of the exploration where it was seen.
pub(crate) struct Saved {
    pub(crate) state: State,
    pub(crate) node: NodeId,
}

/// Which registers of the innermost frame are constants (bit n: rn), and a hash of these.
type Key = (u16, u64);

/// The states of one instruction, oldest first.
#[derive(Default)]
pub(crate) struct SavedStates {
    weight: usize,
    states: Vec<Saved>,
    by_key: HashMap<Key, Vec<usize>>,
    /// The register sets that occur in keys.
    masks: Vec<u16>,
    /// States that were on the current path when last asked, in its order; those that no longer are stand at the end.
    open: Vec<usize>,
}

impl SavedStates {
    /// What the states weigh together.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// All states that may cover `state`, the newest of each kind first.
    pub(crate) fn candidates(&self, state: &State) -> impl Iterator<Item = &Saved> {
        let constants = constants(state);
        let all = mask_of(&constants);
        self.masks
            .iter()
            .filter(move |mask| *mask & !all == 0)
            .filter_map(move |mask| self.by_key.get(&(*mask, hash_of(&constants, *mask))))
            .flat_map(|places| places.iter().rev().take(LOOKED_AT))
            .filter_map(|place| self.states.get(*place))
    }

    /// The newest states for which `is_open` holds, newest first. Once a state is not open it never is again, nor is one
    /// that came after it on the path.
    pub(crate) fn open(
        &mut self,
        is_open: impl Fn(NodeId) -> bool,
    ) -> impl Iterator<Item = &Saved> {
        let states = &self.states;
        while let Some(place) = self.open.last()
            && !states.get(*place).is_some_and(|saved| is_open(saved.node))
        {
            self.open.pop();
        }
        self.open
            .iter()
            .rev()
            .take(PERIOD)
            .filter_map(|place| states.get(*place))
    }

    /// Adds a state, which is open.
    pub(crate) fn push(&mut self, saved: Saved) {
        let place = self.states.len();
        self.index(place, &saved.state);
        self.open.push(place);
        self.weight += saved.state.weight();
        self.states.push(saved);
    }

    /// Makes room if there is none: forgets the older half, sparing open states, which detect endless loops. Returns what
    /// the forgotten weigh. Forgetting only costs time.
    pub(crate) fn make_room(&mut self, is_open: impl Fn(NodeId) -> bool) -> usize {
        let before = (self.states.len(), self.weight);
        if before.0 < MOST {
            return 0;
        }
        let mut spared = MOST / 2;
        self.states.retain(|saved| {
            if spared == 0 || is_open(saved.node) {
                return true;
            }
            spared -= 1;
            false
        });
        if self.states.len() == before.0 {
            self.states.drain(..MOST / 2);
        }
        let states = std::mem::take(&mut self.states);
        *self = Self::default();
        for saved in states {
            let open = is_open(saved.node);
            self.push(saved);
            if !open {
                self.open.pop();
            }
        }
        before.1 - self.weight
    }

    fn index(&mut self, place: usize, state: &State) {
        let constants = constants(state);
        let mask = mask_of(&constants);
        if !self.masks.contains(&mask) {
            self.masks.push(mask);
        }
        self.by_key
            .entry((mask, hash_of(&constants, mask)))
            .or_default()
            .push(place);
    }
}

fn constants(state: &State) -> [Option<u64>; 11] {
    let mut constants = [None; 11];
    for (constant, value) in constants.iter_mut().zip(&state.frame().regs) {
        if let Value::Number(scalar, _) = value {
            *constant = scalar.as_constant();
        }
    }
    constants
}

fn mask_of(constants: &[Option<u64>; 11]) -> u16 {
    (0u16..)
        .zip(constants)
        .filter(|(_, constant)| constant.is_some())
        .fold(0, |mask, (bit, _)| mask | 1 << bit)
}

fn hash_of(constants: &[Option<u64>; 11], mask: u16) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (_, constant) in (0u16..)
        .zip(constants)
        .filter(|(bit, _)| mask & 1 << bit != 0)
    {
        constant.hash(&mut hasher);
    }
    hasher.finish()
}
