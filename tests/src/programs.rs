//! Random programs that the verifier has something to say about: numbers are computed, compared and used as indexes,
//! stored and loaded again, through branches, loops, calls and callbacks. About half of them are safe.
//!
//! Deterministic by seed. They are for our own verifier, interpreter and JIT, never for the kernel's.

use upatch_abi::helpers;
use upatch_verifier::insn::{
    AluOp, AtomicOp, Callee, CmpOp, EndianOp, Imm64, Insn, Operand, Pc, Reg, Size, Width,
};
use upatch_verifier::program::{Arena, ArenaGlobal, DataObject, ProgramParts, Subprog};
use upatch_verifier::{Program, ProgramKind};

/// A small deterministic generator of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One that always gives the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so an iterator's Option would only be in the way"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True `percent` times of 100.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of a list that is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).expect("an index fits")]
    }

    /// A number where something happens: small, or near a power of two.
    pub fn interesting(&mut self) -> u64 {
        match self.below(5) {
            0 => self.below(70),
            1 => self.below(20).wrapping_neg(),
            2 => (1u64 << self.below(64))
                .wrapping_add(self.below(5))
                .wrapping_sub(2),
            3 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    fn imm(&mut self) -> i32 {
        match self.below(4) {
            0 => self.below(70) as i32,
            1 => -(self.below(20) as i32),
            2 => (1i64 << self.below(32)).wrapping_sub(self.below(3) as i64) as i32,
            _ => self.next() as i32,
        }
    }
}

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

    /// Bounds a register in one of the ways that programs do, or not quite.
    fn guard(&mut self, reg: Reg, most: i32) -> Option<usize> {
        match self.random.below(10) {
            0..=2 => {
                let mask = if self.random.chance(85) {
                    most
                } else {
                    self.random.imm()
                };
                self.alu(AluOp::And, reg, Operand::Imm(mask));
                None
            }
            3 => {
                let width = self.random.pick(&[Width::W32, Width::W64]);
                let op = self.random.pick(&[AluOp::Mod, AluOp::SMod]);
                self.push(Insn::Alu {
                    op,
                    width,
                    dst: reg,
                    src: Operand::Imm(most + 1),
                });
                None
            }
            4..=7 => {
                let at = self.insns.len();
                let op =
                    self.random
                        .pick(&[CmpOp::Gt, CmpOp::Gt, CmpOp::Ge, CmpOp::SGt, CmpOp::Ne]);
                let width = self.random.pick(&[Width::W64, Width::W64, Width::W32]);
                let limit = if self.random.chance(85) {
                    most
                } else {
                    most + 1
                };
                self.push(Insn::JumpIf {
                    op,
                    width,
                    dst: reg,
                    src: Operand::Imm(limit),
                    target: Pc(0),
                });
                Some(at)
            }
            8 => {
                self.push(Insn::Alu {
                    op: AluOp::Rsh,
                    width: Width::W64,
                    dst: reg,
                    src: Operand::Imm(58),
                });
                None
            }
            _ => None,
        }
    }

    /// An access at a computed index.
    fn indexed(&mut self) {
        let index = self.random.pick(&NUMBERS);
        let size = self.random.pick(&SIZES);
        let most = OBJECT as i32 - i32::from(size.bytes());
        let most = if self.random.chance(90) {
            most
        } else {
            most + 3
        };
        // `and` needs a mask.
        let limit = if self.random.chance(50) {
            most.min(31)
        } else {
            most
        };
        let guarded = self.guard(index, limit);
        let base = self.base_pointer();
        self.alu(AluOp::Add, Reg::R1, Operand::Reg(index));
        let value = self.random.pick(&NUMBERS);
        if base == Base::Table || self.random.chance(60) {
            let signed = size != Size::DW && self.random.chance(30);
            self.push(Insn::Load {
                size,
                signed,
                dst: value,
                base: Reg::R1,
                off: 0,
            });
        } else {
            self.push(Insn::Store {
                size,
                base: Reg::R1,
                off: 0,
                src: Operand::Reg(value),
            });
        }
        if let Some(at) = guarded {
            self.set_target(at);
        }
    }

    /// Puts the start of an object of [`OBJECT`] bytes into r1.
    fn base_pointer(&mut self) -> Base {
        match self.random.below(4) {
            0 => {
                self.push(Insn::LdImm64 {
                    dst: Reg::R1,
                    imm: Imm64::Data {
                        object: 0,
                        offset: 0,
                    },
                });
                Base::Table
            }
            1 if self.arena => {
                self.push(Insn::LdImm64 {
                    dst: Reg::R1,
                    imm: Imm64::Arena { offset: 0 },
                });
                Base::Memory
            }
            2 if matches!(self.kind, ProgramKind::Memory { .. }) && !self.inner => {
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R6));
                Base::Memory
            }
            _ => {
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R1, Operand::Imm(-i32::from(BUFFER)));
                Base::Memory
            }
        }
    }

    fn stack_slot(&mut self) {
        let size = self.random.pick(&SIZES);
        let bytes = i16::from(size.bytes());
        // Sometimes below the part that is initialised.
        let slots = if self.random.chance(85) {
            BUFFER
        } else {
            BUFFER + 32
        } / bytes;
        let off = -bytes * (1 + self.random.below(slots as u64) as i16);
        let reg = self.random.pick(&NUMBERS);
        if self.random.chance(50) {
            self.push(Insn::Store {
                size,
                base: Reg::R10,
                off,
                src: Operand::Reg(reg),
            });
        }
        if self.random.chance(60) {
            let signed = size != Size::DW && self.random.chance(30);
            let dst = self.random.pick(&NUMBERS);
            self.push(Insn::Load {
                size,
                signed,
                dst,
                base: Reg::R10,
                off,
            });
        }
    }

    /// Copies a number, perhaps moves it, checks one of the two, and indexes by the other.
    fn copy_and_check(&mut self) {
        let original = self.random.pick(&[Reg::R7, Reg::R8]);
        let copy = self.random.pick(&[Reg::R2, Reg::R3]);
        let width = self.random.pick(&[Width::W32, Width::W64]);
        self.push(Insn::Alu {
            op: AluOp::Mov,
            width,
            dst: copy,
            src: Operand::Reg(original),
        });
        if self.random.chance(60) {
            let width = self.random.pick(&[Width::W32, Width::W64]);
            let amount = self.random.below(20) as i32 - 10;
            self.push(Insn::Alu {
                op: AluOp::Add,
                width,
                dst: copy,
                src: Operand::Imm(amount),
            });
        }
        if self.random.chance(30) {
            let size = self.random.pick(&[Size::W, Size::DW]);
            self.push(Insn::Store {
                size,
                base: Reg::R10,
                off: -8,
                src: Operand::Reg(copy),
            });
            self.push(Insn::Load {
                size,
                signed: false,
                dst: copy,
                base: Reg::R10,
                off: -8,
            });
        }
        if self.random.chance(25) {
            // What bounds an or bounds its parts.
            let width = self.random.pick(&[Width::W32, Width::W64]);
            let other = self.random.pick(&NUMBERS);
            self.push(Insn::Alu {
                op: AluOp::Or,
                width,
                dst: copy,
                src: Operand::Reg(other),
            });
        }
        let (checked, used) = if self.random.chance(70) {
            (copy, original)
        } else {
            (original, copy)
        };
        let guarded = self.guard(checked, 40);
        self.base_pointer();
        self.alu(AluOp::Add, Reg::R1, Operand::Reg(used));
        let off = self.random.below(12) as i16;
        self.push(Insn::Load {
            size: Size::B,
            signed: false,
            dst: Reg::R4,
            base: Reg::R1,
            off,
        });
        if let Some(at) = guarded {
            self.set_target(at);
        }
    }

    fn counted_loop(&mut self) {
        self.counting = true;
        self.depth += 1;
        self.mov(Reg::R9, 0);
        let start = Pc(self.insns.len() as u32);
        for _ in 0..=self.random.below(3) {
            self.statement();
        }
        if self.random.chance(40) {
            // Index by the counter.
            self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
            self.alu(AluOp::Add, Reg::R1, Operand::Imm(-i32::from(BUFFER)));
            self.alu(AluOp::Add, Reg::R1, Operand::Reg(Reg::R9));
            self.push(Insn::Load {
                size: Size::B,
                signed: false,
                dst: Reg::R2,
                base: Reg::R1,
                off: 0,
            });
        }
        let step = 1 + self.random.below(3) as i32;
        self.alu(AluOp::Add, Reg::R9, Operand::Imm(step));
        let op = self
            .random
            .pick(&[CmpOp::Lt, CmpOp::SLt, CmpOp::Le, CmpOp::Ne]);
        let limit = step * (1 + self.random.below(12) as i32);
        let width = self.random.pick(&[Width::W32, Width::W64]);
        self.push(Insn::JumpIf {
            op,
            width,
            dst: Reg::R9,
            src: Operand::Imm(limit),
            target: start,
        });
        self.depth -= 1;
        self.counting = false;
    }

    fn may_goto_loop(&mut self) {
        self.depth += 1;
        let start = Pc(self.insns.len() as u32);
        self.push(Insn::MayGoto { target: Pc(0) });
        for _ in 0..=self.random.below(3) {
            self.statement();
        }
        self.push(Insn::Jump { target: start });
        self.set_target(start.index());
        self.depth -= 1;
    }

    /// After a call r1 to r5 are gone.
    fn revive(&mut self) {
        for reg in [Reg::R2, Reg::R3, Reg::R4] {
            self.fresh_number(reg);
        }
    }

    fn helper(&mut self) {
        match self.random.below(4) {
            0 => self.push(Insn::Call {
                callee: Callee::Helper(5),
            }),
            1 => self.push(Insn::Call {
                callee: Callee::Helper(7),
            }),
            2 => {
                // probe_read_user[_str] of a bounded or fixed size to the buffer.
                let size = self.random.pick(&[Reg::R7, Reg::R8]);
                let guarded = self.guard(size, 63);
                self.alu(AluOp::Mov, Reg::R2, Operand::Reg(size));
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R1, Operand::Imm(-i32::from(BUFFER)));
                let address = self.random.pick(&[Reg::R7, Reg::R8]);
                self.alu(AluOp::Mov, Reg::R3, Operand::Reg(address));
                let id = self.random.pick(&[112, 114]);
                self.push(Insn::Call {
                    callee: Callee::Helper(id),
                });
                if let Some(at) = guarded {
                    self.set_target(at);
                }
            }
            _ => {
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R1, Operand::Imm(-16));
                self.mov(Reg::R2, 16);
                self.push(Insn::Call {
                    callee: Callee::Helper(16),
                });
            }
        }
        self.revive();
    }

    fn call(&mut self) {
        let function = self.random.pick(&FUNCTIONS);
        match function {
            Function::Numbers => {
                let (a, b) = (
                    self.random.pick(&NUMBERS),
                    self.random.pick(&[Reg::R7, Reg::R8]),
                );
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(a));
                self.alu(AluOp::Mov, Reg::R2, Operand::Reg(b));
            }
            Function::Pointer => {
                self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R1, Operand::Imm(-i32::from(BUFFER)));
                self.alu(AluOp::Mov, Reg::R2, Operand::Reg(Reg::R7));
            }
            Function::Callback => {
                let most = self.random.below(20) as i32;
                if self.random.chance(50) {
                    self.mov(Reg::R1, most);
                } else {
                    self.alu(AluOp::Mov, Reg::R1, Operand::Reg(Reg::R7));
                    self.alu(AluOp::And, Reg::R1, Operand::Imm(most));
                }
                self.alu(AluOp::Mov, Reg::R3, Operand::Reg(Reg::R10));
                self.alu(AluOp::Add, Reg::R3, Operand::Imm(-i32::from(BUFFER)));
                self.mov(Reg::R4, 0);
                self.calls.push((self.insns.len(), function));
                self.push(Insn::LdImm64 {
                    dst: Reg::R2,
                    imm: Imm64::Subprog(Pc(0)),
                });
                self.push(Insn::Call {
                    callee: Callee::Helper(helpers::LOOP),
                });
                return self.revive();
            }
        }
        self.calls.push((self.insns.len(), function));
        self.push(Insn::Call {
            callee: Callee::Subprog(Pc(0)),
        });
        self.revive();
    }

    /// Writes a function and lets its calls go to it.
    fn function(&mut self, function: Function) -> Subprog {
        let start = Pc(self.insns.len() as u32);
        self.inner = true;
        self.depth = 1;
        self.push(Insn::Store {
            size: Size::DW,
            base: Reg::R10,
            off: -8,
            src: Operand::Reg(Reg::R1),
        });
        // The arguments are where the statements don't touch them.
        let (pointer, number) = match function {
            Function::Numbers => (None, Reg::R2),
            Function::Pointer => (Some(Reg::R1), Reg::R2),
            Function::Callback => (Some(Reg::R2), Reg::R1),
        };
        self.alu(AluOp::Mov, Reg::R8, Operand::Reg(number));
        self.alu(
            AluOp::Mov,
            Reg::R6,
            Operand::Reg(pointer.unwrap_or(Reg::R8)),
        );
        for slot in 1..=BUFFER / 8 {
            self.push(Insn::Store {
                size: Size::DW,
                base: Reg::R10,
                off: -8 * slot,
                src: Operand::Imm(7),
            });
        }
        for reg in [Reg::R0, Reg::R2, Reg::R3, Reg::R4, Reg::R7] {
            self.fresh_number(reg);
        }
        for _ in 0..=self.random.below(4) {
            self.statement();
        }
        if pointer.is_some() {
            let guarded = self.guard(Reg::R8, 31);
            self.alu(AluOp::Add, Reg::R6, Operand::Reg(Reg::R8));
            let size = self.random.pick(&SIZES);
            self.push(Insn::Load {
                size,
                signed: false,
                dst: Reg::R2,
                base: Reg::R6,
                off: 0,
            });
            self.alu(AluOp::Add, Reg::R2, Operand::Imm(1));
            self.push(Insn::Store {
                size,
                base: Reg::R6,
                off: 0,
                src: Operand::Reg(Reg::R2),
            });
            if let Some(at) = guarded {
                self.set_target(at);
            }
        }
        if function == Function::Callback {
            self.alu(AluOp::And, Reg::R0, Operand::Imm(1));
        }
        self.push(Insn::Exit);
        for (at, wanted) in &self.calls {
            if *wanted == function {
                match &mut self.insns[*at] {
                    Insn::LdImm64 { imm, .. } => *imm = Imm64::Subprog(start),
                    Insn::Call { callee } => *callee = Callee::Subprog(start),
                    _ => unreachable!("only calls are remembered"),
                }
            }
        }
        Subprog {
            start,
            end: Pc(self.insns.len() as u32),
            name: format!("{function:?}"),
            global: false,
            args: Some(2),
        }
    }

    fn arena_access(&mut self) {
        let size = self.random.pick(&SIZES);
        let reg = self.random.pick(&NUMBERS);
        self.global(Reg::R1);
        match self.random.below(4) {
            0 => self.push(Insn::Store {
                size,
                base: Reg::R1,
                off: 0,
                src: Operand::Reg(reg),
            }),
            1 => self.push(Insn::StoreRelease {
                size,
                base: Reg::R1,
                off: 0,
                src: reg,
            }),
            2 => self.push(Insn::LoadAcquire {
                size,
                dst: reg,
                base: Reg::R1,
                off: 0,
            }),
            _ => {
                // A pointer from nowhere: to be confined.
                let cast = upatch_verifier::insn::AddrSpaceCast::FromArena;
                self.push(Insn::AddrSpaceCast {
                    cast,
                    dst: Reg::R1,
                    src: reg,
                });
                self.push(Insn::Load {
                    size,
                    signed: false,
                    dst: reg,
                    base: Reg::R1,
                    off: 16,
                });
            }
        }
    }

    fn atomic(&mut self) {
        let fetch = self.random.chance(50);
        let op = self.random.pick(&[
            AtomicOp::Add { fetch },
            AtomicOp::Or { fetch },
            AtomicOp::And { fetch },
            AtomicOp::Xor { fetch },
            AtomicOp::Xchg,
            AtomicOp::CmpXchg,
        ]);
        let size = self.random.pick(&[Size::W, Size::DW]);
        let src = self.random.pick(&NUMBERS);
        let off = -8 * (1 + self.random.below(8) as i16);
        self.push(Insn::Atomic {
            op,
            size,
            base: Reg::R10,
            off,
            src,
        });
    }

    fn ctx_store(&mut self) {
        let off = self.random.pick(&[64, 72, 80, 88, 96, 104, 112]);
        let size = self.random.pick(&SIZES);
        let src = self.operand();
        self.push(Insn::Store {
            size,
            base: Reg::R6,
            off,
            src,
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Table,
    Memory,
}

/// Changes a few instructions without harming the program's structure.
fn mutate(random: &mut Random, insns: &mut [Insn]) {
    for _ in 0..=random.below(3) {
        let at = usize::try_from(random.below(insns.len() as u64)).expect("an index fits");
        let register = random.pick(&Reg::ALL);
        let imm = random.imm();
        let size = random.pick(&SIZES);
        match &mut insns[at] {
            Insn::Alu {
                width, dst, src, ..
            } => match random.below(3) {
                0 => *src = Operand::Imm(imm),
                1 => *dst = register,
                _ => *width = random.pick(&[Width::W32, Width::W64]),
            },
            Insn::JumpIf { op, src, width, .. } => match random.below(3) {
                0 => *op = random.pick(&[CmpOp::Lt, CmpOp::SGt, CmpOp::Ne, CmpOp::Set, CmpOp::SLe]),
                1 => *src = Operand::Imm(imm),
                _ => *width = random.pick(&[Width::W32, Width::W64]),
            },
            Insn::Load {
                size: own,
                off,
                signed,
                ..
            } => {
                *own = size;
                *signed = *signed && size != Size::DW;
                *off = off.wrapping_add(imm as i8 as i16 / 8);
            }
            Insn::Store { size: own, off, .. } => {
                *own = size;
                *off = off.wrapping_add(imm as i8 as i16 / 8);
            }
            _ => {}
        }
    }
}

/// A program of instructions chosen blindly: most are refused at once, and none may disturb the verifier.
///
/// # Panics
/// Never: what the generator writes is a program.
#[must_use]
pub fn blind(seed: u64) -> Program {
    let mut random = Random::new(seed);
    let len = 2 + random.below(30) as u32;
    let split = random.below(u64::from(len));
    // An exit ends each function.
    let mut ends = vec![len];
    if split > 1 && split + 1 < u64::from(len) {
        ends.insert(0, split as u32);
    }
    let mut insns = Vec::new();
    let mut subprogs = Vec::new();
    let mut start = 0;
    for end in &ends {
        while (insns.len() as u32) < end - 1 {
            let at = insns.len() as u32;
            let insn = blind_insn(&mut random, start, *end, &ends);
            if insn.slots() == 2 && at + 2 > end - 1 {
                continue;
            }
            insns.push(insn);
            if insn.slots() == 2 {
                insns.push(Insn::LdImm64Tail);
            }
        }
        insns.push(Insn::Exit);
        subprogs.push(Subprog {
            start: Pc(start),
            end: Pc(*end),
            name: format!("f{start}"),
            global: false,
            args: None,
        });
        start = *end;
    }
    // Jumps may not go into the middle of an immediate: those that do go to the function's exit.
    for at in 0..insns.len() {
        let torn = |pc: Pc| matches!(insns[pc.index()], Insn::LdImm64Tail);
        let exit = ends
            .iter()
            .find(|end| at < **end as usize)
            .map_or(len, |end| *end)
            - 1;
        let replacement = match insns[at] {
            Insn::Jump { target } | Insn::JumpIf { target, .. } | Insn::MayGoto { target } => {
                torn(target).then_some(Pc(exit))
            }
            _ => None,
        };
        if let (
            Some(exit),
            Insn::Jump { target } | Insn::JumpIf { target, .. } | Insn::MayGoto { target },
        ) = (replacement, &mut insns[at])
        {
            *target = exit;
        }
    }
    let parts = ProgramParts {
        kind: random.pick(&[
            ProgramKind::PatchEntry,
            ProgramKind::PatchOffset,
            ProgramKind::Probe,
            ProgramKind::Memory {
                mem_len: OBJECT as u32,
            },
        ]),
        name: "blind".to_owned(),
        insns,
        subprogs,
        data: vec![DataObject {
            name: "table".to_owned(),
            bytes: vec![b'x', 0, b'y'],
        }],
        arena: Arena {
            len: 4096,
            globals: Vec::new(),
        },
        externs: Vec::new(),
        lines: Vec::new(),
    };
    Program::new(parts).expect("the generator writes programs")
}

fn blind_insn(random: &mut Random, start: u32, end: u32, ends: &[u32]) -> Insn {
    let dst = random.pick(&Reg::ALL);
    let src = random.pick(&Reg::ALL);
    let base = random.pick(&[Reg::R10, Reg::R10, Reg::R1, dst]);
    let width = random.pick(&[Width::W32, Width::W64]);
    let size = random.pick(&SIZES);
    let off = if random.chance(80) {
        -8 * (random.below(10) as i16)
    } else {
        random.next() as i16
    };
    let operand = if random.chance(50) {
        Operand::Reg(src)
    } else {
        Operand::Imm(random.imm())
    };
    let target = Pc(start + random.below(u64::from(end - start)) as u32);
    let wide = random.pick(&[Size::W, Size::DW]);
    match random.below(16) {
        0..=2 => Insn::Alu {
            op: random.pick(&[
                AluOp::Add,
                AluOp::Sub,
                AluOp::Mul,
                AluOp::And,
                AluOp::Rsh,
                AluOp::SMod,
            ]),
            width,
            dst,
            src: operand,
        },
        3 | 4 => Insn::Alu {
            op: AluOp::Mov,
            width,
            dst,
            src: operand,
        },
        5 => Insn::MovSx {
            width,
            from: Size::B,
            dst,
            src,
        },
        6 => Insn::Neg { width, dst },
        7 => Insn::AddrSpaceCast {
            cast: upatch_verifier::insn::AddrSpaceCast::FromArena,
            dst,
            src,
        },
        8 => Insn::LdImm64 {
            dst,
            imm: match random.below(4) {
                0 => Imm64::Const(random.interesting()),
                1 => Imm64::Data {
                    object: 0,
                    offset: random.below(4) as u32,
                },
                2 => Imm64::Arena {
                    offset: random.below(4097),
                },
                _ => Imm64::Subprog(Pc(*ends.first().filter(|_| ends.len() > 1).unwrap_or(&0))),
            },
        },
        9 => Insn::Load {
            size,
            signed: false,
            dst,
            base,
            off,
        },
        10 => Insn::Store {
            size,
            base,
            off,
            src: operand,
        },
        11 => Insn::Atomic {
            op: random.pick(&[
                AtomicOp::Add { fetch: true },
                AtomicOp::Xchg,
                AtomicOp::CmpXchg,
            ]),
            size: wide,
            base,
            off,
            src,
        },
        12 => Insn::Jump { target },
        13 => Insn::JumpIf {
            op: random.pick(&[CmpOp::Eq, CmpOp::Lt, CmpOp::SGt, CmpOp::Set]),
            width,
            dst,
            src: operand,
            target,
        },
        14 => Insn::MayGoto { target },
        _ => Insn::Call {
            callee: if random.chance(50) {
                Callee::Helper(random.pick(&[5, 7, 112, 114, 16, 181, 182, 1]))
            } else {
                Callee::Subprog(Pc(if ends.len() > 1 { ends[0] } else { 0 }))
            },
        },
    }
}
