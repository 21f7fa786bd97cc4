//! Lists whose readers must not see half an entry: `NAME` has a companion rule `NAME_generation` (upatch_list.h).
//!
//! Decides what the companion holds while the list is written: an odd number, and afterwards the even one behind it. A
//! writer that dies in between leaves it odd, and the patch knows.

use super::{RuleError, Rules, Store};
use crate::object::{GlobalInfo, Role};
use crate::telemetry::ReadArena;

/// What is behind a list's name in its companion's.
const SUFFIX: &str = "_generation";

/// Is this variable the companion of another? Nobody sets those by hand, so they are shown when asked for only.
#[must_use]
pub fn is_companion(globals: &[GlobalInfo], name: &str) -> bool {
    let Some(list) = name.strip_suffix(SUFFIX) else {
        return false;
    };
    let rule = |wanted: &str| {
        globals
            .iter()
            .any(|global| global.role == Role::Rule && global.name == wanted)
    };
    rule(list) && rule(name)
}

/// The companion of a list that is about to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guard {
    offset: u64,
    odd: u32,
}

impl Guard {
    /// To be stored before the list's first byte.
    #[must_use]
    pub fn opening(self) -> Store {
        self.store(self.odd)
    }

    /// To be stored after the list's last byte.
    #[must_use]
    pub fn closing(self) -> Store {
        self.store(self.odd.wrapping_add(1))
    }

    fn store(self, word: u32) -> Store {
        Store {
            offset: self.offset,
            bytes: word.to_le_bytes().to_vec(),
        }
    }
}

impl Rules<'_> {
    /// The companions of the rules that are called `names`, each once, as they are now.
    ///
    /// # Errors
    /// One of them isn't there.
    pub fn guards<'n, A: ReadArena + ?Sized>(
        self,
        names: impl IntoIterator<Item = &'n str>,
        arena: &A,
    ) -> Result<Vec<Guard>, RuleError> {
        let mut guards: Vec<Guard> = Vec::new();
        for name in names {
            let companion = format!("{name}{SUFFIX}");
            let found = self.globals.iter().find(|global| {
                global.name == companion && global.role == Role::Rule && global.size == 4
            });
            let Some(global) = found else { continue };
            if guards.iter().any(|guard| guard.offset == global.offset) {
                continue;
            }
            let mut word = [0; 4];
            if arena.read_some(global.offset, &mut word) != word.len() {
                return Err(RuleError::Damaged { path: companion });
            }
            let word = u32::from_le_bytes(word);
            guards.push(Guard {
                offset: global.offset,
                // Odd already: a writer died. Readers that began before that must not take its number for ours.
                odd: if word % 2 == 0 {
                    word.wrapping_add(1)
                } else {
                    word.wrapping_add(2)
                },
            });
        }
        Ok(guards)
    }
}
