//! The image's private writable memory: what lies where.
//!
//! ```text
//! 0       8        16     17                 64                           64 + BUCKETS * WAYS * 16
//! │ random │ missed │ gate │ (reserved, zero) │ guards: { thread, ~rsp } …  │
//! ```
//! The loader maps it private (a forked child gets its own copy), fills it with zeros and puts any number but zero at
//! [`RANDOM`].

/// State of the pseudo-random generator of `bpf_get_prandom_u32`: 8 bytes, not zero.
pub const RANDOM: u64 = 0;
/// How many entries continued unpatched because their thread was already inside the patch (or the table was full):
/// 8 bytes.
pub const MISSED: u64 = 8;
/// The gate of a patch with several sites, one byte, in the private data of the first site's image only: 0 closed, every image
/// goes on to its displaced instructions; else open.
pub const GATE: u64 = 16;
/// The re-entry guards: 16 bytes each, the thread's pointer (0: free), then the complement of its rsp.
pub const GUARDS: u64 = 64;
/// Buckets of guards; a thread has its place in one, by its thread pointer.
pub const BUCKETS: u64 = 64;
/// Guards in a bucket.
pub const WAYS: u64 = 8;
/// Bytes of a guard.
pub const GUARD_BYTES: u64 = 16;
/// Bytes in all.
pub const BYTES: u64 = GUARDS + BUCKETS * WAYS * GUARD_BYTES;
