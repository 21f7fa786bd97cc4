//! What tests need and a bare Debian lacks: a C compiler, clang 19, and the real programs that samples patch.
//!
//! Root installs compilers with apt-get; anybody else, and everything that is only patched, is unpacked below the
//! target folder. What is there already is not fetched again. A program that can't be fetched is not an error here:
//! the tests that need it say so.

mod apt;
mod clang;
mod headers;
mod packages;
mod python;
mod tools;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::target_folder;

/// What was found or fetched, for the programs that use it.
#[derive(Debug)]
pub(crate) struct Provided {
    clang: Option<PathBuf>,
    libbpf: Option<PathBuf>,
    bpftool: Option<PathBuf>,
    packages: PathBuf,
}

impl Provided {
    /// The environment variables that tell tests, and `upatch build`, where things are.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut variables = vec![("UPATCH_PACKAGES".into(), self.packages.clone().into())];
        if let Some(clang) = &self.clang {
            variables.push(("UPATCH_CLANG".into(), clang.clone().into()));
        }
        if let Some(include) = &self.libbpf {
            variables.push(("UPATCH_LIBBPF".into(), include.clone().into()));
        }
        if let Some(bpftool) = &self.bpftool {
            variables.push(("UPATCH_BPFTOOL".into(), bpftool.clone().into()));
        }
        variables
    }
}

/// `cargo xtask provision`
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "provision takes no arguments");
    let provided = everything()?;
    for (name, value) in provided.environment() {
        println!("{}={}", name.to_string_lossy(), value.to_string_lossy());
    }
    for (name, state) in packages::states(&provided.packages) {
        println!("{name}: {state}");
    }
    Ok(())
}

/// Installs packages on this system.
///
/// # Errors
/// We are not root, or apt-get fails.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    apt::Archive::new(&target_folder()?.join("upatch-apt")).install(packages)
}

/// Installs or fetches all that is not there yet.
///
/// # Errors
/// There is no clang 19 or no C compiler, and none could be had.
pub(crate) fn everything() -> Result<Provided> {
    let target = target_folder()?;
    let mut archive = apt::Archive::new(&target.join("upatch-apt"));
    let tools = target.join("upatch-tools");
    let clang = clang::provide(&mut archive, &tools)?;
    let libbpf = headers::provide(&mut archive, &tools);
    let bpftool = tools::provide(&mut archive, &tools);
    let packages = target.join("upatch-packages");
    packages::provide(&mut archive, &packages)?;
    python::provide(&mut archive, &packages)?;
    Ok(Provided {
        clang,
        libbpf,
        bpftool,
        packages,
    })
}
