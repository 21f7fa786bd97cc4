//! The fetched lighttpd on a unix socket, and requests to it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Scratch;
use super::redis::connect;
use crate::child::Child;
use crate::packages::Package;

/// A running lighttpd that serves files.
#[derive(Debug)]
pub struct Lighttpd {
    child: Child,
    socket: PathBuf,
    program: PathBuf,
}

impl Lighttpd {
    /// Starts the server with a document root, an absolute path.
    ///
    /// # Errors
    /// It doesn't start or can't be reached.
    pub fn start(package: &Package, scratch: &Scratch, root: &Path) -> Result<Self> {
        let package = package.copy_to(scratch.path())?;
        let program = package.file("usr/sbin/lighttpd");
        let socket = scratch.path().join("lighttpd.sock");
        let configuration = scratch.path().join("lighttpd.conf");
        let lines = format!(
            "server.document-root = \"{}\"\nserver.bind = \"{}\"\n",
            root.display(),
            socket.display()
        );
        std::fs::write(&configuration, lines)?;
        let mut command = Command::new(&program);
        command
            .arg("-D")
            .arg("-f")
            .arg(&configuration)
            .arg("-m")
            .arg(package.file("usr/lib/lighttpd"))
            .env("LD_LIBRARY_PATH", package.library_path());
        scratch
            .as_ordinary_user(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = Child::spawn(&mut command)?;
        connect(&socket).context("lighttpd")?;
        Ok(Self {
            child,
            socket,
            program,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The server's executable.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Asks for a path, as it is spelt: the status.
    ///
    /// # Errors
    /// No answer in HTTP.
    pub fn status(&self, path: &str) -> Result<u16> {
        let mut connection = connect(&self.socket)?;
        write!(
            connection,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        Ok(status.with_context(|| answer.to_string())?.parse()?)
    }
}
