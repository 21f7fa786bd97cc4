//! Functions of servers that this machine has; skipped where they are not installed.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::fs;
use std::path::Path;
use std::process::Command;

use upatch::process::Process;
use upatch::target::*;

/// A server of this machine under its own name, started without a socket of its own where possible.
fn server(command: &mut Command) -> Option<(std::process::Child, Process)> {
    let child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .ok()?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    let memory = Process::open(child.id() as i32).ok()?;
    Some((child, memory))
}

#[test]
fn memcached_of_debian() {
    const ID: &str = "729230f14537e8751a677c2721c1d16dedd92441";
    let binary = Path::new("/usr/bin/memcached");
    if !binary.exists() {
        println!("skipped: memcached is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut fs::metadata(dir.path()).unwrap().permissions(),
        0o755,
    );
    let socket = dir.path().join("socket");
    let Some((mut child, memory)) =
        server(Command::new(binary).args(["-u", "root", "-s"]).arg(&socket))
    else {
        panic!("memcached doesn't start")
    };
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let exe = snapshot.modules().iter().find(|one| one.is_main()).unwrap();
    let id = exe.build_id().unwrap().to_string();
    let known = id == ID;
    // Whatever version it is: every hundredth function resolves by address, and memory is as the file says.
    let image = exe.image(&memory).unwrap();
    let mut resolved = 0;
    for frame in image.frames().iter().step_by(10) {
        let query = TargetQuery {
            module: Some("exe".into()),
            address: Some(frame.start),
            build_ids: vec![id.parse().unwrap()],
            ..TargetQuery::default()
        };
        match snapshot.resolve(&memory, &query) {
            Ok(site) => {
                assert!(site.is_entry());
                site.compare_memory(&memory).unwrap();
                resolved += 1;
            }
            Err(error) => assert!(matches!(error, ResolveError::Plt { .. }), "{error}"),
        }
    }
    if known {
        let query = TargetQuery {
            address: Some(Svma(0xa790)),
            build_ids: vec!["729230f1".parse().unwrap()],
            ..TargetQuery::default()
        };
        let site = snapshot.resolve(&memory, &query).unwrap();
        assert_eq!(site.bytes()[..5], [0x31, 0xc0, 0x48, 0x85, 0xff]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(resolved > 20, "{resolved}");
    println!("memcached {id}: {resolved} functions resolved; the version of TARGETS.md: {known}");
}

#[test]
fn redis_of_debian() {
    let binary = Path::new("/usr/bin/redis-server");
    if !binary.exists() {
        println!("skipped: redis-server is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary);
    command
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(dir.path().join("socket"))
        .current_dir(dir.path());
    let Some((mut child, memory)) = server(&mut command) else {
        panic!("redis doesn't start")
    };
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let exe = snapshot.modules().iter().find(|one| one.is_main()).unwrap();
    let started = std::time::Instant::now();
    for name in [
        "restoreCommand",
        "keysCommand",
        "flushallCommand",
        "debugCommand",
        "addReplyError",
        "quicklistCreate",
    ] {
        let query = TargetQuery::function(Some("exe"), name, vec![exe.build_id().unwrap().into()]);
        let site = snapshot
            .resolve(&memory, &query)
            .unwrap_or_else(|error| panic!("{error}"));
        site.compare_memory(&memory).unwrap();
        assert_eq!(site.function(), Some(name));
    }
    let only = MemoryOnly(&memory);
    let from_memory = TargetImage::snapshot(&only).unwrap();
    let query = TargetQuery::function(
        Some("exe"),
        "keysCommand",
        vec![exe.build_id().unwrap().into()],
    );
    let (one, other) = (
        snapshot.resolve(&memory, &query).unwrap(),
        from_memory.resolve(&only, &query).unwrap(),
    );
    assert_eq!((one.svma(), one.bytes()), (other.svma(), other.bytes()));
    println!("redis: 7 functions in {:?}", started.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
}
