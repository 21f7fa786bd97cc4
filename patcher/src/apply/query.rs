//! Which place of the process is meant: what the object's section says, and what the operator says over it.

use crate::object::ObjectProgram;
use crate::target::{BadBuildId, BuildIdPrefix, Svma, TargetQuery};

/// What the operator said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Override {
    /// `--function`: `FUNCTION` or `MODULE:FUNCTION`.
    pub function: Option<String>,
    /// `--offset`: an address in the module's file.
    pub address: Option<u64>,
    /// `--build-id`, as typed.
    pub build_ids: Vec<String>,
}

/// Why no place is meant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueryError {
    /// A build-id that is none.
    #[error("{0}")]
    BadBuildId(BadBuildId),
    /// A function that is none.
    #[error("`{text}` names no function: {reason}")]
    BadFunction {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Section and command line name different modules.
    #[error("the section is about module `{section}`, --function about `{flag}`")]
    Contradiction {
        /// From the section.
        section: String,
        /// From the command line.
        flag: String,
    },
}

/// Puts both together: the command line wins, but may not speak of another module than the section.
///
/// # Errors
/// See [`QueryError`].
pub fn query(
    program: &ObjectProgram,
    object_ids: &[String],
    operator: &Override,
) -> Result<TargetQuery, QueryError> {
    let ids = if operator.build_ids.is_empty() {
        object_ids
    } else {
        &operator.build_ids
    };
    let build_ids = ids
        .iter()
        .map(|text| {
            text.parse::<BuildIdPrefix>()
                .map_err(QueryError::BadBuildId)
        })
        .collect::<Result<_, _>>()?;
    let section = program.target.as_ref();
    let mut query = TargetQuery {
        module: section.map(|target| target.module.clone()),
        function: section.map(|target| target.function.clone()),
        offset: section.map_or(0, |target| target.offset),
        address: operator.address.map(Svma),
        build_ids,
    };
    if let Some(text) = &operator.function {
        let function = match text
            .split_once(':')
            .filter(|(_, rest)| !rest.starts_with(':'))
        {
            Some((module, function)) => {
                match &query.module {
                    Some(section) if section != module => {
                        return Err(QueryError::Contradiction {
                            section: section.clone(),
                            flag: module.to_owned(),
                        });
                    }
                    Some(_) | None => query.module = Some(module.to_owned()),
                }
                function
            }
            None => text,
        };
        let bad = |reason| {
            Err(QueryError::BadFunction {
                text: text.clone(),
                reason,
            })
        };
        if function.is_empty() {
            return bad("the name is missing");
        }
        if is_offset(function) {
            return bad(
                "a place inside a function is given by the section, or by --offset with its address",
            );
        }
        query.function = Some(function.to_owned());
        query.offset = 0;
    }
    if let Some((name, address)) = query.function.as_deref().and_then(split_address) {
        query.address = query.address.or(Some(Svma(address)));
        query.function = name;
    }
    Ok(query)
}

/// Functions of stripped programs: `0xa790`, or `NAME@0xa790` with a name to call it by. A symbol's version is no number.
fn split_address(function: &str) -> Option<(Option<String>, u64)> {
    let (name, address) = match function.rsplit_once('@') {
        Some((name, address)) => (Some(name).filter(|name| !name.is_empty()), address),
        None => (None, function),
    };
    let digits = address.strip_prefix("0x")?;
    let address = u64::from_str_radix(digits, 16).ok()?;
    Some((name.map(str::to_owned), address))
}

/// Does the name end in `+NUMBER`, which only a section may say (it decides what the program may do)?
fn is_offset(function: &str) -> bool {
    let Some((_, digits)) = function.rsplit_once('+') else {
        return false;
    };
    let number = |digits: &str, radix: u32| {
        !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix))
    };
    digits
        .strip_prefix("0x")
        .map_or_else(|| number(digits, 10), |digits| number(digits, 16))
}

#[cfg(test)]
mod tests {
    use super::split_address;

    #[test]
    fn addresses_and_versions_are_told_apart() {
        let named = |name: &str, address| Some((Some(name.to_owned()), address));
        assert_eq!(split_address("0xa790"), Some((None, 0xa790)));
        assert_eq!(split_address("@0xa790"), Some((None, 0xa790)));
        assert_eq!(split_address("realtime@0xa790"), named("realtime", 0xa790));
        assert_eq!(split_address("f@V_1@0x10"), named("f@V_1", 0x10));
        for name in [
            "realtime",
            "f@GLIBC_2.2.5",
            "f@@V_1",
            "0x",
            "f@0x",
            "f@a790",
            "a790",
            "0xffffffffffffffffff",
            "@",
        ] {
            assert_eq!(split_address(name), None, "{name}");
        }
    }
}
