//! Where the real programs lie that `cargo xtask provision` fetched.
//!
//! Decides where to look and whether a set is complete; doesn't fetch. Each set is one folder of unpacked Debian
//! packages, the program and the libraries that it needs; the files `NAME.ready` and `NAME.missing` beside it, written
//! last, say how the fetch went (xtask/src/provision/packages.rs writes them).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Why a set of packages can't be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Missing {
    /// The archive has replaced this version; nobody can fetch it there any more.
    #[error("the archive no longer offers it: {0}")]
    Withdrawn(String),
    /// Not tried, or the fetch failed.
    #[error("{0}")]
    NotFetched(String),
}

/// An unpacked set of packages.
#[derive(Debug, Clone)]
pub struct Package {
    root: PathBuf,
}

/// Folders of libraries in an unpacked Debian package, relative to its root.
const LIBRARY_FOLDERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

impl Package {
    /// Finds the set called `name` (xtask/src/provision names them).
    ///
    /// # Errors
    /// It was not fetched, or can't be any more.
    pub fn find(name: &str) -> Result<Self, Missing> {
        let folder = packages_folder();
        if folder.join(format!("{name}.ready")).is_file() {
            return Ok(Self {
                root: folder.join(name),
            });
        }
        match fs::read_to_string(folder.join(format!("{name}.missing"))) {
            Ok(text) => Err(match text.trim().strip_prefix("withdrawn: ") {
                Some(reason) => Missing::Withdrawn(reason.to_owned()),
                None => Missing::NotFetched(text.trim().to_owned()),
            }),
            Err(_) => Err(Missing::NotFetched(format!(
                "{name} was not fetched into {}: run `cargo xtask provision`",
                folder.display()
            ))),
        }
    }

    /// A file of the set, by its path in an installed system without the leading slash.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A library of the set, by its soname.
    pub fn library(&self, soname: &str) -> PathBuf {
        let candidates = LIBRARY_FOLDERS.map(|folder| self.root.join(folder).join(soname));
        let [usual, _] = &candidates;
        candidates
            .iter()
            .find(|path| path.exists())
            .unwrap_or(usual)
            .clone()
    }

    /// The value of `LD_LIBRARY_PATH` with which programs of the set find their libraries.
    pub fn library_path(&self) -> String {
        LIBRARY_FOLDERS
            .map(|folder| self.root.join(folder).display().to_string())
            .join(":")
    }

    /// A copy below `folder`, for programs that run as a user who can't search the checkout.
    ///
    /// # Errors
    /// The copy fails.
    pub fn copy_to(&self, folder: &Path) -> Result<Self> {
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&self.root)
            .arg(folder)
            .status()
            .context("running cp")?;
        anyhow::ensure!(
            copied.success(),
            "copying {} to {}",
            self.root.display(),
            folder.display()
        );
        let name = self.root.file_name().context("a set without a name")?;
        Ok(Self {
            root: folder.join(name),
        })
    }
}

/// `$UPATCH_PACKAGES`, else `upatch-packages` in cargo's target folder.
fn packages_folder() -> PathBuf {
    match env::var_os("UPATCH_PACKAGES") {
        Some(folder) => PathBuf::from(folder),
        None => target_folder().join("upatch-packages"),
    }
}

/// Cargo's target folder: test programs lie in TARGET/PROFILE/deps, other programs in TARGET/PROFILE.
pub fn target_folder() -> PathBuf {
    let profile = profile_folder();
    profile
        .parent()
        .map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

/// Cargo's folder for this profile, TARGET/debug or TARGET/release.
pub fn profile_folder() -> PathBuf {
    let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("target/debug/unknown"));
    let folder = program.parent().unwrap_or(Path::new("."));
    if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder).to_path_buf()
    } else {
        folder.to_path_buf()
    }
}
