//! upatch_length.h against checked arithmetic.

use upatch_tests::programs::Random;

use crate::GENERATED;
use crate::flaw::{INVALID, OVERFLOW, UNREADABLE};
use crate::rig::Rig;

/// limits.h
const IOV_MAX: usize = 1024;

fn iovecs(lengths: &[u64]) -> Vec<u8> {
    lengths
        .iter()
        .flat_map(|length| [0x1000, *length])
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// Sum and longest, as a 128-bit sum says.
fn summed(lengths: &[u64]) -> Result<(u64, u64), i64> {
    let sum: u128 = lengths.iter().map(|length| u128::from(*length)).sum();
    let sum = i64::try_from(sum).map_err(|_| OVERFLOW)?;
    Ok((sum as u64, lengths.iter().copied().max().unwrap_or(0)))
}

#[test]
fn iovec() {
    let mut rig = Rig::new("iovec");
    let mut check = |lengths: &[u64]| {
        // What fits into a page; more is read from elsewhere below.
        let ran = rig.run_bytes(&iovecs(lengths), [lengths.len() as u64, 0, 0]);
        let wanted = summed(lengths);
        assert_eq!(ran.returned(), wanted.err().unwrap_or(0), "{lengths:x?}");
        let (sum, longest) = wanted.unwrap_or((0, 0));
        assert_eq!(
            (ran.number("number", 0), ran.number("number", 1)),
            (sum, longest),
            "{lengths:x?}"
        );
    };
    const MOST: u64 = i64::MAX as u64;
    for lengths in [
        &[][..],
        &[0],
        &[1],
        &[MOST],
        &[MOST + 1],
        &[u64::MAX],
        &[MOST, 1],
        &[MOST, 0, 0],
        &[1, MOST],
        &[1, u64::MAX],
        &[u64::MAX, 1],
        &[u64::MAX, u64::MAX],
        &[MOST - 1, 1],
        &[1 << 62, 1 << 62],
        &[1 << 62, (1 << 62) - 1],
        &[1 << 63, 1 << 63],
        &[1 << 63, 1 << 63, 5],
        &[0; 16],
        &[3, 9, 2, 9, 1, 8, 7],
        &[3, 9, 2, 9, 1, 8, 7, 10],
    ] {
        check(lengths);
        for padding in [6, 7, 8, 13, 14] {
            check(&[lengths, &vec![0; padding]].concat());
            check(&[&vec![1; padding], lengths].concat());
        }
    }
    let mut random = Random::new(0x5a17_0006);
    for _ in 0..GENERATED {
        let count = random.below(40);
        let shift = random.pick(&[0, 1, 2, 4, 8, 40, 56]);
        let lengths: Vec<u64> = (0..count)
            .map(|_| random.next() >> shift >> random.below(8))
            .collect();
        check(&lengths);
    }
}

#[test]
fn iovec_counts() {
    let mut rig = Rig::new("iovec");
    // One page holds 256 of them.
    let many = iovecs(&[2; 256]);
    for (count, wanted) in [
        (256, 0),
        (257, UNREADABLE),
        (IOV_MAX as u64, UNREADABLE),
        (IOV_MAX as u64 + 1, INVALID),
        (u64::MAX, INVALID),
        (1 << 63, INVALID),
        (1 << 32, INVALID),
    ] {
        let ran = rig.run_bytes(&many, [count, 0, 0]);
        assert_eq!(ran.returned(), wanted, "{count}");
        let sum = if wanted == 0 { 512 } else { 0 };
        assert_eq!(
            (ran.number("number", 0), ran.number("number", 1)),
            (sum, sum / 256)
        );
    }
    for address in [0, u64::MAX - 8, 1 << 63] {
        assert_eq!(rig.run(b"", [address, 1, 0, 0]).0.returned(), UNREADABLE);
        // Nothing is read of no iovecs.
        assert_eq!(rig.run(b"", [address, 0, 0, 0]).0.returned(), 0);
    }
    // A flaw before what can't be read and behind it: the first counts.
    let bytes = iovecs(&[u64::MAX; 3]);
    assert_eq!(rig.run_bytes(&bytes, [4, 0, 0]).returned(), UNREADABLE);
    assert_eq!(
        rig.run_bytes(&iovecs(&[u64::MAX; 7]), [8, 0, 0]).returned(),
        OVERFLOW
    );
}

#[test]
fn clamp_arg() {
    let mut rig = Rig::new("clamp_arg");
    let mut random = Random::new(0x5a17_0007);
    let mut inputs = vec![
        [0; 4],
        [u64::MAX; 4],
        [1 << 31; 4],
        [1 << 63; 4],
        [0xffff_ffff; 4],
        [0x1_0000; 4],
        [0x1_0001; 4],
    ];
    inputs.extend((0..GENERATED).map(|_| {
        std::array::from_fn(|_| {
            if random.chance(50) {
                random.interesting()
            } else {
                random.below(0x1_8000)
            }
        })
    }));
    for input in inputs {
        let [a, b, c, d] = input;
        let values = [
            (
                (a as i32).clamp(-5, 1000) as u64,
                (a as i32).clamp(-5, 1000) != a as i32,
            ),
            (
                u64::from((b as u32).clamp(16, 4096)),
                (b as u32).clamp(16, 4096) != b as u32,
            ),
            (c.min(0x1_0000), c > 0x1_0000),
            (
                (d as i8).clamp(-100, 100) as u64,
                (d as i8).clamp(-100, 100) != d as i8,
            ),
        ];
        let ran = rig.run(b"", input).0;
        assert_eq!(ran.result, None);
        let mut changed = 0;
        for (index, (value, outside)) in values.into_iter().enumerate() {
            // What was inside stays as it was, with its meaningless upper bits.
            let wanted = if outside { value } else { input[index] };
            assert_eq!(
                ran.arguments[index], wanted,
                "argument {index} of {input:x?}"
            );
            changed |= u64::from(outside) << index;
        }
        assert_eq!(ran.number("number", 0), changed);
    }
}

#[test]
fn clamp_user() {
    let mut rig = Rig::new("clamp_user");
    let address = rig.edge() - 8;
    for most in [1, 100, u64::MAX] {
        for length in [0, 1, 2, 99, 100, 101, 1 << 32, u64::MAX] {
            let (ran, page) = rig.run(&length.to_le_bytes(), [address, most, 0, 0]);
            let wanted = length.clamp(1, most);
            assert_eq!(ran.returned(), i64::from(wanted != length));
            assert_eq!(page[page.len() - 8..], wanted.to_le_bytes());
            assert!(
                page[..page.len() - 8].iter().all(|byte| *byte == 0xa5),
                "written in front of it"
            );
        }
    }
    for address in [0, address + 1, address + 8, u64::MAX] {
        assert_eq!(
            rig.run(&[9; 8], [address, 5, 0, 0]).0.returned(),
            UNREADABLE
        );
    }
}
