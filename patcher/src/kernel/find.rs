//! What the kernel holds for patches, found from a process: arenas that it maps, links and arenas that it holds open.
//!
//! Ours by name and kind, asked of the kernel through a descriptor. Without the privilege to ask (CAP_SYS_ADMIN) nothing
//! is ours.

use std::io;
use std::os::fd::AsFd;

use upatch_trampolines::{Avma, AvmaRange};

use super::{MAP_TYPE_ARENA, id_in, sys};
use crate::process::Process;

/// `BPF_LINK_TYPE_TCX` (include/uapi/linux/bpf.h), the only kind that we make.
const LINK_TYPE_TCX: u32 = 11;

/// A descriptor of the kernel's plane that a process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// An arena of ours, which is only passed through.
    Arena,
    /// A link that keeps a program of this patch attached.
    Link {
        /// The patch.
        id: String,
        /// The kernel's number of the link.
        link: u32,
        /// And of the program.
        program: u32,
    },
}

/// May we ask the kernel what it holds?
pub(crate) fn may_look() -> bool {
    match sys::next_map_id(0) {
        Ok(_) => true,
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    }
}

/// What the process holds as `fd`, if it is ours; `shown` is where `/proc/PID/fd/N` leads.
pub(crate) fn held(process: &Process, fd: i32, shown: &str) -> Option<Held> {
    match shown {
        "anon_inode:bpf-map" => {
            let map = process.descriptor(fd).ok()?;
            let info = sys::map_info(map.as_fd()).ok()?;
            id_in(&info.name).filter(|_| info.map_type == MAP_TYPE_ARENA)?;
            Some(Held::Arena)
        }
        "anon_inode:bpf_link" | "anon_inode:bpf-link" => {
            let link = process.descriptor(fd).ok()?;
            let info = sys::link_info(link.as_fd()).ok()?;
            if info.link_type != LINK_TYPE_TCX {
                return None;
            }
            let program = sys::prog_by_id(info.prog_id).ok()?;
            let program = sys::prog_info(program.as_fd()).ok()?;
            Some(Held::Link {
                id: id_in(&program.name)?,
                link: info.id,
                program: program.id,
            })
        }
        _ => None,
    }
}

/// Does the kernel still have this link? Somebody holds it then.
pub(crate) fn is_held(link: u32) -> bool {
    sys::link_by_id(link).is_ok()
}

/// Where arenas of ours belong, whoever maps them.
pub(crate) fn arenas() -> io::Result<Vec<AvmaRange>> {
    let mut found = Vec::new();
    let mut last = 0;
    loop {
        last = match sys::next_map_id(last) {
            Ok(next) => next,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(error) => return Err(error),
        };
        // Gone again, perhaps.
        let Ok(map) = sys::map_by_id(last) else {
            continue;
        };
        let Ok(info) = sys::map_info(map.as_fd()) else {
            continue;
        };
        if info.map_type == MAP_TYPE_ARENA && id_in(&info.name).is_some() {
            let len = u64::from(info.max_entries) * 4096;
            found.push(AvmaRange::new(Avma(info.map_extra), len));
        }
    }
}
