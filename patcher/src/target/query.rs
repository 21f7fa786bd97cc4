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

/// The target in a section's name: `MODULE:FUNCTION[+OFFSET]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetName {
    /// Before the first colon.
    pub module: String,
    /// Up to the last `+`, if a number follows it.
    pub function: String,
    /// That number, or 0.
    pub offset: u64,
}

impl TargetName {
    /// Splits `MODULE:FUNCTION[+OFFSET]`; the offset is decimal or `0x…`, and `operator+` stays whole. `None` if a part is
    /// empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (module, rest) = text.split_once(':')?;
        let (function, offset) = match rest.rsplit_once('+') {
            Some((function, number)) => match number_of(number) {
                Some(offset) => (function, offset),
                None => (rest, 0),
            },
            None => (rest, 0),
        };
        let whole = !module.is_empty() && !function.is_empty();
        whole.then(|| Self {
            module: module.to_owned(),
            function: function.to_owned(),
            offset,
        })
    }
}

/// Decimal or `0x…` hexadecimal; no sign, no blanks.
fn number_of(text: &str) -> Option<u64> {
    let (digits, radix) = text
        .strip_prefix("0x")
        .map_or((text, 10), |digits| (digits, 16));
    let digits_only = !digits.is_empty() && digits.chars().all(|letter| letter.is_digit(radix));
    if digits_only {
        u64::from_str_radix(digits, radix).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_targets() {
        let name = |text: &str| {
            TargetName::parse(text).map(|name| (name.module, name.function, name.offset))
        };
        let is = |module: &str, function: &str, offset| {
            Some((module.to_owned(), function.to_owned(), offset))
        };
        assert_eq!(name("exe:main"), is("exe", "main", 0));
        assert_eq!(
            name("libc.so.6:memcpy@GLIBC_2.14+0x10"),
            is("libc.so.6", "memcpy@GLIBC_2.14", 16)
        );
        assert_eq!(name("/usr/bin/a:f+12"), is("/usr/bin/a", "f", 12));
        assert_eq!(name("a:ns::operator+"), is("a", "ns::operator+", 0));
        assert_eq!(name("a:ns::operator++4"), is("a", "ns::operator+", 4));
        assert_eq!(name("a:f+0xg"), is("a", "f+0xg", 0));
        assert_eq!(name("a:f++"), is("a", "f++", 0));
        for bad in ["", "a", ":f", "a:", "a:+4"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
