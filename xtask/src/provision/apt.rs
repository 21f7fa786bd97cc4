//! Debian's package archive through apt-get: install as root, or only download and unpack as anybody.
//!
//! Decides which package lists are used: the system's when it has any, else our own below the target folder, where
//! no rights are needed. Invariant: a file is handed out only if it has the SHA-256 that was asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::process::{is_root, output, succeed};

/// For one apt-get; the largest package has 26 MB.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// So that a mirror that doesn't answer costs a minute, not an hour.
const NETWORK: [&str; 4] = [
    "-o",
    "Acquire::Retries=2",
    "-o",
    "Acquire::http::Timeout=30",
];

/// One package at one version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Name in the archive.
    pub(super) package: &'static str,
    /// Full version, with its epoch.
    pub(super) version: &'static str,
    /// Of the .deb file.
    pub(super) sha256: &'static str,
}

impl Row {
    /// One line for fingerprints: changes whenever the row does.
    pub(super) fn line(&self) -> String {
        format!("{} {} {}\n", self.package, self.version, self.sha256)
    }
}

/// Why a package is not there.
#[derive(Debug)]
pub(super) enum Unavailable {
    /// The archive's current list has no such version.
    Withdrawn(String),
    /// Anything else: no apt, no network, a wrong checksum.
    Failed(String),
}

impl Unavailable {
    /// The reason in words.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Withdrawn(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// The archive, with the package lists that are in use.
#[derive(Debug)]
pub(super) struct Archive {
    folder: PathBuf,
    /// Our own lists are in use instead of the system's.
    own_lists: bool,
    /// The lists in use were updated by us, just now; `Some(false)`: we tried and it failed.
    fresh: Option<bool>,
}

impl Archive {
    /// `folder` will hold downloads, and lists if the system's can't be used.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            own_lists: false,
            fresh: None,
        }
    }

    /// Installs packages on the system. Only root can.
    ///
    /// # Errors
    /// apt-get fails.
    pub(super) fn install(&mut self, packages: &[&str]) -> Result<()> {
        ensure!(is_root(), "only root can install {}", packages.join(" "));
        if !has_lists(Path::new("/var/lib/apt/lists")) {
            succeed(
                Command::new("apt-get").args(NETWORK).args(["-q", "update"]),
                LIMIT,
            )?;
        }
        let mut install = Command::new("apt-get");
        install
            .args(NETWORK)
            .args(["-q", "install", "--yes", "--no-install-recommends"])
            .args(packages);
        succeed(install.env("DEBIAN_FRONTEND", "noninteractive"), LIMIT)
    }

    /// Downloads a package and unpacks it over `root`.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub(super) fn unpack(&mut self, row: &Row, root: &Path) -> Result<(), Unavailable> {
        let deb = self.download(row)?;
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("-x").arg(&deb).arg(root);
        succeed(&mut dpkg, LIMIT).map_err(|error| Unavailable::Failed(format!("{error:#}")))
    }

    fn download(&mut self, row: &Row) -> Result<PathBuf, Unavailable> {
        let failed = |error: anyhow::Error| Unavailable::Failed(format!("{error:#}"));
        let folder = self.folder.join("debs").join(row.package);
        fs::create_dir_all(&folder).map_err(|error| Unavailable::Failed(error.to_string()))?;
        if let Some(deb) = downloaded(&folder, row).map_err(failed)? {
            return Ok(deb);
        }
        if !self.own_lists && !has_lists(Path::new("/var/lib/apt/lists")) {
            self.update().map_err(failed)?;
        }
        println!("fetching {} {}", row.package, row.version);
        let mut refusal = self.try_download(row, &folder).map_err(failed)?;
        if refusal.is_some() && self.fresh.is_none() {
            // The lists may be older than the archive: its point releases replace files.
            self.update().map_err(failed)?;
            refusal = self.try_download(row, &folder).map_err(failed)?;
        }
        if let Some(refusal) = refusal {
            let unknown =
                refusal.contains("was not found") || refusal.contains("Unable to locate package");
            let reason = format!("{} {}: {}", row.package, row.version, last_line(&refusal));
            let withdrawn = unknown && self.fresh == Some(true);
            return Err(if withdrawn {
                Unavailable::Withdrawn(reason)
            } else {
                Unavailable::Failed(reason)
            });
        }
        match downloaded(&folder, row).map_err(failed)? {
            Some(deb) => Ok(deb),
            None => Err(Unavailable::Failed(format!(
                "{} {} came with another SHA-256 than {}",
                row.package, row.version, row.sha256
            ))),
        }
    }

    /// `None` when apt-get is content, else what it said.
    fn try_download(&self, row: &Row, folder: &Path) -> Result<Option<String>> {
        let mut command = self.apt_get();
        command
            .args([
                "-q",
                "download",
                &format!("{}={}", row.package, row.version),
            ])
            .current_dir(folder);
        let (status, said) = output(&mut command)?;
        Ok(if status.success() { None } else { Some(said) })
    }

    /// Fetches the package lists into our own folder. Never touches the system's.
    fn update(&mut self) -> Result<()> {
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder.join(sub))?;
        }
        self.own_lists = true;
        println!("fetching Debian's package lists");
        let (status, said) = output(self.apt_get().args(["-q", "update"]))?;
        // A foreign source that fails makes apt-get say so on a line that begins with E: and exit with 100.
        self.fresh = Some(status.success() && !said.contains("Failed to fetch"));
        if self.fresh == Some(false) {
            eprintln!("apt-get update: {}", last_line(&said));
        }
        Ok(())
    }

    fn apt_get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(NETWORK).env("LC_ALL", "C");
        if is_root() {
            // The target folder is seldom searchable for apt's own user; without this it warns and does the same.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        if self.own_lists {
            for (option, folder) in [("Dir::State::lists", "lists"), ("Dir::Cache", "cache")] {
                command
                    .arg("-o")
                    .arg(format!("{option}={}", self.folder.join(folder).display()));
            }
        }
        command
    }
}

/// The .deb in `folder` if it is the wanted one; any other is removed.
fn downloaded(folder: &Path, row: &Row) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let digest = Sha256::digest(fs::read(&path)?);
            if digest
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                == row.sha256
            {
                return Ok(Some(path));
            }
            fs::remove_file(&path)?;
        }
    }
    Ok(None)
}

fn has_lists(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rfind(|line| line.starts_with("E:"))
        .or(text.lines().last())
        .unwrap_or("no reason given")
}
