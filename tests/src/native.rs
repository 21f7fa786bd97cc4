//! Machine code as it would run in a target: mapped, W^X, entered with every register set, left with every register seen.
//!
//! ```text
//! Native::place(code, fixups) → mapped read-execute      run(&mut Cpu): fills GPRs, flags, x87, mxcsr, vectors,
//! Arena, private data, site: Bindings                    jumps to byte 0, sees where the code leaves
//! ```
//! Knows the JIT's fixups, nothing of BPF. Only one thread at a time is inside: where control comes back there is no
//! register to spare, so the place to store to is a static.

use std::arch::global_asm;
use std::io;
use std::sync::{Mutex, PoisonError};

use upatch_jit::{Fixup, FixupKind};

use crate::programs::Random;

/// Bytes of the XSAVE area that [`Cpu`] holds; the components we fill take 2,688.
pub const XSAVE_BYTES: usize = 4096;
/// x87, SSE, AVX, opmasks, upper ZMM halves, zmm16-31.
const COMPONENTS: u64 = 0xe7;

/// All registers of a thread that a patch could touch.
#[repr(C, align(64))]
#[derive(Clone)]
pub struct Cpu {
    /// Vector registers, opmasks, x87, mxcsr, in XSAVE's standard format.
    pub xsave: [u8; XSAVE_BYTES],
    /// By number; rsp's is set by [`Native::run`] to the stack it prepares, and afterwards says where rsp was.
    pub gpr: [u64; 16],
    /// rflags.
    pub flags: u64,
}

/// Byte offsets in `Cpu` that the assembly uses.
const _: () = assert!(std::mem::offset_of!(Cpu, gpr) == 4096);
const _: () = assert!(std::mem::offset_of!(Cpu, flags) == 4224);

/// How the code left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// By its jump to the displaced instructions.
    Continue,
    /// By `ret`, to the caller of the patched function.
    Return,
}

/// Addresses that fixups need.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Base of the arena.
    pub arena: u64,
    /// Functions of the application.
    pub externs: Vec<u64>,
    /// The patched address.
    pub site: u64,
    /// Base of the private data.
    pub private: u64,
}

/// A mapping of ours, unmapped when it goes.
#[derive(Debug)]
pub struct Mapping {
    at: *mut u8,
    len: usize,
}

// SAFETY: a mapping is memory that nobody else owns; the pointer says where.
unsafe impl Send for Mapping {}

impl Mapping {
    /// `len` zero bytes, readable and writable, at a multiple of `align` (a power of two of at least a page).
    ///
    /// # Errors
    /// What mmap says.
    pub fn new(len: usize, align: usize) -> io::Result<Self> {
        let len = len.next_multiple_of(4096);
        let room = len + align;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping touches no memory of ours.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = at as usize;
        let aligned = start.next_multiple_of(align);
        // SAFETY: cuts the parts before and behind off the mapping made above.
        unsafe {
            if aligned > start {
                libc::munmap(at, aligned - start);
            }
            let behind = start + room - (aligned + len);
            if behind > 0 {
                libc::munmap((aligned + len) as *mut libc::c_void, behind);
            }
        }
        let mapping = Self {
            at: aligned as *mut u8,
            len,
        };
        mapping.protect(libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(mapping)
    }

    fn protect(&self, protection: i32) -> io::Result<()> {
        // SAFETY: the mapping is ours; nothing refers to its content while its protection changes.
        let done = unsafe { libc::mprotect(self.at.cast(), self.len, protection) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.at as u64
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable, initialised (zeros) and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// Its bytes, to be changed.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, writable, and `self` is borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody refers to it any more.
        unsafe {
            libc::munmap(self.at.cast(), self.len);
        }
    }
}

/// Code in executable memory.
#[derive(Debug)]
pub struct Native {
    code: Mapping,
}

impl Native {
    /// Places several pieces of code in one mapping and returns it with the offset of each.
    ///
    /// # Errors
    /// What mmap or mprotect says.
    pub fn place_all(
        pieces: &[(&[u8], &[Fixup])],
        bindings: &Bindings,
    ) -> io::Result<(Self, Vec<usize>)> {
        const PAD: usize = 16;
        let mut bytes = landing_pad(landing_continue as *const () as u64);
        bytes.resize(PAD, 0xcc);
        let mut starts = Vec::new();
        for (piece, fixups) in pieces {
            let start = bytes.len().next_multiple_of(16);
            bytes.resize(start, 0xcc);
            starts.push(start);
            bytes.extend_from_slice(piece);
            for fixup in *fixups {
                fill(&mut bytes, start + fixup.at, fixup.kind, bindings);
            }
        }
        let mut code = Mapping::new(bytes.len(), 4096)?;
        code.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        code.protect(libc::PROT_READ | libc::PROT_EXEC)?;
        Ok((Self { code }, starts))
    }

    /// Places one piece; it begins at offset 16.
    ///
    /// # Errors
    /// What mmap or mprotect says.
    pub fn place(bytes: &[u8], fixups: &[Fixup], bindings: &Bindings) -> io::Result<Self> {
        Ok(Self::place_all(&[(bytes, fixups)], bindings)?.0)
    }

    /// Calls the code at `offset` as a C function.
    ///
    /// # Safety
    /// The code there must be a function that is safe to call with these arguments.
    #[must_use]
    pub unsafe fn call(&self, offset: usize, first: u64, second: u64) -> u64 {
        let at = self.code.address() + offset as u64;
        // SAFETY: the caller says so.
        let function: extern "C" fn(u64, u64) -> u64 =
            unsafe { std::mem::transmute(at as *const ()) };
        function(first, second)
    }

    /// Enters the code at `offset` as a patch, with the registers of `cpu` on a stack of its own, `skew` bytes off a
    /// function's alignment; `cpu` holds the registers afterwards. Between entry and leaving the 512 bytes above rsp and, if `red_zone`, the 128
    /// below must not change.
    ///
    /// # Panics
    /// If the stack around the entry's rsp was written.
    ///
    /// # Safety
    /// The code must be a patch that is safe to enter so.
    pub unsafe fn run(
        &self,
        offset: usize,
        cpu: &mut Cpu,
        stack: &mut Mapping,
        red_zone: bool,
    ) -> Left {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let top = stack.bytes().len() - 4096;
        let (low, high) = (top - 128, top + 512);
        for (at, byte) in (low..high).zip(&mut stack.bytes_mut()[low..high]) {
            *byte = (at * 7 + 13) as u8;
        }
        stack.bytes_mut()[top..top + 8]
            .copy_from_slice(&(landing_return as *const () as u64).to_le_bytes());
        let before = stack.bytes()[low..high].to_vec();
        cpu.gpr[4] = stack.address() + top as u64;
        let at = self.code.address() + offset as u64;
        // SAFETY: `enter` saves what C wants kept, and both landings give it back.
        let left = unsafe { native_enter(cpu, at) };
        let from = if red_zone { 0 } else { 128 };
        assert_eq!(
            stack.bytes()[low + from..high],
            before[from..],
            "the stack of the patched function or its caller was written"
        );
        if left == 1 {
            Left::Continue
        } else {
            Left::Return
        }
    }

    /// Address of the byte at `offset`.
    #[must_use]
    pub fn address(&self, offset: usize) -> u64 {
        self.code.address() + offset as u64
    }
}

/// `jmp [rip]; address`.
fn landing_pad(to: u64) -> Vec<u8> {
    let mut bytes = vec![0xff, 0x25, 0, 0, 0, 0];
    bytes.extend_from_slice(&to.to_le_bytes());
    bytes
}

fn fill(bytes: &mut [u8], at: usize, kind: FixupKind, bindings: &Bindings) {
    let word = match kind {
        FixupKind::Continue => {
            let distance = -i32::try_from(at + 4).unwrap_or(i32::MAX);
            bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
            return;
        }
        FixupKind::Arena(offset) => bindings.arena + offset,
        FixupKind::Extern(index) => bindings.externs[index as usize],
        FixupKind::Site => bindings.site,
        FixupKind::Private(offset) => bindings.private + offset,
        FixupKind::Gate => bindings.private + upatch_jit::private::GATE,
    };
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

unsafe extern "C" {
    /// Loads everything from `cpu`, jumps to `at`; 1 if it continued, 2 if it returned.
    fn native_enter(cpu: *mut Cpu, at: u64) -> u64;
    fn landing_continue();
    fn landing_return();
}

global_asm!(
    ".local native_rsp, native_cpu, native_at, native_left",
    ".comm native_rsp,8,8",
    ".comm native_cpu,8,8",
    ".comm native_at,8,8",
    ".comm native_left,8,8",
    ".globl native_enter",
    "native_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 24",
    "stmxcsr [rsp]",
    "fnstcw [rsp + 4]",
    "mov [rip + native_rsp], rsp",
    "mov [rip + native_cpu], rdi",
    "mov [rip + native_at], rsi",
    "mov eax, {components}",
    "xor edx, edx",
    "xrstor64 [rdi]",
    "push qword ptr [rdi + 4224]",
    "popfq",
    "mov rax, [rdi + 4096]",
    "mov rcx, [rdi + 4096 + 8]",
    "mov rdx, [rdi + 4096 + 16]",
    "mov rbx, [rdi + 4096 + 24]",
    "mov rsp, [rdi + 4096 + 32]",
    "mov rbp, [rdi + 4096 + 40]",
    "mov rsi, [rdi + 4096 + 48]",
    "mov r8, [rdi + 4096 + 64]",
    "mov r9, [rdi + 4096 + 72]",
    "mov r10, [rdi + 4096 + 80]",
    "mov r11, [rdi + 4096 + 88]",
    "mov r12, [rdi + 4096 + 96]",
    "mov r13, [rdi + 4096 + 104]",
    "mov r14, [rdi + 4096 + 112]",
    "mov r15, [rdi + 4096 + 120]",
    "mov rdi, [rdi + 4096 + 56]",
    "jmp [rip + native_at]",
    ".globl landing_return",
    "landing_return:",
    "mov qword ptr [rip + native_left], 2",
    "jmp 2f",
    ".globl landing_continue",
    "landing_continue:",
    "mov qword ptr [rip + native_left], 1",
    "2:",
    "mov [rip + native_at], rdi",
    "mov rdi, [rip + native_cpu]",
    "mov [rdi + 4096], rax",
    "mov [rdi + 4096 + 8], rcx",
    "mov [rdi + 4096 + 16], rdx",
    "mov [rdi + 4096 + 24], rbx",
    "mov [rdi + 4096 + 32], rsp",
    "mov [rdi + 4096 + 40], rbp",
    "mov [rdi + 4096 + 48], rsi",
    "mov [rdi + 4096 + 64], r8",
    "mov [rdi + 4096 + 72], r9",
    "mov [rdi + 4096 + 80], r10",
    "mov [rdi + 4096 + 88], r11",
    "mov [rdi + 4096 + 96], r12",
    "mov [rdi + 4096 + 104], r13",
    "mov [rdi + 4096 + 112], r14",
    "mov [rdi + 4096 + 120], r15",
    "mov rsp, [rip + native_rsp]",
    "pushfq",
    "pop qword ptr [rdi + 4224]",
    "mov rax, [rip + native_at]",
    "mov [rdi + 4096 + 56], rax",
    "mov eax, {components}",
    "xor edx, edx",
    "xsave64 [rdi]",
    "cld",
    "fninit",
    "ldmxcsr [rsp]",
    "fldcw [rsp + 4]",
    "vzeroupper",
    "mov rax, [rip + native_left]",
    "add rsp, 24",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    components = const COMPONENTS,
);

impl Cpu {
    /// Registers filled with numbers made from `seed`, every vector component the processor has among them; mxcsr
    /// rounds towards zero, flags are the six arithmetic ones at random.
    #[must_use]
    pub fn filled(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut cpu = Self {
            xsave: [0; XSAVE_BYTES],
            gpr: std::array::from_fn(|_| random.next()),
            // CF PF AF ZF SF OF, and the bits that are always set in user mode (IF, reserved).
            flags: random.next() & 0x8d5 | 0x202,
        };
        // x87: all exceptions masked, registers empty but filled; mxcsr: exceptions masked, towards zero.
        cpu.xsave[0..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        cpu.xsave[24..28].copy_from_slice(&0x7f80_u32.to_le_bytes());
        for at in (32..160).step_by(16) {
            cpu.xsave[at..at + 8].copy_from_slice(&(random.next() | 1 << 63).to_le_bytes());
            cpu.xsave[at + 8..at + 10].copy_from_slice(&0x3fff_u16.to_le_bytes());
        }
        fill_random(&mut cpu.xsave[160..416], &mut random);
        let mut present = 0b11_u64;
        let leaf = std::arch::x86_64::__cpuid_count(0xd, 0);
        for component in [2, 5, 6, 7] {
            if leaf.eax >> component & 1 == 0 {
                continue;
            }
            let part = std::arch::x86_64::__cpuid_count(0xd, component);
            let (start, len) = (part.ebx as usize, part.eax as usize);
            if start + len <= XSAVE_BYTES && start + len <= leaf.ebx as usize {
                fill_random(&mut cpu.xsave[start..start + len], &mut random);
                present |= 1 << component;
            }
        }
        cpu.xsave[512..520].copy_from_slice(&present.to_le_bytes());
        cpu
    }

    /// What differs from `other`, in words; empty if nothing does. Names in `except` may.
    #[must_use]
    pub fn differences(&self, other: &Self, except: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (number, (a, b)) in self.gpr.iter().zip(&other.gpr).enumerate() {
            if a != b && !except.contains(&(number as u8)) {
                found.push(format!("register {number}: {a:#x} became {b:#x}"));
            }
        }
        // Not MXCSR_MASK, which the processor fills in, and not what is left to software (SDM vol. 1 §10.5.1).
        for part in [0..28, 32..464] {
            if self.xsave[part.clone()] != other.xsave[part] {
                found.push("x87, mxcsr or xmm changed".to_owned());
            }
        }
        if self.xsave[576..] != other.xsave[576..] {
            found.push("upper vector halves or opmasks changed".to_owned());
        }
        found
    }
}

fn fill_random(bytes: &mut [u8], random: &mut Random) {
    for chunk in bytes.chunks_mut(8) {
        let word = random.next().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}
