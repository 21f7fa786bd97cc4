//! Instructions to text, in the style of the kernel's verifier log and of llvm-objdump, for rejections and logs.
//!
//! Decides spelling only; never read back by our own code. Jumps are shown as distances, so an instruction is shown
//! together with its place.

use std::fmt::{self, Display, Formatter};

use crate::insn::{
    AddrSpaceCast, AluOp, AtomicOp, Callee, CmpOp, EndianOp, Imm64, Insn, Operand, Pc, Reg, Size,
    Width,
};
use crate::program::Program;

/// An instruction at its place, to be shown: `r2 = *(u32 *)(r1 + 0x70)`, `if r1 s> 0x5 goto +0x3`.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    insn: Insn,
    at: Pc,
    program: Option<&'a Program>,
}

impl Insn {
    /// To be shown as standing at slot `at`; referenced objects are shown by number.
    #[must_use]
    pub fn shown_at(self, at: Pc) -> Shown<'static> {
        Shown {
            insn: self,
            at,
            program: None,
        }
    }
}

impl Program {
    /// The instruction at `pc`, to be shown with the names of what it refers to.
    #[must_use]
    pub fn shown(&self, pc: Pc) -> Option<Shown<'_>> {
        Some(Shown {
            insn: *self.insns().get(pc.index())?,
            at: pc,
            program: Some(self),
        })
    }

    /// All instructions, one a line with its slot, as llvm-objdump numbers them.
    #[must_use]
    pub fn listing(&self) -> String {
        let mut text = String::new();
        for subprog in self.subprogs() {
            text += &format!("{}:\n", subprog.name);
            for pc in (subprog.start.0..subprog.end.0).map(Pc) {
                match self.shown(pc) {
                    None
                    | Some(Shown {
                        insn: Insn::LdImm64Tail,
                        ..
                    }) => {}
                    Some(shown) => text += &format!("{:>6}: {shown}\n", pc.0),
                }
            }
        }
        text
    }
}

/// A signed number in hexadecimal, the sign in front: `0x5`, `-0x1`.
struct Hex(i64);

impl Display for Hex {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{:#x}", self.0.unsigned_abs())
    }
}

/// A distance: `+0x3`, `-0x1`.
struct Distance(i64);

impl Display for Distance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{:#x}", self.0.unsigned_abs())
    }
}

/// `r1 + 0x70`, `r10 - 0x8`.
struct Address(Reg, i16);

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.1 < 0 { '-' } else { '+' };
        write!(
            f,
            "r{} {sign} {:#x}",
            self.0.number(),
            self.1.unsigned_abs()
        )
    }
}

/// `r1` or `w1`.
struct Register(Reg, Width);

impl Display for Register {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let letter = match self.1 {
            Width::W32 => 'w',
            Width::W64 => 'r',
        };
        write!(f, "{letter}{}", self.0.number())
    }
}

struct Source(Operand, Width);

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Operand::Reg(reg) => Register(reg, self.1).fmt(f),
            Operand::Imm(imm) => Hex(imm.into()).fmt(f),
        }
    }
}

/// llvm-objdump shows values of up to 32 bits in the `w` registers.
fn value_width(size: Size) -> Width {
    match size {
        Size::B | Size::H | Size::W => Width::W32,
        Size::DW => Width::W64,
    }
}

fn type_name(size: Size, signed: bool) -> &'static str {
    match (size, signed) {
        (Size::B, false) => "u8",
        (Size::H, false) => "u16",
        (Size::W, false) => "u32",
        (Size::DW, false) => "u64",
        (Size::B, true) => "s8",
        (Size::H, true) => "s16",
        (Size::W, true) => "s32",
        (Size::DW, true) => "s64",
    }
}

fn alu_sign(op: AluOp) -> &'static str {
    match op {
        AluOp::Add => "+=",
        AluOp::Sub => "-=",
        AluOp::Mul => "*=",
        AluOp::Div => "/=",
        AluOp::SDiv => "s/=",
        AluOp::Or => "|=",
        AluOp::And => "&=",
        AluOp::Lsh => "<<=",
        AluOp::Rsh => ">>=",
        AluOp::Mod => "%=",
        AluOp::SMod => "s%=",
        AluOp::Xor => "^=",
        AluOp::Mov => "=",
        AluOp::Arsh => "s>>=",
    }
}

fn cmp_sign(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Eq => "==",
        CmpOp::Ne => "!=",
        CmpOp::Gt => ">",
        CmpOp::Ge => ">=",
        CmpOp::Lt => "<",
        CmpOp::Le => "<=",
        CmpOp::SGt => "s>",
        CmpOp::SGe => "s>=",
        CmpOp::SLt => "s<",
        CmpOp::SLe => "s<=",
        CmpOp::Set => "&",
    }
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let to = |target: Pc| Distance(i64::from(target.0) - i64::from(self.at.0) - 1);
        match self.insn {
            Insn::Alu {
                op,
                width,
                dst,
                src,
            } => {
                let (dst, src) = (Register(dst, width), Source(src, width));
                write!(f, "{dst} {} {src}", alu_sign(op))
            }
            Insn::MovSx {
                width,
                from,
                dst,
                src,
            } => {
                let (dst, src) = (Register(dst, width), Register(src, width));
                write!(f, "{dst} = ({}){src}", type_name(from, true))
            }
            Insn::Neg { width, dst } => {
                let dst = Register(dst, width);
                write!(f, "{dst} = -{dst}")
            }
            Insn::Endian { op, bits, dst } => {
                let name = match op {
                    EndianOp::ToLe => "le",
                    EndianOp::ToBe => "be",
                    EndianOp::Swap => "bswap",
                };
                let dst = Register(dst, Width::W64);
                write!(f, "{dst} = {name}{bits} {dst}")
            }
            Insn::AddrSpaceCast { cast, dst, src } => {
                let (dst, src) = (Register(dst, Width::W64), Register(src, Width::W64));
                let spaces = match cast {
                    AddrSpaceCast::FromArena => "0x0, 0x1",
                    AddrSpaceCast::ToArena => "0x1, 0x0",
                };
                write!(f, "{dst} = addr_space_cast({src}, {spaces})")
            }
            Insn::LdImm64 { dst, imm } => {
                write!(f, "{} = ", Register(dst, Width::W64))?;
                self.imm64(imm, f)
            }
            Insn::LdImm64Tail => write!(f, "(second half)"),
            Insn::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => {
                // A sign-extending load fills all 64 bits.
                let width = if signed {
                    Width::W64
                } else {
                    value_width(size)
                };
                let (dst, name) = (Register(dst, width), type_name(size, signed));
                write!(f, "{dst} = *({name} *)({})", Address(base, off))
            }
            Insn::Store {
                size,
                base,
                off,
                src,
            } => {
                let name = type_name(size, false);
                let src = Source(src, value_width(size));
                write!(f, "*({name} *)({}) = {src}", Address(base, off))
            }
            Insn::Atomic {
                op,
                size,
                base,
                off,
                src,
            } => atomic(op, size, &Address(base, off), src, f),
            Insn::LoadAcquire {
                size,
                dst,
                base,
                off,
            } => {
                let (dst, name) = (Register(dst, value_width(size)), type_name(size, false));
                write!(
                    f,
                    "{dst} = load_acquire(({name} *)({}))",
                    Address(base, off)
                )
            }
            Insn::StoreRelease {
                size,
                base,
                off,
                src,
            } => {
                let (src, name) = (Register(src, value_width(size)), type_name(size, false));
                write!(
                    f,
                    "store_release(({name} *)({}), {src})",
                    Address(base, off)
                )
            }
            Insn::Jump { target } => write!(f, "goto {}", to(target)),
            Insn::JumpIf {
                op,
                width,
                dst,
                src,
                target,
            } => {
                let (dst, src) = (Register(dst, width), Source(src, width));
                write!(f, "if {dst} {} {src} goto {}", cmp_sign(op), to(target))
            }
            Insn::MayGoto { target } => write!(f, "may_goto {}", to(target)),
            Insn::Call { callee } => self.call(callee, f),
            Insn::Exit => write!(f, "exit"),
        }
    }
}

fn atomic(
    op: AtomicOp,
    size: Size,
    address: &Address,
    src: Reg,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let width = value_width(size);
    let (name, src) = (type_name(size, false), Register(src, width));
    let exchange = match size {
        Size::DW => "_64",
        Size::B | Size::H | Size::W => "32_32",
    };
    let (sign, word, fetch) = match op {
        AtomicOp::Add { fetch } => ("+=", "add", fetch),
        AtomicOp::Or { fetch } => ("|=", "or", fetch),
        AtomicOp::And { fetch } => ("&=", "and", fetch),
        AtomicOp::Xor { fetch } => ("^=", "xor", fetch),
        AtomicOp::Xchg => return write!(f, "{src} = xchg{exchange}({address}, {src})"),
        AtomicOp::CmpXchg => {
            let r0 = Register(Reg::R0, width);
            return write!(f, "{r0} = cmpxchg{exchange}({address}, {r0}, {src})");
        }
    };
    if fetch {
        write!(
            f,
            "{src} = atomic_fetch_{word}(({name} *)({address}), {src})"
        )
    } else {
        write!(f, "lock *({name} *)({address}) {sign} {src}")
    }
}

impl Shown<'_> {
    fn subprog(&self, target: Pc) -> Option<&str> {
        let subprogs = self.program?.subprogs();
        let found = subprogs.iter().find(|subprog| subprog.start == target)?;
        Some(&found.name)
    }

    fn imm64(&self, imm: Imm64, f: &mut Formatter<'_>) -> fmt::Result {
        match imm {
            Imm64::Const(value) => write!(f, "{} ll", Hex(value.cast_signed())),
            Imm64::Data { object, offset } => {
                let data = self.program.and_then(|p| p.data().get(object as usize));
                match data {
                    Some(data) => write!(f, "{} + {offset:#x} ll", data.name),
                    None => write!(f, "data[{object}] + {offset:#x} ll"),
                }
            }
            Imm64::Arena { offset } => {
                let mut globals = self.program.iter().flat_map(|p| &p.arena().globals);
                match globals.find(|g| g.offset <= offset && offset - g.offset < g.size) {
                    Some(global) => write!(f, "{} + {:#x} ll", global.name, offset - global.offset),
                    None => write!(f, "arena + {offset:#x} ll"),
                }
            }
            Imm64::Subprog(target) => match self.subprog(target) {
                Some(name) => write!(f, "func {name} ll"),
                None => write!(f, "func at slot {} ll", target.0),
            },
        }
    }

    fn call(&self, callee: Callee, f: &mut Formatter<'_>) -> fmt::Result {
        match callee {
            Callee::Helper(id) => match upatch_abi::helpers::by_id(id) {
                Some(helper) => write!(f, "call {}#{id}", helper.name),
                None => write!(f, "call helper#{id}"),
            },
            Callee::Subprog(target) => match self.subprog(target) {
                Some(name) => write!(f, "call {name}"),
                None => write!(
                    f,
                    "call {}",
                    Hex(i64::from(target.0) - i64::from(self.at.0) - 1)
                ),
            },
            Callee::Extern(index) => {
                match self.program.and_then(|p| p.externs().get(index as usize)) {
                    Some(external) => write!(f, "call {}", external.name),
                    None => write!(f, "call extern#{index}"),
                }
            }
        }
    }
}
