//! BTF by name: the look-ups that the rest of the parser needs, made once.

use std::collections::{HashMap, HashSet};

use super::btf::{Btf, Linkage, Type, TypeId};

/// BTF by name.
#[derive(Default)]
pub(super) struct BtfIndex<'a> {
    /// Functions that are defined here, and their number of parameters.
    pub(super) args: HashMap<&'a str, u8>,
    /// Variables and their types.
    pub(super) variables: HashMap<&'a str, TypeId>,
    /// Variables in `.maps`.
    pub(super) maps: Vec<(&'a str, TypeId)>,
    /// Functions declared `__ksym`.
    pub(super) ksyms: HashSet<TypeId>,
    tags: HashMap<TypeId, Vec<(i32, &'a str)>>,
    rules: HashSet<&'a str>,
    counters: HashSet<&'a str>,
    rings: HashSet<&'a str>,
}

impl<'a> BtfIndex<'a> {
    pub(super) fn new(btf: &Btf<'a>) -> Self {
        let mut this = Self::default();
        for (_, ty) in btf.types() {
            match ty {
                Type::Function {
                    name,
                    prototype,
                    linkage: Linkage::Static | Linkage::Global,
                } => {
                    if let Type::Prototype { params, .. } = btf.get(*prototype) {
                        this.args.insert(name, params.len().min(255) as u8);
                    }
                }
                Type::Variable { name, ty, .. } => {
                    this.variables.insert(name, *ty);
                }
                Type::DataSection { name, entries } => match *name {
                    ".ksyms" => this.ksyms.extend(entries.iter().map(|entry| entry.ty)),
                    ".maps" => {
                        for entry in entries {
                            if let Type::Variable { name, ty, .. } = btf.get(entry.ty) {
                                this.maps.push((name, *ty));
                            }
                        }
                    }
                    _ => {}
                },
                Type::DeclTag { tag, of, component } => {
                    this.tags.entry(*of).or_default().push((*component, tag));
                    if let (Type::Variable { name, .. }, -1) = (btf.get(*of), component) {
                        match *tag {
                            "upatch:rule" => this.rules.insert(name),
                            "upatch:counter" => this.counters.insert(name),
                            "upatch:events" => this.rings.insert(name),
                            _ => false,
                        };
                    }
                }
                Type::Void
                | Type::Int { .. }
                | Type::Pointer { .. }
                | Type::Array { .. }
                | Type::Struct { .. }
                | Type::Union { .. }
                | Type::Enum { .. }
                | Type::Forward { .. }
                | Type::Typedef { .. }
                | Type::Const { .. }
                | Type::Qualified { .. }
                | Type::Function {
                    linkage: Linkage::Extern,
                    ..
                }
                | Type::Prototype { .. }
                | Type::Float { .. } => {}
            }
        }
        this
    }

    /// Declaration tags of a type: component (-1: the type itself) and text.
    pub(super) fn tags_of(&self, ty: TypeId) -> &[(i32, &'a str)] {
        self.tags.get(&ty).map_or(&[], Vec::as_slice)
    }

    /// Is the variable declared by `UPATCH_RULE`?
    pub(super) fn is_rule(&self, variable: &str) -> bool {
        self.rules.contains(variable)
    }

    /// Is the variable declared by `UPATCH_COUNTER`?
    pub(super) fn is_counter(&self, variable: &str) -> bool {
        self.counters.contains(variable)
    }

    /// Is the variable the ring of events?
    pub(super) fn is_ring(&self, variable: &str) -> bool {
        self.rings.contains(variable)
    }
}
