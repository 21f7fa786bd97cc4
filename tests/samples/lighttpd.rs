//! What was deployed by mistake is served until the patch refuses it, first only reported, then by a list that is edited.

use anyhow::{Result, ensure};
use upatch_tests::samples::{Lighttpd, Scratch, Site, apply_with};
use upatch_tests::upatch::succeed;

use crate::package;

fn expect(server: &Lighttpd, path: &str, status: u16) -> Result<()> {
    let found = server.status(path)?;
    ensure!(found == status, "{path}: {found}, not {status}");
    Ok(())
}

/// All spellings of what is hidden.
const SPELLINGS: [&str; 5] = [
    "/.git/config",
    "/%2egit/config",
    "/..%2f.git/config",
    "//./.git//config",
    "/page/../.git/config",
];

#[test]
fn story() -> Result<()> {
    let Some(package) = package("lighttpd::story", "lighttpd") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let root = scratch.path().canonicalize()?.join("root");
    std::fs::create_dir_all(root.join(".git"))?;
    for file in ["page", ".git/config", ".gitignore", "x.git"] {
        std::fs::write(root.join(file), "text")?;
    }
    let server = Lighttpd::start(&package, &scratch, &root)?;
    let all = |status| -> Result<()> {
        for path in SPELLINGS {
            expect(&server, path, status)?;
        }
        for path in ["/page", "/.gitignore", "/x.git"] {
            expect(&server, path, 200)?;
        }
        expect(&server, "/missing", 404)
    };
    all(200)?;

    let patch = apply_with(
        "lighttpd",
        server.pid(),
        Site::function(server.program(), "stat_cache_get_entry")?,
        &scratch,
        &["--rule", "observe=true"],
    )?;
    all(200)?;
    let observed = patch.counter("refused")?;
    ensure!(observed >= 5, "{observed} observed");
    let pid = server.pid().to_string();
    let set = |rule: &str| succeed(&["rules", "set", "--pid", &pid, rule]);
    set("observe=false")?;
    all(403)?;
    let refused = patch.counter("refused")?;
    ensure!(refused >= observed + 5, "{refused} refused");
    let telemetry = patch.telemetry()?;
    let path = format!("{}/.git/config", root.display());
    assert_eq!(
        telemetry["patches"][0]["events"][0]["value"]["path"],
        path.get(..79).unwrap_or(&path)
    );
    set("hidden[4]=.gitignore")?;
    expect(&server, "/.gitignore", 403)?;
    set("hidden[4]=\"\"")?;
    all(403)?;

    patch.revert()?;
    all(200)
}
