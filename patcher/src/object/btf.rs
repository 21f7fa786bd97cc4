//! Reads BTF, the type information of BPF objects (Linux, Documentation/bpf/btf.rst): all 19 kinds.
//!
//! It decides what is well-formed: lengths, kinds, names and type ids. It doesn't know what the types are used for.
//! Invariant: every type id that a [`Type`] holds exists (0 is `void`); cycles are possible, so whoever follows ids
//! counts its steps.

use super::bytes::{str_at, u16_at, u32_at};

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// A patch has a few kilobytes; the kernel itself has 6 MB.
const MAX_BYTES: usize = 4 << 20;
/// C names; the kernel allows 128.
const MAX_NAME: usize = 1024;
/// Lines of source.
const MAX_LINE: usize = 4096;
/// Most typedefs and qualifiers in a row that are followed.
pub(super) const MAX_CHAIN: usize = 64;

/// Why BTF or BTF.ext can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the object's {section} is damaged: {what}")]
pub struct BtfError {
    /// `.BTF` or `.BTF.ext`.
    pub section: &'static str,
    /// What can't be.
    pub what: String,
}

pub(super) fn damaged(what: impl Into<String>) -> BtfError {
    BtfError {
        section: ".BTF",
        what: what.into(),
    }
}

/// A type's number; 0 is `void`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct TypeId(pub(super) u32);

/// A field of a struct or union.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    pub(super) ty: TypeId,
    pub(super) bit_offset: u32,
    /// Width of a bit-field, 0 for an ordinary field.
    pub(super) bits: u8,
}

/// A parameter; the last one of a variadic function is `void` without a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Param<'a> {
    pub(super) name: &'a str,
    pub(super) ty: TypeId,
}

/// A variable or function in a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SectionEntry {
    pub(super) ty: TypeId,
    pub(super) size: u32,
}

/// How a function or variable is linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Linkage {
    Static,
    Global,
    Extern,
}

/// One type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Type<'a> {
    Void,
    Int {
        name: &'a str,
        size: u32,
        signed: bool,
        boolean: bool,
    },
    Pointer {
        to: TypeId,
    },
    Array {
        of: TypeId,
        len: u32,
    },
    Struct {
        name: &'a str,
        size: u32,
        members: Vec<Member<'a>>,
    },
    Union {
        name: &'a str,
        size: u32,
        members: Vec<Member<'a>>,
    },
    Enum {
        name: &'a str,
        size: u32,
        signed: bool,
        values: Vec<(&'a str, i64)>,
    },
    Forward {
        name: &'a str,
    },
    Typedef {
        name: &'a str,
        of: TypeId,
    },
    Const {
        of: TypeId,
    },
    /// volatile, restrict, and type tags.
    Qualified {
        of: TypeId,
    },
    Function {
        name: &'a str,
        prototype: TypeId,
        linkage: Linkage,
    },
    Prototype {
        ret: TypeId,
        params: Vec<Param<'a>>,
    },
    Variable {
        name: &'a str,
        ty: TypeId,
        linkage: Linkage,
    },
    DataSection {
        name: &'a str,
        entries: Vec<SectionEntry>,
    },
    Float {
        size: u32,
    },
    /// `component` -1 is the type itself, else a member or parameter.
    DeclTag {
        tag: &'a str,
        of: TypeId,
        component: i32,
    },
}

/// All types of an object.
#[derive(Debug)]
pub(super) struct Btf<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    /// Reads a `.BTF` section.
    pub(super) fn parse(section: &'a [u8]) -> Result<Self, BtfError> {
        if section.len() > MAX_BYTES {
            return Err(damaged("it is too large"));
        }
        let short = || damaged("its header is too short");
        let word = |at| u32_at(section, at).ok_or_else(short);
        if u16_at(section, 0) != Some(MAGIC) || section.get(2) != Some(&1) {
            return Err(damaged("it does not begin as BTF of version 1"));
        }
        let header = word(4)? as usize;
        if header < HEADER {
            return Err(short());
        }
        let part = |at: u32, len: u32| {
            let start = header.checked_add(at as usize)?;
            section.get(start..start.checked_add(len as usize)?)
        };
        let types =
            part(word(8)?, word(12)?).ok_or_else(|| damaged("its types lie outside of it"))?;
        let strings =
            part(word(16)?, word(20)?).ok_or_else(|| damaged("its strings lie outside of it"))?;
        let types = Parser {
            bytes: types,
            at: 0,
            strings,
        }
        .all()?;
        let btf = Self { types, strings };
        btf.check_ids()?;
        Ok(btf)
    }

    /// All types but `void`, with their numbers.
    pub(super) fn types(&self) -> impl Iterator<Item = (TypeId, &Type<'a>)> {
        (0_u32..).map(TypeId).zip(&self.types).skip(1)
    }

    /// The type; an id that doesn't exist is `void`.
    pub(super) fn get(&self, id: TypeId) -> &Type<'a> {
        self.types.get(id.0 as usize).unwrap_or(&Type::Void)
    }

    /// A string by its offset: source lines, file names, accesses.
    pub(super) fn string(&self, offset: u32) -> Option<&'a str> {
        str_at(self.strings, offset, MAX_LINE)
    }

    /// The type behind typedefs, const, volatile, restrict and type tags.
    pub(super) fn resolve(&self, id: TypeId) -> TypeId {
        let mut id = id;
        for _ in 0..MAX_CHAIN {
            match self.get(id) {
                Type::Typedef { of, .. } | Type::Const { of } | Type::Qualified { of } => id = *of,
                _ => return id,
            }
        }
        TypeId(0)
    }

    /// Is the type const, perhaps behind typedefs?
    pub(super) fn is_const(&self, id: TypeId) -> bool {
        let mut id = id;
        for _ in 0..MAX_CHAIN {
            match self.get(id) {
                Type::Const { .. } => return true,
                Type::Typedef { of, .. } | Type::Qualified { of } => id = *of,
                _ => return false,
            }
        }
        false
    }

    fn check_ids(&self) -> Result<(), BtfError> {
        let count = self.types.len();
        let check = |of: &TypeId| {
            if (of.0 as usize) < count {
                Ok(())
            } else {
                Err(damaged(format!("type {} does not exist", of.0)))
            }
        };
        for ty in &self.types {
            match ty {
                Type::Void
                | Type::Int { .. }
                | Type::Enum { .. }
                | Type::Forward { .. }
                | Type::Float { .. } => {}
                Type::Pointer { to: of }
                | Type::Array { of, .. }
                | Type::Typedef { of, .. }
                | Type::Const { of }
                | Type::Qualified { of }
                | Type::Function { prototype: of, .. }
                | Type::Variable { ty: of, .. }
                | Type::DeclTag { of, .. } => check(of)?,
                Type::Struct { members, .. } | Type::Union { members, .. } => {
                    members.iter().try_for_each(|member| check(&member.ty))?;
                }
                Type::Prototype { ret, params } => {
                    check(ret)?;
                    params.iter().try_for_each(|param| check(&param.ty))?;
                }
                Type::DataSection { entries, .. } => {
                    entries.iter().try_for_each(|entry| check(&entry.ty))?
                }
            }
        }
        Ok(())
    }
}

/// Walks the type section once.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    strings: &'a [u8],
}

impl<'a> Parser<'a> {
    fn all(mut self) -> Result<Vec<Type<'a>>, BtfError> {
        let mut types = vec![Type::Void];
        while self.at < self.bytes.len() {
            types.push(self.one()?);
        }
        Ok(types)
    }

    fn word(&mut self) -> Result<u32, BtfError> {
        let word = u32_at(self.bytes, self.at).ok_or_else(|| damaged("a type ends too early"))?;
        self.at += 4;
        Ok(word)
    }

    fn id(&mut self) -> Result<TypeId, BtfError> {
        self.word().map(TypeId)
    }

    fn name(&mut self) -> Result<&'a str, BtfError> {
        let offset = self.word()?;
        str_at(self.strings, offset, MAX_NAME)
            .ok_or_else(|| damaged(format!("the name at {offset} is not text")))
    }

    /// `count` entries of `words` words; refused before anything is allocated if they can't be there.
    fn entries<T>(
        &mut self,
        count: u32,
        words: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, BtfError>,
    ) -> Result<Vec<T>, BtfError> {
        let left = self.bytes.len() - self.at;
        if left / (words * 4) < count as usize {
            return Err(damaged("a type ends too early"));
        }
        (0..count).map(|_| one(self)).collect()
    }

    fn one(&mut self) -> Result<Type<'a>, BtfError> {
        let name = self.name()?;
        let info = self.word()?;
        let size = self.word()?;
        let of = TypeId(size);
        let count = info & 0xffff;
        let flag = info >> 31 != 0;
        Ok(match (info >> 24) & 0x1f {
            1 => {
                let encoding = self.word()?;
                let (offset, bits) = ((encoding >> 16) & 0xff, encoding & 0xff);
                if offset != 0 || bits > 128 || size == 0 || size > 16 {
                    return Err(damaged(format!(
                        "the integer `{name}` has {bits} bits at bit {offset}"
                    )));
                }
                Type::Int {
                    name,
                    size,
                    signed: encoding >> 24 & 1 != 0,
                    boolean: encoding >> 24 & 4 != 0,
                }
            }
            2 => Type::Pointer { to: of },
            3 => {
                let of = self.id()?;
                self.word()?;
                Type::Array {
                    of,
                    len: self.word()?,
                }
            }
            4 => Type::Struct {
                name,
                size,
                members: self.members(count, flag)?,
            },
            5 => Type::Union {
                name,
                size,
                members: self.members(count, flag)?,
            },
            6 => Type::Enum {
                name,
                size,
                signed: flag,
                values: self.entries(count, 2, |this| {
                    let (name, value) = (this.name()?, this.word()?);
                    let value = if flag {
                        i64::from(value.cast_signed())
                    } else {
                        i64::from(value)
                    };
                    Ok((name, value))
                })?,
            },
            7 => Type::Forward { name },
            8 => Type::Typedef { name, of },
            9 | 11 | 18 => Type::Qualified { of },
            10 => Type::Const { of },
            12 => Type::Function {
                name,
                prototype: of,
                linkage: linkage(count)?,
            },
            13 => Type::Prototype {
                ret: of,
                params: self.entries(count, 2, |this| {
                    Ok(Param {
                        name: this.name()?,
                        ty: this.id()?,
                    })
                })?,
            },
            14 => {
                let linkage = linkage(self.word()?)?;
                Type::Variable {
                    name,
                    ty: of,
                    linkage,
                }
            }
            15 => Type::DataSection {
                name,
                entries: self.entries(count, 3, |this| {
                    let ty = this.id()?;
                    // The offset: zero in clang's arena section; the symbol table knows better everywhere.
                    this.word()?;
                    Ok(SectionEntry {
                        ty,
                        size: this.word()?,
                    })
                })?,
            },
            16 => Type::Float { size },
            17 => Type::DeclTag {
                tag: name,
                of,
                component: self.word()?.cast_signed(),
            },
            19 => Type::Enum {
                name,
                size,
                signed: flag,
                values: self.entries(count, 3, |this| {
                    let (name, low, high) = (this.name()?, this.word()?, this.word()?);
                    Ok((name, (u64::from(high) << 32 | u64::from(low)).cast_signed()))
                })?,
            },
            kind => return Err(damaged(format!("kind {kind} is unknown"))),
        })
    }

    fn members(&mut self, count: u32, bit_fields: bool) -> Result<Vec<Member<'a>>, BtfError> {
        self.entries(count, 3, |this| {
            let (name, ty, offset) = (this.name()?, this.id()?, this.word()?);
            let (bits, bit_offset) = if bit_fields {
                ((offset >> 24) as u8, offset & 0xff_ffff)
            } else {
                (0, offset)
            };
            Ok(Member {
                name,
                ty,
                bit_offset,
                bits,
            })
        })
    }
}

fn linkage(number: u32) -> Result<Linkage, BtfError> {
    match number {
        0 => Ok(Linkage::Static),
        1 => Ok(Linkage::Global),
        2 => Ok(Linkage::Extern),
        other => Err(damaged(format!("linkage {other} is unknown"))),
    }
}
