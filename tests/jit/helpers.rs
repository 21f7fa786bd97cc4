//! Every helper that asks or computes: right answers, and not a register changed.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::rig::{Rig, of_kind, sites};

/// Runs `call ID` with arguments made by `before` at every place; r0 is then in the arena's first word.
fn each_place(before: &str, call: &str, check: impl Fn(&Rig)) {
    for site in sites() {
        let mut rig = Rig::new();
        let body =
            format!("{before}\n{call}\nlddw %r1, arena\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit");
        rig.run(&of_kind(&site, &body), &site);
        check(&rig);
    }
}

#[test]
fn ktime_get_ns() {
    fn now() -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: clock_gettime fills the structure.
        let done = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
    let start = now();
    each_place("", "call bpf_ktime_get_ns", |rig| {
        assert!((start..=now()).contains(&rig.word(0)));
    });
    assert!(SystemTime::now() > UNIX_EPOCH);
}

#[test]
fn get_prandom_u32() {
    each_place("", "call bpf_get_prandom_u32", |rig| {
        assert!(rig.word(0) <= u64::from(u32::MAX));
        // The state went on.
        assert_ne!(rig.private_word(0), 0x1234_5678_9abc);
        assert_ne!(rig.private_word(0), 0);
    });
}

#[test]
fn get_smp_processor_id() {
    each_place("", "call bpf_get_smp_processor_id", |rig| {
        assert!(rig.word(0) < 4096);
    });
}

#[test]
fn get_current_pid_tgid() {
    each_place("", "call bpf_get_current_pid_tgid", |rig| {
        // SAFETY: gettid has no arguments.
        let tid = unsafe { libc::gettid() } as u64;
        assert_eq!(rig.word(0), u64::from(std::process::id()) << 32 | tid);
    });
}

#[test]
fn get_current_uid_gid() {
    each_place("", "call bpf_get_current_uid_gid", |rig| {
        // SAFETY: neither has arguments.
        let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
        assert_eq!(rig.word(0), u64::from(gid) << 32 | u64::from(uid));
    });
}

#[test]
fn get_current_comm() {
    let mut name = [0; 16];
    // SAFETY: PR_GET_NAME writes 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    for size in [1_usize, 2, 8, 15, 16, 17, 32] {
        for site in sites() {
            let mut rig = Rig::new();
            rig.arena.bytes_mut()[..128].fill(0xaa);
            let body = format!(
                "lddw %r1, arena+16\nmov %r2, {size}\ncall bpf_get_current_comm\n\
                 lddw %r1, arena\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit"
            );
            rig.run(&of_kind(&site, &body), &site);
            assert_eq!(rig.word(0), 0);
            let mut wanted = vec![0; size];
            for (to, from) in wanted.iter_mut().zip(name).take(size - 1) {
                *to = from;
            }
            assert_eq!(&rig.arena.bytes()[16..16 + size], wanted);
            assert_eq!(rig.arena.bytes()[16 + size], 0xaa);
        }
    }
}

#[test]
fn strncmp() {
    let cases = [
        ("same", "same", 8, 0),
        ("same", "sane", 8, -1_i64),
        ("sane", "same", 8, 1),
        ("sam", "same", 8, -1),
        ("same", "sam", 8, 1),
        ("same", "sane", 2, 0),
        ("", "", 8, 0),
        ("\u{7f}x", "\u{7e}x", 2, 1),
    ];
    for (left, right, size, wanted) in cases {
        for site in sites() {
            let mut rig = Rig::new();
            rig.arena.bytes_mut()[64..64 + left.len()].copy_from_slice(left.as_bytes());
            let body = format!(
                ".data right \"{right}\\0\"\nlddw %r1, arena+64\nmov %r2, {size}\nlddw %r3, right\n\
                 call bpf_strncmp\nlddw %r1, arena\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit"
            );
            rig.run(&of_kind(&site, &body), &site);
            assert_eq!(
                rig.word(0).cast_signed(),
                wanted,
                "{left:?} {right:?} {size}"
            );
        }
    }
}

/// bpf_loop calls until the callback says stop; the callback's context is on the stack.
#[test]
fn bpf_loop() {
    let cases = [(5, 100, 5, 10), (5, 2, 3, 3), (0, 0, 0, 0)];
    for (count, stop_after, calls, sum) in cases {
        for site in sites() {
            let mut rig = Rig::new();
            let body = format!(
                "stdw [%r10-8], 0\nmov %r1, {count}\nlddw %r2, func callback\nmov %r3, %r10\nadd %r3, -8\nmov %r4, 0\n\
                 call bpf_loop\nlddw %r1, arena\nstxdw [%r1+0], %r0\nldxdw %r2, [%r10-8]\nstxdw [%r1+8], %r2\n\
                 mov %r0, 0\nexit\n\
                 callback:\nldxdw %r3, [%r2+0]\nadd %r3, %r1\nstxdw [%r2+0], %r3\nmov %r0, 0\n\
                 jlt %r1, {stop_after}, +1\nmov %r0, 1\nexit"
            );
            rig.run(&of_kind(&site, &body), &site);
            assert_eq!((rig.word(0), rig.word(8)), (calls, sum));
        }
    }
}

#[test]
fn bpf_loop_limits() {
    for (count, flags, wanted) in [(0x80_0001, 0, -7_i64), (1, 0, 1)] {
        for site in sites() {
            let mut rig = Rig::new();
            let body = format!(
                "mov %r1, {count}\nlddw %r2, func callback\nmov %r3, 0\nmov %r4, {flags}\ncall bpf_loop\n\
                 lddw %r1, arena\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit\ncallback:\nmov %r0, 1\nexit"
            );
            rig.run(&of_kind(&site, &body), &site);
            assert_eq!(rig.word(0).cast_signed(), wanted);
        }
    }
}
