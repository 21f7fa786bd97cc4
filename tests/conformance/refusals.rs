//! Which cases one engine refuses or gets wrong for reasons of its own.
//!
//! A line is `NAME: why`, for the kernel part of what its verifier must say; `#` begins a comment. Every line must name a
//! case.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;

pub(crate) struct Refusals {
    listed: BTreeMap<String, String>,
    used: Mutex<BTreeSet<String>>,
}

impl Refusals {
    pub(crate) fn parse(text: &str) -> Result<Self, io::Error> {
        let mut listed = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, part) = line.split_once(':').ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("no colon in: {line}"))
            })?;
            listed.insert(name.trim().to_owned(), part.trim().to_owned());
        }
        Ok(Self {
            listed,
            used: Mutex::default(),
        })
    }

    /// What stands behind this case, if it is listed.
    pub(crate) fn of(&self, name: &str) -> Option<&str> {
        let part = self.listed.get(name)?;
        if let Ok(mut used) = self.used.lock() {
            used.insert(name.to_owned());
        }
        Some(part)
    }

    /// Names that were never looked up.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let used = self.used.lock();
        let is_used = |name: &str| used.as_ref().is_ok_and(|used| used.contains(name));
        let names = self.listed.keys().map(String::as_str);
        names.filter(|name| !is_used(name)).collect()
    }
}
