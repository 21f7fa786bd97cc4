//! What a variable's bytes mean, in a form that a record in the target can hold: BTF boiled down to what display needs.
//!
//! Types refer to each other by index in one table, so that a type used often is held once. The table may come back from
//! a hostile process: whoever reads it (`render`) checks every index and offset.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::btf::{Btf, Member as BtfMember, Type, TypeId};

/// Most types of a table; further ones become [`TypeDesc::Opaque`].
const MAX_TYPES: usize = 8192;
/// Most members and enumerators of a table; a type with more is opaque.
const MAX_NAMES: usize = 8192;
/// Deepest nesting of arrays and structs.
const MAX_DEPTH: usize = 64;

/// Index of a type in its [`TypeTable`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TypeRef(pub u32);

/// How a number is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum IntKind {
    Unsigned,
    Signed,
    Bool,
    /// C's `char`: a number alone, text in an array.
    Char,
}

/// A field of a struct or union.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its name; empty for an anonymous struct or union, whose fields count as the outer one's.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: TypeRef,
    /// Its first bit.
    pub bit_offset: u32,
    /// Width of a bit-field, 0 for an ordinary field.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bits: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(bits: &u8) -> bool {
    *bits == 0
}

/// One type.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TypeDesc {
    /// An integer of 1, 2, 4, 8 or 16 bytes.
    Int {
        /// Its size.
        bytes: u8,
        /// How it is read.
        kind: IntKind,
    },
    /// An enumeration.
    Enum {
        /// Its size in bytes: 1, 2, 4 or 8.
        bytes: u8,
        /// Are its numbers signed?
        signed: bool,
        /// Names and numbers.
        values: Vec<(String, i64)>,
    },
    /// An address: 8 bytes.
    Pointer,
    /// An array.
    Array {
        /// Of this type.
        of: TypeRef,
        /// Number of elements.
        len: u32,
    },
    /// A struct, or a union, whose members overlap.
    Struct {
        /// Size in bytes.
        bytes: u32,
        /// Fields in the order of the source.
        members: Vec<Member>,
    },
    /// A float (4 bytes) or double (8 bytes).
    Float {
        /// Its size.
        bytes: u8,
    },
    /// Bytes of which nothing more is known.
    Opaque {
        /// How many.
        bytes: u32,
    },
}

/// The types of an object's globals.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TypeTable {
    /// In the order of [`TypeRef`].
    pub types: Vec<TypeDesc>,
}

impl TypeTable {
    /// The type of this index, if there is one.
    #[must_use]
    pub fn get(&self, ty: TypeRef) -> Option<&TypeDesc> {
        self.types.get(ty.0 as usize)
    }

    /// Size in bytes; `None` for an index that doesn't exist, and beyond `u64` or 64 arrays in a row.
    #[must_use]
    pub fn size_of(&self, ty: TypeRef) -> Option<u64> {
        let (mut ty, mut count) = (ty, 1_u64);
        for _ in 0..MAX_DEPTH {
            let size = match self.get(ty)? {
                TypeDesc::Int { bytes, .. }
                | TypeDesc::Enum { bytes, .. }
                | TypeDesc::Float { bytes } => u64::from(*bytes),
                TypeDesc::Pointer => 8,
                TypeDesc::Struct { bytes, .. } | TypeDesc::Opaque { bytes } => u64::from(*bytes),
                TypeDesc::Array { of, len } => {
                    count = count.checked_mul(u64::from(*len))?;
                    ty = *of;
                    continue;
                }
            };
            return count.checked_mul(size);
        }
        None
    }
}

/// Fills a [`TypeTable`] from BTF.
pub(super) struct TypeBuilder<'b, 'a> {
    btf: &'b Btf<'a>,
    table: TypeTable,
    /// `None` while the type's members are being added.
    known: HashMap<TypeId, Option<TypeRef>>,
    names_left: usize,
}

impl<'b, 'a> TypeBuilder<'b, 'a> {
    pub(super) fn new(btf: &'b Btf<'a>) -> Self {
        Self {
            btf,
            table: TypeTable::default(),
            known: HashMap::new(),
            names_left: MAX_NAMES,
        }
    }

    /// A type that was added.
    pub(super) fn get(&self, ty: TypeRef) -> Option<&TypeDesc> {
        self.table.get(ty)
    }

    /// The table of everything that was added.
    pub(super) fn finish(self) -> TypeTable {
        self.table
    }

    /// Bytes of which nothing is known.
    pub(super) fn opaque(&mut self, bytes: u32) -> TypeRef {
        self.push(TypeDesc::Opaque { bytes })
    }

    /// Adds a type with everything it consists of.
    pub(super) fn add(&mut self, id: TypeId) -> TypeRef {
        self.nested(id, 0)
    }

    fn push(&mut self, ty: TypeDesc) -> TypeRef {
        let index = self.table.types.len().min(u32::MAX as usize) as u32;
        self.table.types.push(ty);
        TypeRef(index)
    }

    fn nested(&mut self, id: TypeId, depth: usize) -> TypeRef {
        let id = self.btf.resolve(id);
        if let Some(&known) = self.known.get(&id) {
            // No type of C contains itself: what claims to is opaque inside.
            return known.unwrap_or_else(|| self.opaque(0));
        }
        if depth >= MAX_DEPTH || self.table.types.len() >= MAX_TYPES {
            return self.opaque(0);
        }
        self.known.insert(id, None);
        let desc = self.describe(id, depth);
        let place = self.push(desc);
        self.known.insert(id, Some(place));
        place
    }

    fn describe(&mut self, id: TypeId, depth: usize) -> TypeDesc {
        let btf = self.btf;
        let names = match btf.get(id) {
            Type::Struct { members, .. } | Type::Union { members, .. } => members.len(),
            Type::Enum { values, .. } => values.len(),
            _ => 0,
        };
        match (self.names_left.checked_sub(names), btf.get(id)) {
            (Some(left), _) => self.names_left = left,
            (
                None,
                Type::Struct { size, .. } | Type::Union { size, .. } | Type::Enum { size, .. },
            ) => {
                return TypeDesc::Opaque { bytes: *size };
            }
            (None, _) => return TypeDesc::Opaque { bytes: 0 },
        }
        match btf.get(id) {
            Type::Int {
                name,
                size,
                signed,
                boolean,
            } => TypeDesc::Int {
                bytes: *size as u8,
                kind: match (boolean, signed, *name, size) {
                    (true, ..) => IntKind::Bool,
                    (_, _, "char", 1) => IntKind::Char,
                    (_, true, ..) => IntKind::Signed,
                    (_, false, ..) => IntKind::Unsigned,
                },
            },
            Type::Enum {
                size: size @ (1 | 2 | 4 | 8),
                signed,
                values,
                ..
            } => TypeDesc::Enum {
                bytes: *size as u8,
                signed: *signed,
                values: values
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), *value))
                    .collect(),
            },
            Type::Pointer { .. } => TypeDesc::Pointer,
            Type::Array { of, len } => TypeDesc::Array {
                of: self.nested(*of, depth + 1),
                len: *len,
            },
            Type::Struct { size, members, .. } | Type::Union { size, members, .. } => {
                TypeDesc::Struct {
                    bytes: *size,
                    members: self.members(members, depth),
                }
            }
            Type::Float {
                size: size @ (4 | 8),
            } => TypeDesc::Float { bytes: *size as u8 },
            Type::Enum { size, .. } | Type::Float { size } => TypeDesc::Opaque { bytes: *size },
            Type::Void
            | Type::Forward { .. }
            | Type::Typedef { .. }
            | Type::Const { .. }
            | Type::Qualified { .. }
            | Type::Function { .. }
            | Type::Prototype { .. }
            | Type::Variable { .. }
            | Type::DataSection { .. }
            | Type::DeclTag { .. } => TypeDesc::Opaque { bytes: 0 },
        }
    }

    fn members(&mut self, members: &[BtfMember<'a>], depth: usize) -> Vec<Member> {
        members
            .iter()
            .map(|member| Member {
                name: member.name.to_owned(),
                ty: self.nested(member.ty, depth + 1),
                bit_offset: member.bit_offset,
                bits: member.bits,
            })
            .collect()
    }
}
