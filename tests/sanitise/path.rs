//! upatch_path.h against std::path.

use std::path::{Component, Path};

use upatch_tests::programs::Random;

use crate::GENERATED;
use crate::flaw::{ESCAPES, INVALID, TOO_LONG, UNREADABLE};
use crate::rig::{PAGE, Rig};

const DOTDOT: i64 = 1;
const CLIMBS: i64 = 2;
const REDUNDANT: i64 = 4;
const ABSOLUTE: i64 = 8;
const EMPTY: i64 = 16;

/// Longest string that a buffer of 256 bytes takes.
const LONGEST: usize = 254;

const CASES: &[&str] = &[
    "",
    "/",
    ".",
    "..",
    "...",
    "a",
    "ab",
    "a/",
    "/a",
    "/a/",
    "//",
    "///",
    "//a",
    "a//b",
    "a/./b",
    "./a",
    "a/.",
    "./",
    "/.",
    "/./",
    "/..",
    "/../",
    "/../a",
    "../a",
    "a/..",
    "a/../",
    "a/../..",
    "a/../../b",
    "a/b/../c",
    "a/b/../../c",
    "a/.../b",
    "..a",
    "a..",
    ".a",
    "a.",
    "a/..b/c",
    "/srv/www/../../etc/passwd",
    "/srv/www",
    "/srv/www/",
    "/srv/www2",
    "/srv/ww",
    "/srv//www/./index.html",
    "srv",
    "srv/x",
    "./srv",
    "srvx",
    "x/../srv/y",
    "..//..",
    "./..",
    "../.",
    "a/./../b",
    "\u{e4}/\u{fc}",
    " /..",
    "a/ ..",
    "..\\a",
    "~/x",
    "/.././..",
];

fn long(length: usize, unit: &str) -> String {
    unit.repeat(length / unit.len() + 1)[..length].to_owned()
}

/// Bytes as paths are made of, in every length up to one that no longer fits.
fn generated(random: &mut Random) -> String {
    let pieces = [
        "/", "/", ".", "..", "a", "bc", "x.y", "...", "//", "/../", "/./", "-", "www", "/srv",
    ];
    let mut path = String::new();
    let most = if random.chance(80) {
        random.below(24)
    } else {
        random.below(280)
    };
    while path.len() < most as usize {
        path.push_str(random.pick(&pieces));
    }
    path
}

fn inputs() -> Vec<String> {
    let mut inputs: Vec<String> = CASES.iter().map(|&case| case.to_owned()).collect();
    for unit in ["a", "/", ".", "a/", "../", "/..", "./", "abcdefg/", "a/../"] {
        for length in [
            LONGEST - 1,
            LONGEST,
            LONGEST + 1,
            LONGEST + 2,
            LONGEST + 3,
            400,
        ] {
            inputs.push(long(length, unit));
        }
    }
    let mut random = Random::new(0x5a17_0001);
    inputs.extend((0..GENERATED).map(|_| generated(&mut random)));
    inputs
}

/// The path without redundancies; `..` is kept.
fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let parts = Path::new(path)
        .components()
        .filter(|part| *part != Component::CurDir);
    let clean: std::path::PathBuf = parts.collect();
    let clean = clean.to_str().unwrap().to_owned();
    if clean.is_empty() {
        ".".to_owned()
    } else {
        clean
    }
}

fn has_dotdot(path: &str) -> bool {
    Path::new(path)
        .components()
        .any(|part| part == Component::ParentDir)
}

/// The path with each `..` taken off with what is in front of it, if there is something.
fn resolved(path: &str) -> Option<String> {
    let mut kept: Vec<Component<'_>> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match kept.pop() {
                Some(Component::Normal(_)) => {}
                Some(_) | None => return None,
            },
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => kept.push(part),
        }
    }
    let path: std::path::PathBuf = kept.into_iter().collect();
    let path = path.to_str().unwrap().to_owned();
    Some(if path.is_empty() {
        ".".to_owned()
    } else {
        path
    })
}

fn findings(path: &str) -> i64 {
    if path.is_empty() {
        return EMPTY;
    }
    let flag = |set: bool, flag: i64| if set { flag } else { 0 };
    flag(has_dotdot(path), DOTDOT)
        | flag(resolved(path).is_none(), CLIMBS)
        | flag(clean(path) != path, REDUNDANT)
        | flag(path.starts_with('/'), ABSOLUTE)
}

#[test]
fn check() {
    let mut rig = Rig::new("path_check");
    for path in inputs() {
        let wanted = if path.len() > LONGEST {
            TOO_LONG
        } else {
            findings(&path)
        };
        assert_eq!(
            rig.run_str(path.as_bytes(), [0; 3]).returned(),
            wanted,
            "{path:?}"
        );
    }
}

/// Bytes that 66 pieces of 63 bytes hold, one of them the NUL: where the limit of 4096 is seen.
const LONGEST_AT: usize = 66 * 63 - 1;
const _: () = assert!(PAGE <= LONGEST_AT);

#[test]
fn check_at() {
    let mut rig = Rig::new("path_check_at");
    let mut paths = inputs();
    // Around each border of pieces, in a page.
    for unit in ["a", "/", "a/", "../", "a/../", "/..", "./"] {
        for length in [
            61, 62, 63, 64, 65, 125, 126, 127, 128, 189, 1000, 4000, 4095,
        ] {
            paths.push(long(length, unit));
            paths.push(long(length, "a") + "/..");
            paths.push(long(length, "b") + "/./c");
        }
    }
    for path in paths.iter().filter(|path| path.len() < PAGE) {
        let found = rig.run_str(path.as_bytes(), [0; 3]).returned();
        assert_eq!(found, findings(path), "{path:?}");
    }
    assert_eq!(rig.run_bytes(&[b'a'; PAGE], [0; 3]).returned(), UNREADABLE);
    for address in [0, u64::MAX, rig.edge()] {
        assert_eq!(rig.run(b"", [address, 0, 0, 0]).0.returned(), UNREADABLE);
    }
}

#[test]
fn normalize() {
    let mut refuse = Rig::new("path_refuse");
    let mut resolve = Rig::new("path_resolve");
    for path in inputs() {
        let refused = if has_dotdot(&path) {
            None
        } else {
            Some(clean(&path))
        };
        for (rig, wanted) in [(&mut refuse, refused), (&mut resolve, resolved(&path))] {
            let ran = rig.run_str(path.as_bytes(), [0; 3]);
            let (code, text) = match wanted {
                _ if path.len() > LONGEST => (TOO_LONG, String::new()),
                _ if path.is_empty() => (INVALID, String::new()),
                Some(text) => (text.len() as i64, text),
                None => (ESCAPES, String::new()),
            };
            assert_eq!(ran.returned(), code, "{path:?}");
            assert_eq!(ran.text("found"), text.as_bytes(), "{path:?}");
        }
    }
}

#[test]
fn beneath() {
    let mut rig = Rig::new("path_beneath");
    for path in inputs() {
        let wanted = match resolved(&path) {
            _ if path.len() > 62 => TOO_LONG,
            _ if path.is_empty() => INVALID,
            None => ESCAPES,
            Some(path) => {
                let bit = |root: &str, bit: i64| {
                    if Path::new(&path).starts_with(root) {
                        bit
                    } else {
                        0
                    }
                };
                bit("/srv/www", 1) | bit("/", 2) | bit("srv", 4)
            }
        };
        assert_eq!(
            rig.run_str(path.as_bytes(), [0; 3]).returned(),
            wanted,
            "{path:?}"
        );
    }
}

#[test]
fn unreadable() {
    for name in ["path_check", "path_refuse", "path_beneath"] {
        let mut rig = Rig::new(name);
        let edge = rig.edge();
        for address in [0, 1, edge, edge + 8, u64::MAX, 1 << 63] {
            let ran = rig.run(b"", [address, 0, 0, 0]).0;
            assert_eq!(ran.returned(), UNREADABLE, "{name} {address:#x}");
        }
        // Runs into the page that can't be read, without a NUL.
        assert_eq!(
            rig.run_bytes(b"/srv/www", [0; 3]).returned(),
            UNREADABLE,
            "{name}"
        );
    }
}
