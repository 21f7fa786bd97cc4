//! Which processes there are, and whose descendants they are.
//!
//! By the parent in `/proc/PID/stat`: `/proc/PID/task/TID/children` needs CONFIG_PROC_CHILDREN, and promises nothing while
//! tasks end (proc_tid_children(5)). A list is old when it is there; whoever wants children that are born meanwhile asks again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// The ids of all processes that this `/proc` shows, sorted.
///
/// # Errors
/// `/proc` can't be read.
pub fn all() -> io::Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc")?;
    let names = entries.filter_map(Result::ok);
    let mut pids: Vec<i32> = names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The descendants of these processes as they are now, without them, sorted.
///
/// # Errors
/// `/proc` can't be read.
pub fn descendants(roots: &[i32]) -> io::Result<Vec<i32>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in all()? {
        // One that has ended meanwhile has no children any more.
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut pending = roots.to_vec();
    while let Some(pid) = pending.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            if found.insert(child) {
                pending.push(child);
            }
        }
    }
    for root in roots {
        found.remove(root);
    }
    Ok(found.into_iter().collect())
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parent_in(&stat)
}

/// `pid (name) state ppid …`; the name may hold anything, also parentheses.
fn parent_in(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        assert_eq!(parent_in(b"7 (a) S 3 7 7 0"), Some(3));
        assert_eq!(parent_in(b"7 (a) R 1) ) S 4 7"), Some(4));
        assert_eq!(parent_in(b"7 (a"), None);
        assert_eq!(parent_in(b""), None);
    }

    #[test]
    fn this_process_descends_from_its_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = parent(own).unwrap();
        assert!(descendants(&[parent]).unwrap().contains(&own));
        assert!(!descendants(&[own]).unwrap().contains(&own));
    }
}
