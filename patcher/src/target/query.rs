//! What an operator asks for: a module, a function or an address in it, and the build-ids it may have.

use super::address::Svma;
use super::build_id::BuildIdPrefix;

/// Which place of a process is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetQuery {
    /// Soname, file name or path as the process sees it; `exe` is the main program. Without it the build-id alone decides.
    pub module: Option<String>,
    /// Name as in the symbol table (`f`, `f@VERSION`, `f@@VERSION`); demangled names are looked up second.
    pub function: Option<String>,
    /// Bytes behind the function's entry.
    pub offset: u64,
    /// Stated address of the site (`--offset`); with a function too, both must agree where the function is known.
    pub address: Option<Svma>,
    /// Beginnings of build-ids, any of which the module may have; never empty in a query that resolves.
    pub build_ids: Vec<BuildIdPrefix>,
}

impl TargetQuery {
    /// The query for the entry of a function.
    #[must_use]
    pub fn function(module: Option<&str>, function: &str, build_ids: Vec<BuildIdPrefix>) -> Self {
        Self {
            module: module.map(str::to_owned),
            function: Some(function.to_owned()),
            build_ids,
            ..Self::default()
        }
    }
}
