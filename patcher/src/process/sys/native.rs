//! Running a compiled patch in this process, as if its place were reached here: for `upatch run`, in a child process.
//!
//! Only one patch runs in the life of a process, on one thread: where control comes back there is no register to spare, so the
//! place to store to is a static.

use std::arch::global_asm;
use std::io;

use super::check;

/// Memory of ours at an address of the caller's choice; stays mapped until the process ends.
#[derive(Debug)]
pub(crate) struct FixedMemory {
    at: u64,
    len: usize,
}

impl FixedMemory {
    /// Zero bytes, readable and writable, at a page's address where nothing lies yet.
    pub(crate) fn map(at: u64, len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE
            | libc::MAP_ANONYMOUS
            | libc::MAP_NORESERVE
            | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: MAP_FIXED_NOREPLACE never takes memory that is in use.
        let got = unsafe {
            libc::mmap(
                at as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if got == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if got as u64 != at {
            // SAFETY: the mapping just made, which nobody refers to.
            check(unsafe { libc::munmap(got, len) }.into())?;
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        Ok(Self { at, len })
    }

    /// Its bytes as they are now.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: the mapping is readable, initialised (zeros) and never unmapped; machine code that writes it runs on
        // this thread, not now.
        unsafe { std::slice::from_raw_parts(self.at as *const u8, self.len) }.to_vec()
    }

    /// Copies `bytes` to `offset`; what goes beyond the end is left out.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let room = self.len.saturating_sub(offset).min(bytes.len());
        // SAFETY: `room` bytes from `offset` lie inside the mapping, which is writable and nobody else's.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                (self.at as *mut u8).wrapping_add(offset),
                room,
            );
        }
    }
}

/// Registers of a thread, by number (0 rax … 15 r15), and rflags.
#[repr(C)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// General-purpose registers; number 4 is the stack pointer.
    pub(crate) gpr: [u64; 16],
    /// Flags.
    pub(crate) flags: u64,
}

const _: () = assert!(std::mem::offset_of!(Registers, flags) == 128);

unsafe extern "C" {
    /// Loads everything from `registers`, jumps to `at`; 1 if the code continued, 2 if it returned.
    fn upatch_native_enter(registers: *mut Registers, at: u64) -> u64;
    fn upatch_native_continue();
    fn upatch_native_return();
}

/// Where code goes on that continues.
pub(crate) fn continue_address() -> u64 {
    upatch_native_continue as *const () as u64
}

/// The return address of the patched function.
pub(crate) fn return_address() -> u64 {
    upatch_native_return as *const () as u64
}

/// Enters `code` with these registers and gives back those with which it left; `true`: by its `ret`. The word at the
/// stack pointer must be [`return_address`], and the code must be a patch that the compiler made, with its fixups filled.
pub(crate) fn enter_patch(code: &[u8], registers: &mut Registers) -> io::Result<bool> {
    let at = super::map_code(code)?;
    // SAFETY: a compiled patch keeps the stack and every register but those it was told to change, and leaves in one of
    // two ways, both of which `upatch_native_enter` catches. What goes wrong all the same ends this child process.
    let left = unsafe { upatch_native_enter(registers, at as u64) };
    Ok(left == 2)
}

global_asm!(
    ".local upatch_native_rsp, upatch_native_regs, upatch_native_at, upatch_native_left",
    ".comm upatch_native_rsp,8,8",
    ".comm upatch_native_regs,8,8",
    ".comm upatch_native_at,8,8",
    ".comm upatch_native_left,8,8",
    ".globl upatch_native_enter",
    "upatch_native_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + upatch_native_rsp], rsp",
    "mov [rip + upatch_native_regs], rdi",
    "mov [rip + upatch_native_at], rsi",
    "push qword ptr [rdi + 128]",
    "popfq",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rsp, [rdi + 32]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "jmp [rip + upatch_native_at]",
    ".globl upatch_native_return",
    "upatch_native_return:",
    "mov qword ptr [rip + upatch_native_left], 2",
    "jmp 2f",
    ".globl upatch_native_continue",
    "upatch_native_continue:",
    "mov qword ptr [rip + upatch_native_left], 1",
    "2:",
    "mov [rip + upatch_native_at], rdi",
    "mov rdi, [rip + upatch_native_regs]",
    "mov [rdi], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 32], rsp",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    "mov [rdi + 64], r8",
    "mov [rdi + 72], r9",
    "mov [rdi + 80], r10",
    "mov [rdi + 88], r11",
    "mov [rdi + 96], r12",
    "mov [rdi + 104], r13",
    "mov [rdi + 112], r14",
    "mov [rdi + 120], r15",
    "mov rsp, [rip + upatch_native_rsp]",
    "pushfq",
    "pop qword ptr [rdi + 128]",
    "cld",
    "mov rax, [rip + upatch_native_at]",
    "mov [rdi + 56], rax",
    "mov rax, [rip + upatch_native_left]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);
