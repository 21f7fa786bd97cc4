//! Only the hosts of a list are resolved, and the list is edited while the patch runs. No name here needs a network.

use anyhow::Result;
use upatch_tests::child::{Answer, Driver};
use upatch_tests::samples::{Scratch, Site, apply, libc_driver, libc_file};
use upatch_tests::upatch::{run_json, succeed};

use crate::expect;

/// getaddrinfo(3): the name doesn't exist.
const NONAME: &str = "failed -2";

fn resolves(driver: &mut Driver, hosts: &[&str], answer: &str) -> Result<()> {
    for host in hosts {
        expect(driver, &format!("resolve {host}"), &Answer::line(answer))?;
    }
    Ok(())
}

const ALL: [&str; 5] = ["127.0.0.1", "127.0.0.2", "127.1", "::1", "0x7f.1"];

#[test]
fn resolves_without_patch() -> Result<()> {
    let scratch = Scratch::new()?;
    resolves(&mut libc_driver(&scratch)?, &ALL, "ok")
}

#[test]
fn story() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut driver = libc_driver(&scratch)?;
    let pid = driver.pid().to_string();
    let set = |assignments: &[&str]| {
        succeed(&[&["rules", "set", "--pid", &pid][..], assignments].concat())
    };
    resolves(&mut driver, &ALL, "ok")?;

    let site = Site::function(&libc_file()?, "getaddrinfo")?;
    let patch = apply("getaddrinfo", driver.pid(), site, &scratch)?;
    resolves(&mut driver, &["127.0.0.1"], "ok")?;
    resolves(&mut driver, &ALL[1..], NONAME)?;
    expect(&mut driver, "listen", &Answer::line("ok"))?;
    // What is longer than any host name.
    resolves(&mut driver, &[&"1".repeat(127), &"1".repeat(300)], NONAME)?;
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (8, 6));

    let longest = "a".repeat(64);
    set(&[
        "hosts[2]=::1",
        "hosts[3]=\"127.0.0.2\"",
        &format!("hosts[15]={longest}"),
    ])?;
    resolves(&mut driver, &["127.0.0.1", "127.0.0.2", "::1"], "ok")?;
    resolves(&mut driver, &["127.1", "0x7f.1", ""], NONAME)?;
    let (code, answer) = run_json(&[
        "rules",
        "set",
        "--pid",
        &pid,
        &format!("hosts[1]={longest}a"),
    ])?;
    assert_ne!(code, 0, "{answer}");
    set(&["hosts[1]=\"\""])?;
    resolves(&mut driver, &["127.0.0.1"], NONAME)?;
    // Two edits, one of several entries at once: each leaves an even number behind.
    let all = succeed(&["rules", "get", "--pid", &pid])?;
    let all = &all["patches"][0]["rules"];
    assert!(
        all["hosts"].is_array() && all["hosts_generation"].is_null(),
        "{all:#}"
    );
    let rules = succeed(&["rules", "get", "--pid", &pid, "hosts_generation"])?;
    assert_eq!(
        rules["patches"][0]["rules"]["hosts_generation"], 4,
        "{rules:#}"
    );

    // An editor that died half-way leaves it odd: nothing is allowed until somebody edits again.
    set(&["hosts_generation=5"])?;
    resolves(&mut driver, &["127.0.0.2", "::1"], NONAME)?;
    set(&["hosts[1]=127.1"])?;
    resolves(&mut driver, &["127.0.0.2", "::1", "127.1"], "ok")?;
    let rules = succeed(&["rules", "get", "--pid", &pid, "hosts_generation"])?;
    assert_eq!(
        rules["patches"][0]["rules"]["hosts_generation"], 8,
        "{rules:#}"
    );

    patch.revert()?;
    resolves(&mut driver, &ALL, "ok")
}
