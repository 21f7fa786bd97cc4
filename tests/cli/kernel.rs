//! Objects with kernel programs, and the kernel's arenas: what works, what is refused, what an interrupted `upatch` leaves.

use std::net::UdpSocket;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use upatch_tests::build_id_of;
use upatch_tests::child::{Answer, Child};
use upatch_tests::network::{in_namespace, kernel_objects, missing_privilege};
use upatch_tests::samples::{Scratch, libc_file};
use upatch_tests::skip::skip;
use upatch_tests::upatch::{run_json, upatch};

use super::{CLAMP, Scene, build, case, is_refusal};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("kernel::both_planes", both_planes),
        case("kernel::events_of_both", events_of_both),
        case("kernel::wrong_words", wrong_words),
        case("kernel::rejected", rejected),
        case("kernel::not_permitted", not_permitted),
        case("kernel::forked_child", forked_child),
        case("kernel::killed_upatch", killed_upatch),
        case("kernel::retired", retired),
        case("kernel::no_descriptor_left", no_descriptor_left),
        case("kernel::two_processes", two_processes),
        case("kernel::failed_poke", failed_poke),
    ]
}

/// One subprogram and one read-only table for both planes, two kernel programs, a function of the kernel's.
const PLANES: &str = r#"
#include "upatch.h"
UPATCH_RULE(int, longest) = 100;
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, packets);
UPATCH_COUNTER(__u64, sent);
extern void *bpf_cast_to_kern_ctx(void *) __attribute__((section(".ksyms")));
static const __u32 table[4] = {3, 3, 3, 3};
static __attribute__((noinline)) __u32 look(__u32 at) { return table[at & 3]; }
SEC("tcx/ingress") int receive(void *ctx)
{
	if (bpf_cast_to_kern_ctx(ctx))
		UPATCH_ADD(packets, look(packets));
	return -1;
}
SEC("tcx/egress") int send(void *ctx) { UPATCH_INC(sent); return -1; }
SEC("upatch/exe:work") int UPATCH(clamp, int x)
{
	UPATCH_INC(hits);
	return x > longest && look(x) == 3 ? upatch_return(ctx, -14) : UPATCH_CONTINUE;
}
char _license[] SEC("license") = "GPL";
"#;

/// The scene with another patch, in a network of its own. `Ok(None)`: noted as skipped.
fn with_scene(test: &str, text: &str, story: fn(&mut Scene) -> Result<()>) -> Result<()> {
    if let Some(reason) = missing_privilege() {
        skip(&format!("cli {test}"), reason);
        return Ok(());
    }
    in_namespace(|| {
        let mut scene = Scene::new(&[])?;
        scene.patch = build(scene.folder.path(), "planes", text)?;
        let probe = scene.upatch(&[
            "apply",
            "--build-id",
            &scene.build_id,
            "--dev",
            "lo",
            scene.object(),
        ])?;
        if probe.1.to_string().contains("has no arenas that") {
            skip(&format!("cli {test}"), "the kernel has no arenas");
            return Ok(());
        }
        if probe.0 == 0 {
            scene.done(&["revert"])?;
            // Nothing stays of an image that calls the program's functions, in a victim that has never seen it.
            if text.contains("errno") {
                scene = Scene::new(&[])?;
                scene.patch = build(scene.folder.path(), "planes", text)?;
            }
        }
        story(&mut scene)
    })
}

fn apply(scene: &Scene) -> Result<Value> {
    scene.done(&[
        "apply",
        "--build-id",
        &scene.build_id,
        "--dev",
        "lo",
        scene.object(),
    ])
}

fn until_gone(id: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !kernel_objects(id)?.is_empty() {
        ensure!(Instant::now() < deadline, "left: {:?}", kernel_objects(id)?);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn counter(scene: &Scene, name: &str) -> Result<u64> {
    let dump = scene.done(&["telemetry", "dump"])?;
    let value = dump["patches"][0]["globals"][name].as_u64();
    value.with_context(|| format!("no {name} in {dump:#}"))
}

fn both_planes() -> Result<()> {
    with_scene("kernel::both_planes", PLANES, |scene| {
        let applied = apply(scene)?;
        let id = applied["id"].as_str().context("no id")?.to_owned();
        ensure!(applied["backend"] == "kernel", "{applied:#}");
        ensure!(scene.is_patched()?, "not patched");
        let packet = UdpSocket::bind("127.0.0.1:0")?;
        for _ in 0..5 {
            packet.send_to(b"x", packet.local_addr()?)?;
        }
        let (packets, sent) = (counter(scene, "packets")?, counter(scene, "sent")?);
        // Others may be on the device, IPv6 for one; each received packet counts three.
        ensure!(
            sent >= 5 && packets >= 15 && packets % 3 == 0,
            "{packets} packets, {sent} sent"
        );
        let status = scene.done(&["status"])?;
        let programs = status["patches"][0]["kernel_programs"].as_array().cloned();
        let programs = programs.unwrap_or_default();
        ensure!(
            programs.len() == 2 && programs.iter().all(|program| program["attached"] == true),
            "{status:#}"
        );
        scene.done(&["revert"])?;
        scene.unharmed()?;
        until_gone(&id)
    })
}

/// Kernel program and patch write events into one ring, which is read as any other.
fn events_of_both() -> Result<()> {
    const TEXT: &str = r#"
#include "upatch.h"
struct packet { __u32 length; char from[8]; };
struct call { int x; };
UPATCH_COUNTER(__u64, packets);
struct skb { __u32 len; };
SEC("tcx/ingress") int receive(struct skb *ctx)
{
	struct packet packet = { ctx->len, "kernel" };

	UPATCH_INC(packets);
	upatch_event(&packet, sizeof(packet));
	return -1;
}
SEC("upatch/exe:work") int UPATCH(clamp, int x)
{
	struct call call = { x };

	upatch_event(&call, sizeof(call));
	upatch_printk("x is %d", x);
	return x > 100 ? upatch_return(ctx, -14) : UPATCH_CONTINUE;
}
char _license[] SEC("license") = "GPL";
"#;
    with_scene("kernel::events_of_both", TEXT, |scene| {
        let applied = apply(scene)?;
        let id = applied["id"].as_str().context("no id")?.to_owned();
        let packet = UdpSocket::bind("127.0.0.1:0")?;
        ensure!(scene.is_patched()?, "not patched");
        for _ in 0..5 {
            packet.send_to(b"12345", packet.local_addr()?)?;
        }
        let packets = counter(scene, "packets")?;
        let dump = scene.done(&["telemetry", "dump"])?;
        let events = dump["patches"][0]["events"]
            .as_array()
            .context("no events")?;
        let of = |ty: &str| events.iter().filter(|event| event["type"] == ty).count();
        ensure!(
            of("struct packet") as u64 >= packets.min(5)
                && events
                    .iter()
                    .any(|event| event["value"]
                        == serde_json::json!({"length": 47, "from": "kernel"}))
                && of("struct call") == 2
                && events.iter().any(|event| event["value"] == "x is 500"),
            "{dump:#}"
        );
        ensure!(
            events
                .iter()
                .all(|event| event["time"].is_string() && event["monotonic_ns"].is_u64())
                && dump["patches"][0]["events_dropped"] == 0,
            "{dump:#}"
        );
        scene.done(&["revert"])?;
        scene.unharmed()?;
        until_gone(&id)
    })
}

fn wrong_words() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let planes = build(scene.folder.path(), "planes", PLANES)?;
    let planes = planes.to_string_lossy();
    let plain = scene.object().to_owned();
    let id = scene.build_id.clone();
    let cases: [(&[&str], i32, &[&str]); 7] = [
        (
            &[&planes],
            2,
            &[
                "`receive` (tcx/ingress)",
                "`send` (tcx/egress)",
                "--dev IFACE",
            ],
        ),
        (
            &[&planes, "--dev", "receive=lo"],
            2,
            &["`send` (tcx/egress)"],
        ),
        (
            &[&planes, "--dev", "recieve=lo"],
            2,
            &["`recieve`", "it has receive, send"],
        ),
        (&[&planes, "--dev", "nosuch0"], 4, &["`nosuch0`", "ip link"]),
        (
            &[&planes, "--dev", "lo", "--arena", "memfd"],
            2,
            &["--arena memfd"],
        ),
        (&[&plain, "--dev", "lo"], 2, &["no kernel program"]),
        (&[&plain, "--arena", "heap"], 2, &["memfd or kernel"]),
    ];
    for (words, code, says) in cases {
        let mut all = vec!["apply", "--build-id", &id];
        all.extend(words);
        scene.refused(&all, code, says)?;
    }
    scene.unharmed()
}

/// The kernel's verifier says no: its words, the C line among them, and an untouched target.
fn rejected() -> Result<()> {
    const BEYOND: &str = r#"
#include "upatch.h"
UPATCH_COUNTER(__u64, hits);
SEC("tcx/ingress") int beyond(void *ctx)
{
	UPATCH_INC(hits);
	return *(volatile __u32 *)(ctx + 4096); /* there is no such field */
}
SEC("upatch/exe:work") int UPATCH(pass, int x) { UPATCH_INC(hits); return UPATCH_CONTINUE; }
"#;
    with_scene("kernel::rejected", BEYOND, |scene| {
        let says = [
            "`beyond`",
            "invalid bpf_context access off=4096",
            "there is no such field",
        ];
        let id = scene.build_id.clone();
        scene.refused(
            &["apply", "--build-id", &id, "--dev", "lo", scene.object()],
            3,
            &says,
        )?;
        scene.unharmed()
    })
}

/// An ordinary user gets no arena of the kernel's, and hears what else there is.
fn not_permitted() -> Result<()> {
    let scratch = Scratch::new()?;
    let source = CLAMP.replace("upatch/exe:work", "upatch/libc.so.6:system");
    let object = build(scratch.path(), "clamp", &source)?;
    let mut sleep = Command::new("sleep");
    scratch
        .as_ordinary_user(&mut sleep)
        .arg("1000")
        .stdout(Stdio::null());
    let victim = Child::spawn(&mut sleep)?;
    std::thread::sleep(Duration::from_millis(100));
    let mut command = upatch();
    command.args([
        "apply",
        "--json",
        "--arena",
        "kernel",
        "--pid",
        &victim.pid().to_string(),
    ]);
    command
        .args(["--build-id", &build_id_of(&libc_file()?)?])
        .arg(&object);
    if scratch.is_root() {
        command.uid(65534).gid(65534);
    }
    match command.output() {
        Err(error) => skip(
            "cli kernel::not_permitted",
            &format!("can't run upatch as another user: {error}"),
        ),
        Ok(output) => {
            let value: Value = serde_json::from_slice(&output.stdout)?;
            let code = output.status.code().unwrap_or(-1);
            is_refusal(
                code,
                &value,
                6,
                &["not permitted to make an arena", "--arena memfd"],
            )?;
        }
    }
    let (_, status) = run_json(&["status", "--pid", &victim.pid().to_string()])?;
    ensure!(status["patches"] == Value::Array(Vec::new()), "{status:#}");
    Ok(())
}

/// The kernel's arenas are not inherited; ours are made to be.
fn forked_child() -> Result<()> {
    with_scene("kernel::forked_child", PLANES, |scene| {
        scene.done(&[
            "apply",
            "--build-id",
            &scene.build_id,
            "--dev",
            "lo",
            scene.object(),
        ])?;
        for _ in 0..3 {
            let answer = scene.driver.ask("f500")?;
            ensure!(answer == Answer::line("-14"), "a child says {answer}");
        }
        ensure!(
            counter(scene, "hits")? == 3,
            "calls of children are not counted"
        );
        scene.done(&["revert"])?;
        ensure!(
            scene.driver.ask("f500")? == Answer::line("1007"),
            "still patched"
        );
        scene.unharmed()
    })
}

/// Wherever `upatch` is killed, the next one leaves nothing: no arena, no link, no program.
fn killed_upatch() -> Result<()> {
    with_scene("kernel::killed_upatch", PLANES, |scene| {
        let places = [
            ("apply", "socket-open"),
            ("apply", "socket-named"),
            ("apply", "received"),
            ("apply", "arena-mapped"),
            ("apply", "received:2"),
            ("apply", "link-passed"),
            ("apply", "link-passed:2"),
            ("apply", "code-written"),
            ("apply", "prepared"),
            ("apply", "poked"),
            ("revert", "poked"),
            ("revert", "frame-written:2"),
            ("revert", "frame-written:3"),
            ("revert", "image-unmapped"),
        ];
        let id = scene.done(&[
            "apply",
            "--dry-run",
            "--build-id",
            &scene.build_id,
            "--dev",
            "lo",
            scene.object(),
        ])?;
        let id = id["id"].as_str().context("no id")?.to_owned();
        for (command, failpoint) in places {
            let mut killed = upatch();
            if command == "revert" {
                apply(scene)?;
                killed.arg("revert");
            } else {
                killed.args(["apply", "--build-id", &scene.build_id, "--dev", "lo"]);
                killed.arg(&scene.patch);
            }
            killed
                .args(["--pid", &scene.pid()])
                .env("UPATCH_FAILPOINT", failpoint);
            let status = killed.output()?.status;
            ensure!(status.code().is_none(), "{command} reached no {failpoint}");
            let patched = scene.is_patched()?;
            ensure!(
                patched == (command == "apply" && failpoint == "poked"),
                "{command} killed at {failpoint}: patched {patched}"
            );
            scene.done(&["status"])?;
            scene.done(&["revert"])?;
            scene
                .unharmed()
                .with_context(|| format!("{command} killed at {failpoint}"))?;
            until_gone(&id)?;
        }
        Ok(())
    })
}

/// A retired image serves again, with a new arena where its old one was.
fn retired() -> Result<()> {
    const ERRNO: &str = r#"
#include "upatch.h"
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, packets);
SEC("tcx/ingress") int receive(void *ctx) { UPATCH_INC(packets); return -1; }
SEC("upatch/exe:work") int UPATCH(clamp, int x)
{
	UPATCH_INC(hits);
	if (x <= 100)
		return UPATCH_CONTINUE;
	upatch_set_errno(1);
	return upatch_return(ctx, -14);
}
"#;
    with_scene("kernel::retired", ERRNO, |scene| {
        let mut images = Vec::new();
        for _ in 0..3 {
            let applied = apply(scene)?;
            images.push(applied["image"].clone());
            let id = applied["id"].as_str().context("no id")?.to_owned();
            ensure!(scene.is_patched()?);
            ensure!(counter(scene, "hits")? == 2, "the arena is not a new one");
            let packet = UdpSocket::bind("127.0.0.1:0")?;
            packet.send_to(b"x", packet.local_addr()?)?;
            ensure!(
                counter(scene, "packets")? > 0,
                "the kernel program has another arena"
            );
            let reverted = scene.done(&["revert"])?;
            ensure!(
                reverted["patches"][0]["outcome"] == "retired",
                "{reverted:#}"
            );
            ensure!(!scene.is_patched()?);
            let deadline = Instant::now() + Duration::from_secs(5);
            while kernel_objects(&id)?
                .iter()
                .any(|object| object.starts_with("program"))
            {
                ensure!(
                    Instant::now() < deadline,
                    "left: {:?}",
                    kernel_objects(&id)?
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        ensure!(images.iter().all(|image| *image == images[0]), "{images:?}");
        Ok(())
    })
}

/// The arena passes, the first link passes, for the second one there is no room: everything is taken back.
fn no_descriptor_left() -> Result<()> {
    with_scene("kernel::no_descriptor_left", PLANES, |scene| {
        let open =
            upatch::process::Process::open(scene.driver.pid().try_into()?)?.numbers_in("fd")?;
        let unused: Vec<i32> = (0..)
            .filter(|number| !open.contains(number))
            .take(4)
            .collect();
        let id = scene.build_id.clone();
        for limit in unused {
            let limited = Command::new("prlimit")
                .arg(format!("--pid={}", scene.pid()))
                .arg(format!("--nofile={limit}:"))
                .status()?;
            ensure!(limited.success(), "prlimit failed");
            let apply = ["apply", "--build-id", &id, "--dev", "lo", scene.object()];
            let (code, answer) = scene.upatch(&apply)?;
            ensure!(
                (code == 0) == (limit == unused_last(&open)),
                "below {limit}: {answer:#}"
            );
            if code == 0 {
                scene.done(&["revert"])?;
            } else {
                is_refusal(code, &answer, 5, &["descriptor", "prlimit"])?;
            }
            scene.unharmed()?;
        }
        Ok(())
    })
}

/// The fourth unused number: below it there is room for a socket and two links.
fn unused_last(open: &[i32]) -> i32 {
    let mut unused = (0..).filter(|number| !open.contains(number));
    unused.nth(3).unwrap_or(0)
}

fn fail_the_poke(scene: &mut Scene) -> Result<()> {
    let status = upatch()
        .args([
            "apply",
            "--pid",
            &scene.pid(),
            "--build-id",
            &scene.build_id,
        ])
        .args(["--dev", "lo", scene.object()])
        .env("UPATCH_FAULT", "poke")
        .output()?
        .status;
    ensure!(
        status.code().is_some_and(|code| code != 0),
        "the poke did not fail: {status}"
    );
    ensure!(!scene.is_patched()?, "patched");
    let status = scene.done(&["status"])?;
    ensure!(
        status["stray_descriptors"]
            .as_array()
            .is_some_and(Vec::is_empty),
        "{status:#}"
    );
    Ok(())
}

fn programs(id: &str) -> Result<usize> {
    let objects = kernel_objects(id)?;
    let programs = objects
        .iter()
        .filter(|object| object.starts_with("program"));
    Ok(programs.count())
}

/// The last step of an apply fails, with the links in the target already: they go, in a fresh image and in one that was retired.
fn failed_poke() -> Result<()> {
    with_scene("kernel::failed_poke", PLANES, |scene| {
        fail_the_poke(scene)?;
        scene.unharmed()?;
        let applied = apply(scene)?;
        let id = applied["id"].as_str().context("no id")?;
        scene.done(&["revert"])?;
        scene.unharmed()?;
        until_gone(id)
    })?;
    let calling = PLANES.replace(
        "UPATCH_INC(hits);",
        "UPATCH_INC(hits); upatch_set_errno(5);",
    );
    with_scene("kernel::failed_poke", &calling, |scene| {
        let applied = apply(scene)?;
        let id = applied["id"].as_str().context("no id")?;
        scene.done(&["revert"])?;
        // Room for the socket and one of the two links.
        let open =
            upatch::process::Process::open(scene.driver.pid().try_into()?)?.numbers_in("fd")?;
        let limit = (0..).filter(|number| !open.contains(number)).nth(2);
        for (limit, fails) in [(limit.unwrap_or(0), true), (1024, false)] {
            let limited = Command::new("prlimit")
                .arg(format!("--pid={}", scene.pid()))
                .arg(format!("--nofile={limit}:"))
                .status()?;
            ensure!(limited.success(), "prlimit failed");
            if fails {
                let words = ["apply", "--build-id", &scene.build_id, "--dev", "lo"];
                let (code, answer) = scene.upatch(&[&words[..], &[scene.object()]].concat())?;
                is_refusal(code, &answer, 5, &["descriptor"])?;
                ensure!(programs(id)? == 0, "left: {:?}", kernel_objects(id)?);
            }
        }
        fail_the_poke(scene)?;
        ensure!(programs(id)? == 0, "left: {:?}", kernel_objects(id)?);
        apply(scene)?;
        ensure!(scene.is_patched()? && programs(id)? == 2, "not patched");
        scene.done(&["revert"])?;
        ensure!(programs(id)? == 0, "left: {:?}", kernel_objects(id)?);
        Ok(())
    })
}

/// One arena and one set of kernel programs for two processes: they stay until both are reverted.
fn two_processes() -> Result<()> {
    with_scene("kernel::two_processes", PLANES, |scene| {
        let mut other = Scene::new(&[])?;
        let (pid, other_pid) = (scene.pid(), other.pid());
        let mut apply = vec!["apply", "--build-id", &scene.build_id, "--dev", "lo"];
        apply.extend([scene.object(), "--pid", &pid, "--pid", &other_pid]);
        let (code, answer) = run_json(&apply)?;
        ensure!(code == 0, "{answer:#}");
        ensure!(
            scene.is_patched()? && other.is_patched()?,
            "one is not patched"
        );
        ensure!(counter(scene, "hits")? == 4, "the arena is not one");
        let status = scene.done(&["status"])?;
        let id = status["patches"][0]["id"].as_str().context("no id")?;
        let programs = || -> Result<usize> {
            let objects = kernel_objects(id)?;
            Ok(objects
                .iter()
                .filter(|object| object.starts_with("program"))
                .count())
        };
        ensure!(programs()? == 2, "{:?}", kernel_objects(id)?);
        let reverted = scene.done(&["revert"])?;
        scene.unharmed()?;
        let kept = &reverted["patches"][0]["kernel_programs_kept"];
        ensure!(
            kept.as_array().is_some_and(|kept| kept.len() == 2),
            "{reverted:#}"
        );
        ensure!(programs()? == 2, "gone with the first of two processes");
        let before = counter(&other, "packets")?;
        let packet = UdpSocket::bind("127.0.0.1:0")?;
        packet.send_to(b"x", packet.local_addr()?)?;
        ensure!(counter(&other, "packets")? > before, "no longer attached");
        let reverted = other.done(&["revert"])?;
        let kept = &reverted["patches"][0]["kernel_programs_kept"];
        ensure!(kept.as_array().is_some_and(Vec::is_empty), "{reverted:#}");
        other.unharmed()?;
        until_gone(id)
    })
}
