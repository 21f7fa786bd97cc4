//! A kernel uprobe with a BPF program behind it, for comparison in benchmarks and for tests of contested sites.
//!
//! The program is `r0 = 0; exit`, well-formed beyond doubt; it is attached to one file and unloaded when the value is
//! dropped. Scope: only functions of files that a test compiled into its own scratch folder.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSegment, ObjectSymbol};

const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
/// `PERF_EVENT_IOC_ENABLE` and `PERF_EVENT_IOC_SET_BPF` (include/uapi/linux/perf_event.h).
const IOC_ENABLE: u64 = 0x2400;
const IOC_SET_BPF: u64 = 0x4004_2408;

/// An attached uprobe; detached when dropped.
#[derive(Debug)]
pub struct Uprobe {
    _event: OwnedFd,
    _program: OwnedFd,
}

/// The head of `union bpf_attr` as BPF_PROG_LOAD reads it.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The head of `struct perf_event_attr` (PERF_ATTR_SIZE_VER1, 72 bytes).
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
}

impl Uprobe {
    /// Attaches a program that does nothing to `function` of `file`, for every process that maps it.
    ///
    /// # Errors
    /// No such symbol, or the kernel refuses (no CAP_BPF and CAP_PERFMON, no uprobes).
    pub fn attach(file: &Path, function: &str) -> Result<Self> {
        let offset = file_offset(file, function)?;
        let program = load_empty_program().context("BPF_PROG_LOAD")?;
        let kind: u32 = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")
            .context("no uprobe event source")?
            .trim()
            .parse()?;
        let path = CString::new(file.as_os_str().as_bytes())?;
        let attr = PerfEventAttr {
            kind,
            size: u32::try_from(size_of::<PerfEventAttr>())?,
            config1: path.as_ptr() as u64,
            config2: offset,
            ..PerfEventAttr::default()
        };
        // SAFETY: attr and path outlive the call; -1, 0, -1, 0: every process, CPU 0 (the probe itself fires on all).
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, 0, -1, 8_u64) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("perf_event_open");
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else has it.
        let event = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
        for (request, argument) in [(IOC_SET_BPF, program.as_raw_fd()), (IOC_ENABLE, 0)] {
            // SAFETY: both requests take an integer and touch none of our memory.
            if unsafe { libc::ioctl(event.as_raw_fd(), request, argument) } < 0 {
                return Err(io::Error::last_os_error()).context("attaching the uprobe");
            }
        }
        Ok(Self {
            _event: event,
            _program: program,
        })
    }
}

fn load_empty_program() -> Result<OwnedFd> {
    // r0 = 0; exit
    let insns: [u64; 2] = [0xb7, 0x95];
    let license = c"Dual MIT/GPL";
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_KPROBE,
        insn_cnt: 2,
        insns: insns.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..ProgLoad::default()
    };
    // SAFETY: attr, insns and license outlive the call; the kernel reads `size_of` bytes of attr.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<ProgLoad>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

/// Where in the file the symbol's first byte lies (uprobes count in file offsets, not addresses).
fn file_offset(file: &Path, function: &str) -> Result<u64> {
    let bytes = fs::read(file)?;
    let elf = object::File::parse(&*bytes)?;
    let svma = elf
        .symbols()
        .find(|symbol| symbol.name() == Ok(function))
        .with_context(|| format!("no symbol {function} in {}", file.display()))?
        .address();
    elf.segments()
        .find(|segment| (segment.address()..segment.address() + segment.size()).contains(&svma))
        .map(|segment| svma - segment.address() + segment.file_range().0)
        .with_context(|| format!("{function} lies in no segment of {}", file.display()))
}

/// The GNU build-id of an ELF file, in hexadecimal.
///
/// # Errors
/// The file can't be read or has none.
pub fn build_id_of(file: &Path) -> Result<String> {
    let bytes = fs::read(file)?;
    let elf = object::File::parse(&*bytes)?;
    let id = elf
        .build_id()?
        .with_context(|| format!("{} has no build-id", file.display()))?;
    Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
}
