//! `cargo xtask demo`: three real programs, each wrong before, mended while it runs, and as it was after.
//!
//! Decides what is shown and in which words; every sentence is checked before it is printed. Exits with 1 when
//! anything differs from what it would say. Plain text; colour only on a terminal.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use upatch_tests::child::{self, Answer};
use upatch_tests::packages::Package;
use upatch_tests::samples::{
    Applied, Load, Memcached, Redis, Reply, Scratch, Site, apply, libssh2_driver, without_consumer,
};
use upatch_tests::skip::is_strict;
use upatch_tests::upatch::upatch;

/// Where `realtime` is in Debian's memcached 1.6.18-1, which has no symbols.
const REALTIME: u64 = 0xa790;

fn main() -> ExitCode {
    let teller = Teller {
        colour: std::io::stdout().is_terminal(),
    };
    match tell(&teller) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo can't claim what it wanted to: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One line of the closing table.
struct Outcome {
    program: &'static str,
    function: &'static str,
    calls: u64,
    mended: u64,
    took: Duration,
}

fn tell(teller: &Teller) -> Result<()> {
    let start = Instant::now();
    println!(
        "upatch mends one function of a running program. A patch is a few lines of C, compiled to BPF, proven safe,\n\
         compiled to machine code and put into the process; nothing is restarted. Here are three unmodified programs\n\
         of Debian 12, each at a version before its fix. The patches are samples/NAME/patch.c."
    );
    type Act = fn(&Teller, &Package) -> Result<Outcome>;
    let acts: [(&str, Act); 3] = [
        ("libssh2", libssh2),
        ("redis", redis),
        ("memcached", memcached),
    ];
    let mut outcomes = Vec::new();
    for (name, act) in acts {
        match Package::find(name) {
            Ok(package) => outcomes.push(act(teller, &package).context(name)?),
            Err(missing) => {
                ensure!(!is_strict(), "{name}: {missing}");
                teller.title(name);
                teller.line("skipped", &missing.to_string());
            }
        }
    }
    ensure!(!outcomes.is_empty(), "none of the programs is there");
    teller.title("What the patches counted");
    println!(
        "  {:<10} {:<30} {:>10} {:>8}  upatch apply took",
        "program", "function", "calls", "mended"
    );
    for Outcome {
        program,
        function,
        calls,
        mended,
        took,
    } in outcomes
    {
        println!(
            "  {program:<10} {function:<30} {calls:>10} {mended:>8}  {:.0} ms",
            took.as_secs_f64() * 1000.0
        );
    }
    println!(
        "\nAll of it was checked while it was told, in {:.1} seconds.",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn libssh2(teller: &Teller, package: &Package) -> Result<Outcome> {
    let crash = Answer::Signal(libc::SIGSEGV);
    let wrapping = "call 0xfffffff0";
    let scratch = Scratch::new()?;
    let library = package.library("libssh2.so.1");

    teller.title("1. libssh2 1.10.0, a library: a length that wraps (CVE-2026-7598)");
    let mut victim = libssh2_driver(package, &scratch)?;
    is(&victim.ask(wrapping)?, &crash)?;
    teller.line(
        "before",
        "a login with a user name of 0xfffffff0 bytes: the process dies of SIGSEGV",
    );

    let mut client = libssh2_driver(package, &scratch)?;
    is(&client.ask("call 5")?, &Answer::line("rc -7"))?;
    let site = Site::function(&library, "libssh2_userauth_password_ex")?;
    let patch = apply("libssh2", client.pid(), site, &scratch)?;
    teller.applied(&patch, &scratch);

    is(&client.ask(wrapping)?, &Answer::line("rc -14"))?;
    teller.line(
        "after",
        "the same login in a running process: a clean error, LIBSSH2_ERROR_PROTO (-14)",
    );
    is(&client.ask("call 5")?, &Answer::line("rc -7"))?;
    teller.line(
        "",
        "a name of 5 bytes: the same answer as without the patch",
    );
    let (calls, mended, took) = (
        patch.counter("hits")?,
        patch.counter("refused")?,
        patch.took,
    );
    ensure!(
        (calls, mended) == (2, 1),
        "{calls} calls and {mended} refused instead of 2 and 1"
    );
    teller.telemetry(client.pid())?;

    teller.revert(patch, client.pid())?;
    is(&client.ask(wrapping)?, &crash)?;
    teller.line("as before", "the wrong length: SIGSEGV");
    Ok(Outcome {
        program: "libssh2",
        function: "libssh2_userauth_password_ex",
        calls,
        mended,
        took,
    })
}

fn redis(teller: &Teller, package: &Package) -> Result<Outcome> {
    let ok = Reply::Text("OK".to_owned());
    let scratch = Scratch::new()?;

    teller.title("2. Redis 7.0.15, a server: a corrupt dump is restored (CVE-2026-66373)");
    let mut server = Redis::start(package, &scratch)?;
    server.command(&[b"XADD", b"s", b"1-1", b"f", b"v"])?;
    server.command(&[b"XGROUP", b"CREATE", b"s", b"g", b"0"])?;
    server.command(&[
        b"XREADGROUP",
        b"GROUP",
        b"g",
        b"c",
        b"COUNT",
        b"1",
        b"STREAMS",
        b"s",
        b">",
    ])?;
    let Reply::Bytes(sound) = server.command(&[b"DUMP", b"s"])? else {
        bail!("DUMP gave no dump")
    };
    let corrupt = without_consumer(&sound)?;
    is(&server.command(&[b"RESTORE", b"bad", b"0", &corrupt])?, &ok)?;
    teller.line("before", "RESTORE of a stream with an entry that belongs to nobody: OK (and a crash waiting to happen)");
    is(
        &server.command(&[b"DEL", b"bad"])?,
        &Reply::Text("1".to_owned()),
    )?;
    is(&server.command(&[b"SET", b"text", b"hello"])?, &ok)?;
    let Reply::Bytes(text) = server.command(&[b"DUMP", b"text"])? else {
        bail!("DUMP gave no dump")
    };

    let patch = apply(
        "redis",
        server.pid(),
        Site::function(server.program(), "restoreCommand")?,
        &scratch,
    )?;
    teller.applied(&patch, &scratch);
    let Reply::Error(error) = server.command(&[b"RESTORE", b"bad", b"0", &corrupt])? else {
        bail!("the corrupt dump was not refused")
    };
    teller.line(
        "after",
        &format!("the same RESTORE, same connection: {error}"),
    );
    is(&server.command(&[b"RESTORE", b"copy", b"0", &text])?, &ok)?;
    is(
        &server.command(&[b"GET", b"copy"])?,
        &Reply::Bytes(b"hello".to_vec()),
    )?;
    teller.line("", "RESTORE of a string: OK, and its value is right");
    let (calls, mended, took) = (
        patch.counter("hits")?,
        patch.counter("refused")?,
        patch.took,
    );
    ensure!(
        (calls, mended) == (2, 1),
        "{calls} calls and {mended} refused instead of 2 and 1"
    );
    teller.telemetry(server.pid())?;

    teller.revert(patch, server.pid())?;
    is(&server.command(&[b"RESTORE", b"bad", b"0", &corrupt])?, &ok)?;
    is(
        &server.command(&[b"XPENDING", b"bad", b"g", b"-", b"+", b"10"])?,
        &Reply::Closed,
    )?;
    server.crashed()?;
    teller.line(
        "as before",
        "RESTORE says OK, and the first XPENDING on that stream crashes the server",
    );
    Ok(Outcome {
        program: "redis",
        function: "restoreCommand",
        calls,
        mended,
        took,
    })
}

fn memcached(teller: &Teller, package: &Package) -> Result<Outcome> {
    let clients = 2 * Memcached::THREADS;
    let scratch = Scratch::new()?;

    teller.title(
        "3. memcached 1.6.18, stripped, four threads, busy: nothing may live longer than a minute",
    );
    let server = Memcached::start(package, &scratch)?;
    let mut session = server.connect()?;
    session.set("k", 0, "v")?;
    is(&session.time_to_live("k")?, &Some(-1))?;
    teller.line("before", "a value stored with expiry 0 lives for ever");
    let load = Load::start(&server, clients, 30)?;
    thread::sleep(Duration::from_millis(500));

    let site = Site::address(server.program(), REALTIME)?;
    let patch = apply("memcached", server.pid(), site, &scratch)?;
    teller.applied(&patch, &scratch);
    session.set("k", 0, "v")?;
    let left = session.time_to_live("k")?;
    ensure!(
        left.is_some_and(|seconds| (58..=60).contains(&seconds)),
        "expiry 0 became {left:?}"
    );
    teller.line("after", "the same store: expires in 60 seconds");
    thread::sleep(Duration::from_millis(500));
    teller.telemetry(server.pid())?;
    let (calls, mended, took) = (
        patch.counter("hits")?,
        patch.counter("clamped")?,
        patch.took,
    );
    ensure!(
        calls > 1 && mended == 1,
        "{calls} calls and {mended} clamped"
    );

    teller.revert(patch, server.pid())?;
    thread::sleep(Duration::from_millis(200));
    let report = load.finish().context("the load")?;
    teller.line(
        "",
        &format!(
            "{clients} clients all the while: {} requests, no wrong answer, none lost",
            report.requests
        ),
    );
    session.set("k", 0, "v")?;
    is(&session.time_to_live("k")?, &Some(-1))?;
    teller.line("as before", "expiry 0: lives for ever");
    Ok(Outcome {
        program: "memcached",
        function: "realtime, at 0xa790",
        calls,
        mended,
        took,
    })
}

fn is<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<()> {
    ensure!(found == expected, "expected {expected:?}, got {found:?}");
    Ok(())
}

/// How it is written down.
struct Teller {
    colour: bool,
}

impl Teller {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    fn line(&self, label: &str, text: &str) {
        let code = match label {
            "before" | "as before" => "31",
            "after" => "32",
            _ => "36",
        };
        println!("  {} {text}", self.paint(code, &format!("{label:<9}")));
    }

    fn applied(&self, patch: &Applied, scratch: &Scratch) {
        let command = patch
            .command
            .replace(&format!("{}/", scratch.path().display()), "");
        self.line("apply", &format!("$ {command}"));
        self.line(
            "",
            &format!("done in {:.0} ms", patch.took.as_secs_f64() * 1000.0),
        );
    }

    /// Shows what a user would see.
    fn telemetry(&self, pid: u32) -> Result<()> {
        let pid = pid.to_string();
        self.line("counters", &format!("$ upatch telemetry dump --pid {pid}"));
        let shown = child::run(
            upatch().args(["telemetry", "dump", "--pid", &pid]),
            Duration::from_secs(20),
        )?;
        ensure!(shown.code == 0, "upatch telemetry: {}", shown.stderr);
        for line in shown.stdout.lines() {
            self.line("", line);
        }
        Ok(())
    }

    fn revert(&self, patch: Applied, pid: u32) -> Result<()> {
        patch.revert()?;
        self.line("revert", &format!("$ upatch revert --pid {pid}"));
        Ok(())
    }
}
