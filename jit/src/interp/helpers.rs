//! What the interpreter asks of the world: a trait, and a deterministic world for tests.
//!
//! bpf_loop is not here: it runs instructions, so the machine does it. Results follow the kernel's helpers
//! (kernel/bpf/helpers.c, kernel/trace/bpf_trace.c); memory that a helper fills is filled entirely, also on failure.

use std::collections::BTreeMap;

use upatch_abi::helpers::UPATCH_BASE;
use upatch_verifier::program::Extern;

use super::memory::{Memory, MemoryFault};

const EFAULT: u64 = (-14_i64).cast_unsigned();
const EINVAL: u64 = (-22_i64).cast_unsigned();

/// Why a call can't be answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum HelperFault {
    #[error("no helper {id}")]
    UnknownHelper { id: u32 },
    #[error("no external function {name}")]
    UnknownExtern { name: String },
    #[error(transparent)]
    Memory(#[from] MemoryFault),
}

/// The world outside a program.
pub trait Helpers {
    /// Built-in helper `id` with r1 to r5; the result is r0.
    ///
    /// # Errors
    /// No such helper, or an argument that a verified program cannot pass.
    fn call(&mut self, id: u32, args: [u64; 5], memory: &mut Memory) -> Result<u64, HelperFault>;

    /// A function of the application with r1 to r5. The machine extends the result to 64 bits as declared.
    ///
    /// # Errors
    /// No such function, or an argument that a verified program cannot pass.
    fn call_extern(
        &mut self,
        external: &Extern,
        args: [u64; 5],
        memory: &mut Memory,
    ) -> Result<u64, HelperFault>;
}

/// An external function of [`World`]: arguments to result.
pub type ExternFn = fn([u64; 5]) -> u64;

/// A world in which the same calls have the same results.
#[derive(Clone, Debug)]
pub struct World {
    /// bpf_ktime_get_ns; each call adds 1000.
    pub time_ns: u64,
    /// bpf_get_current_pid_tgid.
    pub pid_tgid: u64,
    /// bpf_get_current_uid_gid.
    pub uid_gid: u64,
    /// bpf_get_smp_processor_id.
    pub cpu: u32,
    /// bpf_get_current_comm.
    pub comm: [u8; 16],
    /// State of bpf_get_prandom_u32 (a linear congruential generator; the result is its upper half).
    pub random: u64,
    /// The program's memory, by address of the first byte; ranges don't touch.
    pub user: BTreeMap<u64, Vec<u8>>,
    /// What upatch_set_errno set last.
    pub errno: Option<i32>,
    /// External functions by name.
    pub externs: BTreeMap<String, ExternFn>,
    /// Ids of the helpers that were called, in order.
    pub called: Vec<u32>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            time_ns: 1_000_000_000,
            pid_tgid: 0x0000_1234_0000_5678,
            uid_gid: 0x0000_03e8_0000_03e8,
            cpu: 3,
            comm: *b"victim\0\0\0\0\0\0\0\0\0\0",
            random: 0x0123_4567_89ab_cdef,
            user: BTreeMap::new(),
            errno: None,
            externs: BTreeMap::new(),
            called: Vec::new(),
        }
    }
}

impl World {
    /// The part of the program's memory from `addr` to the end of its range.
    fn user_at(&self, addr: u64) -> Option<&[u8]> {
        let (base, bytes) = self.user.range(..=addr).next_back()?;
        bytes.get(usize::try_from(addr - base).ok()?..)
    }

    fn user_at_mut(&mut self, addr: u64) -> Option<&mut [u8]> {
        let (base, bytes) = self.user.range_mut(..=addr).next_back()?;
        bytes.get_mut(usize::try_from(addr - base).ok()?..)
    }

    fn read_user(&self, args: [u64; 5], memory: &mut Memory) -> Result<u64, HelperFault> {
        let [to, len, from, ..] = args;
        let len = len as u32 as usize;
        match self.user_at(from).and_then(|bytes| bytes.get(..len)) {
            Some(bytes) => {
                memory.write(to, bytes)?;
                Ok(0)
            }
            None if len == 0 => Ok(0),
            None => {
                memory.write(to, &vec![0; len])?;
                Ok(EFAULT)
            }
        }
    }

    fn read_user_str(&self, args: [u64; 5], memory: &mut Memory) -> Result<u64, HelperFault> {
        let [to, len, from, ..] = args;
        let len = len as u32 as usize;
        if len == 0 {
            return Ok(0);
        }
        let mut copy = vec![0; len];
        let bytes = self.user_at(from).unwrap_or(&[]);
        let nul = bytes.iter().take(len).position(|byte| *byte == 0);
        let (text, result) = match nul {
            Some(nul) => (nul, nul as u64 + 1),
            // Truncated: the last byte is the NUL.
            None if bytes.len() >= len => (len - 1, len as u64),
            // The string runs into memory that can't be read.
            None => (0, EFAULT),
        };
        for (to, from) in copy.iter_mut().zip(bytes).take(text) {
            *to = *from;
        }
        memory.write(to, &copy)?;
        Ok(result)
    }

    fn write_user(&mut self, args: [u64; 5], memory: &Memory) -> Result<u64, HelperFault> {
        let [to, from, len, ..] = args;
        let bytes = memory.read(from, len as u32 as usize)?;
        let target = self
            .user_at_mut(to)
            .and_then(|user| user.get_mut(..bytes.len()));
        Ok(match target {
            Some(target) => {
                target.copy_from_slice(bytes);
                0
            }
            None => EFAULT,
        })
    }

    fn current_comm(&self, args: [u64; 5], memory: &mut Memory) -> Result<u64, HelperFault> {
        let [to, len, ..] = args;
        let len = len as u32 as usize;
        if len == 0 {
            return Ok(EINVAL);
        }
        let mut copy = vec![0; len];
        for (to, from) in copy.iter_mut().zip(self.comm).take(len - 1) {
            *to = from;
        }
        memory.write(to, &copy)?;
        Ok(0)
    }

    /// -1, 0 or 1, as lib/string.c.
    fn strncmp(args: [u64; 5], memory: &Memory) -> Result<u64, HelperFault> {
        let [left, len, right, ..] = args;
        for at in 0..u64::from(len as u32) {
            let a = memory.load(left.wrapping_add(at), 1)?;
            let b = memory.load(right.wrapping_add(at), 1)?;
            if a != b {
                return Ok(if a < b { u64::MAX } else { 1 });
            }
            if a == 0 {
                break;
            }
        }
        Ok(0)
    }
}

impl Helpers for World {
    fn call(&mut self, id: u32, args: [u64; 5], memory: &mut Memory) -> Result<u64, HelperFault> {
        const SET_ERRNO: u32 = UPATCH_BASE + 1;
        self.called.push(id);
        Ok(match id {
            5 => {
                self.time_ns += 1000;
                self.time_ns
            }
            7 => {
                // Knuth's MMIX constants.
                self.random = self
                    .random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                self.random >> 32
            }
            8 => self.cpu.into(),
            14 => self.pid_tgid,
            15 => self.uid_gid,
            16 => self.current_comm(args, memory)?,
            36 => self.write_user(args, memory)?,
            112 => self.read_user(args, memory)?,
            114 => self.read_user_str(args, memory)?,
            182 => Self::strncmp(args, memory)?,
            SET_ERRNO => {
                self.errno = Some(args[0] as i32);
                0
            }
            _ => return Err(HelperFault::UnknownHelper { id }),
        })
    }

    fn call_extern(
        &mut self,
        external: &Extern,
        args: [u64; 5],
        _memory: &mut Memory,
    ) -> Result<u64, HelperFault> {
        match self.externs.get(&external.name) {
            Some(function) => Ok(function(args)),
            None => Err(HelperFault::UnknownExtern {
                name: external.name.clone(),
            }),
        }
    }
}
