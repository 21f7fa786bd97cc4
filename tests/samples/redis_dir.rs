//! A server stays in the directories of a list, which is edited while it runs.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Result, ensure};
use upatch_tests::samples::{Redis, Reply, Scratch, Site, apply, libc_file};
use upatch_tests::upatch::succeed;

use crate::package;

fn set_dir(server: &mut Redis, directory: &str) -> Result<Reply> {
    server.command(&[b"CONFIG", b"SET", b"dir", directory.as_bytes()])
}

/// The directory is accepted, and the server is there.
fn expect_there(server: &mut Redis, directory: &str, real: &Path) -> Result<()> {
    let reply = set_dir(server, directory)?;
    ensure!(
        reply == Reply::Text("OK".to_owned()),
        "{directory}: {reply:?}"
    );
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", server.pid()))?;
    ensure!(
        cwd == real.canonicalize()?,
        "{directory} led to {}",
        cwd.display()
    );
    Ok(())
}

fn expect_refused(server: &mut Redis, directory: &str) -> Result<()> {
    let before = std::fs::read_link(format!("/proc/{}/cwd", server.pid()))?;
    let reply = set_dir(server, directory)?;
    ensure!(
        matches!(&reply, Reply::Error(error) if error.contains("Permission denied")),
        "{directory}: {reply:?}"
    );
    let after = std::fs::read_link(format!("/proc/{}/cwd", server.pid()))?;
    ensure!(before == after, "{directory} led to {}", after.display());
    Ok(())
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("redis_dir::story", "redis") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let base = scratch.path().canonicalize()?;
    let (data, inner, other) = (
        base.join("data"),
        base.join("data/inner"),
        base.join("data2"),
    );
    for folder in [&data, &inner, &other] {
        std::fs::create_dir(folder)?;
    }
    symlink("/etc", data.join("link"))?;
    let text = |path: &Path| path.display().to_string();
    let mut server = Redis::start(&package, &scratch)?;
    let traversal = format!("{}/../../../../etc", text(&data));
    expect_there(&mut server, "/etc", Path::new("/etc"))?;
    expect_there(&mut server, &traversal, Path::new("/etc"))?;
    expect_there(&mut server, &text(&data), &data)?;

    let patch = apply(
        "redis_dir",
        server.pid(),
        Site::function(&libc_file()?, "chdir")?,
        &scratch,
    )?;
    // Not yet on the list.
    expect_refused(&mut server, &text(&data))?;
    let pid = server.pid().to_string();
    succeed(&[
        "rules",
        "set",
        "--pid",
        &pid,
        &format!("directories[1]={}", text(&data)),
    ])?;
    expect_there(&mut server, &text(&data), &data)?;
    expect_there(&mut server, &text(&inner), &inner)?;
    expect_there(
        &mut server,
        &format!("/{}//./inner/./", text(&data)),
        &inner,
    )?;
    for refused in [
        "/etc".to_owned(),
        "/".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "inner".to_owned(),
        traversal.clone(),
        format!("{}/inner/..", text(&data)),
        text(&other),
        text(&base),
        format!("{}/{}", text(&data), "./".repeat(130)),
    ] {
        expect_refused(&mut server, &refused)?;
    }
    // What the page says that it doesn't cover.
    expect_there(&mut server, &text(&data.join("link")), Path::new("/etc"))?;
    succeed(&["rules", "set", "--pid", &pid, "directories[1]=\"\""])?;
    expect_refused(&mut server, &text(&data))?;
    assert!(patch.counter("refused")? >= 12);
    assert!(patch.counter("hits")? >= patch.counter("refused")? + 4);

    patch.revert()?;
    expect_there(&mut server, &traversal, Path::new("/etc"))?;
    expect_there(&mut server, &text(&data), &data)
}
