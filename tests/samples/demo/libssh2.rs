//! A library whose caller crashes it; the patch turns the crash into an error code.

use std::fs;

use anyhow::{Result, ensure};
use upatch_tests::child::Answer;
use upatch_tests::packages::Package;
use upatch_tests::samples::{Scratch, Site, apply, libssh2_driver};
use upatch_tests::upatch::repository;

use crate::teller::{Label, Teller, millis, shortened};
use crate::{Outcome, is};

pub(crate) fn act(teller: &Teller, package: &Package) -> Result<Outcome> {
    let crash = Answer::Signal(libc::SIGSEGV);
    let wrapping = "call 0xfffffff0";
    let scratch = Scratch::new()?;
    let root = package.file("usr/lib/x86_64-linux-gnu");
    let folders = [scratch.path(), &root];

    teller.title(
        "1. libssh2 1.10: a length wraps, and the program that uses it crashes (CVE-2026-7598)",
    );
    let mut victim = libssh2_driver(package, &scratch)?;
    is(&victim.ask(wrapping)?, &crash)?;
    teller.line(
        Label::Before,
        "login with a user name of 0xfffffff0 bytes: killed by SIGSEGV",
    );
    let source = repository().join("samples/libssh2/patch.c");
    teller.source("libssh2", &fs::read_to_string(&source)?);
    let object = scratch.path().join("libssh2.o");
    let build = [&source, &object].map(|path| path.display().to_string());
    teller.run(
        "build",
        &["build", &build[0], "-o", &build[1]],
        &[scratch.path(), &repository()],
    )?;

    let mut client = libssh2_driver(package, &scratch)?;
    is(&client.ask("call 5")?, &Answer::line("rc -7"))?;
    let site = Site::function(
        &package.library("libssh2.so.1"),
        "libssh2_userauth_password_ex",
    )?;
    let patch = apply("libssh2", client.pid(), site, &scratch)?;
    teller.command("apply", &shortened(&patch.command, &folders));
    teller.line(
        Label::Note,
        &format!("in a process that runs already, in {}", millis(patch.took)),
    );
    is(&client.ask(wrapping)?, &Answer::line("rc -14"))?;
    teller.line(
        Label::After,
        "the same login: an error, LIBSSH2_ERROR_PROTO (-14); the process lives",
    );
    is(&client.ask("call 5")?, &Answer::line("rc -7"))?;
    teller.line(
        Label::Note,
        "a user name of 5 bytes: the same answer as ever",
    );
    let pid = client.pid().to_string();
    teller.run("counters", &["telemetry", "dump", "--pid", &pid], &folders)?;
    let (calls, refused, took) = (
        patch.counter("hits")?,
        patch.counter("refused")?,
        patch.took,
    );
    ensure!(
        (calls, refused) == (2, 1),
        "{calls} calls and {refused} refused instead of 2 and 1"
    );

    patch.revert()?;
    teller.command("revert", &format!("upatch revert --pid {}", client.pid()));
    is(&client.ask(wrapping)?, &crash)?;
    teller.line(Label::AsBefore, "the wrong length: killed by SIGSEGV");
    Ok(Outcome {
        program: "libssh2",
        function: "libssh2_userauth_password_ex",
        calls,
        refused,
        took,
    })
}
