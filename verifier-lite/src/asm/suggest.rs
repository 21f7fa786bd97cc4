//! What an unknown mnemonic may have been meant to be.

use super::error::AsmErrorKind;
use super::instruction::{ALU, CMP, ENDIAN, MOVSX, SIZES};

const OTHERS: [&str; 13] = [
    "neg",
    "neg32",
    "lddw",
    "ja",
    "ja32",
    "gotol",
    "lock",
    "may_goto",
    "addr_space_cast",
    "load_acquire",
    "store_release",
    "call",
    "exit",
];

/// Why this mnemonic is not one.
pub(super) fn unknown(name: String) -> AsmErrorKind {
    if name.starts_with("ldabs") || name.starts_with("ldind") {
        return AsmErrorKind::Unsupported {
            name,
            instead: "legacy packet access belongs to socket filters",
        };
    }
    if name == "callx" {
        return AsmErrorKind::Unsupported {
            name,
            instead: "call a function by name with: call local NAME",
        };
    }
    let nearest = mnemonics()
        .map(|known| (distance(&known, &name), known))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, known)| known);
    AsmErrorKind::UnknownMnemonic { name, nearest }
}

fn mnemonics() -> impl Iterator<Item = String> {
    let wide = ALU
        .iter()
        .map(|(name, _)| *name)
        .chain(CMP.iter().map(|(name, _)| *name))
        .flat_map(|name| [name.to_owned(), format!("{name}32")]);
    let endian = ENDIAN
        .iter()
        .flat_map(|(name, _)| ["16", "32", "64"].map(|bits| format!("{name}{bits}")));
    let memory = SIZES
        .iter()
        .flat_map(|(size, _)| ["ldx", "ldxs", "st", "stx"].map(|prefix| format!("{prefix}{size}")));
    wide.chain(endian)
        .chain(memory)
        .chain(MOVSX.iter().map(|(name, ..)| (*name).to_owned()))
        .chain(OTHERS.iter().map(|name| (*name).to_owned()))
}

/// Levenshtein's distance, for suggestions. Long words are not compared: nothing of ours is that long.
fn distance(a: &str, b: &str) -> usize {
    if b.len() > 24 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let value = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = std::mem::replace(cell, value);
            left = value;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
