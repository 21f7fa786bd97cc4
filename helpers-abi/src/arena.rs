//! The arena's shape: what may be computed from its length alone.
//!
//! ```text
//! base                                   base + window                      + SLACK
//!  │ globals (.addr_space.1, .data, .bss) … free … │ slack page: an 8-byte access at the last
//!  └───────────────────────────────────────────────┘ byte of the window still lands on memory
//! ```
//! The window is a power of two and the base is aligned to it, so that `base | (pointer & (window - 1))` confines any
//! pointer; the slack page behind it is populated too and takes the tail of an access that begins at the very end.

/// Bytes in a page (x86-64).
pub const PAGE: u64 = 4096;
/// Populated bytes behind the window.
pub const SLACK: u64 = PAGE;
/// The largest window: the kernel's arena limit, 4 GiB (1 << 20 pages).
pub const MAX_WINDOW: u64 = 1 << 32;

/// The smallest window that holds `len` bytes, or `None` if no arena is that large. At least one page.
#[must_use]
pub const fn window_for(len: u64) -> Option<u64> {
    if len > MAX_WINDOW {
        return None;
    }
    let window = len.next_power_of_two();
    Some(if window < PAGE { PAGE } else { window })
}
