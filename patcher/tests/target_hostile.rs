//! No bytes make a reader of ELF images panic, hang or allocate without bound: mutations of real files.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod target_support;

use std::fs;
use std::io::{Seek, Write};
use std::time::{Duration, Instant};

use target_support::*;
use upatch::target::bytes::Bytes;
use upatch::target::symbols::Definition;
use upatch::target::*;

/// Deterministic: Knuth's MMIX generator.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() as usize) % limit.max(1)
    }
}

const WORDS: [u64; 12] = [
    0,
    1,
    2,
    7,
    0x40,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Reads everything there is to read; returns how much was understood, so that the test can't pass on nothing.
fn read_all(bytes: Vec<u8>) -> usize {
    let Ok(image) = ElfImage::from_file(Bytes::Owned(bytes)) else {
        return 0;
    };
    let frames = image.frames().len();
    let _ = image.relocations();
    let names: Vec<Definition> = symbols::definitions_of(&image, "work");
    let _ = symbols::definitions_of(&image, "app::work");
    1 + frames.min(1)
        + names.len().min(1)
        + usize::from(image.build_id().is_some())
        + usize::from(image.dynamic().soname().is_some())
}

#[test]
fn mutations_of_a_real_file() {
    let shop = Workshop::new();
    shop.write("libsmall.c", "__attribute__((visibility(\"default\"))) int work(int x) { return x * 3; }\nint _ZN3app4workEi(int x) { return x; }");
    shop.write("libsmall.map", "V1 { *; };");
    shop.run("gcc", &["-O2", "-shared", "-fPIC", "-nostdlib", "-Wl,--build-id=sha1,-soname,libsmall.so,--version-script=libsmall.map,-z,noseparate-code", "-o", "libsmall.so", "libsmall.c"]);
    let original = fs::read(shop.path("libsmall.so")).unwrap();
    assert_eq!(
        read_all(original.clone()),
        5,
        "the unchanged file is understood whole"
    );
    let mut random = Lcg(20261121);
    let (mut parsed, mut rejected, mut partly) = (0, 0, 0);
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    let rounds = 100_000;
    for round in 0..rounds {
        let mut bytes = original.clone();
        if round % 10 == 9 {
            bytes.truncate(random.below(original.len()));
        }
        // Structures lie at both ends: headers and dynamic tables in front, section headers behind.
        for _ in 0..1 + random.below(4) {
            let len = bytes.len();
            if len < 16 {
                break;
            }
            let at = match random.below(4) {
                0 => random.below(64),
                1 => random.below(1024),
                2 => len.saturating_sub(random.below(2048)),
                _ => random.below(len),
            }
            .min(len - 8);
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => {
                    let width = [1, 2, 4, 8][random.below(4)];
                    let word = WORDS[random.below(WORDS.len())].to_le_bytes();
                    bytes[at & !(width - 1)..][..width].copy_from_slice(&word[..width]);
                }
                _ => {
                    let aligned = at & !7;
                    let word = (random.next() % (2 * len as u64)).to_le_bytes();
                    bytes[aligned..aligned + 8].copy_from_slice(&word);
                }
            }
        }
        let begun = Instant::now();
        match read_all(bytes) {
            0 => rejected += 1,
            5 => parsed += 1,
            _ => partly += 1,
        }
        slowest = slowest.max(begun.elapsed());
    }
    println!(
        "{rounds} mutations in {:?}: {parsed} read whole, {partly} in part, {rejected} rejected; slowest {slowest:?}",
        started.elapsed()
    );
    assert!(parsed > 1000 && partly > 1000 && rejected > 1000);
    assert!(slowest < Duration::from_secs(2));
}

/// A process of bytes: what a hostile program may put into its memory.
struct FakeProcess {
    /// What lies behind its mappings, if it can be opened.
    file: Option<Vec<u8>>,
    bytes: Vec<u8>,
    maps: upatch::process::maps::Maps,
}

const BASE: u64 = 0x7f00_0000_0000;

impl TargetMemory for FakeProcess {
    fn read_exact_at(&self, at: upatch_trampolines::Avma, buf: &mut [u8]) -> std::io::Result<()> {
        let start = at.0.wrapping_sub(BASE) as usize;
        let from = start
            .checked_add(buf.len())
            .and_then(|end| self.bytes.get(start..end))
            .ok_or(std::io::ErrorKind::InvalidInput)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn mappings(&self) -> std::io::Result<upatch::process::maps::Maps> {
        Ok(self.maps.clone())
    }

    fn open_mapping_file(&self, _: &upatch::process::maps::Mapping) -> std::io::Result<fs::File> {
        let bytes = self.file.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        file.rewind()?;
        Ok(file)
    }

    fn auxv(&self) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn root(&self) -> std::path::PathBuf {
        "/nonexistent".into()
    }
}

#[test]
fn mutations_of_a_process() {
    let shop = Workshop::new();
    shop.write(
        "libmem.c",
        "int work(int x) { return x * 3; } int shown = 4;",
    );
    shop.run(
        "gcc",
        &[
            "-O2",
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-Wl,--build-id=sha1,-soname,libmem.so,-z,noseparate-code,-z,norelro",
            "-o",
            "libmem.so",
            "libmem.c",
        ],
    );
    let file = fs::read(shop.path("libmem.so")).unwrap();
    let image = image(&shop.path("libmem.so"));
    let last = image.segments().last().unwrap();
    let mut original = vec![0; (last.svma.0 + last.memsz).next_multiple_of(4096) as usize];
    for segment in image.segments() {
        let (svma, offset, len) = (
            segment.svma.0 as usize,
            segment.offset as usize,
            segment.filesz as usize,
        );
        original[svma..svma + len].copy_from_slice(&file[offset..offset + len]);
    }
    let text_end = BASE + (original.len() as u64).min(4096);
    let end = BASE + original.len() as u64;
    let maps = format!(
        "{BASE:x}-{text_end:x} r-xp 00000000 fe:01 77 /lib/libmem.so\n{text_end:x}-{end:x} rw-p 00000000 fe:01 77 /lib/libmem.so\n"
    );
    let maps = upatch::process::maps::Maps::parse(maps.as_bytes()).unwrap();
    let id = image.build_id().unwrap().clone();
    let attempt = |bytes: Vec<u8>, file: Option<Vec<u8>>| {
        let process = FakeProcess {
            file,
            bytes,
            maps: maps.clone(),
        };
        let snapshot = TargetImage::snapshot(&process).unwrap();
        let query = TargetQuery::function(Some("libmem.so"), "work", vec![(&id).into()]);
        snapshot.resolve(&process, &query)
    };
    let site = attempt(original.clone(), None).unwrap();
    assert_eq!(
        (site.svma(), site.source()),
        (Svma(nm(&shop.path("libmem.so"), "work").0), Source::Memory)
    );
    let mut random = Lcg(42);
    let (mut found, mut refused) = (0, 0);
    let started = Instant::now();
    for _ in 0..5_000 {
        let mut bytes = original.clone();
        for _ in 0..1 + random.below(3) {
            let at = if random.below(2) == 0 {
                random.below(1024)
            } else {
                random.below(bytes.len() - 8)
            } & !7;
            let word = if random.below(2) == 0 {
                WORDS[random.below(WORDS.len())]
            } else {
                random.next() % 0x8000
            };
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        match attempt(bytes, None) {
            Ok(_) => found += 1,
            Err(_) => refused += 1,
        }
    }
    println!(
        "5000 mutations of memory in {:?}: {found} found, {refused} refused",
        started.elapsed()
    );
    assert!(found > 500 && refused > 100);
    // The same for the file, with memory as it should be: sections, symbol table, PLT and parts are read from it.
    let site = attempt(original.clone(), Some(file.clone())).unwrap();
    assert_eq!(site.source(), Source::File);
    let (mut found, mut refused) = (0, 0);
    let started = Instant::now();
    for _ in 0..5_000 {
        let mut bytes = file.clone();
        for _ in 0..1 + random.below(3) {
            let len = bytes.len();
            let at = match random.below(3) {
                0 => random.below(1024),
                1 => len - 8 - random.below(2048),
                _ => random.below(len - 8),
            } & !7;
            let word = if random.below(2) == 0 {
                WORDS[random.below(WORDS.len())]
            } else {
                random.next() % (2 * len as u64)
            };
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        match attempt(original.clone(), Some(bytes)) {
            Ok(_) => found += 1,
            Err(_) => refused += 1,
        }
    }
    println!(
        "5000 mutations of the file in {:?}: {found} found, {refused} refused",
        started.elapsed()
    );
    assert!(found > 500 && refused > 100);
}
