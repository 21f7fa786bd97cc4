//! bpf(2), one thin function for each command that we use: the only `unsafe` of the patcher outside of `process::sys`.
//!
//! Decides nothing. Structures are prefixes of `union bpf_attr` and of the `bpf_*_info` (include/uapi/linux/bpf.h, Linux
//! 6.10); the kernel takes what a shorter one leaves out as zero.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes of an object's name, with its final zero (`BPF_OBJ_NAME_LEN`).
pub(super) const NAME_LEN: usize = 16;

/// `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MapCreate {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: u32,
    pub(super) numa_node: u32,
    pub(super) name: [u8; NAME_LEN],
    pub(super) ifindex: u32,
    pub(super) btf_fd: u32,
    pub(super) btf_key_type_id: u32,
    pub(super) btf_value_type_id: u32,
    pub(super) btf_vmlinux_value_type_id: u32,
    pub(super) map_extra: u64,
}

/// `BPF_PROG_LOAD`; pointers are filled in by [`prog_load`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct ProgAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; NAME_LEN],
    ifindex: u32,
    expected_attach_type: u32,
    btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// What [`prog_load`] loads.
#[derive(Debug)]
pub(super) struct ProgLoad<'a> {
    pub(super) prog_type: u32,
    pub(super) expected_attach_type: u32,
    pub(super) name: [u8; NAME_LEN],
    /// With its final zero.
    pub(super) license: &'a std::ffi::CStr,
    /// Eight bytes an instruction.
    pub(super) insns: &'a [u8],
    pub(super) btf: BorrowedFd<'a>,
    /// `struct bpf_func_info`: instruction, type.
    pub(super) functions: &'a [[u32; 2]],
    /// `struct bpf_line_info`: instruction, file, text, line and column.
    pub(super) lines: &'a [[u32; 4]],
}

/// `BPF_BTF_LOAD`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct BtfAttr {
    btf: u64,
    log_buf: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    pad: u32,
}

/// `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// `struct bpf_map_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MapInfo {
    pub(super) map_type: u32,
    pub(super) id: u32,
    key_size: u32,
    value_size: u32,
    pub(super) max_entries: u32,
    map_flags: u32,
    pub(super) name: [u8; NAME_LEN],
    ifindex: u32,
    btf_vmlinux_value_type_id: u32,
    netns_dev: u64,
    netns_ino: u64,
    btf_id: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
    btf_vmlinux_id: u32,
    pub(super) map_extra: u64,
}

/// `struct bpf_prog_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProgInfo {
    prog_type: u32,
    pub(super) id: u32,
    pub(super) tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    pub(super) name: [u8; NAME_LEN],
}

/// `struct bpf_link_info` of a tcx link.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LinkInfo {
    pub(super) link_type: u32,
    pub(super) id: u32,
    pub(super) prog_id: u32,
    pad: u32,
    pub(super) ifindex: u32,
    pub(super) attach_type: u32,
}

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const MAP_GET_NEXT_ID: libc::c_int = 12;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BTF_LOAD: libc::c_int = 18;
const MAP_FREEZE: libc::c_int = 22;
const LINK_GET_FD_BY_ID: libc::c_int = 30;

/// # Safety
/// Every pointer in `attr` that `command` makes the kernel follow must be valid for what it does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a plain structure of integers of the stated size; its pointers are the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: a fresh descriptor that the kernel has just made for us (closed on exec, all of them).
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn address<T>(of: &[T]) -> u64 {
    of.as_ptr() as u64
}

fn len<T>(of: &[T]) -> u32 {
    u32::try_from(of.len()).unwrap_or(u32::MAX)
}

/// Makes a map.
pub(super) fn map_create(mut attr: MapCreate) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(owned)
}

/// Sets element 0 of an array map whose value has as many bytes as `value`.
pub(super) fn map_set_first(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = [0_u32];
    let mut attr = ElementAttr {
        map_fd: number(map),
        key: address(&key),
        value: address(value),
        ..ElementAttr::default()
    };
    // SAFETY: the kernel reads a key of four bytes and a value of the map's value size, which is the slice's length.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Forbids user space to write the map, for ever.
pub(super) fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [number(map), 0];
    // SAFETY: no pointers.
    unsafe { bpf(MAP_FREEZE, &mut attr) }.map(drop)
}

/// Loads a program; with `log`, the verifier's words go there.
pub(super) fn prog_load(load: &ProgLoad<'_>, log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
    let mut attr = ProgAttr {
        prog_type: load.prog_type,
        insn_cnt: len(load.insns) / 8,
        insns: address(load.insns),
        license: load.license.as_ptr() as u64,
        name: load.name,
        expected_attach_type: load.expected_attach_type,
        btf_fd: number(load.btf),
        func_info_rec_size: 8,
        func_info: address(load.functions),
        func_info_cnt: len(load.functions),
        line_info_rec_size: 16,
        line_info: address(load.lines),
        line_info_cnt: len(load.lines),
        ..ProgAttr::default()
    };
    if let Some(log) = log {
        (attr.log_level, attr.log_size, attr.log_buf) = (1, len(log), log.as_mut_ptr() as u64);
    }
    // SAFETY: each pointer comes with its length, and the slices outlive the call.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(owned)
}

/// Loads type information; with `log`, the kernel's objections go there.
pub(super) fn btf_load(btf: &[u8], log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
    let mut attr = BtfAttr {
        btf: address(btf),
        size: len(btf),
        ..BtfAttr::default()
    };
    if let Some(log) = log {
        (attr.log_level, attr.log_size, attr.log_buf) = (1, len(log), log.as_mut_ptr() as u64);
    }
    // SAFETY: both pointers come with their lengths, and the slices outlive the call.
    unsafe { bpf(BTF_LOAD, &mut attr) }.map(owned)
}

fn info<T>(of: BorrowedFd<'_>, mut info: T) -> io::Result<T> {
    let mut attr = InfoAttr {
        fd: number(of),
        len: u32::try_from(size_of::<T>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to a structure of integers of that size; the lengths and pointers in
    // it that ask for more are zero.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// What a map is.
pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(map, MapInfo::default())
}

/// What a program is.
pub(super) fn prog_info(program: BorrowedFd<'_>) -> io::Result<ProgInfo> {
    info(program, ProgInfo::default())
}

/// What a link is.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(link, LinkInfo::default())
}

fn by_id(command: libc::c_int, id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: no pointers.
    unsafe { bpf(command, &mut attr) }.map(owned)
}

/// A descriptor for a program, by its id. EPERM without CAP_SYS_ADMIN, ENOENT if it is gone.
pub(super) fn prog_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(PROG_GET_FD_BY_ID, id)
}

/// A descriptor for a map, by its id. Errors as above.
pub(super) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(MAP_GET_FD_BY_ID, id)
}

/// A descriptor for a link, by its id. Errors as above.
pub(super) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    by_id(LINK_GET_FD_BY_ID, id)
}

/// The id of the map behind this one; 0 begins. ENOENT at the end.
pub(super) fn next_map_id(before: u32) -> io::Result<u32> {
    let mut attr = [before, 0, 0];
    // SAFETY: no pointers; the kernel writes the second word.
    unsafe { bpf(MAP_GET_NEXT_ID, &mut attr) }?;
    Ok(attr[1])
}

/// Writes `initial` and then zeros into the whole of an arena that belongs at `at`, through a mapping of our own.
/// EEXIST: something of ours lies there.
pub(super) fn arena_fill(
    map: BorrowedFd<'_>,
    at: u64,
    size: usize,
    initial: &[u8],
) -> io::Result<()> {
    let wanted = at as *mut libc::c_void;
    // SAFETY: NOREPLACE: no mapping of ours is touched.
    let mapped = unsafe {
        libc::mmap(
            wanted,
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE,
            map.as_raw_fd(),
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let bytes = initial.len().min(size);
    // SAFETY: a mapping of `size` writable bytes that nobody else of this process knows.
    unsafe { std::ptr::copy_nonoverlapping(initial.as_ptr(), mapped.cast(), bytes) };
    for page in (bytes..size).step_by(4096) {
        // SAFETY: inside of the mapping. Volatile: the write is there for the page that it makes.
        unsafe { mapped.cast::<u8>().add(page).write_volatile(0) };
    }
    // SAFETY: our own mapping, whole.
    if unsafe { libc::munmap(mapped, size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The number of a network device of our network namespace.
pub(super) fn interface_number(name: &std::ffi::CStr) -> Option<u32> {
    // SAFETY: the function reads the string up to its final zero.
    let number = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (number != 0).then_some(number)
}
