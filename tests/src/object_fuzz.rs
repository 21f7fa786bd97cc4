//! Feeds damaged objects to the parser, the linker and the renderer: nothing may panic, loop or grow without bound.
//!
//! Inputs are real objects with bytes changed, cut, repeated or exchanged, and plain noise; all from a seed, so that a
//! finding can be repeated.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use upatch::object::{PatchObject, link, render};

use crate::c::{STRIPPABLE, build_source, is_possible, stripped};

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Inputs.
    pub inputs: u64,
    /// Of these, parsed.
    pub parsed: u64,
    /// Programs linked.
    pub linked: u64,
    /// The longest time for one input.
    pub slowest: Duration,
    /// Number of the input that took it.
    pub slowest_at: u64,
}

/// A small deterministic generator (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit.max(1) as u64) as usize
    }
}

/// What is damaged: the objects of the accepted cases, compiled here. Cases that can't be compiled here are noted as left
/// out of `test`.
///
/// # Panics
/// If a case is not accepted, or the cases can't be read.
pub fn own_objects(test: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/objects");
    let mut sources: Vec<PathBuf> = ["accept", "libbpf"]
        .iter()
        .flat_map(|kind| {
            let entries = std::fs::read_dir(folder.join(kind));
            entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        })
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    sources.sort();
    sources.retain(|source| is_possible(test, source));
    let objects = sources.iter().map(|source| {
        let (_, bytes) = build_source(source, &STRIPPABLE)
            .unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        // Debug sections are not looked at: without them more of the damage hits.
        stripped(&bytes)
    });
    objects.collect()
}

/// The input of this number and seed.
#[must_use]
pub fn input(seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
    let mut bytes = match seeds.get(random.below(seeds.len() + 1)) {
        Some(bytes) => bytes.clone(),
        // Noise, mostly behind the right magic.
        None => {
            let mut noise: Vec<u8> = (0..random.below(600))
                .map(|_| random.bits() as u8)
                .collect();
            for (byte, right) in noise.iter_mut().zip(b"\x7fELF\x02\x01\x01") {
                if random.below(20) != 0 {
                    *byte = *right;
                }
            }
            return noise;
        }
    };
    for _ in 0..1 + random.below(6) {
        mutate(seeds, &mut bytes, &mut random);
    }
    bytes
}

fn mutate(seeds: &[Vec<u8>], bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    // The section table (at the end) and the tables in front of it are where structure is.
    let at = match random.below(4) {
        0 => bytes.len() - 1 - random.below(bytes.len().min(2048)),
        1 => random.below(bytes.len().min(64)),
        _ => random.below(bytes.len()),
    };
    match random.below(9) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.bits() as u8,
        2..=4 => {
            // A word of one of the values that break arithmetic.
            const WORDS: [u64; 12] = [
                0,
                1,
                7,
                8,
                0x18,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_fff8,
                0xffff_ffff,
                u64::MAX / 2,
                u64::MAX - 7,
                u64::MAX,
            ];
            let word = WORDS[random.below(WORDS.len())].to_le_bytes();
            let width = [2, 4, 8][random.below(3)];
            let at = at / width * width;
            for (byte, new) in bytes[at..].iter_mut().zip(&word[..width]) {
                *byte = *new;
            }
        }
        5 => {
            // A small step of a word: off by one, by eight.
            let at = at / 4 * 4;
            if let Some(word) = bytes.get_mut(at..at + 4) {
                let old = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                let step = [1_u32, 8, 16, u32::MAX, u32::MAX - 7][random.below(5)];
                word.copy_from_slice(&old.wrapping_add(step).to_le_bytes());
            }
        }
        6 => {
            // A piece of this or another object, over what is there.
            let from = &seeds[random.below(seeds.len())];
            let len = random.below(from.len().min(256));
            let start = random.below(from.len() - len);
            for (byte, new) in bytes[at..].iter_mut().zip(&from[start..start + len]) {
                *byte = *new;
            }
        }
        7 => {
            let to = random.below(bytes.len());
            bytes.swap(at, to);
        }
        _ if random.below(8) == 0 => bytes.truncate(at),
        _ => {
            let to = random.below(bytes.len());
            let word: Vec<u8> = bytes[at..].iter().take(8).copied().collect();
            for (byte, new) in bytes[to..].iter_mut().zip(word) {
                *byte = new;
            }
        }
    }
}

/// Runs one input through everything that reads objects.
pub fn exercise(bytes: &[u8], report: &mut Report) {
    report.inputs += 1;
    let start = Instant::now();
    if let Ok(object) = PatchObject::parse(bytes) {
        report.parsed += 1;
        for program in object.programs() {
            report.linked += u64::from(link(&object, program).is_ok());
        }
        let devices = [upatch::kernel::Device {
            program: None,
            interface: "lo".to_owned(),
        }];
        if !object.kernel_programs().is_empty() {
            report.linked += u64::from(upatch::kernel::plan(&object, &devices).is_ok());
        }
        let arena = object.arena();
        for global in &arena.globals {
            let shown = render(&arena.types, global.ty, bytes);
            assert!(
                shown.to_string().len() < 64 << 20,
                "a variable is shown in too many words"
            );
        }
    }
    let time = start.elapsed();
    if time > report.slowest {
        report.slowest = time;
        report.slowest_at = report.inputs - 1;
    }
}

/// The most memory that this process had at once, in bytes (VmHWM of proc(5)).
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes << 10)
}
