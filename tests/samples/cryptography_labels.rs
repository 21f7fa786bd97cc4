//! CVE-2022-3786: a certificate chain whose names decode to more than their buffer holds.

use anyhow::Result;
use upatch_tests::child::{Answer, Driver};
use upatch_tests::samples::{Scratch, Site, apply, cryptography_driver, cryptography_library};

use crate::{expect, package};

const CRASH: Answer = Answer::Signal(libc::SIGSEGV);
/// Permitted names with nothing but short labels: only together do they overflow.
const CRAFTED: [&str; 2] = [
    "chain xn--a.*2000 example.org",
    "chain .xn--a.*2000 example.org",
];

fn expect_sound(driver: &mut Driver) -> Result<()> {
    let ok = Answer::line("ok");
    expect(driver, "chain example.org example.org", &ok)?;
    expect(driver, "chain xn--mnchen-3ya.de münchen.de", &ok)?;
    let other = Answer::line("refused: permitted subtree violation");
    expect(driver, "chain xn--mnchen-3ya.de munchen.de", &other)?;
    expect(driver, "chain example.com example.org", &other)
}

#[test]
fn crashes_without_patch() -> Result<()> {
    let test = "cryptography_labels::crashes_without_patch";
    let (Some(python), Some(wheels)) = (package(test, "python"), package(test, "cryptography"))
    else {
        return Ok(());
    };
    for command in CRAFTED {
        let mut driver = cryptography_driver(&python, &wheels)?;
        expect_sound(&mut driver)?;
        expect(&mut driver, command, &CRASH)?;
    }
    Ok(())
}

#[test]
fn story() -> Result<()> {
    let test = "cryptography_labels::story";
    let (Some(python), Some(wheels)) = (package(test, "python"), package(test, "cryptography"))
    else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut driver = cryptography_driver(&python, &wheels)?;
    let site = Site::function(&cryptography_library(&wheels), "ossl_a2ulabel")?;
    expect_sound(&mut driver)?;

    let patch = apply("cryptography_labels", driver.pid(), site, &scratch)?;
    expect_sound(&mut driver)?;
    let (hits, none) = (patch.counter("hits")?, patch.counter("refused")?);
    assert_eq!((hits, none), (4, 0));
    let refused = Answer::line("refused: unspecified certificate verification error");
    // One label too long, as for CVE-2022-3602; one and many that might just not fit. Counted are 4 bytes for each behind "xn-".
    let mut crafted = CRAFTED.map(str::to_owned).to_vec();
    crafted.push(format!("chain xn--{} example.org", "a".repeat(600)));
    crafted.push(format!("chain xn--{} example.org", "a".repeat(62)));
    crafted.push("chain xn--a.*22 example.org".to_owned());
    for command in &crafted {
        expect(&mut driver, command, &refused)?;
    }
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (9, 5));
    let other = Answer::line("refused: permitted subtree violation");
    let label = "a".repeat(61);
    expect(
        &mut driver,
        &format!("chain xn--{label} example.org"),
        &other,
    )?;
    expect(&mut driver, "chain xn--a.*21 example.org", &other)?;
    assert_eq!((patch.counter("hits")?, patch.counter("refused")?), (11, 5));

    patch.revert()?;
    expect_sound(&mut driver)?;
    expect(&mut driver, CRAFTED[0], &CRASH)
}
