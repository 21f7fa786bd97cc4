//! A patch executed on given registers, memory and results of functions, in the interpreter and as machine code.
//!
//! ```text
//! Scene ─┬→ interp ─→ Outcome ─┐
//!        └→ native ─→ Outcome ─┴→ differences
//! ```
//! Both get the same memory at the same addresses, so that what a patch sees and leaves must be the same. Only in a child
//! process: machine code of a patch runs here as it would in a target, and memory is mapped where the scene says.

mod interp;
mod native;

use std::collections::BTreeMap;

use upatch_abi::ctx::CtxField;
use upatch_verifier::VerifiedProgram;
use upatch_verifier::program::{Extern, ExternParam};

pub use interp::interpret;
pub use native::{execute, return_to};

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Where the arena lies: a multiple of the largest window.
pub const ARENA: u64 = 0x4000_0000_0000;
/// The stack of the patched function: rsp at the entry, the return address above it, zeros above that.
pub const STACK_POINTER: u64 = 0x6e00_0010_0008;
/// Bytes of stack below rsp.
const STACK_BELOW: u64 = 0x10_0000;
/// Largest arena that is laid out, in bytes.
pub const LARGEST_ARENA: u64 = 256 << 20;
/// Most external functions of a patch.
pub const MAX_EXTERNS: usize = 16;

/// What a patch meets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scene {
    /// General-purpose registers by number; rsp is [`STACK_POINTER`].
    pub gpr: [u64; 16],
    /// The flags.
    pub flags: u64,
    /// The patched address.
    pub site: u64,
    /// The program's memory: whole pages by address. Everything else is not there.
    pub pages: BTreeMap<u64, Vec<u8>>,
    /// The arena's first bytes.
    pub arena: Vec<u8>,
    /// Results of the external functions by name, in the order of their calls; the last repeats.
    pub results: BTreeMap<String, Vec<u64>>,
}

impl Scene {
    /// Puts bytes into the program's memory; the pages that they touch begin as zeros.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        for (offset, byte) in (0_u64..).zip(bytes) {
            let address = at.wrapping_add(offset);
            let page = self
                .pages
                .entry(address & !(PAGE - 1))
                .or_insert_with(|| vec![0; PAGE as usize]);
            if let Some(place) = page.get_mut((address % PAGE) as usize) {
                *place = *byte;
            }
        }
    }

    /// Neighbouring pages as one piece: an access may cross from one to the next.
    fn pieces(&self) -> BTreeMap<u64, Vec<u8>> {
        let mut pieces: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (at, page) in &self.pages {
            match pieces.last_entry() {
                Some(mut last) if last.key() + last.get().len() as u64 == *at => {
                    last.get_mut().extend_from_slice(page);
                }
                _ => {
                    pieces.insert(*at, page.clone());
                }
            }
        }
        pieces
    }

    fn field(&self, field: CtxField) -> u64 {
        match field {
            CtxField::OrigRax => u64::MAX,
            CtxField::Rip => self.site,
            // arch/x86/include/asm/segment.h
            CtxField::Cs => 0x33,
            CtxField::Ss => 0x2b,
            CtxField::Rflags => self.flags,
            field => field
                .gpr()
                .and_then(|number| self.gpr.get(usize::from(number)))
                .copied()
                .unwrap_or(0),
        }
    }

    fn result(&self, name: &str, nth: usize) -> u64 {
        let results = self.results.get(name).map_or(&[][..], Vec::as_slice);
        results.get(nth).or(results.last()).copied().unwrap_or(0)
    }
}

/// A call of a function of the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments; `None` for memory of the patch itself, whose address means nothing outside.
    pub arguments: Vec<Option<u64>>,
    /// What it returned.
    pub result: u64,
}

impl Call {
    fn new(external: &Extern, registers: [u64; 5], result: u64) -> Self {
        let arguments = std::iter::zip(&external.params, registers)
            .map(|(param, value)| match param {
                ExternParam::Scalar { bytes } => {
                    let unused = 64 - 8 * u32::from((*bytes).clamp(1, 8));
                    Some(value << unused >> unused)
                }
                ExternParam::AppPointer { .. } => Some(value),
                ExternParam::SizedMemory { .. } | ExternParam::ConstString { .. } => None,
            })
            .collect();
        Self {
            name: external.name.clone(),
            arguments,
            result,
        }
    }
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Did the call return in the function's stead?
    pub returned: bool,
    /// Registers afterwards, as the function (or its caller) finds them.
    pub gpr: [u64; 16],
    /// The arena afterwards.
    pub arena: Vec<u8>,
    /// The program's memory afterwards, by address; the stack excluded.
    pub memory: BTreeMap<u64, Vec<u8>>,
    /// Calls of the program's functions, in their order.
    pub calls: Vec<Call>,
    /// What errno was set to, if it was.
    pub errno: Option<i32>,
    /// Executed BPF instructions; only the interpreter counts them.
    pub steps: Option<u64>,
}

impl Outcome {
    /// In what another engine's outcome differs, in words; empty if in nothing.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let verdict = |returned| if returned { "returns" } else { "continues" };
        if self.returned != other.returned {
            found.push(format!(
                "one {}, the other {}",
                verdict(self.returned),
                verdict(other.returned)
            ));
        }
        for (number, (a, b)) in std::iter::zip(self.gpr, other.gpr).enumerate() {
            if a != b {
                found.push(format!("{} is {a:#x} and {b:#x}", register_name(number)));
            }
        }
        if let Some(at) = first_difference(&self.arena, &other.arena) {
            found.push(format!("the arena differs from byte {at:#x} on"));
        }
        if self.memory != other.memory {
            found.push("the program's memory differs".to_owned());
        }
        if self.calls != other.calls {
            found.push(format!(
                "calls of the program are {:?} and {:?}",
                self.calls, other.calls
            ));
        }
        if self.errno != other.errno {
            found.push(format!("errno is {:?} and {:?}", self.errno, other.errno));
        }
        found
    }
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let unequal = std::iter::zip(a, b).position(|(a, b)| a != b);
    unequal.or((a.len() != b.len()).then_some(a.len().min(b.len())))
}

/// `rax` … `r15`, by the SDM's number.
#[must_use]
pub fn register_name(number: usize) -> &'static str {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    NAMES.get(number).copied().unwrap_or("?")
}

/// Names of the helpers in use whose results differ from call to call, so that engines can't be compared.
#[must_use]
pub fn incomparable(verified: &VerifiedProgram) -> Vec<&'static str> {
    // bpf_ktime_get_ns, bpf_get_prandom_u32
    const CHANGING: [u32; 2] = [5, 7];
    verified
        .facts()
        .helpers
        .iter()
        .filter(|id| CHANGING.contains(id))
        .filter_map(|id| upatch_abi::helpers::by_id(*id))
        .map(|helper| helper.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        Outcome {
            returned: false,
            gpr: [1; 16],
            arena: vec![0; 16],
            memory: BTreeMap::from([(PAGE, vec![0; 8])]),
            calls: Vec::new(),
            errno: None,
            steps: Some(3),
        }
    }

    #[test]
    fn every_difference_is_seen() {
        let same = Outcome {
            steps: None,
            ..outcome()
        };
        assert_eq!(outcome().differences(&same), Vec::<String>::new());
        let call = Call {
            name: "f".to_owned(),
            arguments: vec![Some(1)],
            result: 2,
        };
        type Change = fn(&mut Outcome);
        let changes: [(&str, Change); 5] = [
            ("continues", |other| other.returned = true),
            ("rdi is 0x1 and 0x2", |other| other.gpr[7] = 2),
            ("byte 0xf", |other| other.arena[15] = 1),
            ("memory differs", |other| other.memory.clear()),
            ("errno is None and Some(5)", |other| other.errno = Some(5)),
        ];
        for (says, change) in changes {
            let mut other = outcome();
            change(&mut other);
            let found = outcome().differences(&other);
            assert!(found.len() == 1 && found[0].contains(says), "{found:?}");
        }
        let mut other = outcome();
        other.calls.push(call);
        assert_eq!(outcome().differences(&other).len(), 1);
    }

    #[test]
    fn neighbouring_pages_are_one_piece() {
        let mut scene = Scene {
            gpr: [0; 16],
            flags: 0,
            site: 0,
            pages: BTreeMap::new(),
            arena: Vec::new(),
            results: BTreeMap::new(),
        };
        scene.put(2 * PAGE - 2, b"abcd");
        scene.put(5 * PAGE, b"x");
        let pieces = scene.pieces();
        let lengths: Vec<_> = pieces
            .iter()
            .map(|(at, bytes)| (*at, bytes.len()))
            .collect();
        assert_eq!(lengths, [(PAGE, 8192), (5 * PAGE, 4096)]);
        assert_eq!(&pieces[&PAGE][4094..4098], b"abcd");
    }
}
