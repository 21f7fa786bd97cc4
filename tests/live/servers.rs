//! Debian's memcached and redis-server under load while a function of theirs is hooked and unhooked; every reply of every
//! request is compared.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use upatch::patching::RevertOutcome;
use upatch_tests::packages::{Missing, Package};
use upatch_tests::skip::skip_program;

use crate::cycles::Sum;
use crate::hook::{Hook, Target};
use crate::victim::{Ended, eventually};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        crate::case("memcached_100_cycles", memcached),
        crate::case("redis_100_cycles", redis),
    ]
}

/// One request and the reply that it must get.
type Exchange = fn(u64, u64) -> (Vec<u8>, Vec<u8>);

fn memcached_exchange(client: u64, n: u64) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = (format!("k{client}"), format!("value-{client}-{}", n & !1));
    if n & 1 == 0 {
        let request = format!("set {key} 7 1000 {}\r\n{value}\r\n", value.len());
        (request.into_bytes(), b"STORED\r\n".to_vec())
    } else {
        let reply = format!("VALUE {key} 7 {}\r\n{value}\r\nEND\r\n", value.len());
        (format!("get {key}\r\n").into_bytes(), reply.into_bytes())
    }
}

fn redis_exchange(client: u64, n: u64) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = (format!("k{client}"), format!("value-{client}-{}", n & !1));
    if n & 1 == 0 {
        let request = format!(
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
            key.len(),
            value.len()
        );
        (request.into_bytes(), b"+OK\r\n".to_vec())
    } else {
        let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        (
            request.into_bytes(),
            format!("${}\r\n{value}\r\n", value.len()).into_bytes(),
        )
    }
}

/// Clients that ask without pause and compare each reply; they end at the first failed or wrong one.
struct Load {
    replies: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(socket: &Path, clients: u64, exchange: Exchange) -> Result<Self> {
        let (replies, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let mut running = Vec::new();
        for client in 0..clients {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            let (replies, stop) = (Arc::clone(&replies), Arc::clone(&stop));
            running.push(std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone()?);
                let mut stream = stream;
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (request, expected) = exchange(client, n);
                    stream.write_all(&request).context("request failed")?;
                    let mut reply = vec![0; expected.len()];
                    reader.read_exact(&mut reply).context("reply failed")?;
                    ensure!(
                        reply == expected,
                        "wrong reply {:?}",
                        String::from_utf8_lossy(&reply)
                    );
                    replies.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        Ok(Self {
            replies,
            stop,
            clients: running,
        })
    }

    /// Ends the load: how many replies came, all of them right.
    fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(self.replies.load(Ordering::Relaxed))
    }
}

struct Server {
    child: Ended,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts `program` of a fetched package under the name `name`.
    fn start(
        package: &Package,
        (program, name): (&str, &str),
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("socket");
        let mut command = Command::new(package.file(program));
        command
            .arg0(name)
            .env("LD_LIBRARY_PATH", package.library_path())
            .args(arguments(&socket))
            .current_dir(directory.path());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = Ended(child.with_context(|| format!("starting {program}"))?);
        eventually(Duration::from_secs(20), || {
            Ok(UnixStream::connect(&socket).is_ok())
        })?;
        Ok(Self {
            child,
            socket,
            _directory: directory,
        })
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.0.id()).unwrap_or(0)
    }
}

fn hundred_cycles(
    name: &str,
    server: &mut Server,
    target: &Target,
    exchange: Exchange,
) -> Result<String> {
    let load = Load::start(&server.socket, 4, exchange)?;
    let mut sum = Sum::default();
    for cycle in 0..100 * crate::scale() {
        let applied = target.apply(
            "00000006",
            if cycle % 2 == 0 {
                Hook::Count
            } else {
                Hook::Linger(2000)
            },
        )?;
        eventually(Duration::from_secs(20), || Ok(target.hits(&applied)? > 20))
            .with_context(|| format!("cycle {cycle}: no hits"))?;
        let (reverted, hits) = target.revert("00000006")?;
        ensure!(
            reverted.outcome == RevertOutcome::Clean,
            "cycle {cycle}: {:?}",
            reverted.outcome
        );
        sum.add(&applied.figures, &reverted.figures, hits);
        ensure!(server.child.0.try_wait()?.is_none(), "{name} has ended");
    }
    let replies = load.finish()?;
    ensure!(replies > 0);
    target.check_clean()?;
    let stops = sum.stops();
    Ok(format!(
        "{} cycles, {replies} replies, all right, {} hits, {} ips moved, {} return addresses delayed a revert, {stops}",
        sum.cycles, sum.hits, sum.moved, sum.delayed
    ))
}

/// Where Debian's stripped memcached has `realtime`: `xor eax,eax; test rdi,rdi; je`, the only one that then compares with
/// 30 days.
fn realtime_of_memcached(package: &Package) -> Result<u64> {
    let bytes = std::fs::read(package.file("usr/bin/memcached"))?;
    let entry = [0x31, 0xc0, 0x48, 0x85, 0xff, 0x74];
    let compare = [0x48, 0x81, 0xff, 0x00, 0x8d, 0x27, 0x00];
    let is_it =
        |code: &[u8]| code.starts_with(&entry) && code[entry.len() + 1..].starts_with(&compare);
    let mut found = bytes
        .windows(16)
        .enumerate()
        .filter(|(_, code)| is_it(code))
        .map(|(at, _)| at as u64);
    let at = found.next().context("no realtime in this memcached")?;
    ensure!(found.next().is_none(), "several candidates for realtime");
    Ok(at)
}

/// Notes that a server's case did not run, and why.
fn skipped(case: &str, missing: &Missing) -> Result<String> {
    skip_program(case, missing);
    Ok(format!("skipped: {missing}"))
}

fn memcached() -> Result<String> {
    let package = match Package::find("memcached") {
        Ok(package) => package,
        Err(missing) => return skipped("memcached_100_cycles", &missing),
    };
    // File offset and stated address are the same in this file's text segment; `resolve` refuses what isn't code.
    let address = realtime_of_memcached(&package)?;
    let mut server = Server::start(&package, ("usr/bin/memcached", "memcached"), |socket| {
        ["-u", "root", "-t", "4", "-m", "64", "-s"]
            .into_iter()
            .map(String::from)
            .chain([socket.display().to_string()])
            .collect()
    })?;
    let target = Target::open_at(server.pid(), "exe", address)?;
    let figures = hundred_cycles("memcached", &mut server, &target, memcached_exchange)?;
    let mut stream = UnixStream::connect(&server.socket)?;
    stream.write_all(b"version\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(format!(
        "memcached {}, 4 threads, realtime(): {figures}",
        line.trim()
    ))
}

fn redis() -> Result<String> {
    let package = match Package::find("redis") {
        Ok(package) => package,
        Err(missing) => return skipped("redis_100_cycles", &missing),
    };
    // One program: it is the server when it is called so.
    let program = ("usr/bin/redis-check-rdb", "redis-server");
    let mut server = Server::start(&package, program, |socket| {
        let words = [
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocket",
        ];
        words
            .into_iter()
            .map(String::from)
            .chain([socket.display().to_string()])
            .collect()
    })?;
    let target = Target::open(server.pid(), "exe", "processCommand")?;
    let figures = hundred_cycles("redis", &mut server, &target, redis_exchange)?;
    Ok(format!("redis-server, processCommand(): {figures}"))
}
