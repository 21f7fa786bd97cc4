//! Values as an operator writes them, into bytes of a C type.
//!
//! Numbers are decimal or hexadecimal and must fit; enumerators go by name; arrays of `char` are text; other arrays
//! and structs are JSON. An array gets its first elements and zeros behind them, as an initialiser in C does; of a
//! struct only the named members change.

use std::ops::Range;

use serde_json::Value;

use super::RuleError;
use super::path::{self, Path, Place};
use super::words::{in_range, limits, unquoted};
use crate::object::{IntKind, TypeDesc, TypeTable};

/// Deepest nesting of arrays and structs.
const MAX_DEPTH: usize = 64;
/// Longest value that a message repeats, in characters.
const SHOWN: usize = 60;

/// Writes `value` over what `bytes`, the variable, holds at `place`; gives the ranges that are to be stored, each a
/// number or a run of equal worth.
pub(super) fn encode(
    types: &TypeTable,
    path: &Path,
    place: &Place,
    value: &str,
    bytes: &mut [u8],
) -> Result<Vec<Range<usize>>, RuleError> {
    let mut encoder = Encoder {
        types,
        bytes,
        stores: Vec::new(),
    };
    let at = At {
        place: *place,
        path: path.to_string(),
    };
    encoder.text(&at, value)?;
    Ok(encoder.stores)
}

/// A bit-field's value.
pub(super) fn bit_field(
    types: &TypeTable,
    place: &Place,
    (first, bits): (u8, u8),
    bytes: &[u8],
) -> Value {
    let Some(number) =
        bit_range(place, first, bits, bytes.len()).and_then(|range| read(&bytes[range]))
    else {
        return Value::Null;
    };
    let unsigned = number >> first & mask(bits);
    let signed = match types.get(place.ty) {
        Some(TypeDesc::Int { kind, .. }) => *kind == IntKind::Signed,
        Some(TypeDesc::Enum { signed, .. }) => *signed,
        _ => false,
    };
    let unused = 128 - u32::from(bits);
    if signed {
        let number = (unsigned << unused).cast_signed() >> unused;
        i64::try_from(number).map_or(Value::Null, Value::from)
    } else {
        u64::try_from(unsigned).map_or(Value::Null, Value::from)
    }
}

/// The bytes that a bit-field touches.
fn bit_range(place: &Place, first: u8, bits: u8, len: usize) -> Option<Range<usize>> {
    if bits == 0 || bits > 64 {
        return None;
    }
    let start = usize::try_from(place.offset).ok()?;
    let end = start.checked_add(usize::from(first + bits).div_ceil(8))?;
    (end <= len).then_some(start..end)
}

fn mask(bits: u8) -> u128 {
    (1 << bits) - 1
}

/// Up to 16 bytes as a little-endian number.
fn read(bytes: &[u8]) -> Option<u128> {
    let mut whole = [0; 16];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u128::from_le_bytes(whole))
}

/// A place and what to call it.
struct At {
    place: Place,
    path: String,
}

struct Encoder<'a> {
    types: &'a TypeTable,
    bytes: &'a mut [u8],
    stores: Vec<Range<usize>>,
}

impl Encoder<'_> {
    fn bad(&self, at: &At, value: &str, wanted: impl Into<String>) -> RuleError {
        let mut shown: String = value.chars().take(SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        RuleError::BadValue {
            path: at.path.clone(),
            value: if shown.is_empty() {
                "empty".to_owned()
            } else {
                format!("`{shown}`")
            },
            wanted: wanted.into(),
        }
    }

    fn damaged(at: &At) -> RuleError {
        RuleError::Damaged {
            path: at.path.clone(),
        }
    }

    /// A value as typed on the command line.
    fn text(&mut self, at: &At, value: &str) -> Result<(), RuleError> {
        match self
            .types
            .get(at.place.ty)
            .filter(|_| at.place.bits.is_none())
        {
            Some(TypeDesc::Array { of, len }) if self.is_char(*of) && !value.starts_with('[') => {
                let len = *len as usize;
                let text = match value.strip_prefix('"') {
                    Some(quoted) => unquoted(quoted).ok_or_else(|| {
                        self.bad(
                            at,
                            value,
                            "text in \"…\" with \\\\ \\\" \\n \\r \\t \\0 \\xHH inside",
                        )
                    })?,
                    None => value.as_bytes().to_vec(),
                };
                self.characters(at, value, &text, len)
            }
            Some(TypeDesc::Array { .. } | TypeDesc::Struct { .. }) => {
                let form = match self.types.get(at.place.ty) {
                    Some(TypeDesc::Array { len, .. }) => {
                        format!(
                            "an array of {len}: write [VALUE, …], or set one element by {}[INDEX]=VALUE",
                            at.path
                        )
                    }
                    _ => format!(
                        "a struct: write {{\"MEMBER\": VALUE, …}}, or set one member by {}.MEMBER=VALUE",
                        at.path
                    ),
                };
                let json: Value =
                    serde_json::from_str(value).map_err(|_| self.bad(at, value, form))?;
                self.json(at, &json, MAX_DEPTH)
            }
            _ => self.number(at, value),
        }
    }

    fn json(&mut self, at: &At, value: &Value, depth: usize) -> Result<(), RuleError> {
        let depth = depth.checked_sub(1).ok_or_else(|| Self::damaged(at))?;
        let types = self.types;
        match types.get(at.place.ty).filter(|_| at.place.bits.is_none()) {
            Some(TypeDesc::Array { of, len }) => {
                let elements = match value {
                    Value::Array(elements) => elements,
                    Value::String(text) if self.is_char(*of) => {
                        return self.characters(at, text, text.as_bytes(), *len as usize);
                    }
                    other => {
                        return Err(self.bad(at, &other.to_string(), format!("an array of {len}")));
                    }
                };
                if elements.len() > *len as usize {
                    let given = format!("{} elements", elements.len());
                    return Err(self.bad(at, &given, format!("an array of {len}")));
                }
                let size = types.size_of(*of).ok_or_else(|| Self::damaged(at))?;
                for (index, element) in elements.iter().enumerate() {
                    let inner = At {
                        place: Place {
                            offset: at.place.offset + index as u64 * size,
                            ty: *of,
                            bits: None,
                        },
                        path: format!("{}[{index}]", at.path),
                    };
                    self.json(&inner, element, depth)?;
                }
                let rest = size * elements.len() as u64..size * u64::from(*len);
                self.zeros(at, rest)
            }
            Some(TypeDesc::Struct { members, .. }) => {
                let Value::Object(fields) = value else {
                    return Err(self.bad(
                        at,
                        &value.to_string(),
                        "a struct: {\"MEMBER\": VALUE, …}",
                    ));
                };
                for (name, value) in fields {
                    let found =
                        path::member(types, members, name).ok_or_else(|| RuleError::NoMember {
                            path: at.path.clone(),
                            member: name.clone(),
                            known: path::names(types, members),
                        })?;
                    let offset = at.place.offset.checked_add(found.offset);
                    let inner = At {
                        place: Place {
                            offset: offset.ok_or_else(|| Self::damaged(at))?,
                            ..found
                        },
                        path: format!("{}.{name}", at.path),
                    };
                    self.json(&inner, value, depth)?;
                }
                Ok(())
            }
            _ => match value {
                Value::String(text) => self.number(at, text),
                Value::Number(number) => self.number(at, &number.to_string()),
                Value::Bool(value) => self.number(at, &value.to_string()),
                other => self.number(at, &other.to_string()),
            },
        }
    }

    fn is_char(&self, ty: crate::object::TypeRef) -> bool {
        matches!(
            self.types.get(ty),
            Some(TypeDesc::Int {
                bytes: 1,
                kind: IntKind::Char
            })
        )
    }

    /// The bytes of a place that lie in the variable.
    fn range(&self, at: &At, len: u64) -> Result<Range<usize>, RuleError> {
        let range = at
            .place
            .offset
            .checked_add(len)
            .and_then(|end| {
                Some(usize::try_from(at.place.offset).ok()?..usize::try_from(end).ok()?)
            })
            .filter(|range| range.end <= self.bytes.len());
        range.ok_or_else(|| Self::damaged(at))
    }

    fn zeros(&mut self, at: &At, part: Range<u64>) -> Result<(), RuleError> {
        if part.is_empty() {
            return Ok(());
        }
        let all = self.range(at, part.end)?;
        let range = all.start + part.start as usize..all.end;
        self.bytes[range.clone()].fill(0);
        self.stores.push(range);
        Ok(())
    }

    fn characters(
        &mut self,
        at: &At,
        shown: &str,
        text: &[u8],
        len: usize,
    ) -> Result<(), RuleError> {
        if text.len() > len {
            return Err(self.bad(
                at,
                shown,
                format!("text of at most {len} bytes, and this has {}", text.len()),
            ));
        }
        let range = self.range(at, len as u64)?;
        let target = &mut self.bytes[range.clone()];
        target.fill(0);
        target[..text.len()].copy_from_slice(text);
        self.stores.push(range);
        Ok(())
    }

    /// A number, truth value, enumerator, address or bit-field.
    fn number(&mut self, at: &At, text: &str) -> Result<(), RuleError> {
        let text = text.trim();
        let types = self.types;
        let desc = types.get(at.place.ty);
        let (size, signed) = match desc {
            Some(TypeDesc::Int { bytes, kind }) => (
                u32::from(*bytes),
                matches!(kind, IntKind::Signed | IntKind::Char),
            ),
            Some(TypeDesc::Enum { bytes, signed, .. }) => (u32::from(*bytes), *signed),
            Some(TypeDesc::Pointer) => (8, false),
            Some(TypeDesc::Float { bytes }) => return self.float(at, *bytes, text),
            Some(TypeDesc::Opaque { .. } | TypeDesc::Array { .. } | TypeDesc::Struct { .. })
            | None => {
                return Err(self.bad(at, text, "of a type that upatch can't set"));
            }
        };
        let bits = at.place.bits.map_or(size * 8, |(_, bits)| u32::from(bits));
        if bits == 0 || bits > 128 {
            return Err(Self::damaged(at));
        }
        let value = match desc {
            Some(TypeDesc::Int {
                kind: IntKind::Bool,
                ..
            }) => match text {
                "true" | "1" => 1,
                "false" | "0" => 0,
                _ => return Err(self.bad(at, text, "true or false")),
            },
            Some(TypeDesc::Enum { values, .. }) => {
                match values.iter().find(|(name, _)| name == text) {
                    Some((_, value)) => *value as u128,
                    None => in_range(text, bits, signed).ok_or_else(|| {
                        let names: Vec<String> = values
                            .iter()
                            .take(40)
                            .map(|(name, _)| name.clone())
                            .collect();
                        self.bad(
                            at,
                            text,
                            format!("one of {}, or a number", names.join(", ")),
                        )
                    })?,
                }
            }
            Some(TypeDesc::Int {
                kind: IntKind::Char,
                bytes: 1,
            }) if text.len() == 3 && text.starts_with('\'') && text.ends_with('\'') => {
                u128::from(text.as_bytes()[1])
            }
            _ => in_range(text, bits, signed)
                .ok_or_else(|| self.bad(at, text, limits(bits, signed)))?,
        };
        self.put(at, size, value)
    }

    fn float(&mut self, at: &At, size: u8, text: &str) -> Result<(), RuleError> {
        let value: f64 = text
            .parse()
            .map_err(|_| self.bad(at, text, "a floating-point number"))?;
        let bits = if size == 4 {
            u128::from((value as f32).to_bits())
        } else {
            u128::from(value.to_bits())
        };
        self.put(at, u32::from(size), bits)
    }

    fn put(&mut self, at: &At, size: u32, value: u128) -> Result<(), RuleError> {
        let (range, whole) = match at.place.bits {
            None => (self.range(at, u64::from(size))?, value),
            Some((first, bits)) => {
                let range = bit_range(&at.place, first, bits, self.bytes.len())
                    .ok_or_else(|| Self::damaged(at))?;
                let old = read(&self.bytes[range.clone()]).ok_or_else(|| Self::damaged(at))?;
                let mask = mask(bits) << first;
                (range, old & !mask | value << first & mask)
            }
        };
        let bytes = whole.to_le_bytes();
        let len = range.len();
        let new = bytes.get(..len).ok_or_else(|| Self::damaged(at))?;
        self.bytes[range.clone()].copy_from_slice(new);
        self.stores.push(range);
        Ok(())
    }
}
