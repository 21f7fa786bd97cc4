//! Finds a clang that can compile patches: 19 or newer, with the BPF target.
//!
//! Nothing is remembered between calls. `UPATCH_CLANG` names the one to use; then no other is tried.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The first version with addr_space_cast and may_goto.
pub(crate) const OLDEST: u32 = 19;
/// Environment variable with the compiler's name or path.
pub(crate) const VARIABLE: &str = "UPATCH_CLANG";
/// Where to look without it; the tested version first.
const NAMES: [&str; 5] = ["clang-19", "clang", "clang-22", "clang-21", "clang-20"];

/// A usable compiler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clang {
    /// Name or path, as it is started.
    pub path: PathBuf,
    /// First line of `--version`.
    pub version: String,
}

/// Why there is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClangError {
    /// None of the names starts.
    #[error("no clang {OLDEST} or newer found (tried {tried})")]
    NotFound {
        /// What was tried, with what was found instead.
        tried: String,
    },
    /// The named one doesn't start.
    #[error("`{path}` ({VARIABLE}) does not start: {reason}")]
    NotStarted {
        /// The name.
        path: String,
        /// Why.
        reason: String,
    },
    /// The named one is no clang, or too old.
    #[error("`{path}` ({VARIABLE}) is {found}, not clang {OLDEST} or newer")]
    Unusable {
        /// The name.
        path: String,
        /// What it says it is.
        found: String,
    },
}

impl Clang {
    /// The compiler that `chosen` names, or the first usable one of the usual names.
    ///
    /// # Errors
    /// What was tried, and what was wrong with it.
    pub fn find(chosen: Option<&OsStr>) -> Result<Self, ClangError> {
        if let Some(path) = chosen.filter(|path| !path.is_empty()) {
            let shown = Path::new(path).display().to_string();
            return match ask(path) {
                Ok(version) if is_usable(&version) => Ok(Self {
                    path: path.into(),
                    version,
                }),
                Ok(found) => Err(ClangError::Unusable { path: shown, found }),
                Err(reason) => Err(ClangError::NotStarted {
                    path: shown,
                    reason: reason.to_string(),
                }),
            };
        }
        let mut tried = Vec::new();
        for name in NAMES {
            match ask(OsStr::new(name)) {
                Ok(version) if is_usable(&version) => {
                    return Ok(Self {
                        path: name.into(),
                        version,
                    });
                }
                Ok(version) => tried.push(format!("{name}: {version}")),
                Err(_) => tried.push(name.to_owned()),
            }
        }
        Err(ClangError::NotFound {
            tried: tried.join(", "),
        })
    }

    /// As [`Self::find`], with the environment's choice.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn from_env() -> Result<Self, ClangError> {
        let chosen: Option<OsString> = std::env::var_os(VARIABLE);
        Self::find(chosen.as_deref())
    }
}

fn ask(path: &OsStr) -> std::io::Result<String> {
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// `Debian clang version 19.1.7 (3~deb12u1)`: the number behind `clang version` is at least [`OLDEST`].
fn is_usable(version: &str) -> bool {
    version
        .split_once("clang version ")
        .and_then(|(_, rest)| {
            rest.split(|letter: char| !letter.is_ascii_digit())
                .next()?
                .parse::<u32>()
                .ok()
        })
        .is_some_and(|major| major >= OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert!(is_usable("Debian clang version 19.1.7 (3~deb12u1)"));
        assert!(is_usable("clang version 20.0.0git"));
        assert!(!is_usable("Debian clang version 14.0.6"));
        assert!(!is_usable("gcc (Debian 12.2.0-14) 12.2.0"));
        assert!(!is_usable("clang version "));
        assert!(!is_usable(""));
    }

    #[test]
    fn a_chosen_compiler_is_the_only_one_tried() {
        let error = Clang::find(Some(OsStr::new("/nonexistent/clang"))).unwrap_err();
        assert!(matches!(error, ClangError::NotStarted { .. }), "{error}");
        let error = Clang::find(Some(OsStr::new("echo"))).unwrap_err();
        // What echo makes of --version differs: coreutils' answers it, a shell's repeats it.
        assert!(matches!(error, ClangError::Unusable { .. }), "{error}");
    }
}
