//! memcached's UDP port between a patch in the server and a program at the network device, which share one arena.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use upatch_tests::build_id_of;
use upatch_tests::child::Child;
use upatch_tests::network::{in_namespace, kernel_objects, missing_privilege};
use upatch_tests::packages::Package;
use upatch_tests::samples::{Scratch, libc_file};
use upatch_tests::skip::skip;
use upatch_tests::upatch::{build_sample, run_json, succeed};

use crate::package;

const SERVER: &str = "127.0.0.1:11211";
/// Longer than the sample's rule for replies.
const BIG: usize = 1200;

/// A memcached with a UDP port, in the namespace of this thread.
struct Server {
    child: Child,
}

impl Server {
    fn start(package: &Package, scratch: &Scratch) -> Result<Self> {
        let package = package.copy_to(scratch.path())?;
        let mut command = Command::new(package.file("usr/bin/memcached"));
        command.args([
            "-l",
            "127.0.0.1",
            "-p",
            "11211",
            "-U",
            "11211",
            "-m",
            "64",
            "-t",
            "2",
        ]);
        command.env("LD_LIBRARY_PATH", package.library_path());
        scratch
            .as_ordinary_user(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Self {
            child: Child::spawn(&mut command)?,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(SERVER).is_err() {
            ensure!(Instant::now() < deadline, "memcached does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        ensure!(server.over_tcp(&format!("set big 0 0 {BIG}\r\n{}", "x".repeat(BIG)))? == "STORED");
        ensure!(server.over_tcp("set small 0 0 1\r\ny")? == "STORED");
        Ok(server)
    }

    fn pid(&self) -> String {
        self.child.pid().to_string()
    }

    /// The first line of the answer.
    fn over_tcp(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(SERVER)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "{command}\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let dump = succeed(&["telemetry", "dump", "--pid", &self.pid()])?;
        let value = &dump["patches"][0]["globals"][name];
        value
            .as_u64()
            .with_context(|| format!("no {name} in {dump:#}"))
    }
}

/// A client with an address of its own. Each request begins with memcached's frame: number, part, parts, reserved.
struct Client(UdpSocket);

impl Client {
    fn at(address: &str) -> Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.connect(SERVER)?;
        Ok(Self(socket))
    }

    fn ask(&self, key: &str) -> Result<()> {
        let mut packet = vec![0, 1, 0, 0, 0, 1, 0, 0];
        packet.extend(format!("get {key}\r\n").bytes());
        self.0.send(&packet)?;
        Ok(())
    }

    /// Bytes of the reply, if one comes within `patience`.
    fn reply(&self, patience: Duration) -> Result<Option<usize>> {
        self.0.set_read_timeout(Some(patience))?;
        match self.0.recv(&mut [0; 4096]) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn expect_reply(&self, key: &str) -> Result<usize> {
        self.ask(key)?;
        let reply = self.reply(Duration::from_secs(10))?;
        reply.with_context(|| format!("no reply to `get {key}`"))
    }

    fn expect_silence(&self, key: &str) -> Result<()> {
        self.ask(key)?;
        let reply = self.reply(Duration::from_millis(300))?;
        ensure!(reply.is_none(), "`get {key}` got {reply:?} bytes");
        Ok(())
    }
}

/// `None`: noted as skipped.
fn in_private_network(test: &str, story: fn(&Package, &Scratch) -> Result<()>) -> Result<()> {
    if let Some(reason) = missing_privilege() {
        skip(test, reason);
        return Ok(());
    }
    let Some(package) = package(test, "memcached") else {
        return Ok(());
    };
    // What is in the kernel is told by the patch's id, which is the same for all of these tests.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new()?;
    in_namespace(|| story(&package, &scratch))
}

fn apply(server: &Server, scratch: &Scratch) -> Result<Option<String>> {
    let object = build_sample("memcached_udp", scratch.path())?;
    let (code, answer) = run_json(&[
        "apply",
        "--pid",
        &server.pid(),
        "--build-id",
        &build_id_of(&libc_file()?)?,
        "--dev",
        "lo",
        object.to_str().context("a path")?,
    ])?;
    let text = answer.to_string();
    if code == 5 && text.contains("has no arenas that") {
        return Ok(None);
    }
    ensure!(code == 0, "apply: {answer:#}");
    let id = answer["id"].as_str().context("no id")?;
    Ok(Some(id.to_owned()))
}

#[test]
fn amplifies_without_patch() -> Result<()> {
    in_private_network(
        "memcached_udp::amplifies_without_patch",
        |package, scratch| {
            let _server = Server::start(package, scratch)?;
            let client = Client::at("127.0.0.66")?;
            ensure!(client.expect_reply("big")? > BIG);
            ensure!(client.expect_reply("small")? < 100);
            Ok(())
        },
    )
}

#[test]
fn story() -> Result<()> {
    in_private_network("memcached_udp::story", |package, scratch| {
        let server = Server::start(package, scratch)?;
        let (greedy, modest) = (Client::at("127.0.0.66")?, Client::at("127.0.0.67")?);
        ensure!(greedy.expect_reply("big")? > BIG);

        let Some(id) = apply(&server, scratch)? else {
            skip("memcached_udp::story", "the kernel has no arenas");
            return Ok(());
        };
        let status = succeed(&["status", "--pid", &server.pid()])?;
        let patch = &status["patches"][0];
        ensure!(patch["backend"] == "kernel", "{status:#}");
        ensure!(
            patch["kernel_programs"][0]["attached"] == true,
            "{status:#}"
        );
        ensure!(
            kernel_objects(&id)?.len() == 2,
            "{:?}",
            kernel_objects(&id)?
        );

        // What the patch sees changes what the kernel program does: who asks for a large reply gets none, and none of its
        // further requests reaches the server.
        ensure!(modest.expect_reply("small")? < 100);
        ensure!(greedy.expect_reply("small")? < 100);
        greedy.expect_silence("big")?;
        ensure!(server.counter("swallowed")? == 1 && server.counter("dropped")? == 0);
        let replies = server.counter("hits")?;
        greedy.expect_silence("small")?;
        ensure!(server.counter("dropped")? == 1);
        ensure!(
            server.counter("hits")? == replies,
            "the request reached the server"
        );
        modest.expect_reply("small")?;

        // What the kernel program sees changes the patch's verdict: in a flood no reply leaves by UDP, not even to others.
        let flood = Client::at("127.0.0.68")?;
        let dropped = server.counter("dropped")?;
        // On a loaded machine the second may be over before the next request comes.
        let mut silent = false;
        for _ in 0..5 {
            for _ in 0..400 {
                flood.ask("nothing")?;
            }
            modest.ask("small")?;
            silent = modest.reply(Duration::from_millis(500))?.is_none();
            if silent {
                break;
            }
        }
        ensure!(silent, "replies leave in a flood");
        ensure!(server.counter("lockdown")? == 1, "no lockdown");
        ensure!(
            server.counter("dropped")? == dropped,
            "dropped by the device, not refused by the patch"
        );
        ensure!(server.over_tcp("get small")?.starts_with("VALUE"));
        // A quiet second, and it is over.
        std::thread::sleep(Duration::from_millis(2100));
        modest.expect_reply("small")?;

        // Rules are set in this arena as in any other.
        succeed(&["rules", "set", "--pid", &server.pid(), "longest=20"])?;
        let swallowed = server.counter("swallowed")?;
        modest.expect_silence("small")?;
        ensure!(server.counter("swallowed")? == swallowed + 1);

        let answer = succeed(&["revert", "--pid", &server.pid()])?;
        ensure!(answer["patches"][0]["outcome"] == "reverted", "{answer:#}");
        ensure!(greedy.expect_reply("big")? > BIG);
        check_nothing_left(&server, &id)
    })
}

fn check_nothing_left(server: &Server, id: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    // The kernel frees programs and maps a moment after the last descriptor.
    while !kernel_objects(id)?.is_empty() {
        ensure!(Instant::now() < deadline, "left: {:?}", kernel_objects(id)?);
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = succeed(&["status", "--pid", &server.pid()])?;
    ensure!(status["patches"] == Value::Array(Vec::new()), "{status:#}");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid()))?;
    ensure!(
        !maps.contains("bpf-map") && !maps.contains("memfd:upatch"),
        "{maps}"
    );
    Ok(())
}

/// The kernel program lives as long as the patched process.
#[test]
fn ends_with_the_process() -> Result<()> {
    in_private_network(
        "memcached_udp::ends_with_the_process",
        |package, scratch| {
            let server = Server::start(package, scratch)?;
            let Some(id) = apply(&server, scratch)? else {
                skip(
                    "memcached_udp::ends_with_the_process",
                    "the kernel has no arenas",
                );
                return Ok(());
            };
            ensure!(kernel_objects(&id)?.len() == 2);
            drop(server);
            let deadline = Instant::now() + Duration::from_secs(5);
            while !kernel_objects(&id)?.is_empty() {
                ensure!(
                    Instant::now() < deadline,
                    "left: {:?}",
                    kernel_objects(&id)?
                );
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        },
    )
}
