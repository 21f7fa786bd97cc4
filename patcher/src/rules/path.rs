//! Paths to rules and their parts: `longest`, `limits[3].max`, found in types that may be hostile.

use std::fmt;
use std::str::FromStr;

use super::RuleError;
use crate::object::{GlobalInfo, Member, TypeDesc, TypeRef, TypeTable};

/// Most structs without a name that are looked into for one member.
const MAX_ANONYMOUS: usize = 256;

/// One step into a variable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// `.name`
    Member(String),
    /// `[index]`
    Index(u32),
}

/// A variable or a part of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// The variable.
    pub name: String,
    /// Steps into it.
    pub steps: Vec<Step>,
}

impl FromStr for Path {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let bad = |reason| RuleError::BadPath {
            text: text.to_owned(),
            reason,
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        let word = |rest: &str| rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, mut rest) = text.split_at(word(text));
        if name.is_empty() {
            return Err(bad("the name is missing"));
        }
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(member) = rest.strip_prefix('.') {
                let (member, after) = member.split_at(word(member));
                if member.is_empty() {
                    return Err(bad("a member's name is missing behind `.`"));
                }
                steps.push(Step::Member(member.to_owned()));
                rest = after;
            } else if let Some(index) = rest.strip_prefix('[') {
                let (index, after) = index.split_once(']').ok_or_else(|| bad("`]` is missing"))?;
                let number = match index.strip_prefix("0x") {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => index.parse(),
                };
                steps.push(Step::Index(
                    number.map_err(|_| bad("the index is not a number"))?,
                ));
                rest = after;
            } else {
                return Err(bad("only .MEMBER and [INDEX] may follow the name"));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            steps,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for step in &self.steps {
            match step {
                Step::Member(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where a path leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// First byte in the variable.
    pub offset: u64,
    /// Its type.
    pub ty: TypeRef,
    /// First bit behind that byte and width, if it is a bit-field.
    pub bits: Option<(u8, u8)>,
}

impl Path {
    /// The first `count` steps.
    fn up_to(&self, count: usize) -> String {
        Self {
            name: self.name.clone(),
            steps: self.steps[..count].to_vec(),
        }
        .to_string()
    }

    /// Follows the steps from the variable. The place's bytes lie inside of the variable's `size`.
    ///
    /// # Errors
    /// The first step that leads nowhere.
    pub fn locate(&self, types: &TypeTable, global: &GlobalInfo) -> Result<Place, RuleError> {
        let mut place = Place {
            offset: 0,
            ty: global.ty,
            bits: None,
        };
        for (count, step) in self.steps.iter().enumerate() {
            let not_inside = |what| RuleError::NotInside {
                path: self.up_to(count),
                what,
            };
            let next = match (step, types.get(place.ty).filter(|_| place.bits.is_none())) {
                (Step::Index(index), Some(TypeDesc::Array { of, len })) => {
                    if index >= len {
                        return Err(RuleError::OutOfRange {
                            path: self.up_to(count),
                            len: *len,
                        });
                    }
                    types
                        .size_of(*of)
                        .and_then(|size| size.checked_mul(u64::from(*index)))
                        .and_then(|inside| place.offset.checked_add(inside))
                        .map(|offset| Place {
                            offset,
                            ty: *of,
                            bits: None,
                        })
                }
                (Step::Member(name), Some(TypeDesc::Struct { members, .. })) => {
                    let found =
                        member(types, members, name).ok_or_else(|| RuleError::NoMember {
                            path: self.up_to(count),
                            member: name.clone(),
                            known: names(types, members),
                        })?;
                    place
                        .offset
                        .checked_add(found.offset)
                        .map(|offset| Place { offset, ..found })
                }
                (Step::Index(_), _) => return Err(not_inside("elements")),
                (Step::Member(_), _) => return Err(not_inside("members")),
            };
            place = next.ok_or_else(|| super::damaged(self))?;
        }
        let size = match place.bits {
            Some((first, bits)) => Some(u64::from(u32::from(first) + u32::from(bits)).div_ceil(8)),
            None => types.size_of(place.ty),
        };
        let end = size.and_then(|size| place.offset.checked_add(size));
        if end.is_none_or(|end| end > global.size) {
            return Err(super::damaged(self));
        }
        Ok(place)
    }
}

/// The member of that name, also of structs without a name; offsets are from the struct.
pub(super) fn member(types: &TypeTable, members: &[Member], name: &str) -> Option<Place> {
    let mut inside: Vec<(u64, &[Member])> = vec![(0, members)];
    let mut next = 0;
    while let Some(&(base, members)) = inside.get(next) {
        next += 1;
        for member in members {
            let offset = base.checked_add(u64::from(member.bit_offset / 8))?;
            if member.name == name && !name.is_empty() {
                let bits =
                    (member.bits != 0).then_some(((member.bit_offset % 8) as u8, member.bits));
                return Some(Place {
                    offset,
                    ty: member.ty,
                    bits,
                });
            }
            if let Some(TypeDesc::Struct { members, .. }) = types.get(member.ty)
                && member.name.is_empty()
                && inside.len() < MAX_ANONYMOUS
            {
                inside.push((offset, members));
            }
        }
    }
    None
}

/// Names of the members, for messages.
pub(super) fn names(types: &TypeTable, members: &[Member]) -> Vec<String> {
    const MOST: usize = 1000;
    let mut names = Vec::new();
    let mut inside = vec![members];
    let mut next = 0;
    while let Some(&members) = inside.get(next) {
        next += 1;
        for member in members.iter().take(MOST) {
            match types.get(member.ty) {
                Some(TypeDesc::Struct { members, .. }) if member.name.is_empty() => {
                    if inside.len() < MAX_ANONYMOUS {
                        inside.push(members);
                    }
                }
                _ if names.len() < MOST => names.push(member.name.clone()),
                _ => return names,
            }
        }
    }
    names
}
