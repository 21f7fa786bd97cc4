//! Other processes that run in the same address space: vfork and posix_spawn children, CLONE_VM.
//!
//! They aren't in `/proc/PID/task`, and they execute the same text.

use super::handle::Process;
use super::sys;

/// The pids of all other processes that share `process`'s memory, as far as we may see them.
pub(super) fn others(process: &Process) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|&pid| pid != process.pid() && shares(process, pid))
        .collect()
}

/// Does the task run in the process's address space?
///
/// Where the kernel has no kcmp, equal memory maps count as shared: a child that has just been forked is then stopped
/// for nothing, which does no harm. A process that we may not compare with isn't ours to stop either.
pub(super) fn shares(process: &Process, pid: i32) -> bool {
    match sys::share_memory(process.pid(), pid) {
        Ok(shared) => shared,
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let ours = process.read_text("maps").unwrap_or_default();
            !ours.is_empty()
                && std::fs::read_to_string(format!("/proc/{pid}/maps"))
                    .is_ok_and(|theirs| theirs == ours)
        }
        Err(_) => false,
    }
}
