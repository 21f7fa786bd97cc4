//! What `/proc/PID/status`, `stat`, `syscall` and `limits` say, parsed; total on any bytes.
//!
//! Source: proc_pid_status(5), proc_pid_stat(5), proc_pid_syscall(5), proc_pid_limits(5).

use upatch_trampolines::Avma;

/// The lines of a `status` file that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Command name, escapes left as they are.
    pub name: String,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I` …; `?` if the line is missing.
    pub state: char,
    /// Thread group: the pid of the process.
    pub tgid: i32,
    /// Parent process.
    pub parent: i32,
    /// Thread id of the tracer, 0 if there is none.
    pub tracer: i32,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// Has the task user memory (`VmSize` is there)? Kernel threads and zombies haven't.
    pub has_memory: bool,
    /// Is a shadow stack active (`x86_Thread_features` names `shstk`)?
    pub shadow_stack: bool,
}

impl Status {
    /// Parses the whole file; what is missing keeps its default.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut status = Self {
            state: '?',
            ..Self::default()
        };
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match key {
                "Name" => status.name = value.to_owned(),
                "State" => status.state = value.chars().next().unwrap_or('?'),
                "Tgid" => status.tgid = value.parse().unwrap_or(0),
                "PPid" => status.parent = value.parse().unwrap_or(0),
                "TracerPid" => status.tracer = value.parse().unwrap_or(0),
                "Seccomp" => status.seccomp = value.parse().unwrap_or(0),
                "VmSize" => status.has_memory = true,
                "x86_Thread_features" => {
                    status.shadow_stack = value.split(' ').any(|word| word == "shstk")
                }
                _ => {}
            }
        }
        status
    }

    /// Dead, but not yet gone?
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Is it one of the kernel's own threads that borrow the process's memory: an io_uring worker or poller, a vhost worker?
/// Such a task never runs user code; interrupting it makes the program's I/O fail. Field 9 of `stat`, PF_IO_WORKER and
/// PF_USER_WORKER (include/linux/sched.h), can't be forged as names can.
#[must_use]
pub fn is_kernel_worker(stat: &str) -> bool {
    const WORKERS: u64 = 0x10 | 0x4000;
    flags(stat).is_some_and(|flags| flags & WORKERS != 0)
}

/// Is it a thread of the kernel's own (PF_KTHREAD)? A process that is just ending has no memory either, but is none.
#[must_use]
pub fn is_kernel_thread(stat: &str) -> bool {
    const KTHREAD: u64 = 0x20_0000;
    flags(stat).is_some_and(|flags| flags & KTHREAD != 0)
}

/// Field 9 of a `stat` file.
fn flags(stat: &str) -> Option<u64> {
    let after_name = stat.get(stat.rfind(')')? + 1..)?;
    after_name.split_ascii_whitespace().nth(6)?.parse().ok()
}

/// The state letter of a `stat` file; the name in parentheses may itself hold parentheses and blanks.
#[must_use]
pub fn state_of_stat(stat: &str) -> Option<char> {
    stat.get(stat.rfind(')')? + 1..)?
        .trim_start()
        .chars()
        .next()
}

/// Where a blocked task will return to user code, from its `syscall` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockedAt {
    /// System call number, -1 when it blocks outside one (a page fault).
    pub number: i64,
    /// Stack pointer.
    pub sp: Avma,
    /// Instruction pointer.
    pub ip: Avma,
}

impl BlockedAt {
    /// `None` for `running` and for anything that doesn't parse.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let number = words.first()?.parse().ok()?;
        let [sp, ip] = *words.get(words.len().checked_sub(2)?..)? else {
            return None;
        };
        if words.len() < 3 {
            return None;
        }
        let hex = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        Some(Self {
            number,
            sp: Avma(hex(sp)?),
            ip: Avma(hex(ip)?),
        })
    }
}

/// The soft `Max file size` of a `limits` file, in bytes; `None` is unlimited (or not told).
#[must_use]
pub fn file_size_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max file size"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status() {
        let text = "Name:\tab)c\nState:\tS (sleeping)\nTgid:\t12\nPPid:\t1\nTracerPid:\t99\nVmSize:\t  12 kB\nSeccomp:\t2\n\
                    x86_Thread_features:\tshstk wrss \n";
        let status = Status::parse(text);
        assert_eq!(
            (status.state, status.tgid, status.tracer, status.seccomp),
            ('S', 12, 99, 2)
        );
        assert!(status.has_memory && status.shadow_stack && !status.is_dead());
        assert_eq!(Status::parse("State:\nx\n").state, '?');
    }

    #[test]
    fn reads_stat_syscall_and_limits() {
        assert_eq!(state_of_stat("7 (a) R) D 1 2"), Some('D'));
        assert_eq!(state_of_stat("7 a"), None);
        let kernels = |stat| (is_kernel_thread(stat), is_kernel_worker(stat));
        assert_eq!(
            kernels("2 (kthreadd) S 0 0 0 0 -1 2129984 0"),
            (true, false)
        );
        assert_eq!(kernels("7 (a) R) R 1 7 7 0 -1 4228364 0"), (false, false));
        assert_eq!(kernels("7 (iou-wrk) S 1 7 7 0 -1 4210768 0"), (false, true));
        let blocked = BlockedAt::parse("58 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffd10 0x7f0010\n").unwrap();
        assert_eq!(
            (blocked.number, blocked.sp, blocked.ip),
            (58, Avma(0x7f_fd10), Avma(0x7f_0010))
        );
        assert_eq!(BlockedAt::parse("-1 0x7ffd10 0x7f0010").unwrap().number, -1);
        for bad in ["", "running", "1", "1 0x2", "1 2 3", "x 0x1 0x2"] {
            assert_eq!(BlockedAt::parse(bad), None, "{bad}");
        }
        assert_eq!(
            file_size_limit("Max file size             4096     unlimited   bytes\n"),
            Some(4096)
        );
        assert_eq!(
            file_size_limit("Max file size             unlimited     unlimited   bytes\n"),
            None
        );
    }
}
