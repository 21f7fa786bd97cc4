//! A server that accepts what will crash it; the patch answers with the server's own kind of error.

use anyhow::{Result, bail, ensure};
use upatch_tests::packages::Package;
use upatch_tests::samples::{Redis, Reply, Scratch, Site, apply, without_consumer};

use crate::teller::{Label, Teller, millis, shortened};
use crate::{Outcome, is};

/// Makes a stream with one pending entry, and of its dump one whose pending entry belongs to nobody.
fn corrupt_dump(server: &mut Redis) -> Result<Vec<u8>> {
    server.command(&[b"XADD", b"s", b"1-1", b"f", b"v"])?;
    server.command(&[b"XGROUP", b"CREATE", b"s", b"g", b"0"])?;
    let read: [&[u8]; 9] = [
        b"XREADGROUP",
        b"GROUP",
        b"g",
        b"c",
        b"COUNT",
        b"1",
        b"STREAMS",
        b"s",
        b">",
    ];
    server.command(&read)?;
    let Reply::Bytes(sound) = server.command(&[b"DUMP", b"s"])? else {
        bail!("DUMP gave no dump")
    };
    without_consumer(&sound)
}

pub(crate) fn act(teller: &Teller, package: &Package) -> Result<Outcome> {
    let ok = Reply::Text("OK".to_owned());
    let scratch = Scratch::new()?;
    let root = scratch.path().join("redis/usr/bin");
    let folders = [&root, scratch.path()];

    teller.title(
        "2. Redis 7.0: a corrupt dump is restored, and crashes the server later (CVE-2026-66373)",
    );
    let mut server = Redis::start(package, &scratch)?;
    let corrupt = corrupt_dump(&mut server)?;
    let restore: [&[u8]; 4] = [b"RESTORE", b"bad", b"0", &corrupt];
    is(&server.command(&restore)?, &ok)?;
    teller.line(
        Label::Before,
        "RESTORE of a stream with an entry that belongs to nobody: OK",
    );
    is(
        &server.command(&[b"DEL", b"bad"])?,
        &Reply::Text("1".to_owned()),
    )?;
    is(&server.command(&[b"SET", b"text", b"hello"])?, &ok)?;
    let Reply::Bytes(text) = server.command(&[b"DUMP", b"text"])? else {
        bail!("DUMP gave no dump")
    };

    let site = Site::function(server.program(), "restoreCommand")?;
    let patch = apply("redis", server.pid(), site, &scratch)?;
    teller.command("apply", &shortened(&patch.command, &folders));
    teller.line(
        Label::Note,
        &format!("in the running server, in {}", millis(patch.took)),
    );
    let Reply::Error(error) = server.command(&restore)? else {
        bail!("the corrupt dump was not refused")
    };
    teller.line(Label::After, "the same RESTORE on the same connection:");
    teller.line(Label::Note, &format!("-{error}"));
    is(&server.command(&[b"RESTORE", b"copy", b"0", &text])?, &ok)?;
    is(
        &server.command(&[b"GET", b"copy"])?,
        &Reply::Bytes(b"hello".to_vec()),
    )?;
    teller.line(
        Label::Note,
        "RESTORE of a string: OK, and its value is right",
    );
    let pid = server.pid().to_string();
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
    teller.command("revert", &format!("upatch revert --pid {}", server.pid()));
    is(&server.command(&restore)?, &ok)?;
    is(
        &server.command(&[b"XPENDING", b"bad", b"g", b"-", b"+", b"10"])?,
        &Reply::Closed,
    )?;
    server.crashed()?;
    teller.line(
        Label::AsBefore,
        "RESTORE: OK, and the first XPENDING on that stream crashes the server",
    );
    Ok(Outcome {
        program: "redis",
        function: "restoreCommand",
        calls,
        refused,
        took,
    })
}
