//! A linked BPF program: one function that is a patch or a probe, with everything it refers to.
//!
//! Made by the linker from an object, or by the text assembler. Structure is checked once, in [`Program::new`]; safety
//! is the verifier's business.

use std::collections::BTreeSet;

use crate::insn::{Callee, Imm64, Insn, Pc};

/// What the program is for, from its section's name (DESIGN, contract).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgramKind {
    /// `SEC("upatch/…")` at a function's entry: may write argument registers, R0 is a verdict.
    PatchEntry,
    /// `SEC("upatch/…+offset")`: may write all GPRs but rsp, R0 is 0.
    PatchOffset,
    /// `SEC("uprobe/…")`: ctx is read-only, R0 is ignored.
    Probe,
    /// Not a patch: r1 points at `mem_len` bytes of memory, r2 is that length (conformance cases, `upatch run --raw`).
    Memory {
        /// Bytes that r1 points at; 0: r1 is a number.
        mem_len: u32,
    },
}

/// One function of the program; the first is the program itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subprog {
    /// First slot.
    pub start: Pc,
    /// First slot after it.
    pub end: Pc,
    /// Its C name, or a made-up one for assembled programs.
    pub name: String,
    /// Not `static`: verified once by its BTF prototype instead of at every call (a verifier may choose to verify it at every call).
    pub global: bool,
    /// Number of arguments by BTF, or `None` if unknown.
    pub args: Option<u8>,
}

/// Read-only bytes: a string, a constant table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataObject {
    /// Its section or variable name.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A variable in the arena.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArenaGlobal {
    /// Its C name.
    pub name: String,
    /// First byte in the arena.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Declared by `UPATCH_COUNTER` (a plain read-modify-write of it gets a warning).
    pub counter: bool,
}

/// The arena as the program sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arena {
    /// Bytes that are used or reserved; 0: the program has no arena. The window is
    /// [`upatch_abi::arena::window_for`] of it.
    pub len: u64,
    /// Variables, by ascending offset, disjoint.
    pub globals: Vec<ArenaGlobal>,
}

/// What an external function of the application takes at one place (annotations of `upatch.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExternParam {
    /// A number of this many bytes (1, 2, 4, 8); the upper bits are the callee's to ignore.
    Scalar {
        /// Size of the C type in bytes.
        bytes: u8,
    },
    /// A pointer into the application's memory without annotation: a number that came from ctx or a fault-safe read;
    /// pointers to our own memory are refused. Known zero is refused unless `nullable`.
    AppPointer {
        /// Annotated `__nullable`.
        nullable: bool,
    },
    /// `__sz`: memory of ours (stack, arena, read-only data if `readonly`) of the size given in argument `size`.
    SizedMemory {
        /// Index (0-5) of the size argument.
        size: u8,
        /// Annotated `__nullable`: a known zero is accepted.
        nullable: bool,
        /// Points to const: the callee only reads.
        readonly: bool,
    },
    /// `__str`: NUL-terminated constant string in read-only data.
    ConstString {
        /// Annotated `__nullable`.
        nullable: bool,
    },
}

/// What an external function returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExternRet {
    /// Nothing: R0 is undefined afterwards.
    Void,
    /// A number (pointers of the application are numbers too) of this many bytes; signed ones are sign-extended by the
    /// JIT, others zero-extended, so that R0 is defined in all 64 bits.
    Scalar {
        /// Size of the C type in bytes (1, 2, 4, 8).
        bytes: u8,
        /// Is the type signed?
        signed: bool,
    },
}

/// A function of the application, declared `extern … __ksym`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extern {
    /// Symbol name.
    pub name: String,
    /// Parameters, at most 5.
    pub params: Vec<ExternParam>,
    /// Result.
    pub ret: ExternRet,
}

/// A line of C that an instruction belongs to (BTF.ext line_info).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineInfo {
    /// First slot of the line.
    pub pc: Pc,
    /// Source file as the compiler saw it.
    pub file: String,
    /// Line number from 1.
    pub line: u32,
    /// Column from 1, 0 if unknown.
    pub column: u32,
    /// The line's text, as in BTF; may be empty.
    pub text: String,
}

/// The parts of a program, before its structure is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramParts {
    /// What it is for.
    pub kind: ProgramKind,
    /// Name of the C function.
    pub name: String,
    /// All slots; the program itself starts at 0.
    pub insns: Vec<Insn>,
    /// Functions by ascending start, covering all slots without a gap; the first is the program itself.
    pub subprogs: Vec<Subprog>,
    /// Read-only data.
    pub data: Vec<DataObject>,
    /// The arena.
    pub arena: Arena,
    /// Functions of the application.
    pub externs: Vec<Extern>,
    /// Source lines by ascending pc.
    pub lines: Vec<LineInfo>,
}

/// Most slots of a program (RFC 9669 leaves it open; Linux: 1,000,000 verified, 4,096 for the unprivileged).
pub const MAX_SLOTS: usize = 65_536;

/// A structurally sound program.
///
/// Holding a `Program` tells you: every target, callee, data object, arena offset and extern index exists; jumps stay
/// inside their subprogram and never reach an [`Insn::LdImm64Tail`]; every `LdImm64` is followed by its tail and no tail
/// stands elsewhere; the last instruction of every subprogram is an exit or an unconditional jump; sub-program ranges
/// cover the slots in order; operands are combined as the instruction set has them ([`Insn::is_encodable`]). It does not
/// tell that running it is safe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    parts: ProgramParts,
}

/// Why parts are not a program.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum MalformedProgram {
    #[error("the program has no instructions")]
    Empty,
    #[error("the program has {slots} instruction slots, more than {MAX_SLOTS}")]
    TooLong { slots: usize },
    #[error("the functions do not cover the instructions in order (at slot {})", at.0)]
    BadSubprogs { at: Pc },
    #[error("the jump at slot {} leaves its function or lands inside an instruction (target {})", at.0, target.0)]
    BadTarget { at: Pc, target: Pc },
    #[error("the call at slot {} does not go to the start of a function", at.0)]
    BadCallee { at: Pc },
    #[error("the 64-bit immediate at slot {} is torn", at.0)]
    TornImm64 { at: Pc },
    #[error("the instruction at slot {} refers to data, an arena byte or an external function that does not exist", at.0)]
    BadReference { at: Pc },
    #[error("control can run past the end of the function at slot {}", at.0)]
    FallsThrough { at: Pc },
    #[error("the instruction at slot {} has a combination of operands that does not exist", at.0)]
    BadOperands { at: Pc },
}

impl MalformedProgram {
    /// The slot it is about, if it is about one.
    #[must_use]
    pub fn at(&self) -> Option<Pc> {
        match *self {
            Self::Empty | Self::TooLong { .. } => None,
            Self::BadSubprogs { at }
            | Self::BadTarget { at, .. }
            | Self::BadCallee { at }
            | Self::TornImm64 { at }
            | Self::BadReference { at }
            | Self::FallsThrough { at }
            | Self::BadOperands { at } => Some(at),
        }
    }
}

impl Program {
    /// Checks the structure (see the type's guarantees).
    ///
    /// # Errors
    /// The first guarantee that does not hold, with its place.
    pub fn new(parts: ProgramParts) -> Result<Self, MalformedProgram> {
        let slots = parts.insns.len();
        if slots == 0 {
            return Err(MalformedProgram::Empty);
        }
        if slots > MAX_SLOTS {
            return Err(MalformedProgram::TooLong { slots });
        }
        let mut expected = 0;
        for subprog in &parts.subprogs {
            if subprog.start.index() != expected
                || subprog.end <= subprog.start
                || subprog.end.index() > slots
            {
                return Err(MalformedProgram::BadSubprogs { at: subprog.start });
            }
            expected = subprog.end.index();
        }
        if expected != slots {
            return Err(MalformedProgram::BadSubprogs {
                at: Pc(u32::try_from(expected).unwrap_or(u32::MAX)),
            });
        }
        for subprog in &parts.subprogs {
            check_subprog(&parts, subprog)?;
        }
        Ok(Self { parts })
    }

    /// A program of instructions alone: its functions are found from the targets of calls and callbacks and are named
    /// `sub_SLOT`; no data, no arena, no external functions.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_raw(kind: ProgramKind, insns: Vec<Insn>) -> Result<Self, MalformedProgram> {
        let subprogs = find_subprogs(&insns)?;
        Self::new(ProgramParts {
            kind,
            name: "main".to_owned(),
            insns,
            subprogs,
            data: Vec::new(),
            arena: Arena::default(),
            externs: Vec::new(),
            lines: Vec::new(),
        })
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> ProgramKind {
        self.parts.kind
    }

    /// Name of the C function.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// All slots.
    #[must_use]
    pub fn insns(&self) -> &[Insn] {
        &self.parts.insns
    }

    /// Functions by ascending start; the first is the program itself.
    #[must_use]
    pub fn subprogs(&self) -> &[Subprog] {
        &self.parts.subprogs
    }

    /// Index in [`Self::subprogs`] of the function that holds `pc`.
    #[must_use]
    pub fn subprog_of(&self, pc: Pc) -> Option<usize> {
        self.parts
            .subprogs
            .iter()
            .position(|subprog| subprog.start <= pc && pc < subprog.end)
    }

    /// Read-only data.
    #[must_use]
    pub fn data(&self) -> &[DataObject] {
        &self.parts.data
    }

    /// The arena.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.parts.arena
    }

    /// Functions of the application.
    #[must_use]
    pub fn externs(&self) -> &[Extern] {
        &self.parts.externs
    }

    /// The source line of `pc`, if the object says so.
    #[must_use]
    pub fn line_of(&self, pc: Pc) -> Option<&LineInfo> {
        let behind = self.parts.lines.partition_point(|line| line.pc <= pc);
        let line = self.parts.lines.get(behind.checked_sub(1)?)?;
        // A line of another function says nothing about this one.
        (self.subprog_of(line.pc) == self.subprog_of(pc)).then_some(line)
    }

    /// The parts again, to build another program from.
    #[must_use]
    pub fn into_parts(self) -> ProgramParts {
        self.parts
    }
}

/// Splits instructions into functions at slot 0 and at every target of a call or callback.
///
/// # Errors
/// A target outside `insns`.
pub fn find_subprogs(insns: &[Insn]) -> Result<Vec<Subprog>, MalformedProgram> {
    let mut starts = BTreeSet::from([Pc(0)]);
    for (at, insn) in (0..).map(Pc).zip(insns) {
        let (Insn::Call {
            callee: Callee::Subprog(target),
        }
        | Insn::LdImm64 {
            imm: Imm64::Subprog(target),
            ..
        }) = *insn
        else {
            continue;
        };
        if target.index() >= insns.len() {
            return Err(MalformedProgram::BadCallee { at });
        }
        starts.insert(target);
    }
    let end = Pc(u32::try_from(insns.len()).unwrap_or(u32::MAX));
    let ends = starts.iter().skip(1).copied().chain([end]);
    let name = |start: Pc| match start.0 {
        0 => "main".to_owned(),
        slot => format!("sub_{slot}"),
    };
    Ok(starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| Subprog {
            start,
            end,
            name: name(start),
            global: false,
            args: None,
        })
        .collect())
}

fn check_subprog(parts: &ProgramParts, subprog: &Subprog) -> Result<(), MalformedProgram> {
    let is_tail = |pc: Pc| matches!(parts.insns.get(pc.index()), Some(Insn::LdImm64Tail));
    let mut last = Insn::LdImm64Tail;
    let mut pc = subprog.start;
    while pc < subprog.end {
        let Some(&insn) = parts.insns.get(pc.index()) else {
            return Err(MalformedProgram::BadSubprogs { at: pc });
        };
        let next = Pc(pc.0 + insn.slots());
        if !insn.is_encodable() {
            return Err(MalformedProgram::BadOperands { at: pc });
        }
        match insn {
            Insn::Jump { target } | Insn::JumpIf { target, .. } | Insn::MayGoto { target } => {
                if target < subprog.start || target >= subprog.end || is_tail(target) {
                    return Err(MalformedProgram::BadTarget { at: pc, target });
                }
            }
            Insn::Call {
                callee: Callee::Subprog(target),
            } => {
                if !parts.subprogs.iter().any(|callee| callee.start == target) {
                    return Err(MalformedProgram::BadCallee { at: pc });
                }
            }
            Insn::Call {
                callee: Callee::Extern(index),
            } => {
                if index as usize >= parts.externs.len() {
                    return Err(MalformedProgram::BadReference { at: pc });
                }
            }
            Insn::LdImm64 { imm, .. } => {
                if next > subprog.end || !is_tail(Pc(pc.0 + 1)) {
                    return Err(MalformedProgram::TornImm64 { at: pc });
                }
                check_imm64(parts, pc, imm)?;
            }
            Insn::LdImm64Tail => return Err(MalformedProgram::TornImm64 { at: pc }),
            Insn::Alu { .. }
            | Insn::MovSx { .. }
            | Insn::Neg { .. }
            | Insn::Endian { .. }
            | Insn::AddrSpaceCast { .. }
            | Insn::Load { .. }
            | Insn::Store { .. }
            | Insn::Atomic { .. }
            | Insn::LoadAcquire { .. }
            | Insn::StoreRelease { .. }
            | Insn::Call {
                callee: Callee::Helper(_),
            }
            | Insn::Exit => {}
        }
        last = insn;
        pc = next;
    }
    match last {
        Insn::Exit | Insn::Jump { .. } => Ok(()),
        _ => Err(MalformedProgram::FallsThrough {
            at: Pc(subprog.end.0 - 1),
        }),
    }
}

fn check_imm64(parts: &ProgramParts, pc: Pc, imm: Imm64) -> Result<(), MalformedProgram> {
    let exists = match imm {
        Imm64::Const(_) => true,
        // One past the end is a legitimate pointer.
        Imm64::Data { object, offset } => parts
            .data
            .get(object as usize)
            .is_some_and(|data| offset as usize <= data.bytes.len()),
        Imm64::Arena { offset } => offset <= parts.arena.len,
        Imm64::Subprog(target) => parts.subprogs.iter().any(|callee| callee.start == target),
    };
    if exists {
        Ok(())
    } else {
        Err(MalformedProgram::BadReference { at: pc })
    }
}
