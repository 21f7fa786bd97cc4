//! Machine code beside what it was made of: C line, BPF instructions, x86 instructions.
//!
//! ```text
//! marks of the compiler + program ─┐
//!                                  ├→ compiled: passages by C line, in the order of the code
//! bytes (compiled, or in memory) ──┘
//! bytes of a process alone ─────────→ found: instructions that control reaches, data between them
//! ```
//! Decides grouping and the remarks on single instructions; how it is laid out is the command line's business. Memory of
//! a process is not believed: every byte is decoded or shown as data.

mod found;

pub use found::found;

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction};
use upatch_jit::{CodeMark, CodePart};
use upatch_verifier::insn::{Insn, Pc};
use upatch_verifier::program::Program;

/// One instruction of x86.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Its address, or its offset in code that has none yet.
    pub at: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// AT&T syntax, as objdump writes it.
    pub text: String,
    /// What a number in it stands for, or where it leads.
    pub note: Option<String>,
}

/// What one piece of machine code is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The slot, if it is a BPF instruction.
    pub pc: Option<Pc>,
    /// The BPF instruction, or what the piece does.
    pub text: String,
    /// Its code; empty if another step's does its work.
    pub code: Vec<Machine>,
}

/// A line of source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// File as the compiler saw it.
    pub file: String,
    /// Number from 1.
    pub line: u32,
    /// Its text; may be empty.
    pub text: String,
}

/// Steps that belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passage {
    /// The line they were compiled from, if they were.
    pub source: Option<Source>,
    /// What they are otherwise: a prologue, a helper, displaced instructions.
    pub title: Option<String>,
    /// In the order of the code.
    pub steps: Vec<Step>,
}

/// A remark on an instruction: it gets the instruction and the offset of its first byte in the code.
pub type Remarks<'a> = dyn Fn(&Instruction, usize) -> Option<String> + 'a;

/// Decodes all of `code`, which lies at `base`.
pub(crate) fn decode(code: &[u8], base: u64, remarks: &Remarks<'_>) -> Vec<Machine> {
    let mut decoder = Decoder::with_ip(64, code, base, DecoderOptions::NONE);
    let mut lines = Vec::new();
    while decoder.can_decode() {
        let start = decoder.position();
        let insn = decoder.decode();
        lines.push(machine(&insn, code, start, remarks));
    }
    lines
}

fn machine(insn: &Instruction, code: &[u8], start: usize, remarks: &Remarks<'_>) -> Machine {
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    let options = formatter.options_mut();
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_signed_immediate_operands(true);
    formatter.format(insn, &mut text);
    Machine {
        at: insn.ip(),
        bytes: code
            .get(start..start + insn.len())
            .unwrap_or_default()
            .to_vec(),
        text,
        note: remarks(insn, start),
    }
}

/// Code that the compiler made of `program`, with its marks. `code` may end before the last mark: a jump to what follows
/// it is left out of images.
#[must_use]
pub fn compiled(
    program: &Program,
    marks: &[CodeMark],
    code: &[u8],
    base: u64,
    remarks: &Remarks<'_>,
) -> Vec<Passage> {
    let mut lines = decode(code, base, remarks).into_iter().peekable();
    let mut passages: Vec<Passage> = Vec::new();
    for (index, mark) in marks.iter().enumerate() {
        let end = marks.get(index + 1).map_or(code.len(), |next| next.at);
        let mut piece = Vec::new();
        while let Some(line) = lines.next_if(|line| line.at.wrapping_sub(base) < end as u64) {
            piece.push(line);
        }
        let (source, title, step) = match mark.part {
            CodePart::Slot(pc) => match slot(program, pc, piece) {
                Some((source, step)) => (source, None, step),
                None => continue,
            },
            part => {
                if piece.is_empty() {
                    continue;
                }
                let title = title(program, part);
                let step = Step {
                    pc: None,
                    text: String::new(),
                    code: piece,
                };
                (None, Some(title), step)
            }
        };
        match passages.last_mut() {
            Some(last) if last.title == title && is_same(&last.source, &source) => {
                last.steps.push(step);
            }
            _ => passages.push(Passage {
                source,
                title,
                steps: vec![step],
            }),
        }
    }
    passages
}

fn is_same(a: &Option<Source>, b: &Option<Source>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a.line, &a.file) == (b.line, &b.file),
        (None, None) => true,
        _ => false,
    }
}

/// A BPF instruction with its line; `None` for the second half of a 64-bit immediate.
fn slot(program: &Program, pc: Pc, code: Vec<Machine>) -> Option<(Option<Source>, Step)> {
    if program.insns().get(pc.index()) == Some(&Insn::LdImm64Tail) {
        return None;
    }
    let source = program.line_of(pc).map(|line| Source {
        file: line.file.clone(),
        line: line.line,
        text: line.text.trim().to_owned(),
    });
    let text = program
        .shown(pc)
        .map_or_else(String::new, |shown| shown.to_string());
    let step = Step {
        pc: Some(pc),
        text,
        code,
    };
    Some((source, step))
}

fn title(program: &Program, part: CodePart) -> String {
    match part {
        CodePart::Gate => "gate: are all sites of the patch ready?".to_owned(),
        CodePart::Prologue(0) => "entry: save what is overwritten".to_owned(),
        CodePart::Prologue(index) => {
            let name = program.subprogs().get(index).map(|subprog| &*subprog.name);
            format!("function {}", name.unwrap_or("?"))
        }
        CodePart::Continue => "continue: restore, go on to the displaced instructions".to_owned(),
        CodePart::Routine(name) => name.to_owned(),
        CodePart::Slot(_) => String::new(),
    }
}
