//! Shows a variable's bytes as JSON by its type.
//!
//! Counters are numbers, addresses hexadecimal strings, arrays of `char` text if they are. Type table and bytes may be
//! hostile: what lies outside of the bytes, or is nested or repeated beyond measure, is shown as null.

use serde_json::{Map, Value};

use super::types::{IntKind, Member, TypeDesc, TypeRef, TypeTable};

/// What one rendering may cost, roughly the bytes of its text.
const MAX_COST: usize = 1 << 20;
/// Cost of a value, whatever it is.
const VALUE: usize = 16;
const MAX_DEPTH: usize = 64;

/// The value of type `ty` at the beginning of `bytes`.
#[must_use]
pub fn render(table: &TypeTable, ty: TypeRef, bytes: &[u8]) -> Value {
    render_within(table, ty, bytes, &mut Budget(MAX_COST))
}

/// What several renderings together may cost, roughly the bytes of their text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget(pub usize);

/// As [`render`]; what goes beyond the budget is null.
#[must_use]
pub fn render_within(table: &TypeTable, ty: TypeRef, bytes: &[u8], budget: &mut Budget) -> Value {
    let start = budget.0.min(MAX_COST);
    let mut renderer = Renderer { table, left: start };
    let value = renderer.value(ty, bytes, MAX_DEPTH);
    budget.0 -= start - renderer.left;
    value
}

struct Renderer<'a> {
    table: &'a TypeTable,
    /// What may still be spent: a table can describe 2^64 values, or one name a million times, in a few bytes.
    left: usize,
}

impl Renderer<'_> {
    /// Whether that much could still be spent; if not, nothing is left for others either.
    fn spend(&mut self, cost: usize) -> bool {
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => self.left = 0,
        }
        self.left != 0
    }

    fn value(&mut self, ty: TypeRef, bytes: &[u8], depth: usize) -> Value {
        let Some(depth) = depth.checked_sub(1).filter(|_| self.spend(VALUE)) else {
            return Value::Null;
        };
        let table = self.table;
        match table.get(ty) {
            None => Value::Null,
            Some(TypeDesc::Int { bytes: size, kind }) => bytes
                .get(..usize::from(*size))
                .and_then(number)
                .map_or(Value::Null, |number| {
                    integer(number, u32::from(*size) * 8, *kind)
                }),
            Some(TypeDesc::Enum {
                bytes: size,
                signed,
                values,
            }) => {
                let kind = if *signed {
                    IntKind::Signed
                } else {
                    IntKind::Unsigned
                };
                let Some(number) = bytes.get(..usize::from(*size)).and_then(number) else {
                    return Value::Null;
                };
                let bits = u32::from(*size).min(8) * 8;
                let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
                // SANITY of the cut: the number has at most 64 bits that count.
                let wanted = number as u64 & mask;
                let named = values
                    .iter()
                    .find(|(_, known)| known.cast_unsigned() & mask == wanted);
                match named {
                    Some((name, _)) if self.spend(name.len() + values.len() / 8) => {
                        Value::from(name.as_str())
                    }
                    Some(_) => Value::Null,
                    None if self.spend(values.len() / 8) => integer(number, bits, kind),
                    None => Value::Null,
                }
            }
            Some(TypeDesc::Pointer) => bytes
                .get(..8)
                .and_then(number)
                .map_or(Value::Null, |address| Value::from(format!("{address:#x}"))),
            Some(TypeDesc::Float { bytes: size }) => float(bytes, *size),
            Some(TypeDesc::Opaque { bytes: size }) => bytes
                .get(..*size as usize)
                .map_or(Value::Null, |bytes| self.hexadecimal(bytes)),
            Some(TypeDesc::Array { of, len }) => self.array(*of, *len as usize, bytes, depth),
            Some(TypeDesc::Struct { members, .. }) => {
                let mut fields = Map::new();
                self.fields(members, bytes, depth, &mut fields);
                Value::Object(fields)
            }
        }
    }

    fn array(&mut self, of: TypeRef, len: usize, bytes: &[u8], depth: usize) -> Value {
        if let Some(TypeDesc::Int {
            bytes: 1,
            kind: IntKind::Char,
        }) = self.table.get(of)
            && self.spend(len.min(bytes.len()))
            && let Some(text) = bytes.get(..len).and_then(text)
        {
            return Value::from(text);
        }
        let Some(size) = self
            .table
            .size_of(of)
            .and_then(|size| usize::try_from(size).ok())
        else {
            return Value::Null;
        };
        let mut elements = Vec::new();
        for index in 0..len {
            let rest = index
                .checked_mul(size)
                .and_then(|start| bytes.get(start..))
                .unwrap_or_default();
            if self.left == 0 || rest.len() < size {
                elements.push(Value::Null);
                break;
            }
            elements.push(self.value(of, rest, depth));
        }
        Value::Array(elements)
    }

    fn fields(
        &mut self,
        members: &[Member],
        bytes: &[u8],
        depth: usize,
        fields: &mut Map<String, Value>,
    ) {
        for member in members {
            if !self.spend(member.name.len()) {
                return;
            }
            if member.bits != 0 {
                fields.insert(member.name.clone(), self.bit_field(member, bytes));
                continue;
            }
            let inside = bytes
                .get((member.bit_offset / 8) as usize..)
                .unwrap_or_default();
            match self.table.get(member.ty) {
                Some(TypeDesc::Struct { members, .. }) if member.name.is_empty() => {
                    let Some(depth) = depth.checked_sub(1).filter(|_| self.spend(VALUE)) else {
                        return;
                    };
                    self.fields(members, inside, depth, fields);
                }
                _ => {
                    let value = self.value(member.ty, inside, depth);
                    fields.insert(member.name.clone(), value);
                }
            }
        }
    }

    fn bit_field(&mut self, member: &Member, bytes: &[u8]) -> Value {
        if !self.spend(VALUE) {
            return Value::Null;
        }
        let kind = match self.table.get(member.ty) {
            Some(TypeDesc::Int { kind, .. }) => *kind,
            Some(TypeDesc::Enum { signed: true, .. }) => IntKind::Signed,
            Some(_) | None => IntKind::Unsigned,
        };
        let first = (member.bit_offset / 8) as usize;
        let shift = member.bit_offset % 8;
        let bits = u32::from(member.bits);
        let end = first.saturating_add((shift + bits).div_ceil(8) as usize);
        match bytes.get(first..end).and_then(number) {
            Some(number) if bits <= 64 => integer(number >> shift & ((1 << bits) - 1), bits, kind),
            Some(_) | None => Value::Null,
        }
    }

    fn hexadecimal(&mut self, bytes: &[u8]) -> Value {
        if !self.spend(bytes.len().saturating_mul(2)) {
            return Value::Null;
        }
        Value::from(
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        )
    }
}

/// Up to 16 bytes as a little-endian number.
fn number(bytes: &[u8]) -> Option<u128> {
    let mut whole = [0_u8; 16];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u128::from_le_bytes(whole))
}

/// A number of `bits` bits; those that JSON has no room for are hexadecimal strings.
fn integer(number: u128, bits: u32, kind: IntKind) -> Value {
    let unused = 128_u32.saturating_sub(bits);
    match kind {
        IntKind::Bool if number < 2 => Value::from(number == 1),
        IntKind::Signed | IntKind::Char if unused < 128 => {
            let signed = (number << unused).cast_signed() >> unused;
            i64::try_from(signed).map_or_else(|_| Value::from(format!("{number:#x}")), Value::from)
        }
        IntKind::Signed | IntKind::Char | IntKind::Bool | IntKind::Unsigned => {
            u64::try_from(number).map_or_else(|_| Value::from(format!("{number:#x}")), Value::from)
        }
    }
}

fn float(bytes: &[u8], size: u8) -> Value {
    let value = match size {
        4 => bytes
            .first_chunk()
            .map(|bytes| f64::from(f32::from_le_bytes(*bytes))),
        8 => bytes.first_chunk().map(|bytes| f64::from_le_bytes(*bytes)),
        _ => None,
    };
    // JSON has no NaN and no infinity.
    value.map_or(Value::Null, |value| {
        serde_json::Number::from_f64(value)
            .map_or_else(|| Value::from(value.to_string()), Value::Number)
    })
}

/// Bytes as text: printable up to a NUL.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let printable = !text.chars().any(char::is_control);
    printable.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn int(bytes: u8, kind: IntKind) -> TypeDesc {
        TypeDesc::Int { bytes, kind }
    }

    fn member(name: &str, ty: u32, bit_offset: u32, bits: u8) -> Member {
        Member {
            name: name.into(),
            ty: TypeRef(ty),
            bit_offset,
            bits,
        }
    }

    #[test]
    fn shows_every_kind() {
        let table = TypeTable {
            types: vec![
                int(4, IntKind::Signed),
                int(8, IntKind::Unsigned),
                int(1, IntKind::Char),
                TypeDesc::Array {
                    of: TypeRef(2),
                    len: 8,
                },
                TypeDesc::Pointer,
                TypeDesc::Enum {
                    bytes: 4,
                    signed: true,
                    values: vec![("off".into(), -1), ("on".into(), 1)],
                },
                int(1, IntKind::Bool),
                TypeDesc::Struct {
                    bytes: 32,
                    members: vec![
                        member("a", 0, 0, 0),
                        member("low", 0, 32, 3),
                        member("high", 1, 35, 5),
                        member("", 8, 64, 0),
                        member("on", 6, 40, 0),
                    ],
                },
                TypeDesc::Struct {
                    bytes: 8,
                    members: vec![member("p", 4, 0, 0), member("n", 1, 0, 0)],
                },
            ],
        };
        let show = |ty, bytes: &[u8]| render(&table, TypeRef(ty), bytes);
        assert_eq!(show(0, &(-3_i32).to_le_bytes()), json!(-3));
        assert_eq!(show(1, &[0xff; 8]), json!(u64::MAX));
        assert_eq!(show(3, b"hey\0abcd"), json!("hey"));
        assert_eq!(
            show(3, b"h\x01y\0abcd"),
            json!([104, 1, 121, 0, 97, 98, 99, 100])
        );
        assert_eq!(show(4, &[0, 0x10, 0, 0, 0, 0, 0, 0]), json!("0x1000"));
        assert_eq!(show(5, &[0xff; 4]), json!("off"));
        assert_eq!(show(5, &[1, 0, 0, 0]), json!("on"));
        assert_eq!(show(5, &[7, 0, 0, 0]), json!(7));
        let bytes = [1, 0, 0, 0, 0b1010_1101, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            show(7, &bytes),
            json!({"a": 1, "low": -3, "high": 21, "p": "0x10", "n": 16, "on": true})
        );
        assert_eq!(
            show(7, &bytes[..3]),
            json!({"a": null, "low": null, "high": null, "p": null, "n": null, "on": null})
        );
        assert_eq!(show(99, &bytes), json!(null));
    }

    #[test]
    fn hostile_tables_end() {
        // 2^60 values, a type that contains itself, and one with more bits than there are.
        let mut types: Vec<_> = (0..60)
            .map(|index| TypeDesc::Struct {
                bytes: 0,
                members: vec![
                    member("a", index + 1, 0, 0),
                    member("b", index + 1, 0, 0),
                    member("", index + 1, 0, 0),
                ],
            })
            .collect();
        types.push(TypeDesc::Array {
            of: TypeRef(60),
            len: u32::MAX,
        });
        types.push(TypeDesc::Struct {
            bytes: 4,
            members: vec![member("x", 0, u32::MAX, 255), member("y", 62, 0, 200)],
        });
        types.push(int(255, IntKind::Signed));
        types.push(int(0, IntKind::Signed));
        types.push(TypeDesc::Array {
            of: TypeRef(63),
            len: u32::MAX,
        });
        types.push(TypeDesc::Opaque { bytes: u32::MAX });
        // The same text, and the same name, again and again.
        types.push(int(1, IntKind::Char));
        types.push(TypeDesc::Array {
            of: TypeRef(66),
            len: 60,
        });
        types.push(TypeDesc::Struct {
            bytes: 0,
            members: vec![member(&"long".repeat(250), 67, 0, 0)],
        });
        types.push(TypeDesc::Array {
            of: TypeRef(68),
            len: u32::MAX,
        });
        types.push(TypeDesc::Enum {
            bytes: 1,
            signed: false,
            values: vec![("x".repeat(1000), 0); 10_000],
        });
        types.push(TypeDesc::Struct {
            bytes: 0,
            members: vec![member("e", 70, 0, 0); 100],
        });
        types.push(TypeDesc::Array {
            of: TypeRef(71),
            len: u32::MAX,
        });
        let table = TypeTable { types };
        let mut bytes = [b'a'; 64];
        bytes[59] = 0;
        for ty in 0..80 {
            let shown = render(&table, TypeRef(ty), &bytes);
            assert!(shown.to_string().len() < 4 << 20, "type {ty}");
        }
    }
}
