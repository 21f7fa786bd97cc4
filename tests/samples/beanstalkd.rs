//! What producers may put is bounded in a stripped server that would lose its jobs by a restart, and rules change it while it runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use upatch_tests::samples::{Beanstalkd, Producer, Scratch, Site, apply};
use upatch_tests::upatch::succeed;

use crate::package;

/// Where `make_job_with_id` is in Debian's beanstalkd 1.12-2+b1, which has no symbols: the patch's section says so too.
const MAKE_JOB: u64 = 0x48b0;

const DAY: u64 = 86400;
const HOUR: u64 = 3600;

fn expect(producer: &mut Producer, tube: &str, delay: u64, ttr: u64) -> Result<()> {
    let job = producer.made(tube, u32::MAX, u32::MAX, 100)?;
    ensure!(
        (job.delay, job.ttr) == (delay, ttr),
        "{tube}: {job:?}, not {delay} and {ttr}"
    );
    Ok(())
}

fn expect_unbounded(producer: &mut Producer) -> Result<()> {
    let all = u64::from(u32::MAX);
    expect(producer, "mail", all, all)?;
    producer.made("mail", 0, 60, 20_000).map(|_| ())
}

/// The server says that it has no memory, and understands what follows.
fn expect_refused(producer: &mut Producer, tube: &str, size: usize) -> Result<()> {
    let answer = producer.put(tube, 0, 60, size)?;
    ensure!(
        answer == Err("OUT_OF_MEMORY".to_owned()),
        "{size} bytes for {tube}: {answer:?}"
    );
    producer.made(tube, 5, 60, 100).map(|_| ())
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("beanstalkd::story", "beanstalkd") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let server = Beanstalkd::start(&package, &scratch)?;
    let mut producer = server.connect()?;
    expect_unbounded(&mut producer)?;
    // Within all bounds, before, during and after.
    let stop = AtomicBool::new(false);
    let mut busy = server.connect()?;
    thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| -> Result<u64> {
            let mut jobs = 0;
            while !stop.load(Ordering::Relaxed) {
                let job = busy.made("busy", 10, 60, 8)?;
                ensure!((job.delay, job.ttr) == (10, 60), "under load: {job:?}");
                jobs += 1;
            }
            Ok(jobs)
        });
        let result = patched(&server, &mut producer, &scratch);
        stop.store(true, Ordering::Relaxed);
        let jobs = load
            .join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))??;
        ensure!(jobs > 0, "no load");
        result
    })?;
    expect_unbounded(&mut producer)
}

fn patched(server: &Beanstalkd, producer: &mut Producer, scratch: &Scratch) -> Result<()> {
    let site = Site {
        offset: None,
        ..Site::address(server.program(), MAKE_JOB)?
    };
    let patch = apply("beanstalkd", server.pid(), site, scratch)?;
    expect(producer, "mail", DAY, HOUR)?;
    let within = producer.made("mail", 10, 60, 16384)?;
    ensure!((within.delay, within.ttr) == (10, 60), "{within:?}");
    expect_refused(producer, "mail", 16385)?;
    let all = u64::from(u32::MAX);
    expect(producer, "archive", all, all)?;
    producer.made("archive", 0, 60, 20_000)?;

    let pid = server.pid().to_string();
    let set = |rules: &[&str]| succeed(&[&["rules", "set", "--pid", &pid], rules].concat());
    set(&["longest_ttr=120", "largest_body=10", "exempt[0]=\"\""])?;
    expect(producer, "a", DAY, 120).expect_err("100 bytes went in");
    set(&["largest_body=100", "exempt[3]=mail"])?;
    expect(producer, "archive", DAY, 120)?;
    expect(producer, "mail", all, all)?;

    let telemetry = patch.telemetry()?;
    let events = &telemetry["patches"][0]["events"];
    let limits: Vec<_> = events
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| {
            let value = &event["value"];
            (
                value["limit"].as_str().unwrap_or("?"),
                value["tube"].as_str().unwrap_or("?"),
                value["asked"].as_u64().unwrap_or(0),
            )
        })
        .collect();
    assert_eq!(
        limits,
        [
            ("DELAY", "mail", all),
            ("TTR", "mail", all),
            ("BODY", "mail", 16385),
            ("BODY", "a", 100),
            ("DELAY", "archive", all),
            ("TTR", "archive", all),
        ]
    );
    assert_eq!(patch.counter("shortened")?, 4);
    assert_eq!(patch.counter("refused")?, 2);
    patch.revert().map(|_| ())
}
