//! CVE-2026-66373: a dump of a stream whose parts contradict each other is restored, and crashes the server later.

use anyhow::{Result, bail, ensure};
use upatch_tests::samples::{Redis, Reply, Scratch, Site, apply, without_consumer};

use crate::package;

fn ok() -> Reply {
    Reply::Text("OK".to_owned())
}

/// A sound dump of a stream, and one whose pending entry belongs to no consumer.
fn dumps(redis: &mut Redis) -> Result<(Vec<u8>, Vec<u8>)> {
    redis.command(&[b"XADD", b"s", b"1-1", b"f", b"v"])?;
    redis.command(&[b"XGROUP", b"CREATE", b"s", b"g", b"0"])?;
    redis.command(&[
        b"XREADGROUP",
        b"GROUP",
        b"g",
        b"c",
        b"COUNT",
        b"1",
        b"STREAMS",
        b"s",
        b">",
    ])?;
    let Reply::Bytes(sound) = redis.command(&[b"DUMP", b"s"])? else {
        bail!("DUMP gave no dump")
    };
    let corrupt = without_consumer(&sound)?;
    Ok((sound, corrupt))
}

fn expect(redis: &mut Redis, words: &[&[u8]], expected: &Reply) -> Result<()> {
    let reply = redis.command(words)?;
    ensure!(
        reply == *expected,
        "{}: {reply:?}",
        String::from_utf8_lossy(words[0])
    );
    Ok(())
}

/// The corrupt stream is accepted, and asking for its pending entries ends the server.
fn expect_crash(redis: &mut Redis, corrupt: &[u8]) -> Result<()> {
    expect(
        redis,
        &[b"RESTORE", b"corrupt", b"0", corrupt, b"REPLACE"],
        &ok(),
    )?;
    expect(
        redis,
        &[b"XPENDING", b"corrupt", b"g", b"-", b"+", b"10"],
        &Reply::Closed,
    )?;
    redis.crashed()
}

#[test]
fn accepts_corrupt_stream_without_patch() -> Result<()> {
    let Some(package) = package("redis::accepts_corrupt_stream_without_patch", "redis") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut redis = Redis::start(&package, &scratch)?;
    let (_, corrupt) = dumps(&mut redis)?;
    expect_crash(&mut redis, &corrupt)
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("redis::story", "redis") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut redis = Redis::start(&package, &scratch)?;
    let (sound, corrupt) = dumps(&mut redis)?;
    expect(&mut redis, &[b"SET", b"text", b"hello"], &ok())?;
    let Reply::Bytes(text) = redis.command(&[b"DUMP", b"text"])? else {
        bail!("DUMP gave no dump")
    };
    expect(&mut redis, &[b"RESTORE", b"before", b"0", &corrupt], &ok())?;
    expect(
        &mut redis,
        &[b"DEL", b"before"],
        &Reply::Text("1".to_owned()),
    )?;

    let site = Site::function(redis.program(), "restoreCommand")?;
    let patch = apply("redis", redis.pid(), site, &scratch)?;
    let error = Reply::Error("ERR RESTORE of a stream is switched off by a live patch".to_owned());
    expect(
        &mut redis,
        &[b"RESTORE", b"corrupt", b"0", &corrupt],
        &error,
    )?;
    expect(
        &mut redis,
        &[b"EXISTS", b"corrupt"],
        &Reply::Text("0".to_owned()),
    )?;
    // The patch can't tell a sound stream from a corrupt one: its cost, as its README says.
    expect(&mut redis, &[b"RESTORE", b"copy", b"0", &sound], &error)?;
    // Everything else is restored as ever, and wrong usage is still the command's own business.
    expect(&mut redis, &[b"RESTORE", b"copy", b"0", &text], &ok())?;
    expect(
        &mut redis,
        &[b"GET", b"copy"],
        &Reply::Bytes(b"hello".to_vec()),
    )?;
    let truncated = redis.command(&[b"RESTORE", b"other", b"0", b""])?;
    ensure!(
        truncated == Reply::Error("ERR DUMP payload version or checksum are wrong".to_owned()),
        "{truncated:?}"
    );
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (4, 2));

    patch.revert()?;
    expect(&mut redis, &[b"RESTORE", b"stream", b"0", &sound], &ok())?;
    expect_crash(&mut redis, &corrupt)
}
