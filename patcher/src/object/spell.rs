//! Types as C spells them, for messages.

use super::btf::{Btf, MAX_CHAIN, Type, TypeId};

impl Btf<'_> {
    /// The type as C spells it, for messages.
    pub(super) fn spell(&self, id: TypeId) -> String {
        let (base, arrays) = self.spell_parts(id);
        if arrays.is_empty() {
            base
        } else {
            format!("{base} {arrays}")
        }
    }

    /// The declaration of a variable, with `word` between type and name.
    pub(super) fn spell_variable(&self, id: TypeId, word: &str, name: &str) -> String {
        let (base, arrays) = self.spell_parts(id);
        format!("{base} {word} {name}{arrays}")
    }

    /// What stands before a declared name, and the array sizes behind it.
    fn spell_parts(&self, id: TypeId) -> (String, String) {
        let (mut stars, mut arrays) = (String::new(), String::new());
        let mut id = id;
        for _ in 0..MAX_CHAIN {
            let base = match self.get(id) {
                Type::Void => "void".to_owned(),
                Type::Int { name, .. }
                | Type::Typedef { name, .. }
                | Type::Function { name, .. }
                | Type::Variable { name, .. }
                | Type::DataSection { name, .. } => (*name).to_owned(),
                Type::Struct { name, .. } | Type::Forward { name } => format!("struct {name}"),
                Type::Union { name, .. } => format!("union {name}"),
                Type::Enum { name, .. } => format!("enum {name}"),
                Type::Float { size: 4 } => "float".to_owned(),
                Type::Float { .. } => "double".to_owned(),
                Type::Prototype { .. } => "function".to_owned(),
                Type::DeclTag { tag, .. } => (*tag).to_owned(),
                Type::Pointer { to } => {
                    stars.push('*');
                    id = *to;
                    continue;
                }
                Type::Array { of, len } => {
                    arrays.push_str(&format!("[{len}]"));
                    id = *of;
                    continue;
                }
                Type::Const { of } | Type::Qualified { of } => {
                    id = *of;
                    continue;
                }
            };
            let base = if stars.is_empty() {
                base
            } else {
                format!("{base} {stars}")
            };
            return (base, arrays);
        }
        ("?".to_owned(), arrays)
    }
}
