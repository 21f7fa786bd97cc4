//! Where things lie on the stack.
//!
//! ```text
//! main program                                        subprogram
//! entry rsp → (return address, at an entry)           (return address into our code)
//!             128 bytes skipped      at +offset       saved r6-r9's registers
//!             flags                  if kept          BPF stack, r10 at its end
//!             entry values           of ctx writes    BPF stack, r10 at its end
//!             saved registers        ctx lives here   bpf_loop: index, count, context, callback
//!             BPF stack, r10 at its end          rsp →
//!             bpf_loop: index, count, context, callback
//!             may_goto's budget, the re-entry guard
//!       rsp →
//! ```
//! rsp doesn't move while BPF instructions run, except within one; so everything is at a constant distance from it.
//! Knows no instructions. Invariant: places don't overlap; all are multiples of 8.

use crate::asm::Gpr;

/// Bytes below rsp that a function may use without saying so (psABI §3.2.2).
pub(crate) const RED_ZONE: u32 = 128;

/// The frame of the main program or of a subprogram.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    /// Skip the red zone of an interrupted function?
    pub(crate) red_zone: bool,
    /// Save the flags?
    pub(crate) flags: bool,
    /// Registers whose entry values a refused call needs back although the program changes them in ctx, in the order
    /// they are pushed: before all others.
    pub(crate) originals: Vec<Gpr>,
    /// Registers in the order they are pushed.
    pub(crate) saved: Vec<Gpr>,
    /// Bytes of BPF stack, a multiple of 8.
    bpf_stack: u32,
    has_loop: bool,
    has_budget: bool,
    has_guard: bool,
}

impl Frame {
    pub(crate) fn new(saved: Vec<Gpr>, bpf_stack: u16) -> Self {
        Self {
            saved,
            bpf_stack: u32::from(bpf_stack).next_multiple_of(8),
            ..Self::default()
        }
    }

    /// Reserves bpf_loop's variables.
    pub(crate) fn with_loop(self, has_loop: bool) -> Self {
        Self { has_loop, ..self }
    }

    /// Reserves what only the main program has.
    pub(crate) fn with_main(self, has_budget: bool, has_guard: bool) -> Self {
        Self {
            has_budget,
            has_guard,
            ..self
        }
    }

    /// No BPF stack: the code doesn't mention it.
    pub(crate) fn without_bpf_stack(self) -> Self {
        Self {
            bpf_stack: 0,
            ..self
        }
    }

    /// The place of may_goto's budget, from rsp.
    pub(crate) fn budget(&self) -> i32 {
        0
    }

    fn after_budget(&self) -> u32 {
        if self.has_budget { 8 } else { 0 }
    }

    /// The place of the guard's offset, from rsp.
    pub(crate) fn guard(&self) -> i32 {
        distance(self.after_budget())
    }

    fn after_guard(&self) -> u32 {
        self.after_budget() + if self.has_guard { 8 } else { 0 }
    }

    /// The place of bpf_loop's index, from rsp.
    pub(crate) fn loop_index(&self) -> i32 {
        distance(self.after_guard())
    }

    /// The place of bpf_loop's count.
    pub(crate) fn loop_count(&self) -> i32 {
        self.loop_index() + 8
    }

    /// The place of bpf_loop's context.
    pub(crate) fn loop_context(&self) -> i32 {
        self.loop_index() + 16
    }

    /// The place of bpf_loop's callback, where it is not known when compiling.
    pub(crate) fn loop_callback(&self) -> i32 {
        self.loop_index() + 24
    }

    /// Bytes of BPF stack.
    pub(crate) fn bpf_stack_bytes(&self) -> i32 {
        distance(self.bpf_stack)
    }

    /// What rsp is lowered by after the pushes.
    pub(crate) fn locals(&self) -> u32 {
        self.after_guard() + if self.has_loop { 32 } else { 0 } + self.bpf_stack
    }

    /// r10, from rsp.
    pub(crate) fn stack_end(&self) -> i32 {
        distance(self.locals())
    }

    /// The place of a pushed register, from rsp.
    pub(crate) fn saved_at(&self, reg: Gpr) -> Option<i32> {
        let position = self.saved.iter().rposition(|saved| *saved == reg)?;
        let above = self.saved.len() - 1 - position;
        Some(distance(self.locals()) + 8 * i32::try_from(above).unwrap_or(i32::MAX / 8))
    }

    /// The place of the saved flags, from rsp.
    pub(crate) fn flags_at(&self) -> i32 {
        distance(self.locals() + self.pushed())
    }

    /// Bytes of [`Self::originals`].
    pub(crate) fn original_bytes(&self) -> u32 {
        8 * u32::try_from(self.originals.len()).unwrap_or(16)
    }

    fn pushed(&self) -> u32 {
        self.original_bytes() + 8 * u32::try_from(self.saved.len()).unwrap_or(16)
    }

    /// All of it: the distance from rsp to rsp at the entry.
    pub(crate) fn bytes(&self) -> u32 {
        let flags = if self.flags { 8 } else { 0 };
        let red_zone = if self.red_zone { RED_ZONE } else { 0 };
        self.locals() + self.pushed() + flags + red_zone
    }
}

/// Frames have a few hundred bytes.
fn distance(bytes: u32) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
