//! What patch authors and the toolkit agree on, in Rust: the layout of ctx, the verdicts, the helper table and the arena.
//!
//! The C side is `include/upatch.h`, written by hand for its readers; a test compiles it and compares every offset and
//! number with this crate. Beside it lie the headers for sanitising, which are BPF C built on it. This crate knows nothing of verifying, compiling or processes.
#![no_std]
#![forbid(unsafe_code)]

pub mod arena;
pub mod ctx;
pub mod helpers;
pub mod verdict;

/// The header that patch authors include, embedded so that `upatch build` needs no installed file.
pub const UPATCH_H: &str = include_str!("../include/upatch.h");

/// All headers, by the names that patch authors include them with: `upatch.h` and those for sanitising.
pub const HEADERS: [(&str, &str); 6] = [
    ("upatch.h", UPATCH_H),
    (
        "upatch_sanitize.h",
        include_str!("../include/upatch_sanitize.h"),
    ),
    ("upatch_text.h", include_str!("../include/upatch_text.h")),
    ("upatch_path.h", include_str!("../include/upatch_path.h")),
    (
        "upatch_length.h",
        include_str!("../include/upatch_length.h"),
    ),
    ("upatch_list.h", include_str!("../include/upatch_list.h")),
];
