//! Applying a sample to a process with the `upatch` program, reading its counters, and taking it off again.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSegment, ObjectSymbol};
use serde_json::Value;

use super::{Scratch, changed_text};
use crate::build_id_of;
use crate::upatch::{build_sample, succeed};

/// The longest change that one patch makes to a function's entry: a jump with a 32-bit distance.
const JUMP: u64 = 5;

/// The function that a sample patches, in the file that the process runs.
#[derive(Debug, Clone)]
pub struct Site {
    /// The module's file.
    pub file: PathBuf,
    /// The address in the file, for stripped programs; else the patch's section names the function.
    pub offset: Option<u64>,
    /// Where in the file the function's first byte lies.
    pub file_offset: u64,
}

impl Site {
    /// A function by its symbol, dynamic or not.
    ///
    /// # Errors
    /// The file can't be read or has no such symbol.
    pub fn function(file: &Path, name: &str) -> Result<Self> {
        let bytes = std::fs::read(file)?;
        let elf = object::File::parse(&*bytes)?;
        let symbol = elf
            .dynamic_symbols()
            .chain(elf.symbols())
            .find(|symbol| symbol.name() == Ok(name) && symbol.is_definition());
        let address = symbol
            .with_context(|| format!("no {name} in {}", file.display()))?
            .address();
        Ok(Self {
            file: file.to_owned(),
            offset: None,
            file_offset: file_offset(&elf, address)?,
        })
    }

    /// A function by its address in the file (an SVMA).
    ///
    /// # Errors
    /// The file can't be read or has nothing there.
    pub fn address(file: &Path, address: u64) -> Result<Self> {
        let bytes = std::fs::read(file)?;
        let elf = object::File::parse(&*bytes)?;
        Ok(Self {
            file: file.to_owned(),
            offset: Some(address),
            file_offset: file_offset(&elf, address)?,
        })
    }

    /// Where in the file the patch may change bytes.
    fn window(&self) -> Range<u64> {
        self.file_offset..self.file_offset + JUMP
    }
}

fn file_offset(elf: &object::File<'_>, address: u64) -> Result<u64> {
    elf.segments()
        .find(|segment| (segment.address()..segment.address() + segment.size()).contains(&address))
        .map(|segment| address - segment.address() + segment.file_range().0)
        .with_context(|| format!("{address:#x} lies in no segment"))
}

/// A sample that is in a process.
#[derive(Debug)]
pub struct Applied {
    pid: u32,
    file: PathBuf,
    /// The command line that applied it, as a user would type it.
    pub command: String,
    /// How long the whole command took.
    pub took: Duration,
    /// What it answered.
    pub answer: Value,
}

/// Builds samples/SAMPLE/patch.c and applies it to the process.
///
/// # Errors
/// `upatch` fails or refuses, or changes any text of the module besides the site's first five bytes.
pub fn apply(sample: &str, pid: u32, site: Site, scratch: &Scratch) -> Result<Applied> {
    apply_with(sample, pid, site, scratch, &[])
}

/// As [`apply`], with more options for `upatch apply`.
///
/// # Errors
/// As [`apply`].
pub fn apply_with(
    sample: &str,
    pid: u32,
    site: Site,
    scratch: &Scratch,
    options: &[&str],
) -> Result<Applied> {
    apply_several(sample, pid, &[site], scratch, options)
}

/// As [`apply_with`], for a sample that patches several functions of one module.
///
/// # Errors
/// As [`apply`], and when one of the sites is not changed.
pub fn apply_several(
    sample: &str,
    pid: u32,
    sites: &[Site],
    scratch: &Scratch,
    options: &[&str],
) -> Result<Applied> {
    let file = sites.first().context("no site")?.file.clone();
    let object = build_sample(sample, scratch.path())?;
    let build_id = build_id_of(&file)?;
    let mut args: Vec<OsString> = vec!["apply".into(), "--pid".into(), pid.to_string().into()];
    args.extend(["--build-id".into(), build_id.into()]);
    if let [
        Site {
            offset: Some(offset),
            ..
        },
    ] = sites
    {
        args.extend(["--offset".into(), format!("{offset:#x}").into()]);
    }
    args.extend(options.iter().map(OsString::from));
    args.push(object.into());
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let command = format!("upatch {}", words.join(" "));
    let start = Instant::now();
    let answer = succeed(&args)?;
    let took = start.elapsed();
    let changed = changed_text(pid, &file)?;
    for site in sites {
        ensure!(
            changed.iter().any(|at| site.window().contains(at)),
            "applied, but {:#x} in {} is as before",
            site.file_offset,
            file.display()
        );
    }
    let ours = |at: &u64| sites.iter().any(|site| site.window().contains(at));
    ensure!(
        changed.iter().all(ours),
        "text changed outside the sites of {}: {changed:x?}",
        file.display()
    );
    let applied = Applied {
        pid,
        file,
        command,
        took,
        answer,
    };
    let states = applied.states()?;
    ensure!(
        states == ["applied"],
        "applied, but upatch status says {states:?}"
    );
    Ok(applied)
}

impl Applied {
    /// Reads one counter with `upatch telemetry dump`.
    ///
    /// # Errors
    /// `upatch` fails, or shows no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let dump = self.telemetry()?;
        number(&dump, name)
    }

    /// All that `upatch telemetry dump` shows.
    ///
    /// # Errors
    /// `upatch` fails.
    pub fn telemetry(&self) -> Result<Value> {
        succeed(&["telemetry", "dump", "--pid", &self.pid.to_string()])
    }

    /// What `upatch status` says about each patch: `applied`, `retired`, …
    ///
    /// # Errors
    /// `upatch` fails.
    pub fn states(&self) -> Result<Vec<String>> {
        let status = succeed(&["status", "--pid", &self.pid.to_string()])?;
        let patches = status["patches"]
            .as_array()
            .context("no patches in the status")?;
        Ok(patches
            .iter()
            .map(|patch| patch["state"].as_str().unwrap_or("?").to_owned())
            .collect())
    }

    /// Takes the patch off and returns what `upatch revert` answered.
    ///
    /// # Errors
    /// `upatch` fails, or the module's text is not what its file holds.
    pub fn revert(self) -> Result<Value> {
        let answer = succeed(&["revert", "--pid", &self.pid.to_string()])?;
        let changed = changed_text(self.pid, &self.file)?;
        ensure!(
            changed.is_empty(),
            "reverted, but {} differs at {changed:x?}",
            self.file.display()
        );
        // An image that calls functions of the program stays mapped: a suspended context may return into it.
        let states = self.states()?;
        ensure!(
            states.iter().all(|state| state == "retired"),
            "reverted, but upatch status says {states:?}"
        );
        Ok(answer)
    }
}

fn number(dump: &Value, name: &str) -> Result<u64> {
    let patches = dump["patches"]
        .as_array()
        .context("no patches in the telemetry")?;
    let values: Vec<u64> = patches
        .iter()
        .filter_map(|patch| patch["globals"][name].as_u64())
        .collect();
    match values[..] {
        [value] => Ok(value),
        _ => anyhow::bail!("not exactly one counter {name} in {dump:#}"),
    }
}
