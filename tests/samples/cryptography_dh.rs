//! CVE-2023-3446: checking a long Diffie-Hellman modulus takes seconds.

use anyhow::{Context, Result, ensure};
use upatch_tests::child::{Answer, Driver};
use upatch_tests::samples::{
    Scratch, Site, apply_with, changed_text, cryptography_driver, cryptography_library,
};
use upatch_tests::upatch::{build_sample, run_json};

use crate::package;

/// Far above what a refusal takes, in milliseconds of processor time, and far below what the test of a long modulus does.
const QUICK: u64 = 40;
const UNSUITABLE: &str = "refused: DH private numbers did not pass safety checks.";

/// The answer, and how many milliseconds of processor time it took.
fn check(driver: &mut Driver, modulus: &str) -> Result<(String, u64)> {
    let Answer::Line(line) = driver.ask(&format!("dh {modulus}"))? else {
        anyhow::bail!("the driver is gone");
    };
    let (answer, time) = line.rsplit_once(' ').context(line.clone())?;
    Ok((answer.to_owned(), time.parse()?))
}

fn expect_slow(driver: &mut Driver) -> Result<()> {
    let (answer, time) = check(driver, "12000")?;
    ensure!(answer == UNSUITABLE, "{answer}");
    ensure!(
        time > 4 * QUICK,
        "the long modulus was checked in {time} ms"
    );
    Ok(())
}

fn expect_usual(driver: &mut Driver) -> Result<()> {
    let (answer, _) = check(driver, "group14")?;
    ensure!(answer == "ok", "{answer}");
    let (answer, _) = check(driver, "1536")?;
    ensure!(answer == UNSUITABLE, "{answer}");
    Ok(())
}

#[test]
fn takes_long_without_patch() -> Result<()> {
    let test = "cryptography_dh::takes_long_without_patch";
    let (Some(python), Some(wheels)) = (package(test, "python"), package(test, "cryptography"))
    else {
        return Ok(());
    };
    let mut driver = cryptography_driver(&python, &wheels)?;
    expect_usual(&mut driver)?;
    expect_slow(&mut driver)
}

#[test]
fn story() -> Result<()> {
    let test = "cryptography_dh::story";
    let (Some(python), Some(wheels)) = (package(test, "python"), package(test, "cryptography"))
    else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = cryptography_driver(&python, &wheels)?;
    let site = Site::function(&cryptography_library(&wheels), "DH_check")?;
    expect_usual(&mut driver)?;
    expect_slow(&mut driver)?;

    // It writes the caller's result, which must be allowed.
    let object = build_sample("cryptography_dh", scratch.path())?;
    let pid = driver.pid().to_string();
    let (code, refusal) = run_json(&["apply", "--pid", &pid, &object.to_string_lossy()])?;
    ensure!(code == 3, "not refused: {refusal:#}");
    assert!(changed_text(driver.pid(), &site.file)?.is_empty());

    let patch = apply_with(
        "cryptography_dh",
        driver.pid(),
        site,
        &scratch,
        &["--allow-write"],
    )?;
    for modulus in ["12000", "10049"] {
        let (answer, time) = check(&mut driver, modulus)?;
        ensure!(answer == UNSUITABLE, "{answer}");
        ensure!(time < QUICK, "refused after {time} ms");
    }
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (2, 2));
    expect_usual(&mut driver)?;
    // Long, and not too long.
    let (_, time) = check(&mut driver, "10048")?;
    ensure!(time > QUICK, "checked in {time} ms");
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (5, 2));

    patch.revert()?;
    expect_usual(&mut driver)?;
    expect_slow(&mut driver)
}
