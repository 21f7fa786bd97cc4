//! What must hold before an instruction may run, as data: `Insn → Vec<Obligation>`.
//!
//! Knows instructions and prototypes, not states; [`super::check`] decides whether an obligation holds in a state.

use upatch_abi::helpers::{self, Arg};

use crate::insn::{
    AddrSpaceCast, AluOp, AtomicOp, Callee, CmpOp, Insn, Operand, Pc, Reg, Size, Width,
};
use crate::program::{ExternParam, Program};

/// How memory is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessKind {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic read-modify-write.
    Atomic,
    /// A load with acquire semantics.
    Acquire,
    /// A store with release semantics.
    Release,
}

impl AccessKind {
    pub(crate) const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Atomic | Self::Acquire)
    }

    pub(crate) const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Atomic | Self::Release)
    }
}

/// Something that must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obligation {
    /// The register was written on every path.
    Initialised(Reg),
    /// The register is a number, not one of our pointers.
    Number(Reg),
    /// The register may be written (r10 may not).
    Writable(Reg),
    /// `dst op src` is defined for what the operands are: numbers, or a pointer moved by a number.
    Arithmetic {
        /// Operation.
        op: AluOp,
        /// Its width.
        width: Width,
        /// First operand and result.
        dst: Reg,
        /// Second operand.
        src: Operand,
    },
    /// The operands can be compared: numbers, a pointer with null, or pointers into one object.
    Comparable {
        /// Comparison.
        op: CmpOp,
        /// Its width.
        width: Width,
        /// First operand.
        dst: Reg,
        /// Second operand.
        src: Operand,
    },
    /// The value may cross between the arena and plain address space.
    Castable {
        /// Direction.
        cast: AddrSpaceCast,
        /// What is cast.
        src: Reg,
    },
    /// `size` bytes at `base + off` may be touched this way.
    Access {
        /// How.
        kind: AccessKind,
        /// Register with the address.
        base: Reg,
        /// Constant offset.
        off: i16,
        /// How many bytes.
        size: Size,
    },
    /// The value in `src` may be stored at `base + off`.
    Storable {
        /// Register with the address.
        base: Reg,
        /// Constant offset.
        off: i16,
        /// How many bytes.
        size: Size,
        /// What is stored.
        src: Reg,
    },
    /// There is a helper with this id and the policy allows it.
    HelperAvailable(u32),
    /// A helper's argument is what its prototype says.
    HelperArg {
        /// The helper.
        helper: u32,
        /// Place of the argument, 0 to 4.
        index: u8,
        /// What the prototype says.
        arg: Arg,
    },
    /// An external function's argument is what its prototype says.
    ExternArg {
        /// The function.
        function: u32,
        /// Place of the argument, 0 to 4.
        index: u8,
        /// What the prototype says.
        param: ExternParam,
    },
    /// The call is not recursive and the chain of calls short enough.
    CallChain(Pc),
    /// R0 is what the program's section demands.
    Verdict,
    /// A subprogram's result doesn't point into its own frame.
    Result,
    /// A callback's result is 0 or 1.
    CallbackResult,
    /// Every path comes to an end.
    Terminates,
    /// The worst case of executed instructions is within the budget.
    Steps,
    /// The stacks of every chain of calls fit together.
    StackDepth,
    /// The instruction reaches the same kind of memory on every path.
    OneKindOfMemory,
    /// The proof is found within the analysis budget.
    Provable,
}

/// What must hold before `insn` runs, in the order in which it is checked. What depends on the state beyond the
/// instruction (exits, loops) is the explorer's to add.
#[must_use]
pub fn obligations(program: &Program, insn: Insn) -> Vec<Obligation> {
    let mut list = Vec::new();
    match insn {
        Insn::Alu {
            op,
            width,
            dst,
            src,
        } => {
            if op != AluOp::Mov {
                list.push(Obligation::Initialised(dst));
            }
            initialised_operand(&mut list, src);
            list.push(Obligation::Writable(dst));
            list.push(Obligation::Arithmetic {
                op,
                width,
                dst,
                src,
            });
        }
        Insn::MovSx { dst, src, .. } => {
            list.extend([
                Obligation::Initialised(src),
                Obligation::Writable(dst),
                Obligation::Number(src),
            ]);
        }
        Insn::Neg { dst, .. } | Insn::Endian { dst, .. } => {
            list.extend([
                Obligation::Initialised(dst),
                Obligation::Writable(dst),
                Obligation::Number(dst),
            ]);
        }
        Insn::AddrSpaceCast { cast, dst, src } => {
            list.extend([
                Obligation::Initialised(src),
                Obligation::Writable(dst),
                Obligation::Castable { cast, src },
            ]);
        }
        Insn::LdImm64 { dst, .. } => list.push(Obligation::Writable(dst)),
        Insn::LdImm64Tail | Insn::Jump { .. } | Insn::MayGoto { .. } | Insn::Exit => {}
        Insn::Load {
            size,
            dst,
            base,
            off,
            ..
        }
        | Insn::LoadAcquire {
            size,
            dst,
            base,
            off,
        } => {
            list.push(Obligation::Initialised(base));
            list.push(Obligation::Writable(dst));
            let kind = match insn {
                Insn::LoadAcquire { .. } => AccessKind::Acquire,
                _ => AccessKind::Read,
            };
            list.push(Obligation::Access {
                kind,
                base,
                off,
                size,
            });
        }
        Insn::Store {
            size,
            base,
            off,
            src,
        } => {
            list.push(Obligation::Initialised(base));
            initialised_operand(&mut list, src);
            list.push(Obligation::Access {
                kind: AccessKind::Write,
                base,
                off,
                size,
            });
            if let Operand::Reg(src) = src {
                list.push(Obligation::Storable {
                    base,
                    off,
                    size,
                    src,
                });
            }
        }
        Insn::StoreRelease {
            size,
            base,
            off,
            src,
        } => {
            list.push(Obligation::Initialised(base));
            list.push(Obligation::Initialised(src));
            list.push(Obligation::Access {
                kind: AccessKind::Release,
                base,
                off,
                size,
            });
            list.push(Obligation::Storable {
                base,
                off,
                size,
                src,
            });
        }
        Insn::Atomic {
            op,
            size,
            base,
            off,
            src,
        } => {
            list.push(Obligation::Initialised(base));
            list.push(Obligation::Initialised(src));
            list.push(Obligation::Number(src));
            if op == AtomicOp::CmpXchg {
                list.push(Obligation::Initialised(Reg::R0));
                list.push(Obligation::Number(Reg::R0));
            } else if fetches(op) {
                list.push(Obligation::Writable(src));
            }
            list.push(Obligation::Access {
                kind: AccessKind::Atomic,
                base,
                off,
                size,
            });
        }
        Insn::JumpIf {
            op,
            width,
            dst,
            src,
            ..
        } => {
            list.push(Obligation::Initialised(dst));
            initialised_operand(&mut list, src);
            list.push(Obligation::Comparable {
                op,
                width,
                dst,
                src,
            });
        }
        Insn::Call { callee } => call(&mut list, program, callee),
    }
    list
}

/// Does the atomic put the old value into its source register?
pub(crate) const fn fetches(op: AtomicOp) -> bool {
    match op {
        AtomicOp::Add { fetch }
        | AtomicOp::Or { fetch }
        | AtomicOp::And { fetch }
        | AtomicOp::Xor { fetch } => fetch,
        AtomicOp::Xchg => true,
        AtomicOp::CmpXchg => false,
    }
}

fn initialised_operand(list: &mut Vec<Obligation>, operand: Operand) {
    if let Operand::Reg(reg) = operand {
        list.push(Obligation::Initialised(reg));
    }
}

/// The register of argument `index`.
pub(crate) const fn arg_reg(index: u8) -> Reg {
    match index {
        0 => Reg::R1,
        1 => Reg::R2,
        2 => Reg::R3,
        3 => Reg::R4,
        _ => Reg::R5,
    }
}

fn call(list: &mut Vec<Obligation>, program: &Program, callee: Callee) {
    match callee {
        Callee::Helper(id) => {
            list.push(Obligation::HelperAvailable(id));
            let args = helpers::by_id(id).map_or(&[][..], |helper| helper.args);
            for (index, arg) in (0u8..).zip(args) {
                list.push(Obligation::Initialised(arg_reg(index)));
                list.push(Obligation::HelperArg {
                    helper: id,
                    index,
                    arg: *arg,
                });
            }
        }
        Callee::Subprog(target) => list.push(Obligation::CallChain(target)),
        Callee::Extern(function) => {
            let params = program
                .externs()
                .get(function as usize)
                .map_or(&[][..], |function| &function.params);
            for (index, param) in (0u8..).zip(params) {
                list.push(Obligation::Initialised(arg_reg(index)));
                list.push(Obligation::ExternArg {
                    function,
                    index,
                    param: *param,
                });
            }
        }
    }
}
