//! Three commands of a busy server are switched off together, and one by one on again, by rules.

use anyhow::{Result, ensure};
use upatch_tests::samples::{Redis, Reply, Scratch, Site, apply_several};
use upatch_tests::upatch::succeed;

use crate::package;

const SCRIPT: &[&[u8]] = &[b"EVAL", b"return redis.call('KEYS', '*')", b"0"];

fn text(text: &str) -> Reply {
    Reply::Text(text.to_owned())
}

fn refused(reply: &Reply, command: &str) -> bool {
    let words = format!("{command} is switched off by a live patch");
    matches!(reply, Reply::Error(error) if error.contains(&words))
}

fn expect_keys(redis: &mut Redis) -> Result<()> {
    let one = Reply::Many(vec![Reply::Bytes(b"k".to_vec())]);
    for words in [&[b"KEYS".as_slice(), b"*"], SCRIPT] {
        let reply = redis.command(words)?;
        ensure!(reply == one, "KEYS: {reply:?}");
    }
    Ok(())
}

fn expect_all_allowed(redis: &mut Redis) -> Result<()> {
    ensure!(redis.command(&[b"SET", b"k", b"v"])? == text("OK"), "SET");
    expect_keys(redis)?;
    let slept = redis.command(&[b"DEBUG", b"SLEEP", b"0"])?;
    ensure!(slept == text("OK"), "DEBUG: {slept:?}");
    let flushed = redis.command(&[b"FLUSHALL"])?;
    ensure!(flushed == text("OK"), "FLUSHALL: {flushed:?}");
    ensure!(redis.command(&[b"DBSIZE"])? == text("0"), "keys are left");
    ensure!(redis.command(&[b"SET", b"k", b"v"])? == text("OK"), "SET");
    Ok(())
}

fn set(redis: &Redis, rule: &str) -> Result<()> {
    succeed(&["rules", "set", "--pid", &redis.pid().to_string(), rule]).map(|_| ())
}

#[test]
fn allows_without_patch() -> Result<()> {
    let Some(package) = package("redis_lockdown::allows_without_patch", "redis") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    expect_all_allowed(&mut Redis::start(&package, &scratch)?)
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("redis_lockdown::story", "redis") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut redis = Redis::start(&package, &scratch)?;
    expect_all_allowed(&mut redis)?;

    let functions = ["keysCommand", "flushallCommand", "debugCommand"];
    let sites: Vec<Site> = functions
        .iter()
        .map(|function| Site::function(redis.program(), function))
        .collect::<Result<_>>()?;
    let patch = apply_several("redis_lockdown", redis.pid(), &sites, &scratch, &[])?;
    let commands: [(&str, &[&[u8]]); 4] = [
        ("KEYS", &[b"KEYS", b"*"]),
        ("KEYS", SCRIPT),
        ("FLUSHALL", &[b"FLUSHALL"]),
        ("DEBUG", &[b"DEBUG", b"SLEEP", b"0"]),
    ];
    for (command, words) in commands {
        let reply = redis.command(words)?;
        ensure!(refused(&reply, command), "{command}: {reply:?}");
    }
    let kept = redis.command(&[b"GET", b"k"])?;
    ensure!(kept == Reply::Bytes(b"v".to_vec()), "the key: {kept:?}");
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (4, 4));

    // One switch, and the others stay as they are.
    set(&redis, "refuse_keys=0")?;
    expect_keys(&mut redis)?;
    let reply = redis.command(&[b"FLUSHALL"])?;
    ensure!(refused(&reply, "FLUSHALL"), "FLUSHALL: {reply:?}");
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (7, 5));
    set(&redis, "refuse_keys=1")?;
    let reply = redis.command(&[b"KEYS", b"*"])?;
    ensure!(refused(&reply, "KEYS"), "KEYS: {reply:?}");
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (8, 6));

    patch.revert()?;
    expect_all_allowed(&mut redis)
}
