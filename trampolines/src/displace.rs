//! Chooses the instructions that a five-byte jump displaces, and refuses what can't be moved.
//!
//! Knows one function's bytes. Doesn't know what other modules jump to, nor which jump tables exist: a table's entry
//! between a function's first byte and its fifth does not occur in compiler output, so an indirect jump is no reason to
//! refuse an *entry*; at `function+offset` it is one. Invariant of [`DisplacedInsns`]: whole instructions, none but the
//! first is reached by a direct jump of the function, and each of them has a copy elsewhere that does the same.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use crate::address::{Avma, AvmaRange};
use crate::function::{FunctionText, SiteKind};
use crate::relocate::{self, Relocation};
use crate::scan::{self, CodeScan};

/// Length of `jmp rel32`, the only thing ever written over a site.
pub const JUMP_LEN: usize = 5;

const PAGE: u64 = 0x1000;
/// Functions are padded up to this alignment; padding is never sought further.
const PADDING_ALIGN: u64 = 16;

/// Why a site can't take a jump.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Undisplaceable {
    /// The site is not in the function's bytes.
    #[error("site offset {site:#x} is outside the function of {len:#x} bytes")]
    SiteOutside {
        /// Offset of the site.
        site: usize,
        /// Length of the function.
        len: usize,
    },
    /// The site lies between instructions.
    #[error("{at} is not the first byte of an instruction")]
    SiteNotInstruction {
        /// The site.
        at: Avma,
    },
    /// Bytes of the function are no instruction.
    #[error("the bytes at {at} are no instruction")]
    Undecodable {
        /// Where.
        at: Avma,
    },
    /// The jump would be written to two pages, which can't be one store.
    #[error("a jump at {at} would cross a page boundary")]
    CrossesPage {
        /// The site.
        at: Avma,
    },
    /// The function jumps between the displaced instructions.
    #[error("the function jumps from {from} to {to}, into the bytes that the jump replaces")]
    JumpsIntoDisplaced {
        /// The jump.
        from: Avma,
        /// Its target.
        to: Avma,
    },
    /// The function jumps back to its own entry: the hook would run again, in the middle of a call.
    #[error("the function loops from {from} back to its first byte")]
    LoopsToEntry {
        /// The jump.
        from: Avma,
    },
    /// Something else is known to enter between the displaced instructions.
    #[error("{at} is entered from elsewhere (landing pad or symbol)")]
    EntryPointInside {
        /// The address.
        at: Avma,
    },
    /// At `function+offset`: a jump whose targets are not known could lead into the displaced instructions.
    #[error("the indirect jump at {at} could lead into the bytes that the jump replaces")]
    IndirectJump {
        /// The jump.
        at: Avma,
    },
    /// A displaced call would return between the displaced instructions.
    #[error("the call at {at} returns into the bytes that the jump replaces")]
    CallInsideWindow {
        /// The call.
        at: Avma,
    },
    /// Fewer than five bytes, and what follows is not known to be padding.
    #[error("only {len} bytes before {end}, where something else begins")]
    TooShort {
        /// Bytes that may be replaced.
        len: u64,
        /// What can't be replaced.
        end: Avma,
    },
    /// An instruction has no copy that does the same elsewhere.
    #[error("`{text}` at {at} can't be moved: {reason}")]
    Immovable {
        /// Where.
        at: Avma,
        /// The instruction.
        text: String,
        /// Why.
        reason: Immovable,
    },
}

/// Why an instruction can't be executed at another address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Immovable {
    /// `int3`, `int`, `into`: whoever handles it looks at the address.
    #[error("an interrupt shows its own address")]
    Interrupt,
    /// `ud2` and the like.
    #[error("it raises an exception that shows its own address")]
    Exception,
    /// `syscall` leaves the next address in rcx, and a thread can sleep in it.
    #[error("a system call leaves its own address in rcx")]
    Syscall,
    /// Transactional memory.
    #[error("a transaction's abort address")]
    Transaction,
    /// Far jumps, calls and returns.
    #[error("a far transfer")]
    Far,
    /// Branches with a 16-bit operand size.
    #[error("an operand size that processors disagree about")]
    OperandSize,
    /// Addressing relative to eip.
    #[error("an address relative to eip")]
    EipRelative,
    /// The instruction reads or writes the bytes that the jump replaces.
    #[error("it accesses the bytes that the jump replaces")]
    TouchesWindow,
    /// A call whose operand depends on rsp in a way that can't be expressed after the push.
    #[error("a call whose operand depends on rsp")]
    CallThroughStack,
}

/// How five bytes were found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tactic {
    /// Whole instructions cover them.
    WholeInstructions,
    /// The code ends before; padding behind it is overwritten too.
    WithPadding,
}

/// One displaced instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DisplacedInsn {
    pub(crate) insn: Instruction,
    pub(crate) bytes: Vec<u8>,
    pub(crate) how: Relocation,
}

/// The instructions that make room for a jump.
///
/// Holding a `DisplacedInsns` tells you: they are whole, consecutive, cover at least five bytes (padding included) from
/// the site; no direct jump of the function leads behind the first byte; each can be executed elsewhere; no call among
/// them returns into the five bytes; the five bytes lie in one page.
///
/// ```compile_fail,E0451
/// use upatch_trampolines::*;
/// let forged = DisplacedInsns { site: Avma(0x1000) };
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DisplacedInsns {
    pub(crate) site: Avma,
    pub(crate) kind: SiteKind,
    pub(crate) original: Vec<u8>,
    pub(crate) insns: Vec<DisplacedInsn>,
    pub(crate) end: Avma,
    pub(crate) falls_through: bool,
    tactic: Tactic,
}

impl DisplacedInsns {
    /// First byte of the site.
    #[must_use]
    pub const fn site(&self) -> Avma {
        self.site
    }

    /// Entry or inside a function.
    #[must_use]
    pub const fn kind(&self) -> SiteKind {
        self.kind
    }

    /// From the site to the end of the last displaced instruction, or of the replaced padding.
    #[must_use]
    pub fn range(&self) -> AvmaRange {
        AvmaRange {
            start: self.site,
            end: self.end,
        }
    }

    /// Where the original text goes on after the displaced instructions, if they don't end in an unconditional jump.
    #[must_use]
    pub fn resume(&self) -> Option<Avma> {
        self.falls_through.then_some(self.end)
    }

    /// The five original bytes that the jump replaces.
    #[must_use]
    pub fn original(&self) -> &[u8] {
        &self.original
    }

    /// How the five bytes were found.
    #[must_use]
    pub const fn tactic(&self) -> Tactic {
        self.tactic
    }

    /// Address, bytes and text of each displaced instruction.
    pub fn listing(&self) -> impl Iterator<Item = (Avma, &[u8], String)> {
        self.insns.iter().map(|each| {
            (
                Avma(each.insn.ip()),
                each.bytes.as_slice(),
                text_of(&each.insn),
            )
        })
    }

    /// An upper bound of the length of the copies, whatever their address.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.insns.iter().map(relocate::max_len).sum()
    }
}

/// Chooses and checks the instructions at the site of `text`.
///
/// # Errors
///
/// The first reason why the site can't take a jump.
pub fn displace(text: &FunctionText) -> Result<DisplacedInsns, Undisplaceable> {
    let site = text.site_at();
    if text.site >= text.bytes.len() {
        return Err(Undisplaceable::SiteOutside {
            site: text.site,
            len: text.bytes.len(),
        });
    }
    if site.0 % PAGE > PAGE - JUMP_LEN as u64 {
        return Err(Undisplaceable::CrossesPage { at: site });
    }
    let scan = CodeScan::new(text).map_err(|bad| Undisplaceable::Undecodable { at: bad.0 })?;
    let window = choose(text, &scan)?;
    no_way_in(
        text,
        &scan,
        AvmaRange {
            start: site,
            end: window.end,
        },
    )?;
    Ok(window)
}

/// Collects whole instructions until five bytes are covered.
fn choose(text: &FunctionText, scan: &CodeScan) -> Result<DisplacedInsns, Undisplaceable> {
    let site = text.site_at();
    let mut insns: Vec<DisplacedInsn> = Vec::new();
    let mut at = site;
    let mut falls_through = true;
    let mut tactic = Tactic::WholeInstructions;
    while at.0.wrapping_sub(site.0) < JUMP_LEN as u64 {
        if !falls_through {
            at = skip_padding(text, at)?;
            tactic = Tactic::WithPadding;
            break;
        }
        let Some(insn) = scan.at(at) else {
            return Err(if at == site {
                Undisplaceable::SiteNotInstruction { at }
            } else {
                Undisplaceable::TooShort {
                    len: at.0.wrapping_sub(site.0),
                    end: at,
                }
            });
        };
        let bytes = bytes_of(text, insn);
        let window = AvmaRange::new(site, JUMP_LEN as u64);
        let how = relocate::classify(insn, &bytes, window).map_err(|reason| {
            Undisplaceable::Immovable {
                at,
                text: text_of(insn),
                reason,
            }
        })?;
        at = at.plus(insn.len() as u64);
        if how.is_call() {
            // It returns into original text that stays as it is, or not at all into our hands.
            if at.0.wrapping_sub(site.0) < JUMP_LEN as u64 {
                return Err(Undisplaceable::CallInsideWindow {
                    at: Avma(insn.ip()),
                });
            }
            falls_through = false;
        }
        falls_through &= !scan::ends_flow(insn);
        insns.push(DisplacedInsn {
            insn: *insn,
            bytes,
            how,
        });
    }
    let original = bytes_at(text, text.site, JUMP_LEN);
    Ok(DisplacedInsns {
        site,
        kind: text.kind(),
        original,
        insns,
        end: at,
        falls_through,
        tactic,
    })
}

/// The code ended at `at`: proves that the rest of the five bytes is padding, and returns the end of what is replaced.
fn skip_padding(text: &FunctionText, at: Avma) -> Result<Avma, Undisplaceable> {
    let site = text.site_at();
    let function_end = text.range().end;
    let limit = Avma(
        function_end
            .0
            .checked_next_multiple_of(PADDING_ALIGN)
            .unwrap_or(function_end.0),
    );
    let wanted = site.plus(JUMP_LEN as u64);
    let mut cursor = at;
    while cursor < wanted {
        let offset = usize::try_from(cursor.0.wrapping_sub(text.at.0)).unwrap_or(usize::MAX);
        let bytes = bytes_at(text, offset, 15);
        let len = padding_len(&bytes, cursor >= function_end);
        let Some(len) = len.filter(|_| cursor < limit && wanted <= limit.max(function_end)) else {
            return Err(Undisplaceable::TooShort {
                len: cursor.0.wrapping_sub(site.0),
                end: cursor,
            });
        };
        cursor = cursor.plus(len);
    }
    Ok(wanted)
}

/// Length of the padding instruction that `bytes` begin with. Zero bytes count only behind a function.
fn padding_len(bytes: &[u8], behind: bool) -> Option<u64> {
    match bytes.first()? {
        0x00 if behind => Some(1),
        0xcc => Some(1),
        _ => {
            let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
            (insn.mnemonic() == Mnemonic::Nop).then_some(insn.len() as u64)
        }
    }
}

/// `len` bytes from `offset` in the function, continued in what follows it; fewer if there are no more.
fn bytes_at(text: &FunctionText, offset: usize, len: usize) -> Vec<u8> {
    text.bytes
        .iter()
        .chain(&text.bytes_after)
        .skip(offset)
        .take(len)
        .copied()
        .collect()
}

fn bytes_of(text: &FunctionText, insn: &Instruction) -> Vec<u8> {
    let offset = usize::try_from(insn.ip().wrapping_sub(text.at.0)).unwrap_or(usize::MAX);
    bytes_at(text, offset, insn.len())
}

/// Proves that nothing in the function leads behind the first displaced byte.
fn no_way_in(
    text: &FunctionText,
    scan: &CodeScan,
    window: AvmaRange,
) -> Result<(), Undisplaceable> {
    let site = window.start;
    for (from, insn) in scan.iter() {
        if let Some(to) = scan::direct_target(insn).map(Avma) {
            if window.contains(to) && to != site {
                return Err(Undisplaceable::JumpsIntoDisplaced { from, to });
            }
            // A call is a new call of the function, a jump is not. Inside a function each arrival counts.
            let is_call = insn.flow_control() == FlowControl::Call;
            if to == site && text.kind() == SiteKind::Entry && !is_call {
                return Err(Undisplaceable::LoopsToEntry { from });
            }
        }
        if text.kind() == SiteKind::Offset && could_be_a_table(insn) {
            return Err(Undisplaceable::IndirectJump { at: from });
        }
    }
    match text
        .entry_points
        .iter()
        .find(|at| window.contains(**at) && **at != site)
    {
        Some(at) => Err(Undisplaceable::EntryPointInside { at: *at }),
        None => Ok(()),
    }
}

/// Can the jump's targets be blocks of the same function? A jump through one fixed word (`jmp [rip+x]`) is a tail call
/// by way of the GOT; `jmp reg` and everything with an index may be a switch.
fn could_be_a_table(insn: &Instruction) -> bool {
    insn.flow_control() == FlowControl::IndirectBranch
        && !(insn.code() == Code::Jmp_rm64
            && insn.op0_kind() == OpKind::Memory
            && insn.memory_base() == Register::RIP
            && insn.memory_index() == Register::None)
}

/// The instruction in GNU syntax's Intel flavour.
pub(crate) fn text_of(insn: &Instruction) -> String {
    use iced_x86::Formatter;
    let mut text = String::new();
    iced_x86::GasFormatter::new().format(insn, &mut text);
    text
}
