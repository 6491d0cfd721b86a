//! PTX: from text to instructions.
//!
//! [`text`] cuts a module into variables, functions and statements; [`lower`] turns the statements of a kernel into a
//! flat list of [`Instruction`]s whose operands are numbers of registers; [`operation`] and its neighbours know the
//! instruction set. What is not known is an error that names it and its line: nothing is skipped.

mod collective;
mod data;
mod instruction;
mod lower;
mod mnemonic;
mod module;
mod op;
mod operand;
mod operation;
mod scope;
mod text;

pub use instruction::{
    Address, Arithmetic, AtomicKind, BarrierKind, Class, Guard, Instruction, Location, Logic, MatrixKind,
    PredicateOperand, Reduction, Register, ShuffleKind, Space, Special, VoteKind,
};
pub use mnemonic::{Mnemonic, Type};
pub use module::{Constant, Kernel, Module, SharedVariable, Variable};
pub use op::Op;

/// Why a module does not load.
#[derive(Debug, thiserror::Error)]
#[error("PTX line {line}: {what}")]
pub struct PtxError {
    /// Line of the PTX text.
    pub line: u32,
    /// What is wrong there.
    pub what: String,
}

impl PtxError {
    /// An error at a line.
    pub fn new(line: u32, what: impl Into<String>) -> PtxError {
        PtxError {
            line,
            what: what.into(),
        }
    }
}
