//! Demangled names, bounded: a hostile symbol can't make us write or recurse without end.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// Longest mangled name that is looked at (templates of Boost reach 4 KiB and more).
const MAX_MANGLED: usize = 16 << 10;
/// Longest demangled name.
const MAX_DEMANGLED: usize = 64 << 10;
const MAX_DEPTH: u32 = 96;

/// Text that refuses to grow beyond [`MAX_DEMANGLED`].
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// Is `wanted` what a reader calls the symbol: the demangled name with or without parameters (C++), or with or without the hash
/// at the end (Rust)?
pub(crate) fn is_called(mangled: &[u8], wanted: &str) -> bool {
    let Ok(name) = std::str::from_utf8(mangled) else {
        return false;
    };
    if name.len() > MAX_MANGLED || !plausible(name, wanted) {
        return false;
    }
    if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        let mut short = Bounded::default();
        let mut long = Bounded::default();
        if write!(short, "{symbol:#}").is_ok() && short.0 == wanted {
            return true;
        }
        if write!(long, "{symbol}").is_ok() && long.0 == wanted {
            return true;
        }
    }
    // gcc's clones (`.cold`, `.isra.0`, `.constprop.0`) are parts, or take other arguments: never what is meant.
    let parse = ParseOptions::default().recursion_limit(MAX_DEPTH);
    let Ok(symbol) = Symbol::new_with_options(name.as_bytes(), &parse) else {
        return false;
    };
    if name.contains('.') {
        return false;
    }
    let print = |options: DemangleOptions| {
        let mut text = Bounded::default();
        symbol
            .structured_demangle(&mut text, &options.recursion_limit(MAX_DEPTH))
            .is_ok()
            .then_some(text.0)
    };
    let full = DemangleOptions::new();
    let same = |text: String| text == wanted || without_abi_tags(&text) == wanted;
    print(full.no_params().no_return_type()).is_some_and(same)
        || print(full.no_return_type()).is_some_and(same)
        || print(full).is_some_and(same)
}

/// Without `[abi:cxx11]` and the like, which nobody writes in a source.
fn without_abi_tags(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once("[abi:") {
        plain.push_str(before);
        rest = tag.split_once(']').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// Cheap test before the dear one: a mangled name spells every identifier of the demangled name, unless it repeats one.
fn plausible(mangled: &str, wanted: &str) -> bool {
    let prefix = ["_Z", "__Z", "_R", "__R", "___Z"]
        .iter()
        .any(|prefix| mangled.starts_with(prefix));
    let last = wanted
        .split('(')
        .next()
        .unwrap_or_default()
        .rsplit("::")
        .next()
        .unwrap_or_default();
    let word: String = last
        .chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect();
    prefix
        && (last.starts_with("operator")
            || last.contains('{')
            || mangled.contains(&word)
            || word.is_empty())
}

/// The demangled name, if the symbol is a mangled one.
#[must_use]
pub fn readable(name: &str) -> Option<String> {
    if name.len() > MAX_MANGLED {
        return None;
    }
    let mut text = Bounded::default();
    if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        return write!(text, "{symbol:#}").is_ok().then_some(text.0);
    }
    let parse = ParseOptions::default().recursion_limit(MAX_DEPTH);
    let symbol = Symbol::new_with_options(name.as_bytes(), &parse).ok()?;
    symbol
        .structured_demangle(
            &mut text,
            &DemangleOptions::new().recursion_limit(MAX_DEPTH),
        )
        .ok()?;
    Some(text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_readers_write_them() {
        let cpp = b"_ZN3app5Store3getEiPKc";
        for name in ["app::Store::get", "app::Store::get(int, char const*)"] {
            assert!(is_called(cpp, name), "{name}");
        }
        assert!(!is_called(cpp, "app::Store"));
        let legacy = b"_ZN3app5store3get17h0123456789abcdefE";
        assert!(is_called(legacy, "app::store::get"));
        assert!(is_called(legacy, "app::store::get::h0123456789abcdef"));
        assert!(is_called(b"_RNvNtCs1234_3app5store3get", "app::store::get"));
        assert!(!is_called(b"main", "main"));
        let tagged = b"_ZN4llvm6Triple9normalizeB5cxx11ENS_9StringRefE";
        assert!(is_called(tagged, "llvm::Triple::normalize"));
        assert!(is_called(
            tagged,
            "llvm::Triple::normalize(llvm::StringRef)"
        ));
        assert!(is_called(tagged, "llvm::Triple::normalize[abi:cxx11]"));
        for part in [".cold", ".isra.0", ".constprop.0"] {
            let clone = format!("_ZN3app5Store3getEiPKc{part}");
            assert!(!is_called(clone.as_bytes(), "app::Store::get"), "{part}");
        }
        assert!(is_called(b"_ZN3app5StoreC2Ei", "app::Store::Store"));
        assert!(is_called(b"_ZN3app5StoreD2Ev", "app::Store::~Store"));
        assert_eq!(
            readable("_ZN3app5Store3getEiPKc").as_deref(),
            Some("app::Store::get(int, char const*)")
        );
        assert_eq!(readable("main"), None);
    }

    /// A name whose substitutions double at each step stays bounded.
    #[test]
    fn bombs_are_defused() {
        let mut name = String::from("_Z1fI1AE");
        for seed in 0..60 {
            let back = if seed == 0 {
                "S_".to_owned()
            } else {
                format!("S{}_", seed - 1)
            };
            name.push_str(&format!("1tI{back}{back}E"));
        }
        let _ = is_called(name.as_bytes(), "f");
        let _ = readable(&name);
        let deep = format!("_Z1f{}i", "P".repeat(16_000));
        let _ = readable(&deep);
        assert!(!is_called(deep.as_bytes(), "f()"));
    }
}
