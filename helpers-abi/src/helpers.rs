//! The built-in helpers: their ids, C prototypes as the verifier enforces them, and what they ask of the target.
//!
//! Ids and names are the kernel's (include/uapi/linux/bpf.h); ours that the kernel doesn't have begin at
//! [`UPATCH_BASE`]. Functions of the application are not in this table: they are `__ksym` externs with a prototype of
//! their own (DESIGN decision 5).

/// First id of helpers that only upatch has.
pub const UPATCH_BASE: u32 = 0x7570_0000;

/// What a helper takes at one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// Any number.
    Scalar,
    /// An address in the program's memory: any number, the helper never faults on it.
    UserAddress,
    /// Readable memory of ours; its size is the argument at index `size`.
    ReadMemory {
        /// Index (0-4) of the argument that holds the size in bytes.
        size: u8,
    },
    /// Memory of ours that the helper fills entirely (need not be initialised); its size is the argument at `size`.
    WriteMemory {
        /// Index (0-4) of the argument that holds the size in bytes.
        size: u8,
    },
    /// The size of the memory argument that names it: proven within bounds; zero allowed only where `zero_ok`.
    Size {
        /// May the size be zero?
        zero_ok: bool,
    },
    /// A NUL-terminated constant string in read-only data.
    ConstString,
    /// The address of a static subprogram `long callback(u32 index, void *ctx)`.
    Callback,
    /// Passed to the callback as its second argument: pointer to stack, arena or a number.
    CallbackContext,
    /// A number that must be zero.
    Zero,
}

/// What a helper leaves in R0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ret {
    /// Any 64-bit number.
    Scalar,
    /// A number in `min..=max` (signed).
    Range {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A negative errno, or at most the value of the size argument at this index.
    ErrnoOrSize(u8),
}

/// One built-in helper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Helper {
    /// The `imm` of its call instruction.
    pub id: u32,
    /// Its C name.
    pub name: &'static str,
    /// Its arguments, R1 first.
    pub args: &'static [Arg],
    /// What R0 holds afterwards.
    pub ret: Ret,
    /// Does it write the program's memory (needs `--allow-write`)?
    pub destructive: bool,
    /// Numbers of the system calls (x86-64) that the target executes for it, for the seccomp check.
    pub syscalls: &'static [u32],
}

const EFAULT: i64 = -14;

/// Every built-in helper, in the order of ids.
pub const HELPERS: &[Helper] = &[
    Helper {
        id: 5,
        name: "bpf_ktime_get_ns",
        args: &[],
        ret: Ret::Scalar,
        destructive: false,
        syscalls: &[228],
    },
    Helper {
        id: 7,
        name: "bpf_get_prandom_u32",
        args: &[],
        ret: Ret::Range {
            min: 0,
            max: 0xffff_ffff,
        },
        destructive: false,
        syscalls: &[],
    },
    Helper {
        id: 8,
        name: "bpf_get_smp_processor_id",
        args: &[],
        ret: Ret::Range {
            min: 0,
            max: 0xffff_ffff,
        },
        destructive: false,
        syscalls: &[309],
    },
    Helper {
        id: 14,
        name: "bpf_get_current_pid_tgid",
        args: &[],
        ret: Ret::Scalar,
        destructive: false,
        syscalls: &[39, 186],
    },
    Helper {
        id: 15,
        name: "bpf_get_current_uid_gid",
        args: &[],
        ret: Ret::Scalar,
        destructive: false,
        syscalls: &[102, 104],
    },
    Helper {
        id: 16,
        name: "bpf_get_current_comm",
        args: &[Arg::WriteMemory { size: 1 }, Arg::Size { zero_ok: false }],
        ret: Ret::Range { min: -22, max: 0 },
        destructive: false,
        syscalls: &[157],
    },
    Helper {
        id: 36,
        name: "bpf_probe_write_user",
        args: &[
            Arg::UserAddress,
            Arg::ReadMemory { size: 2 },
            Arg::Size { zero_ok: false },
        ],
        ret: Ret::Range {
            min: EFAULT,
            max: 0,
        },
        destructive: true,
        syscalls: &[39, 311],
    },
    Helper {
        id: 112,
        name: "bpf_probe_read_user",
        args: &[
            Arg::WriteMemory { size: 1 },
            Arg::Size { zero_ok: true },
            Arg::UserAddress,
        ],
        ret: Ret::Range {
            min: EFAULT,
            max: 0,
        },
        destructive: false,
        syscalls: &[39, 310],
    },
    Helper {
        id: 114,
        name: "bpf_probe_read_user_str",
        args: &[
            Arg::WriteMemory { size: 1 },
            Arg::Size { zero_ok: true },
            Arg::UserAddress,
        ],
        ret: Ret::ErrnoOrSize(1),
        destructive: false,
        syscalls: &[39, 310],
    },
    Helper {
        id: 181,
        name: "bpf_loop",
        args: &[Arg::Scalar, Arg::Callback, Arg::CallbackContext, Arg::Zero],
        ret: Ret::Range {
            min: -22,
            max: 1 << 23,
        },
        destructive: false,
        syscalls: &[],
    },
    Helper {
        id: 182,
        name: "bpf_strncmp",
        args: &[
            Arg::ReadMemory { size: 1 },
            Arg::Size { zero_ok: false },
            Arg::ConstString,
        ],
        ret: Ret::Range {
            min: -255,
            max: 255,
        },
        destructive: false,
        syscalls: &[],
    },
    Helper {
        id: UPATCH_BASE + 1,
        name: "upatch_set_errno",
        args: &[Arg::Scalar],
        ret: Ret::Range { min: 0, max: 0 },
        destructive: false,
        syscalls: &[],
    },
];

/// The helper with this id.
#[must_use]
pub fn by_id(id: u32) -> Option<&'static Helper> {
    HELPERS.iter().find(|helper| helper.id == id)
}

/// `bpf_loop`'s largest iteration count (kernel: BPF_MAX_LOOPS).
pub const MAX_LOOPS: u64 = 1 << 23;
/// `bpf_loop`.
pub const LOOP: u32 = 181;
/// `bpf_trace_printk`, refused with a hint: text is recorded by `upatch_printk`.
pub const TRACE_PRINTK: u32 = 6;
