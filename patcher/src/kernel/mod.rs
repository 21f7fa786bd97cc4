//! The kernel's plane of a patch: its arena, its kernel programs, and finding both again.
//!
//! ```text
//! PatchObject ─plan(devices)→ Planned ─load(arena)→ Loaded ─attach→ Attached { link } ─→ into the target
//! ```
//! A link's descriptor is passed into the target and stays there, closed on exec: the kernel program lives exactly as long
//! as the image and the arena do, in the process and in its forked children. When the last of them ends, or executes
//! another program, the kernel detaches it. Until it is passed, only `upatch` holds it: killed, it takes the program along.
//!
//! Everything is named `upatch_` and the patch's id, which is how it is told from what isn't ours; a descriptor's number
//! or a program's id in a record proves nothing.

mod attach;
mod btf;
mod find;
mod load;
mod sys;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub use attach::{Attached, AttachedInfo, attach};
pub(crate) use find::{Held, arenas, held, is_held, may_look};
pub use load::{Device, KernelError, Loaded, Plan, Planned, load, plan};

/// `BPF_MAP_TYPE_ARENA` (include/uapi/linux/bpf.h).
const MAP_TYPE_ARENA: u32 = 33;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;
/// Most pages of an arena.
pub(crate) const MOST_PAGES: u64 = 1 << 20;

/// The name of everything that the kernel holds for a patch.
fn name_of(id: &str) -> [u8; sys::NAME_LEN] {
    let mut name = [0; sys::NAME_LEN];
    for (to, from) in name.iter_mut().zip(format!("upatch_{id}").bytes().take(15)) {
        *to = from;
    }
    name
}

/// The patch's id in such a name.
fn id_in(name: &[u8; sys::NAME_LEN]) -> Option<String> {
    let text = name.split(|&byte| byte == 0).next()?;
    let id = std::str::from_utf8(text).ok()?.strip_prefix("upatch_")?;
    (id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Why the kernel gives us no arena.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoArena {
    /// Not for us.
    #[error("not permitted")]
    NotPermitted(#[source] io::Error),
    /// It has none, or none that a process which forks may have (before Linux 6.10).
    #[error("unknown to this kernel")]
    Unsupported(#[source] io::Error),
    /// Something of ours lies at the address.
    #[error("the address is taken in upatch")]
    Taken,
    /// Anything else.
    #[error("{call}")]
    Failed {
        /// What failed.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// An arena of `pages` pages that belongs at `at`, which must not cross a multiple of 4 GiB, filled with `initial` and zeros.
pub(crate) fn make_arena(
    id: &str,
    at: u64,
    pages: u32,
    initial: &[u8],
) -> Result<OwnedFd, NoArena> {
    if !release_is_at_least(6, 10) {
        let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        return Err(NoArena::Unsupported(source));
    }
    let map = sys::map_create(sys::MapCreate {
        map_type: MAP_TYPE_ARENA,
        max_entries: pages,
        map_flags: MMAPABLE,
        name: name_of(id),
        map_extra: at,
        ..sys::MapCreate::default()
    });
    let map = map.map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NoArena::NotPermitted(source),
        // What we ask for is right by construction; a kernel that knows no arenas says that the type is wrong, or that
        // the attributes are too long, or that it has no bpf(2).
        Some(libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP | libc::ENOSYS) => {
            NoArena::Unsupported(source)
        }
        _ => NoArena::Failed {
            call: "BPF_MAP_CREATE",
            source,
        },
    })?;
    let size = pages as usize * 4096;
    sys::arena_fill(map.as_fd(), at, size, initial).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::EEXIST) => NoArena::Taken,
            _ => NoArena::Failed {
                call: "mmap of the arena",
                source,
            },
        }
    })?;
    Ok(map)
}

/// Linux 6.9 has arenas too, but in it one that a forked child unmaps is freed under its parent ("bpf: Fix remap of arena").
fn release_is_at_least(major: u32, minor: u32) -> bool {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .is_ok_and(|release| is_at_least(&release, major, minor))
}

fn is_at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release
        .split(|byte: char| !byte.is_ascii_digit())
        .map(str::parse);
    let (Some(Ok(found)), Some(Ok(below))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    (found, below) >= (major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_releases() {
        for new in ["6.10.0", "6.18.44-rc1", "7.0", "10.1.2"] {
            assert!(is_at_least(new, 6, 10), "{new}");
        }
        for old in ["6.9.12", "6.1.0-13-amd64", "5.15", "6", "", "x.y"] {
            assert!(!is_at_least(old, 6, 10), "{old}");
        }
    }

    #[test]
    fn names_lead_back_to_the_id() {
        assert_eq!(id_in(&name_of("00aabbcc")).as_deref(), Some("00aabbcc"));
        for other in [
            *b"upatch_0\0\0\0\0\0\0\0\0",
            *b"upatch_xxxxxxxx\0",
            *b"cil_from_netdev\0",
            [0xff; 16],
        ] {
            assert_eq!(id_in(&other), None);
        }
    }
}
