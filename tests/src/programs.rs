//! Random programs that the verifier has something to say about: numbers are computed, compared and used as indexes,
//! stored and loaded again, through branches, loops, calls and callbacks. About half of them are safe.
//!
//! Deterministic by seed. They are for our own verifier, interpreter and JIT, never for the kernel's.

mod blind;
mod flow;
mod memory;
mod random;

use upatch_verifier::insn::{AluOp, CmpOp, EndianOp, Imm64, Insn, Operand, Pc, Reg, Size, Width};
use upatch_verifier::program::{Arena, ArenaGlobal, DataObject, ProgramParts, Subprog};
use upatch_verifier::{Program, ProgramKind};

pub use blind::blind;
pub use random::Random;

use self::blind::mutate;

/// Bytes of the memory, the table, and each arena variable of generated programs.
pub const OBJECT: u64 = 64;
/// Stack bytes that the prologue initialises, below fp.
const BUFFER: i16 = 64;

/// Registers that statements compute with. r1 is for addresses, r6 keeps the argument, r9 counts loops.
const NUMBERS: [Reg; 6] = [Reg::R0, Reg::R2, Reg::R3, Reg::R4, Reg::R7, Reg::R8];

const SIZES: [Size; 4] = [Size::B, Size::H, Size::W, Size::DW];

struct Writer<'r> {
    random: &'r mut Random,
    insns: Vec<Insn>,
    kind: ProgramKind,
    arena: bool,
    /// Calls of functions that are not written yet: slot, and which.
    calls: Vec<(usize, Function)>,
    /// Is r9 taken by a loop?
    counting: bool,
    /// Inside a function other than the program itself.
    inner: bool,
    depth: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Function {
    /// Takes two numbers, returns a number.
    Numbers,
    /// Takes a pointer to the caller's buffer.
    Pointer,
    /// A callback of bpf_loop whose context points to the caller's buffer.
    Callback,
}

const FUNCTIONS: [Function; 3] = [Function::Numbers, Function::Pointer, Function::Callback];

/// A random program.
///
/// # Panics
/// Never: what the generator writes is a program.
#[must_use]
pub fn generate(seed: u64) -> Program {
    let mut random = Random::new(seed);
    let arena = random.chance(40);
    let kind = match random.below(4) {
        0 => ProgramKind::PatchEntry,
        1 => ProgramKind::Probe,
        _ => ProgramKind::Memory {
            mem_len: OBJECT as u32,
        },
    };
    let mut writer = Writer {
        random: &mut random,
        insns: Vec::new(),
        kind,
        arena,
        calls: Vec::new(),
        counting: false,
        inner: false,
        depth: 0,
    };
    writer.prologue();
    let statements = 2 + writer.random.below(10);
    for _ in 0..statements {
        writer.statement();
    }
    writer.epilogue();
    let mut subprogs = vec![Subprog {
        start: Pc(0),
        end: Pc(writer.insns.len() as u32),
        name: "main".to_owned(),
        global: false,
        args: None,
    }];
    for function in FUNCTIONS {
        if writer.calls.iter().any(|(_, wanted)| *wanted == function) {
            subprogs.push(writer.function(function));
        }
    }
    let Writer { mut insns, .. } = writer;
    if random.chance(30) {
        mutate(&mut random, &mut insns);
    }
    let mut globals = Vec::new();
    for (name, offset) in [("first", 0), ("second", OBJECT)] {
        if arena {
            globals.push(ArenaGlobal {
                name: name.to_owned(),
                offset,
                size: OBJECT,
                counter: false,
            });
        }
    }
    let parts = ProgramParts {
        kind,
        name: "generated".to_owned(),
        insns,
        subprogs,
        data: vec![DataObject {
            name: "table".to_owned(),
            bytes: (0..OBJECT as u8)
                .map(|byte| byte.wrapping_mul(37))
                .collect(),
        }],
        arena: Arena {
            len: if arena { 4096 } else { 0 },
            globals,
        },
        externs: Vec::new(),
        lines: Vec::new(),
    };
    Program::new(parts).expect("the generator writes programs")
}

impl Writer<'_> {
    fn push(&mut self, insn: Insn) {
        self.insns.push(insn);
        if insn.slots() == 2 {
            self.insns.push(Insn::LdImm64Tail);
        }
    }

    fn alu(&mut self, op: AluOp, dst: Reg, src: Operand) {
        self.push(Insn::Alu {
            op,
            width: Width::W64,
            dst,
            src,
        });
    }

    fn mov(&mut self, dst: Reg, imm: i32) {
        self.alu(AluOp::Mov, dst, Operand::Imm(imm));
    }

    fn prologue(&mut self) {
        self.alu(AluOp::Mov, Reg::R6, Operand::Reg(Reg::R1));
        for slot in 1..=BUFFER / 8 {
            let imm = self.random.imm();
            self.push(Insn::Store {
                size: Size::DW,
                base: Reg::R10,
                off: -8 * slot,
                src: Operand::Imm(imm),
            });
        }
        for reg in NUMBERS {
            self.fresh_number(reg);
        }
    }

    fn epilogue(&mut self) {
        let result = self.random.pick(&NUMBERS);
        self.alu(AluOp::Mov, Reg::R0, Operand::Reg(result));
        if self.kind == ProgramKind::PatchEntry && !self.inner {
            if self.random.chance(50) {
                self.push(Insn::Store {
                    size: Size::DW,
                    base: Reg::R6,
                    off: 80,
                    src: Operand::Imm(-1),
                });
            }
            self.alu(AluOp::And, Reg::R0, Operand::Imm(1));
        }
        self.push(Insn::Exit);
    }

    /// Gives a register a number that nobody knows, or a constant.
    fn fresh_number(&mut self, dst: Reg) {
        let size = self.random.pick(&SIZES);
        let signed = size != Size::DW && self.random.chance(30);
        match self.random.below(4) {
            0 => {
                let imm = self.random.imm();
                self.mov(dst, imm);
            }
            1 if self.arena => {
                self.global(Reg::R1);
                self.push(Insn::Load {
                    size,
                    signed,
                    dst,
                    base: Reg::R1,
                    off: 0,
                });
            }
            2 => {
                let value = self.random.interesting();
                self.push(Insn::LdImm64 {
                    dst,
                    imm: Imm64::Const(value),
                });
            }
            _ if !self.inner => {
                let off = match self.kind {
                    ProgramKind::Memory { .. } => self.random.below(OBJECT - 7) as i16,
                    _ => 8 * self.random.below(21) as i16,
                };
                self.push(Insn::Load {
                    size,
                    signed,
                    dst,
                    base: Reg::R6,
                    off,
                });
            }
            _ => self.push(Insn::Load {
                size,
                signed,
                dst,
                base: Reg::R10,
                off: -8,
            }),
        }
    }

    fn global(&mut self, dst: Reg) {
        let offset = 8 * self.random.below(2 * OBJECT / 8);
        self.push(Insn::LdImm64 {
            dst,
            imm: Imm64::Arena { offset },
        });
    }

    fn statement(&mut self) {
        let nested = self.depth >= 2;
        match self.random.below(22) {
            0..=4 => self.arithmetic(),
            5 => {
                let dst = self.random.pick(&NUMBERS);
                self.fresh_number(dst);
            }
            6..=8 => self.indexed(),
            9 | 10 => self.stack_slot(),
            11 => self.copy_and_check(),
            12..=14 if !nested => self.branch(),
            15 if !nested && !self.counting => self.counted_loop(),
            16 if !nested => self.may_goto_loop(),
            17 => self.helper(),
            18 if !self.inner => self.call(),
            19 if self.arena => self.arena_access(),
            20 => self.atomic(),
            21 if !self.inner && self.kind == ProgramKind::PatchEntry => self.ctx_store(),
            _ => self.arithmetic(),
        }
    }

    fn arithmetic(&mut self) {
        let dst = self.random.pick(&NUMBERS);
        let src = self.random.pick(&NUMBERS);
        let width = self.random.pick(&[Width::W32, Width::W64]);
        match self.random.below(12) {
            0 => {
                let from = match width {
                    Width::W32 => self.random.pick(&[Size::B, Size::H]),
                    Width::W64 => self.random.pick(&[Size::B, Size::H, Size::W]),
                };
                self.push(Insn::MovSx {
                    width,
                    from,
                    dst,
                    src,
                });
            }
            1 => self.push(Insn::Neg { width, dst }),
            2 => {
                let op = self
                    .random
                    .pick(&[EndianOp::ToLe, EndianOp::ToBe, EndianOp::Swap]);
                let bits = self.random.pick(&[16, 32, 64]);
                self.push(Insn::Endian { op, bits, dst });
            }
            _ => {
                let op = self.random.pick(&[
                    AluOp::Add,
                    AluOp::Sub,
                    AluOp::Mul,
                    AluOp::Div,
                    AluOp::SDiv,
                    AluOp::Or,
                    AluOp::And,
                    AluOp::Lsh,
                    AluOp::Rsh,
                    AluOp::Mod,
                    AluOp::SMod,
                    AluOp::Xor,
                    AluOp::Mov,
                    AluOp::Arsh,
                ]);
                let src = if self.random.chance(50) {
                    Operand::Reg(src)
                } else {
                    Operand::Imm(self.random.imm())
                };
                self.push(Insn::Alu {
                    op,
                    width,
                    dst,
                    src,
                });
            }
        }
    }

    fn comparison(&mut self, dst: Reg, src: Operand, target: Pc) -> Insn {
        let op = self.random.pick(&[
            CmpOp::Eq,
            CmpOp::Ne,
            CmpOp::Gt,
            CmpOp::Ge,
            CmpOp::Lt,
            CmpOp::Le,
            CmpOp::SGt,
            CmpOp::SGe,
            CmpOp::SLt,
            CmpOp::SLe,
            CmpOp::Set,
        ]);
        let width = self.random.pick(&[Width::W32, Width::W64]);
        Insn::JumpIf {
            op,
            width,
            dst,
            src,
            target,
        }
    }

    /// Writes a forward jump over what `body` writes.
    fn jump_over(&mut self, dst: Reg, src: Operand, body: impl FnOnce(&mut Self)) {
        let at = self.insns.len();
        let jump = self.comparison(dst, src, Pc(0));
        self.push(jump);
        body(self);
        self.set_target(at);
    }

    fn set_target(&mut self, at: usize) {
        let here = Pc(self.insns.len() as u32);
        match &mut self.insns[at] {
            Insn::JumpIf { target, .. } | Insn::Jump { target } | Insn::MayGoto { target } => {
                *target = here
            }
            _ => unreachable!("only jumps are given targets"),
        }
    }

    fn operand(&mut self) -> Operand {
        if self.random.chance(60) {
            Operand::Imm(self.random.imm())
        } else {
            Operand::Reg(self.random.pick(&NUMBERS))
        }
    }

    fn branch(&mut self) {
        let dst = self.random.pick(&NUMBERS);
        let src = self.operand();
        self.depth += 1;
        self.jump_over(dst, src, |writer| {
            for _ in 0..=writer.random.below(3) {
                writer.statement();
            }
        });
        self.depth -= 1;
    }
}
