//! Rules: variables that the patch reads and that are set from outside, by their C names and types.
//!
//! ```text
//! "l.max=5" ─parse→ Assignment ─plan (names and types from the record)→ Edit, a list of Stores ─(all or none)→ arena
//! ```
//! Names, types and sizes may come from a hostile process: they are checked where they are used, and what is written
//! lies inside the arena.

mod encode;
mod guard;
mod path;
#[cfg(test)]
mod tests;
mod words;

use serde_json::{Map, Value};

pub use guard::{Guard, is_companion};
pub use path::{Path, Place, Step};

use crate::object::{
    ArenaLayout, Budget, GlobalInfo, PatchObject, Role, TypeTable, render, render_within,
};
use crate::telemetry::ReadArena;

/// Most bytes of a variable that is read or set.
const LARGEST: u64 = 16 << 20;
/// What showing all rules may cost, roughly the bytes of their text.
const SHOWN: usize = 4 << 20;
/// Bytes that can be read for the cost of one that is shown.
const READ: u64 = 64;
/// Cost of a rule beside its name and value.
const NAME: usize = 64;

/// `PATH=VALUE` as the operator wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// What is set.
    pub path: Path,
    /// To what, as typed.
    pub value: String,
}

impl std::str::FromStr for Assignment {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (path, value) = text.split_once('=').ok_or_else(|| RuleError::NoValue {
            text: text.to_owned(),
        })?;
        Ok(Self {
            path: path.trim().parse()?,
            value: value.trim().to_owned(),
        })
    }
}

/// Why a rule can't be read or set. Nothing was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RuleError {
    /// No `=`.
    #[error("`{text}` is no assignment")]
    NoValue {
        /// What was typed.
        text: String,
    },
    /// Not a path.
    #[error("`{text}` names no rule: {reason}")]
    BadPath {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No variable of that name.
    #[error("there is no rule `{name}`; {}", listed("there are", known))]
    Unknown {
        /// The name.
        name: String,
        /// The rules that there are.
        known: Vec<String>,
    },
    /// A variable, but not one that is set from outside.
    #[error("`{name}` is {what}, not a rule")]
    NotARule {
        /// The name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// No such member.
    #[error("`{path}` has no member `{member}`; {}", listed("it has", known))]
    NoMember {
        /// Up to the struct.
        path: String,
        /// The member.
        member: String,
        /// Its members.
        known: Vec<String>,
    },
    /// A member or an element of something that has none.
    #[error("`{path}` has no {what}")]
    NotInside {
        /// Up to there.
        path: String,
        /// `members` or `elements`.
        what: &'static str,
    },
    /// Behind the end of an array.
    #[error("`{path}` has {len} elements, 0 to {}", len.saturating_sub(1))]
    OutOfRange {
        /// The array.
        path: String,
        /// How many elements it has.
        len: u32,
    },
    /// Not a value of that type.
    #[error("`{path}` can't be {value}: it is {wanted}")]
    BadValue {
        /// What is set.
        path: String,
        /// As typed.
        value: String,
        /// What its type allows.
        wanted: String,
    },
    /// The type information and the arena contradict each other.
    #[error("`{path}` can't be found in the patch's memory")]
    Damaged {
        /// What is set or read.
        path: String,
    },
}

fn listed(head: &str, names: &[String]) -> String {
    const MOST: usize = 40;
    match names.len() {
        0 => format!("{head} none"),
        count if count > MOST => format!(
            "{head} {}, and {} more",
            names[..MOST].join(", "),
            count - MOST
        ),
        _ => format!("{head} {}", names.join(", ")),
    }
}

impl RuleError {
    /// What would help.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoValue { .. } => "write PATH=VALUE, for example longest=60 or limits[3].max=7",
            Self::BadPath { .. } => "write a rule's name, with .MEMBER and [INDEX] behind it",
            Self::NotARule { .. } => {
                "only variables declared by UPATCH_RULE can be set from outside"
            }
            _ => return None,
        })
    }
}

/// The rules of a patch.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// All variables of the patch.
    pub globals: &'a [GlobalInfo],
    /// Their types.
    pub types: &'a TypeTable,
}

/// Bytes that go to one place of the arena. Up to 8 bytes are a number at its natural alignment, and one store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// First byte in the arena.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What one assignment changes.
#[derive(Clone, PartialEq, Debug)]
pub struct Edit {
    /// What is set, as typed.
    pub path: String,
    /// Its value before.
    pub old: Value,
    /// Its value afterwards.
    pub new: Value,
    /// How.
    pub stores: Vec<Store>,
}

impl<'a> Rules<'a> {
    /// Every rule.
    pub fn all(self) -> impl Iterator<Item = &'a GlobalInfo> {
        self.globals
            .iter()
            .filter(|global| global.role == Role::Rule)
    }

    fn global(self, name: &str) -> Result<&'a GlobalInfo, RuleError> {
        let found = self.globals.iter().find(|global| global.name == name);
        let global = found.ok_or_else(|| RuleError::Unknown {
            name: name.to_owned(),
            known: self.all().map(|global| global.name.clone()).collect(),
        })?;
        let what = match global.role {
            Role::Rule => return Ok(global),
            Role::Counter => "a counter",
            Role::Events => "the ring of events",
            Role::Plain => "a variable of the patch's own",
        };
        Err(RuleError::NotARule {
            name: name.to_owned(),
            what,
        })
    }

    /// The value at a path.
    ///
    /// # Errors
    /// There is no such rule, or it isn't there.
    pub fn get<A: ReadArena + ?Sized>(self, path: &Path, arena: &A) -> Result<Value, RuleError> {
        let global = self.global(&path.name)?;
        let place = path.locate(self.types, global)?;
        let bytes = content(global, arena).ok_or_else(|| damaged(path))?;
        Ok(self.shown(&place, &bytes))
    }

    /// Every rule by name with its value; `null` for one that isn't there, or beyond what all may cost.
    #[must_use]
    pub fn values<A: ReadArena + ?Sized>(self, arena: &A) -> Map<String, Value> {
        let mut budget = Budget(SHOWN);
        self.all()
            .map_while(|rule| {
                let read = usize::try_from(rule.size / READ).unwrap_or(usize::MAX);
                budget.0 = budget
                    .0
                    .checked_sub(read.saturating_add(rule.name.len() + NAME))?;
                let value = content(rule, arena).map_or(Value::Null, |bytes| {
                    render_within(self.types, rule.ty, &bytes, &mut budget)
                });
                Some((rule.name.clone(), value))
            })
            .collect()
    }

    /// What the assignments would change, one after the other; writes nothing.
    ///
    /// # Errors
    /// The first that can't be done.
    pub fn plan<A: ReadArena + ?Sized>(
        self,
        assignments: &[Assignment],
        arena: &A,
    ) -> Result<Vec<Edit>, RuleError> {
        // Variables as they will be, so that each assignment sees those before it.
        let mut contents: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut edits = Vec::new();
        for Assignment { path, value } in assignments {
            let global = self.global(&path.name)?;
            let place = path.locate(self.types, global)?;
            let known = contents.iter().position(|(name, _)| *name == global.name);
            let index = match known {
                Some(index) => index,
                None => {
                    let bytes = content(global, arena).ok_or_else(|| damaged(path))?;
                    contents.push((&global.name, bytes));
                    contents.len() - 1
                }
            };
            let bytes = &mut contents[index].1;
            let old = self.shown(&place, bytes);
            let ranges = encode::encode(self.types, path, &place, value, bytes)?;
            let stores = ranges
                .into_iter()
                .map(|range| Store {
                    offset: global.offset + range.start as u64,
                    bytes: bytes[range].to_vec(),
                })
                .collect();
            let new = self.shown(&place, bytes);
            edits.push(Edit {
                path: path.to_string(),
                old,
                new,
                stores,
            });
        }
        Ok(edits)
    }

    fn shown(self, place: &Place, bytes: &[u8]) -> Value {
        match place.bits {
            Some(bits) => encode::bit_field(self.types, place, bits, bytes),
            None => {
                let start = usize::try_from(place.offset).unwrap_or(usize::MAX);
                render(self.types, place.ty, bytes.get(start..).unwrap_or_default())
            }
        }
    }
}

/// Sets rules in an object, before it is applied.
///
/// # Errors
/// The first that can't be set; the object is as before then.
pub fn set_initial(
    object: &mut PatchObject,
    assignments: &[Assignment],
) -> Result<Vec<Edit>, RuleError> {
    let layout = object.arena();
    let rules = Rules {
        globals: &layout.globals,
        types: &layout.types,
    };
    let edits = rules.plan(assignments, layout)?;
    for store in edits.iter().flat_map(|edit| &edit.stores) {
        object.set_initial(store.offset, store.bytes.clone());
    }
    Ok(edits)
}

impl ReadArena for ArenaLayout {
    /// What the arena begins with.
    fn read_some(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let buffer = &mut buffer[..len];
        buffer.fill(0);
        for segment in &self.initial {
            // Byte 0 of the segment is byte `shift` of the buffer, or the other way round.
            let (into, from) = match segment.offset.checked_sub(offset) {
                Some(shift) => (usize::try_from(shift).unwrap_or(usize::MAX), 0),
                None => (
                    0,
                    usize::try_from(offset - segment.offset).unwrap_or(usize::MAX),
                ),
            };
            let to = buffer.get_mut(into..).unwrap_or_default();
            let bytes = segment.bytes.get(from..).unwrap_or_default();
            let common = to.len().min(bytes.len());
            to[..common].copy_from_slice(&bytes[..common]);
        }
        len
    }
}

fn damaged(path: &Path) -> RuleError {
    RuleError::Damaged {
        path: path.to_string(),
    }
}

/// The variable's bytes, all of them.
fn content<A: ReadArena + ?Sized>(global: &GlobalInfo, arena: &A) -> Option<Vec<u8>> {
    let len = usize::try_from(global.size.min(LARGEST + 1)).ok()?;
    if len as u64 > LARGEST || global.offset.checked_add(global.size).is_none() {
        return None;
    }
    // A size that a hostile record made up is seen before that much is allocated.
    if len > 0 && arena.read_some(global.offset + len as u64 - 1, &mut [0]) != 1 {
        return None;
    }
    let mut bytes = vec![0; len];
    (arena.read_some(global.offset, &mut bytes) == len).then_some(bytes)
}
