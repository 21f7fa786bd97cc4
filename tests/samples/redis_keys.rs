//! Keys that are not UTF-8 are refused, each other command and key works on.

use anyhow::{Result, ensure};
use upatch_tests::samples::{Redis, Reply, Scratch, Site, apply};

use crate::package;

fn ok() -> Reply {
    Reply::Text("OK".to_owned())
}

const NOT_UTF8: [&[u8]; 8] = [
    b"\xff",
    b"caf\xe9",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"cut short \xe2\x82",
    b"nul\0l",
    b"\0",
];

fn texts() -> [Vec<u8>; 7] {
    [
        b"".to_vec(),
        b"k".to_vec(),
        "caf\u{e9}".into(),
        "\u{20ac} \u{1f600}".into(),
        // Around the places where Redis keeps lengths in another way.
        vec![b'a'; 31],
        vec![b'a'; 32],
        vec![b'a'; 255],
    ]
}

fn expect_set(server: &mut Redis, key: &[u8]) -> Result<()> {
    ensure!(
        server.command(&[b"SET", key, b"value"])? == ok(),
        "SET {key:x?}"
    );
    let got = server.command(&[b"GET", key])?;
    ensure!(
        got == Reply::Bytes(b"value".to_vec()),
        "GET {key:x?}: {got:?}"
    );
    Ok(())
}

fn expect_all_set(server: &mut Redis) -> Result<()> {
    for key in NOT_UTF8 {
        expect_set(server, key)?;
    }
    for key in texts() {
        expect_set(server, &key)?;
    }
    expect_set(server, &[b'a'; 256])
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("redis_keys::story", "redis") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut server = Redis::start(&package, &scratch)?;
    expect_all_set(&mut server)?;

    let site = Site::function(server.program(), "setCommand")?;
    let patch = apply("redis_keys", server.pid(), site, &scratch)?;
    for key in NOT_UTF8 {
        let reply = server.command(&[b"SET", key, b"other"])?;
        let Reply::Error(error) = reply else {
            anyhow::bail!("SET {key:x?} was answered by {reply:?}")
        };
        ensure!(error.contains("UTF-8"), "{error}");
        // The command was not carried out.
        let got = server.command(&[b"GET", key])?;
        ensure!(
            got == Reply::Bytes(b"value".to_vec()),
            "GET {key:x?}: {got:?}"
        );
    }
    for key in texts() {
        expect_set(&mut server, &key)?;
    }
    for length in [256, 257, 70_000] {
        let reply = server.command(&[b"SET", &vec![b'a'; length], b"v"])?;
        ensure!(
            matches!(&reply, Reply::Error(error) if error.contains("255")),
            "{length}: {reply:?}"
        );
    }
    let renamed = server.command(&[b"RENAME", b"k", b"\xfe"])?;
    ensure!(renamed == ok(), "RENAME: {renamed:?}");
    assert_eq!(
        (
            patch.counter("hits")?,
            patch.counter("not_utf8")?,
            patch.counter("too_long")?
        ),
        (18, 8, 3)
    );

    patch.revert()?;
    expect_all_set(&mut server)
}
