//! CVE-2026-59846: a user name that a shell would run is accepted.

use anyhow::Result;
use upatch_tests::child::{Answer, Driver};
use upatch_tests::samples::{Scratch, Site, apply, libssh_driver};

use crate::{expect, package};

/// What is said, and what the session calls its user then. The fixed library refuses all of these.
const UNWANTED: [(&str, &str); 17] = [
    ("user a;touch /tmp/x", "a;touch /tmp/x"),
    ("user $(id)", "$(id)"),
    ("user `id`", "`id`"),
    ("user a|b", "a|b"),
    ("user a&b", "a&b"),
    ("user a<b", "a<b"),
    ("user a>b", "a>b"),
    ("user ${IFS}", "${IFS}"),
    ("user 'a", "'a"),
    ("user \"a", "\"a"),
    ("user a,b", "a,b"),
    ("user DOMAIN\\user", "DOMAIN\\user"),
    ("user PRINTER$", "PRINTER$"),
    ("user -oProxyCommand", "-oProxyCommand"),
    ("user a -b", "a -b"),
    ("user a\t-b", "a\t-b"),
    ("host `id`@example.org", "`id`"),
];

/// The fixed library accepts all of these.
const WANTED: [(&str, &str); 8] = [
    ("user alice", "alice"),
    ("user first.last-2_x", "first.last-2_x"),
    ("user with space", "with space"),
    ("user a- b", "a- b"),
    ("user a!#%*~=+?[]^b", "a!#%*~=+?[]^b"),
    ("user bob@example.org", "bob@example.org"),
    ("host bob@example.org", "bob"),
    ("host [::1]", "-"),
];

fn expect_accepted(driver: &mut Driver, names: &[(&str, &str)]) -> Result<()> {
    for (command, user) in names {
        expect(driver, command, &accepted(user))?;
    }
    Ok(())
}

fn accepted(user: &str) -> Answer {
    Answer::line(&format!("rc 0 user {user}"))
}

#[test]
fn accepts_without_patch() -> Result<()> {
    let Some(package) = package("libssh_user::accepts_without_patch", "libssh") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = libssh_driver(&package, &scratch)?;
    expect_accepted(&mut driver, &UNWANTED)?;
    expect_accepted(&mut driver, &WANTED)
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("libssh_user::story", "libssh") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = libssh_driver(&package, &scratch)?;
    let site = Site::function(&package.library("libssh.so.4"), "ssh_options_set")?;
    expect_accepted(&mut driver, &UNWANTED)?;
    let local = driver.ask("user")?;
    let longest = "x".repeat(254);
    let too_long = "x".repeat(255);

    let patch = apply("libssh_user", driver.pid(), site, &scratch)?;
    let refused = Answer::line("rc -1 user -");
    for (command, _) in UNWANTED {
        expect(&mut driver, command, &refused)?;
    }
    expect_accepted(&mut driver, &WANTED)?;
    // NULL, an empty name and another option are the library's own business.
    expect(&mut driver, "user", &local)?;
    expect(&mut driver, "user ", &refused)?;
    expect(&mut driver, "port 22", &accepted("-"))?;
    expect(&mut driver, &format!("user {longest}"), &accepted(&longest))?;
    expect(&mut driver, &format!("user {too_long}"), &refused)?;
    let unwanted = u64::try_from(UNWANTED.len())? + 1;
    // Some options are set by way of others, so calls are more than commands.
    let commands = unwanted + u64::try_from(WANTED.len())? + 4;
    let hits = patch.counter("hits")?;
    assert!(hits >= commands, "{hits} calls for {commands} commands");
    assert_eq!(patch.counter("refused")?, unwanted);

    patch.revert()?;
    expect(&mut driver, "user", &local)?;
    expect(
        &mut driver,
        &format!("user {too_long}"),
        &accepted(&too_long),
    )?;
    expect_accepted(&mut driver, &UNWANTED)?;
    expect_accepted(&mut driver, &WANTED)
}
