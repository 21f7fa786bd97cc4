//! A case file: what it expects, and the programs that it stands for.
//!
//! The head comment has lines `key: value`:
//!
//! ```text
//! subject:  the register or variable that the rejection names
//! must:     part of what must hold
//! known:    part of what is known
//! hint:     part of the hint (optional)
//! policy:   allow-write, max-steps N, max-visits N (optional)
//! warning:  part of a warning that the accepted form gives (optional)
//! ```
//! `HERE` in a comment marks the line that must be named. C cases are built by `upatch build`, the twin with `-DMENDED`.
//! Assembled cases read as a diff: a line that begins with `-` is in the failing form only, one with `+` in the twin only;
//! every instruction gets the line number it has in the file.

use std::path::{Path, PathBuf};

use upatch::build::{BuildRequest, build};
use upatch::object::{PatchObject, link};
use upatch_verifier::{Policy, Program, assemble};

/// Which form of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// As it stands.
    Failing,
    /// Mended.
    Mended,
}

/// A case file.
pub(crate) struct Case {
    path: PathBuf,
    text: String,
}

impl Case {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    /// Values of a key in the head comment.
    pub(crate) fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter_map(move |line| {
            let line = line.trim_start_matches(['/', '*', '#', ' ', '\t']);
            line.strip_prefix(key)?.strip_prefix(':').map(str::trim)
        })
    }

    pub(crate) fn value(&self, key: &str) -> Result<&str, String> {
        self.text
            .lines()
            .find_map(|line| {
                let line = line.trim_start_matches(['/', '*', '#', ' ', '\t']);
                line.strip_prefix(key)?.strip_prefix(':').map(str::trim)
            })
            .ok_or_else(|| format!("the case has no `{key}:`"))
    }

    /// The marked line, from 1.
    pub(crate) fn marked_line(&self) -> Result<u32, String> {
        let mut marked = (1u32..).zip(self.text.lines()).filter(|(_, line)| {
            line.rsplit_once("/*")
                .or_else(|| line.rsplit_once('#'))
                .is_some_and(|(_, comment)| comment.contains("HERE"))
        });
        match (marked.next(), marked.next()) {
            (Some((line, _)), None) => Ok(line),
            _ => Err("the case must mark one line with HERE in a comment".to_owned()),
        }
    }

    pub(crate) fn policy(&self) -> Result<Policy, String> {
        let mut policy = Policy::default();
        for item in self.values("policy") {
            let number = |text: &str| {
                text.trim()
                    .parse::<u64>()
                    .map_err(|error| error.to_string())
            };
            if item == "allow-write" {
                policy.allow_write = true;
            } else if let Some(value) = item.strip_prefix("max-steps") {
                policy.max_steps = number(value)?;
            } else if let Some(value) = item.strip_prefix("max-visits") {
                policy.max_visits = number(value)?;
            } else {
                return Err(format!("unknown policy `{item}`"));
            }
        }
        Ok(policy)
    }

    /// The programs of one form; several in one C file are several programs.
    pub(crate) fn programs(&self, form: Form) -> Result<Vec<Program>, String> {
        if self.path.extension().is_some_and(|end| end == "c") {
            self.compile(form)
        } else {
            self.assemble(form).map(|program| vec![program])
        }
    }

    fn compile(&self, form: Form) -> Result<Vec<Program>, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let output = folder.path().join("case.o");
        let clang_args = match form {
            Form::Failing => vec!["-Wno-everything".into()],
            Form::Mended => vec!["-Wno-everything".into(), "-DMENDED".into()],
        };
        build(&BuildRequest {
            source: self.path.clone(),
            output: Some(output.clone()),
            clang_args,
        })
        .map_err(|error| format!("{form:?} form does not build: {error}"))?;
        let bytes = std::fs::read(&output).map_err(|error| error.to_string())?;
        let object =
            PatchObject::parse(&bytes).map_err(|error| format!("{form:?} form: {error}"))?;
        object
            .programs()
            .iter()
            .map(|program| {
                link(&object, program).map_err(|error| format!("{form:?} form: {error}"))
            })
            .collect()
    }

    fn assemble(&self, form: Form) -> Result<Program, String> {
        let mut text = String::new();
        for (number, line) in (1u32..).zip(self.text.lines()) {
            let line = match (line.strip_prefix('-'), line.strip_prefix('+'), form) {
                (Some(rest), _, Form::Failing) | (_, Some(rest), Form::Mended) => rest,
                (Some(_), _, Form::Mended) | (_, Some(_), Form::Failing) => continue,
                (None, None, Form::Failing | Form::Mended) => line,
            };
            let code = line.split('#').next().unwrap_or_default().trim();
            let is_insn = !code.is_empty() && !code.starts_with('.') && !code.ends_with(':');
            if is_insn {
                text.push_str(&format!(".line case.s:{number} {code}\n"));
            }
            text.push_str(line);
            text.push('\n');
        }
        assemble(&text).map_err(|error| format!("{form:?} form: {error}\n{text}"))
    }
}
