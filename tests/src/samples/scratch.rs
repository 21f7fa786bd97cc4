//! A folder for one program, usable by the ordinary user that it runs as, and the compiled drivers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Gid, Uid, User, chown};

use crate::child;
use crate::upatch::repository;

/// A folder below the system's temporary folder; removed when dropped. Root gives it to `nobody`, as whom servers run.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    owner: Owner,
}

/// Whom a scratch folder belongs to: an ordinary user, `None` for the one who runs the tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner(Option<(Uid, Gid)>);

impl Owner {
    /// Makes `command` run as this user.
    pub(super) fn run<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if let Some((uid, gid)) = self.0 {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }

    /// Gives a file or folder to this user.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.0 {
            chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

impl Scratch {
    /// Makes the folder.
    ///
    /// # Errors
    /// The folder can't be made, or root finds no user `nobody`.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("upatch-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()?;
        let owner = if Uid::effective().is_root() {
            let nobody = User::from_name("nobody")?.context("no user called nobody")?;
            Owner(Some((nobody.uid, nobody.gid)))
        } else {
            Owner(None)
        };
        owner.give(folder.path())?;
        Ok(Self { folder, owner })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether servers must give up root's rights.
    pub fn is_root(&self) -> bool {
        self.owner.0.is_some()
    }

    /// The ordinary user, for commands that are started when this value is out of reach.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// Makes `command` run as the ordinary user that owns the folder, in it.
    pub fn as_ordinary_user<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        self.owner.run(command).current_dir(self.path())
    }

    /// Compiles tests/victims/NAME.c into the folder.
    ///
    /// # Errors
    /// There is no C compiler, or it refuses.
    pub fn compile(&self, name: &str) -> Result<PathBuf> {
        let program = self.path().join(name);
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program);
        cc.arg(repository().join("tests/victims").join(format!("{name}.c")))
            .arg("-ldl");
        let compiled = child::run(&mut cc, Duration::from_secs(60))?;
        ensure!(compiled.code == 0, "cc {name}.c: {}", compiled.stderr);
        Ok(program)
    }
}
