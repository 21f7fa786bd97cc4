//! What `verify -v` prints: the state before each visited instruction.

use std::fmt;

use super::describe;
use super::state::State;
use super::value::Value;
use crate::insn::Pc;
use crate::program::Program;

/// A state, for printing.
pub struct Shown<'a> {
    program: &'a Program,
    state: &'a State,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(program: &'a Program, state: &'a State) -> Self {
        Self { program, state }
    }

    /// The innermost function's registers, to keep.
    #[must_use]
    pub fn registers(&self) -> Registers {
        Registers(self.state.frame().regs)
    }
}

/// What is known of r0 to r9 at some point of a path. For tests that run programs beside the analysis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registers([Value; 10]);

impl Registers {
    /// Can the registers have these values? Those that hold pointers, or nothing, allow every value.
    #[must_use]
    pub fn allow(&self, concrete: &[u64]) -> bool {
        self.0
            .iter()
            .zip(concrete)
            .all(|(value, concrete)| match value {
                Value::Number(scalar, _) => scalar.contains(*concrete),
                Value::Uninit | Value::Pointer(..) | Value::Callback(_) => true,
            })
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.state.frame();
        let mut separator = "";
        for (number, value) in frame.regs.iter().enumerate() {
            if *value != Value::Uninit {
                write!(
                    f,
                    "{separator}r{number}: {}",
                    describe::value(self.program, *value)
                )?;
                separator = "; ";
            }
        }
        for cell in frame.stack.cells() {
            let at = describe::stack(super::stack::offset(usize::from(cell.start)));
            write!(
                f,
                "{separator}{at}: {}",
                describe::value(self.program, cell.value)
            )?;
            separator = "; ";
        }
        Ok(())
    }
}

/// Something the analysis did.
pub enum Event<'a> {
    /// The instruction at `pc` is visited in this state.
    Before {
        /// The instruction.
        pc: Pc,
        /// What is known before it.
        state: &'a Shown<'a>,
    },
    /// The path ends before `pc`: an earlier one stands for it.
    Pruned {
        /// Where.
        pc: Pc,
    },
}

/// Watches an analysis.
pub trait Trace {
    /// Called for every visited instruction.
    fn event(&mut self, event: Event<'_>);
}
