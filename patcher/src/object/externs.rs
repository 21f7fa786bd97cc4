//! What a function of the application takes and returns, from its BTF prototype and its annotations (`upatch.h`).
//!
//! Parameters of `extern` functions have no names in BTF; annotations are declaration tags. It decides what can be
//! enforced at a call; anything that can't is refused by name.

use upatch_verifier::program::{Extern, ExternParam, ExternRet};

use super::btf::{Btf, Linkage, Type, TypeId};
use super::index::BtfIndex;

/// Most parameters: BPF passes r1 to r5.
const MAX_PARAMS: usize = 5;

/// Why an external function can't be called.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum ExternError {
    #[error(
        "the function is called but not defined; a function of the program is declared with `__ksym`"
    )]
    NotKsym,
    #[error("it is variadic")]
    Variadic,
    #[error("it has {count} parameters, more than 5")]
    TooManyParams { count: usize },
    #[error(
        "parameter {number} has type `{ty}`, which is neither an integer of up to 64 bits nor a pointer"
    )]
    ParamType { number: usize, ty: String },
    #[error("it returns `{ty}`, which is neither void, an integer of up to 64 bits nor a pointer")]
    ReturnType { ty: String },
    #[error("the annotation `__{tag}` of {place} is not built yet")]
    NotBuilt { tag: String, place: Place },
    #[error("the annotation `{tag}` of {place} is unknown")]
    Unknown { tag: String, place: Place },
    #[error("the annotation `__{tag}` does not fit {place}: {reason}")]
    Misplaced {
        tag: String,
        place: Place,
        reason: &'static str,
    },
    #[error("its type information is damaged")]
    Damaged,
}

/// Where an annotation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The function itself.
    Function,
    /// A parameter, counted from 1.
    Param(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Function => f.write_str("the function"),
            Self::Param(number) => write!(f, "parameter {number}"),
        }
    }
}

const PREFIX: &str = "upatch:";
const NOT_BUILT: [&str; 8] = [
    "szk", "k", "uninit", "opt", "ign", "acquire", "release", "ret_null",
];

/// What annotations say about one parameter.
#[derive(Clone, Copy, Default)]
struct Marks {
    string: bool,
    size: bool,
    nullable: bool,
}

/// All functions that are declared `extern`, each with what it takes or why it can't be called. `matters` tells whether
/// a patch may call it; the kernel's functions are the kernel's business.
pub(super) fn all(
    btf: &Btf<'_>,
    index: &BtfIndex<'_>,
    matters: impl Fn(&str) -> bool,
) -> Result<Vec<Extern>, (String, ExternError)> {
    let mut externs = Vec::new();
    for (id, ty) in btf.types() {
        if let Type::Function {
            name,
            prototype,
            linkage: Linkage::Extern,
        } = ty
            && matters(name)
        {
            let one = if index.ksyms.contains(&id) {
                one(btf, index, id, name, *prototype)
            } else {
                Err(ExternError::NotKsym)
            };
            externs.push(one.map_err(|error| ((*name).to_owned(), error))?);
        }
    }
    Ok(externs)
}

fn one(
    btf: &Btf<'_>,
    index: &BtfIndex<'_>,
    function: TypeId,
    name: &str,
    prototype: TypeId,
) -> Result<Extern, ExternError> {
    let Type::Prototype { ret, params } = btf.get(prototype) else {
        return Err(ExternError::Damaged);
    };
    if params.last().is_some_and(|last| last.ty == TypeId(0)) {
        return Err(ExternError::Variadic);
    }
    if params.len() > MAX_PARAMS {
        return Err(ExternError::TooManyParams {
            count: params.len(),
        });
    }
    let marks = marks(index, function, params.len())?;
    let mut built: Vec<ExternParam> = Vec::with_capacity(params.len());
    for (position, (param, marks)) in params.iter().zip(marks).enumerate() {
        let one = param_of(btf, param.ty, position, marks)?;
        if marks.size {
            let before = position
                .checked_sub(1)
                .and_then(|before| built.get_mut(before));
            size_of_param_before(
                btf,
                params.get(position.wrapping_sub(1)).map(|param| param.ty),
                before,
                position,
            )?;
        }
        built.push(one);
    }
    Ok(Extern {
        name: name.to_owned(),
        params: built,
        ret: ret_of(btf, *ret)?,
    })
}

/// Sorts the tags of a function by parameter.
fn marks(index: &BtfIndex<'_>, function: TypeId, params: usize) -> Result<Vec<Marks>, ExternError> {
    let mut marks = vec![Marks::default(); params];
    for &(component, tag) in index.tags_of(function) {
        let place = match usize::try_from(component) {
            Ok(position) => Place::Param(position + 1),
            Err(_) => Place::Function,
        };
        let Some(word) = tag.strip_prefix(PREFIX) else {
            return Err(ExternError::Unknown {
                tag: tag.to_owned(),
                place,
            });
        };
        if NOT_BUILT.contains(&word) {
            return Err(ExternError::NotBuilt {
                tag: word.to_owned(),
                place,
            });
        }
        let param = usize::try_from(component)
            .ok()
            .and_then(|position| marks.get_mut(position));
        match (word, param) {
            ("str", Some(param)) => param.string = true,
            ("sz", Some(param)) => param.size = true,
            ("nullable", Some(param)) => param.nullable = true,
            ("str" | "sz" | "nullable", None) => {
                return Err(ExternError::Misplaced {
                    tag: word.to_owned(),
                    place,
                    reason: "it belongs to a parameter",
                });
            }
            _ => {
                return Err(ExternError::Unknown {
                    tag: tag.to_owned(),
                    place,
                });
            }
        }
    }
    Ok(marks)
}

fn param_of(
    btf: &Btf<'_>,
    ty: TypeId,
    position: usize,
    marks: Marks,
) -> Result<ExternParam, ExternError> {
    let place = Place::Param(position + 1);
    let misplaced = |tag: &str, reason| {
        Err(ExternError::Misplaced {
            tag: tag.to_owned(),
            place,
            reason,
        })
    };
    match btf.get(btf.resolve(ty)) {
        Type::Pointer { to } => {
            if marks.size {
                return misplaced("sz", "it belongs to the parameter that holds the size");
            }
            if !marks.string {
                return Ok(ExternParam::AppPointer {
                    nullable: marks.nullable,
                });
            }
            match btf.get(btf.resolve(*to)) {
                Type::Int { size: 1, .. } => Ok(ExternParam::ConstString {
                    nullable: marks.nullable,
                }),
                _ => misplaced("str", "it is no pointer to characters"),
            }
        }
        Type::Int {
            size: size @ (1 | 2 | 4 | 8),
            ..
        }
        | Type::Enum {
            size: size @ (1 | 2 | 4 | 8),
            ..
        } => {
            if marks.string {
                return misplaced("str", "it is no pointer");
            }
            if marks.nullable {
                return misplaced("nullable", "it is no pointer");
            }
            // The callee widens a narrow one by itself, by its sign: 200 in a char would become a huge number.
            if marks.size && *size < 4 {
                return misplaced("sz", "its type has fewer than 4 bytes");
            }
            Ok(ExternParam::Scalar { bytes: *size as u8 })
        }
        _ => Err(ExternError::ParamType {
            number: position + 1,
            ty: btf.spell(ty),
        }),
    }
}

/// `__sz` makes the pointer just before it memory of ours.
fn size_of_param_before(
    btf: &Btf<'_>,
    before_type: Option<TypeId>,
    before: Option<&mut ExternParam>,
    position: usize,
) -> Result<(), ExternError> {
    let misplaced = |reason| {
        Err(ExternError::Misplaced {
            tag: "sz".to_owned(),
            place: Place::Param(position + 1),
            reason,
        })
    };
    let readonly = match before_type.map(|ty| btf.get(btf.resolve(ty))) {
        Some(Type::Pointer { to }) => btf.is_const(*to),
        Some(_) | None => return misplaced("there is no pointer just before it"),
    };
    match before {
        Some(param @ ExternParam::AppPointer { .. }) => {
            let nullable = matches!(param, ExternParam::AppPointer { nullable: true });
            *param = ExternParam::SizedMemory {
                size: position as u8,
                nullable,
                readonly,
            };
            Ok(())
        }
        Some(ExternParam::ConstString { .. }) => misplaced("the pointer before it is a string"),
        Some(ExternParam::Scalar { .. } | ExternParam::SizedMemory { .. }) | None => {
            misplaced("there is no pointer just before it")
        }
    }
}

fn ret_of(btf: &Btf<'_>, ty: TypeId) -> Result<ExternRet, ExternError> {
    match btf.get(btf.resolve(ty)) {
        Type::Void => Ok(ExternRet::Void),
        Type::Pointer { .. } => Ok(ExternRet::Scalar {
            bytes: 8,
            signed: false,
        }),
        Type::Int {
            size: size @ (1 | 2 | 4 | 8),
            signed,
            ..
        }
        | Type::Enum {
            size: size @ (1 | 2 | 4 | 8),
            signed,
            ..
        } => Ok(ExternRet::Scalar {
            bytes: *size as u8,
            signed: *signed,
        }),
        _ => Err(ExternError::ReturnType { ty: btf.spell(ty) }),
    }
}
