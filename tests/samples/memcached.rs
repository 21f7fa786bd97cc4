//! Every expiry becomes at most a minute, on all threads of a stripped program, while clients keep it busy.

use anyhow::{Result, ensure};
use upatch_tests::samples::{Load, Memcached, Scratch, Session, Site, apply};

use crate::package;

/// Where `realtime` is in Debian's memcached 1.6.18-1, which has no symbols.
const REALTIME: u64 = 0xa790;

const HOUR: i64 = 3600;

/// One connection for each thread of the server, and more: it deals them out in turn.
fn sessions(server: &Memcached) -> Result<Vec<Session>> {
    (0..2 * Memcached::THREADS)
        .map(|_| server.connect())
        .collect()
}

fn time_to_live(session: &mut Session, expiry: i64) -> Result<Option<i64>> {
    session.set("key", expiry, "value")?;
    session.time_to_live("key")
}

fn expect_unbounded(sessions: &mut [Session]) -> Result<()> {
    for session in sessions {
        ensure!(
            time_to_live(session, 0)? == Some(-1),
            "an expiry of 0 is not for ever"
        );
        // The server's clock ticks once a second.
        let hour = time_to_live(session, HOUR)?;
        ensure!(
            hour.is_some_and(|seconds| (HOUR - 2..=HOUR).contains(&seconds)),
            "an hour became {hour:?}"
        );
    }
    Ok(())
}

#[test]
fn keeps_for_ever_without_patch() -> Result<()> {
    let Some(package) = package("memcached::keeps_for_ever_without_patch", "memcached") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let server = Memcached::start(&package, &scratch)?;
    expect_unbounded(&mut sessions(&server)?)
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("memcached::story", "memcached") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let server = Memcached::start(&package, &scratch)?;
    let mut sessions = sessions(&server)?;
    expect_unbounded(&mut sessions)?;
    // Expires within the minute anyway: passes the patch and is not clamped.
    let load = Load::start(&server, 2 * Memcached::THREADS, 30)?;

    let patch = apply(
        "memcached",
        server.pid(),
        Site::address(server.program(), REALTIME)?,
        &scratch,
    )?;
    let mut clamped = 0;
    for session in &mut sessions {
        for expiry in [0, 61, HOUR, 2_000_000_000] {
            let left = time_to_live(session, expiry)?;
            ensure!(
                left.is_some_and(|seconds| (58..=60).contains(&seconds)),
                "{expiry} became {left:?}"
            );
            clamped += 1;
        }
        let short = time_to_live(session, 20)?;
        ensure!(
            short.is_some_and(|seconds| (18..=20).contains(&seconds)),
            "20 became {short:?}"
        );
        ensure!(
            time_to_live(session, -1)?.is_none(),
            "a value with a negative expiry is there"
        );
    }
    let report = load.finish()?;
    assert!(report.requests > 0, "no load");
    assert_eq!(patch.counter("clamped")?, clamped);
    let hits = patch.counter("hits")?;
    assert!(
        hits > clamped && hits <= clamped * 6 / 4 + report.requests / 2,
        "{hits} hits, {report:?}"
    );

    let load = Load::start(&server, 2 * Memcached::THREADS, 30)?;
    patch.revert()?;
    load.finish()?;
    expect_unbounded(&mut sessions)
}
