//! upatch_text.h against std's UTF-8, checked arithmetic and ASCII classes.

use upatch_tests::programs::Random;

use crate::GENERATED;
use crate::flaw::{ILLEGAL, INVALID, OVERFLOW, TOO_LONG, UNREADABLE};
use crate::rig::Rig;

/// Every sequence that tells an edge of UTF-8 from its neighbour, in front of and behind other text.
fn utf8_edges() -> Vec<Vec<u8>> {
    let mut edges = Vec::new();
    let interesting = [
        0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec,
        0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf7, 0xf8, 0xfb, 0xfc, 0xfd, 0xfe, 0xff,
    ];
    for a in interesting {
        edges.push(vec![a]);
        for b in interesting {
            edges.push(vec![a, b]);
            if a < 0xe0 {
                continue;
            }
            for c in [0x01, 0x7f, 0x80, 0xbf, 0xc0] {
                edges.push(vec![a, b, c]);
                for d in [0x41, 0x80, 0xbf, 0xc0] {
                    edges.push(vec![a, b, c, d]);
                    edges.push(vec![b'x', a, b, c, d, b'y']);
                }
            }
        }
    }
    edges
}

/// Mostly characters, now and then a byte that is none.
fn utf8_like(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    let most = random.below(72);
    while (text.len() as u64) < most {
        if random.chance(6) {
            text.push(random.below(255) as u8 + 1);
            continue;
        }
        let limit = random.pick(&[0x80, 0x800, 0x1_0000, 0x11_0000]);
        if let Some(letter) = char::from_u32(random.below(limit) as u32) {
            text.extend(letter.to_string().bytes().filter(|byte| *byte != 0));
        }
    }
    if random.chance(20) {
        text.pop();
    }
    text
}

#[test]
fn utf8() {
    let mut rig = Rig::new("utf8");
    let mut random = Random::new(0x5a17_0002);
    let mut inputs = utf8_edges();
    for length in [62, 63, 64, 65] {
        inputs.push(vec![b'a'; length]);
        inputs.push([vec![b'a'; length - 3], "\u{20ac}".into()].concat());
        inputs.push([vec![b'a'; length - 2], "\u{20ac}".into()].concat());
    }
    inputs.extend((0..GENERATED).map(|_| utf8_like(&mut random)));
    for text in inputs {
        let wanted = if text.len() > 63 {
            TOO_LONG
        } else if std::str::from_utf8(&text).is_ok() {
            0
        } else {
            ILLEGAL
        };
        let ran = rig.run_bytes(&text, [text.len() as u64, 0, 0]);
        assert_eq!(ran.returned(), wanted, "{text:x?}");
    }
}

#[test]
fn utf8_at() {
    let mut rig = Rig::new("utf8_at");
    let mut random = Random::new(0x5a17_000a);
    let mut inputs = utf8_edges();
    // A character across every place of a piece's border, and cut there.
    for padding in 55..=66 {
        for letter in ["\u{e9}", "\u{20ac}", "\u{1f600}", "\0"] {
            let text = [vec![b'a'; padding], letter.into(), b"end".to_vec()].concat();
            inputs.extend((padding..=text.len()).map(|length| text[..length].to_vec()));
        }
    }
    inputs.extend([4000, 4095, 4096].map(|length| vec![b'a'; length]));
    inputs.extend((0..GENERATED / 4).map(|_| {
        let parts = random.below(8);
        (0..parts).flat_map(|_| utf8_like(&mut random)).collect()
    }));
    for text in inputs {
        let wanted = if std::str::from_utf8(&text).is_ok() {
            0
        } else {
            ILLEGAL
        };
        let ran = rig.run_bytes(&text, [text.len() as u64, 0, 0]);
        assert_eq!(ran.returned(), wanted, "{text:x?}");
        let ran = rig.run_bytes(&text, [text.len() as u64 + 1, 0, 0]);
        assert_eq!(ran.returned(), UNREADABLE, "{text:x?}");
    }
    for (length, wanted) in [
        (16_384, UNREADABLE),
        (16_385, TOO_LONG),
        (u64::MAX, TOO_LONG),
    ] {
        assert_eq!(rig.run_bytes(b"a", [length, 0, 0]).returned(), wanted);
    }
    assert_eq!(rig.run(b"", [0, 0, 0, 0]).0.returned(), 0);
    assert_eq!(rig.run(b"", [0, 1, 0, 0]).0.returned(), UNREADABLE);
}

#[test]
fn read_text() {
    let mut rig = Rig::new("read_text");
    for length in 0..40usize {
        let text: Vec<u8> = (1..).take(length).collect();
        let ran = rig.run_bytes(&text, [length as u64, 0, 0]);
        if length < 16 {
            assert_eq!(ran.returned(), length as i64);
            assert_eq!(ran.text("found"), text);
        } else {
            assert_eq!(ran.returned(), TOO_LONG);
        }
        // One byte more than can be read.
        let ran = rig.run_bytes(&text, [length as u64 + 1, 0, 0]);
        let wanted = if length + 1 < 16 {
            UNREADABLE
        } else {
            TOO_LONG
        };
        assert_eq!(ran.returned(), wanted, "{length}");
        for nul in 0..length.min(15) {
            let mut text = text.clone();
            text[nul] = 0;
            let wanted = if length < 16 { ILLEGAL } else { TOO_LONG };
            assert_eq!(
                rig.run_bytes(&text, [length as u64, 0, 0]).returned(),
                wanted
            );
            // Less than what is there is all right.
            assert_eq!(
                rig.run_bytes(&text, [nul as u64, 0, 0]).returned(),
                nul as i64
            );
        }
    }
    for length in [1 << 16, 1 << 32, (1 << 32) + 5, u64::MAX] {
        assert_eq!(rig.run_bytes(b"text", [length, 0, 0]).returned(), TOO_LONG);
    }
    for address in [0, u64::MAX, 1 << 63] {
        assert_eq!(rig.run(b"", [address, 4, 0, 0]).0.returned(), UNREADABLE);
    }
}

fn charset_bits(text: &[u8]) -> i64 {
    let all = |test: fn(&u8) -> bool| text.iter().all(test);
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let portable = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let first = text.first();
    let bits = [
        all(|byte| byte.is_ascii_graphic() || *byte == b' '),
        text.iter().all(word),
        text.iter().all(portable),
        all(|byte| byte.is_ascii_alphanumeric() || b"_-./,:+=@%".contains(byte)),
        first.is_some_and(|byte| !byte.is_ascii_digit()) && text.iter().all(word),
        first.is_some_and(|byte| !b"-.".contains(byte)) && text.iter().all(portable),
        all(|byte| b"aeiou".contains(byte)),
    ];
    (0..)
        .zip(bits)
        .map(|(bit, set)| i64::from(set) << bit)
        .sum()
}

#[test]
fn charsets() {
    let mut rig = Rig::new("charsets");
    let mut random = Random::new(0x5a17_0003);
    let mut inputs = vec![
        Vec::new(),
        b"_".to_vec(),
        b"a1".to_vec(),
        b"1a".to_vec(),
        b"-rf".to_vec(),
        b".profile".to_vec(),
    ];
    // Every byte: alone, first, last.
    for byte in 1..=255 {
        inputs.extend([
            vec![byte],
            vec![byte, b'a'],
            vec![b'a', byte],
            [vec![b'a'; 29], vec![byte]].concat(),
        ]);
    }
    inputs.extend([30, 31, 32, 33].map(|length| vec![b'e'; length]));
    for _ in 0..GENERATED {
        let alphabet = random.pick(&[
            "aeiou",
            "abcXYZ019_",
            "az09_-.",
            "a/b,c:d+=@%",
            " ~!$&;|<>`\\\"'*?",
            "\u{e4}a\x1b\n\x7f",
        ]);
        let length = random.below(34);
        inputs.push(
            (0..length)
                .map(|_| random.pick(alphabet.as_bytes()))
                .collect(),
        );
    }
    for text in inputs {
        let ran = rig.run_str(&text, [0; 3]);
        if text.len() > 30 {
            assert_eq!(ran.returned(), TOO_LONG, "{text:x?}");
        } else {
            assert_eq!(ran.returned(), charset_bits(&text), "{text:x?}");
            assert_eq!(ran.text("found"), text.to_ascii_lowercase());
        }
    }
}

/// What a strict parser says: digits of the base only, checked arithmetic, a limit.
fn parsed(text: &[u8], base: u32, most: u64) -> Result<u64, i64> {
    if text.is_empty() {
        return Err(INVALID);
    }
    let mut value = 0u64;
    for byte in text {
        let digit = char::from(*byte).to_digit(base).ok_or(ILLEGAL)?;
        value = value
            .checked_mul(base.into())
            .and_then(|value| value.checked_add(digit.into()))
            .filter(|value| *value <= most)
            .ok_or(OVERFLOW)?;
    }
    Ok(value)
}

fn in_base(mut value: u128, base: u128) -> Vec<u8> {
    let mut digits = Vec::new();
    while value > 0 || digits.is_empty() {
        digits.push(char::from_digit((value % base) as u32, base as u32).unwrap() as u8);
        value /= base;
    }
    digits.reverse();
    digits
}

fn digits(random: &mut Random, base: u32, most: u64) -> Vec<u8> {
    let near = u128::from(most) + u128::from(random.below(5));
    let value = match random.below(4) {
        0 => near.saturating_sub(2),
        1 => u128::from(u64::MAX) + u128::from(random.below(3)),
        2 => u128::from(random.next() >> random.below(64)),
        _ => u128::from(random.next()) << random.below(20),
    };
    let mut text = vec![
        b'0';
        if random.chance(20) {
            random.below(9) as usize
        } else {
            0
        }
    ];
    text.extend(in_base(value, base.into()));
    if random.chance(30) {
        text.make_ascii_uppercase();
    }
    if random.chance(15) {
        let at = random.below(text.len() as u64) as usize;
        text[at] = random.pick(b"+- _.,:/@`g{zGZ\xb2\x01");
    }
    text
}

#[test]
fn parse_u64() {
    let mut rig = Rig::new("parse_u64");
    let mut random = Random::new(0x5a17_0004);
    let mut check = |text: &[u8], base: u32, most: u64| {
        let ran = rig.run_str(text, [base.into(), most, 0]);
        let wanted = if text.len() > 126 {
            Err(TOO_LONG)
        } else {
            parsed(text, base, most)
        };
        assert_eq!(
            ran.returned(),
            wanted.err().unwrap_or(0),
            "{:?} in base {base}, most {most}",
            text.escape_ascii().to_string()
        );
        assert_eq!(ran.number("number", 0), wanted.unwrap_or(0));
    };
    for base in [2, 8, 10, 16, 36] {
        for most in [
            0,
            1,
            9,
            255,
            65_535,
            u64::from(u32::MAX),
            u64::MAX >> 1,
            u64::MAX - 1,
            u64::MAX,
        ] {
            for byte in 1..=255 {
                check(&[byte], base, most);
            }
            check(b"", base, most);
            for value in [
                u128::from(most).saturating_sub(1),
                most.into(),
                u128::from(most) + 1,
                u128::from(most) * u128::from(base),
            ] {
                check(&in_base(value, base.into()), base, most);
            }
            for length in [125, 126, 127, 128] {
                check(&vec![b'0'; length], base, most);
            }
            for text in ["0x10", " 1", "1 ", "+1", "-1", "1_000", "1e3", "00", "007"] {
                check(text.as_bytes(), base, most);
            }
        }
    }
    for _ in 0..GENERATED {
        let base = random.pick(&[2, 8, 10, 16, 36]);
        let most = random.next() >> random.below(64);
        let text = digits(&mut random, base, most);
        check(&text, base, most);
    }
}

#[test]
fn parse_s64() {
    let mut rig = Rig::new("parse_s64");
    let mut random = Random::new(0x5a17_0005);
    let mut check = |text: &[u8], least: i64, most: i64| {
        let ran = rig.run_str(text, [least as u64, most as u64, 0]);
        let wanted = if text.len() > 30 {
            Err(TOO_LONG)
        } else if let Some(rest) = text.strip_prefix(b"-") {
            parsed(rest, 10, least.unsigned_abs()).map(|value| value.wrapping_neg().cast_signed())
        } else {
            let rest = text.strip_prefix(b"+").unwrap_or(text);
            parsed(rest, 10, most.unsigned_abs()).map(u64::cast_signed)
        };
        let shown = text.escape_ascii().to_string();
        assert_eq!(
            ran.returned(),
            wanted.err().unwrap_or(0),
            "{shown:?} in {least}..={most}"
        );
        assert_eq!(
            ran.number("number", 0).cast_signed(),
            wanted.unwrap_or(0),
            "{shown:?}"
        );
        if let (Ok(value), Ok(std)) = (wanted, shown.parse::<i64>()) {
            assert_eq!(value, std);
        }
    };
    for (least, most) in [
        (i64::MIN, i64::MAX),
        (-1, 1),
        (0, 0),
        (-128, 127),
        (0, 10),
        (i64::MIN + 1, 0),
    ] {
        for text in [
            "",
            "-",
            "+",
            "0",
            "-0",
            "+0",
            "--1",
            "+-1",
            "1",
            "-1",
            "+1",
            "127",
            "128",
            "-128",
            "-129",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "- 1",
            "1-",
        ] {
            check(text.as_bytes(), least, most);
        }
    }
    for _ in 0..GENERATED {
        let least = -((random.next() >> (1 + random.below(63))) as i64);
        let most = (random.next() >> (1 + random.below(63))) as i64;
        let mut text = random.pick(&["", "-", "+"]).as_bytes().to_vec();
        text.extend(digits(
            &mut random,
            10,
            if text == b"-" {
                least.unsigned_abs()
            } else {
                most as u64
            },
        ));
        check(&text, least, most);
    }
}
