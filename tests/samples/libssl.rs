//! A program that admits TLS 1.0 and 1.1, and shall not: the handshakes are real.

use anyhow::Result;
use upatch_tests::child::{Answer, Driver};
use upatch_tests::samples::{Scratch, Site, apply, ssl_driver};

use crate::{expect, package};

/// What a context asks for, and what it gets.
const OLD: [(&str, &str); 2] = [("TLSv1", "TLSv1"), ("TLSv1_1", "TLSv1.1")];

fn expect_old_versions(driver: &mut Driver) -> Result<()> {
    for (version, agreed) in OLD {
        expect(
            driver,
            &format!("handshake {version}"),
            &Answer::line(agreed),
        )?;
        expect(
            driver,
            &format!("minimum {version}"),
            &Answer::line(version),
        )?;
    }
    expect(
        driver,
        "minimum MINIMUM_SUPPORTED",
        &Answer::line("MINIMUM_SUPPORTED"),
    )?;
    expect(driver, "handshake TLSv1_2", &Answer::line("TLSv1.2"))
}

#[test]
fn admits_old_versions_without_patch() -> Result<()> {
    let Some(python) = package("libssl::admits_old_versions_without_patch", "python") else {
        return Ok(());
    };
    expect_old_versions(&mut ssl_driver(&python)?)
}

#[test]
fn story() -> Result<()> {
    let Some(python) = package("libssl::story", "python") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = ssl_driver(&python)?;
    expect_old_versions(&mut driver)?;

    let site = Site::function(&python.library("libssl.so.3"), "SSL_CTX_ctrl")?;
    let patch = apply("libssl", driver.pid(), site, &scratch)?;
    let mut raised = 0;
    for (version, _) in OLD {
        // What the client is told by the server's alert is the server's own reason here: both are one process.
        let refused = Answer::line("refused: UNSUPPORTED_PROTOCOL");
        expect(&mut driver, &format!("handshake {version}"), &refused)?;
        expect(
            &mut driver,
            &format!("minimum {version}"),
            &Answer::line("TLSv1_2"),
        )?;
        raised += 2;
    }
    expect(
        &mut driver,
        "minimum MINIMUM_SUPPORTED",
        &Answer::line("TLSv1_2"),
    )?;
    raised += 1;
    assert_eq!(patch.counter("raised")?, raised);
    let before = patch.counter("hits")?;
    expect(&mut driver, "handshake TLSv1_2", &Answer::line("TLSv1.2"))?;
    assert_eq!(patch.counter("raised")?, raised);
    assert!(patch.counter("hits")? > before, "the patch saw no context");

    patch.revert()?;
    expect_old_versions(&mut driver)
}
