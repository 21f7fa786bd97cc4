//! Functions of real servers, of the packages that `cargo xtask provision` fetches.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use upatch::process::Process;
use upatch::target::*;
use upatch_tests::packages::Package;
use upatch_tests::skip::skip_program;
use upatch_trampolines::displace;

/// A server that listens on a socket of the file system; ended when dropped.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, socket: &Path) -> Self {
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Self(quiet.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "{command:?} doesn't listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn memory(&self) -> Process {
        Process::open(self.0.id() as i32).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Resolves every `step`th frame of a module by address; returns how many functions resolved and why the others didn't, and
/// how many of them could take a jump.
fn sweep(
    process: &Process,
    snapshot: &TargetImage,
    module: &Module,
    step: usize,
) -> (usize, usize) {
    let image = module.image(process).unwrap();
    let build_ids = vec![BuildIdPrefix::from(module.build_id().unwrap())];
    let (mut resolved, mut displaced) = (0, 0);
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let started = Instant::now();
    for frame in image.frames().iter().step_by(step) {
        let query = TargetQuery {
            address: Some(frame.start),
            build_ids: build_ids.clone(),
            ..TargetQuery::default()
        };
        match snapshot.resolve(process, &query) {
            Ok(site) => {
                assert!(site.range().contains(site.avma()));
                site.compare_memory(process).unwrap();
                resolved += 1;
                displaced += usize::from(displace(&site.text()).is_ok());
            }
            Err(error @ (ResolveError::Plt { .. } | ResolveError::AddressInside { .. })) => {
                let text = error.to_string();
                *refused
                    .entry(text.split(": ").last().unwrap().to_owned())
                    .or_default() += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    println!(
        "{}: {resolved} of {} functions resolved in {:?}, {displaced} can take a jump; refused: {refused:?}",
        module.name(),
        image.frames().iter().step_by(step).count(),
        started.elapsed(),
    );
    (resolved, displaced)
}

#[test]
fn memcached() {
    const ID: &str = "729230f14537e8751a677c2721c1d16dedd92441";
    let package = match Package::find("memcached") {
        Ok(package) => package,
        Err(missing) => return skip_program("target_debian::memcached", &missing),
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let server = Server::start(
        Command::new(package.file("usr/bin/memcached"))
            .env("LD_LIBRARY_PATH", package.library_path())
            .args(["-u", "root", "-s"])
            .arg(&socket),
        &socket,
    );
    let process = server.memory();
    let snapshot = TargetImage::snapshot(&process).unwrap();
    let exe = snapshot.modules().iter().find(|one| one.is_main()).unwrap();
    let (resolved, displaced) = sweep(&process, &snapshot, exe, 5);
    assert!(
        resolved > 50 && displaced * 10 > resolved * 8,
        "{resolved} {displaced}"
    );
    assert_eq!(exe.build_id().unwrap().to_string(), ID);
    let query = TargetQuery {
        address: Some(Svma(0xa790)),
        build_ids: vec!["729230f1".parse().unwrap()],
        ..TargetQuery::default()
    };
    let site = snapshot.resolve(&process, &query).unwrap();
    assert!(site.is_entry());
    assert_eq!(site.bytes()[..5], [0x31, 0xc0, 0x48, 0x85, 0xff]);
    println!(
        "realtime() of memcached 1.6.18-1: {} bytes",
        site.bytes().len()
    );
}

#[test]
fn redis() {
    let package = match Package::find("redis") {
        Ok(package) => package,
        Err(missing) => return skip_program("target_debian::redis", &missing),
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    // One program: it is the server when it is called so.
    let mut command = Command::new(package.file("usr/bin/redis-check-rdb"));
    command
        .arg0("redis-server")
        .env("LD_LIBRARY_PATH", package.library_path())
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket)
        .current_dir(dir.path());
    let server = Server::start(&mut command, &socket);
    let process = server.memory();
    let snapshot = TargetImage::snapshot(&process).unwrap();
    let exe = snapshot.modules().iter().find(|one| one.is_main()).unwrap();
    let id = || vec![BuildIdPrefix::from(exe.build_id().unwrap())];
    for name in [
        "restoreCommand",
        "keysCommand",
        "flushallCommand",
        "debugCommand",
        "addReplyError",
    ] {
        let query = TargetQuery::function(Some("exe"), name, id());
        let site = snapshot
            .resolve(&process, &query)
            .unwrap_or_else(|error| panic!("{error}"));
        site.compare_memory(&process).unwrap();
        assert_eq!(site.function(), Some(name));
    }
    let only = MemoryOnly(&process);
    let from_memory = TargetImage::snapshot(&only).unwrap();
    let query = TargetQuery::function(Some("exe"), "keysCommand", id());
    let one = snapshot.resolve(&process, &query).unwrap();
    let other = from_memory.resolve(&only, &query).unwrap();
    assert_eq!((one.svma(), one.bytes()), (other.svma(), other.bytes()));
    let (resolved, displaced) = sweep(&process, &snapshot, exe, 50);
    assert!(
        resolved > 50 && displaced * 10 > resolved * 8,
        "{resolved} {displaced}"
    );
    let libc = snapshot
        .modules()
        .iter()
        .find(|one| one.soname() == Some("libc.so.6"))
        .unwrap();
    sweep(&process, &snapshot, libc, 40);
}
