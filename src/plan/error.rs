//! Why a recording is refused.

use crate::kernel::DType;

/// Why a recording was refused. Every message begins with the scope.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PlanError {
    /// Sizes that do not fit together.
    #[error("{scope}: {kernel} expects {symbol} = {expected} for `{arg}`, got {found} ({label})")]
    Shape {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// Argument name.
        arg: &'static str,
        /// Shape symbol.
        symbol: &'static str,
        /// Size bound earlier in the same launch.
        expected: String,
        /// Size of this value.
        found: String,
        /// The value.
        label: String,
    },
    /// Wrong element type.
    #[error("{scope}: {kernel} expects {expected:?} for `{arg}`, got {found:?} ({label})")]
    Type {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// Argument name.
        arg: &'static str,
        /// Declared type.
        expected: DType,
        /// Type of the value.
        found: DType,
        /// The value.
        label: String,
    },
    /// Wrong number of tensors.
    #[error("{scope}: {kernel} takes {expected} arguments, got {found}")]
    Count {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// By the kernel's table.
        expected: usize,
        /// By the call.
        found: usize,
    },
    /// A constant of the kernel's table that the call did not give.
    #[error("{scope}: {kernel} needs the constant `{constant}`")]
    Constant {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// Name in the kernel's table.
        constant: &'static str,
    },
    /// A value is read before any launch wrote it.
    #[error("{scope}: {kernel} reads `{label}` before it is written")]
    Unwritten {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// The value.
        label: String,
    },
    /// A backward reads a value that another launch wrote after the op ran.
    #[error(
        "{scope}: {kernel} reads `{label}`, which was overwritten after the op that needs it; give the op that works in \
         place a copy"
    )]
    Overwritten {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// The value.
        label: String,
    },
    /// Something that cannot be done twice inside a recomputed region.
    #[error("{scope}: {what}; move it out of the recomputed region")]
    Region {
        /// Scope.
        scope: String,
        /// What would happen.
        what: String,
    },
    /// A read-only value (parameter, input) is bound to a written argument.
    #[error("{scope}: {kernel} would overwrite `{label}`, which is read-only in a plan that computes gradients")]
    ReadOnly {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// The value.
        label: String,
    },
    /// The gradient must pass through an op that has no backward.
    #[error("{scope}: `{label}` lies on a path to a parameter, but the op that made it has no backward")]
    NoBackward {
        /// Scope.
        scope: String,
        /// The value.
        label: String,
    },
    /// Two gradients in the same words of the gradient buffer.
    #[error(
        "{scope}: `{label}` shares parameters with `{other}`, which has a gradient already; use them in one form, alone or \
         joined"
    )]
    Overlap {
        /// Scope.
        scope: String,
        /// The later use.
        label: String,
        /// The earlier use.
        other: String,
    },
    /// A parameter that nothing differentiated and nobody declared frozen.
    #[error("{plan}: parameter `{name}` gets no gradient; use it, or declare it frozen for this plan")]
    NoGradient {
        /// Plan.
        plan: String,
        /// Parameter.
        name: String,
    },
    /// A parameter name that the table does not hold.
    #[error("{scope}: no parameter `{name}`; the table has {known} parameters, nearest `{nearest}`")]
    UnknownParameter {
        /// Scope.
        scope: String,
        /// Name asked for.
        name: String,
        /// Parameters in the table.
        known: usize,
        /// Most similar name.
        nearest: String,
    },
    /// Parameters that should form one matrix do not lie side by side.
    #[error("{scope}: parameters {names} are not adjacent in the parameter buffer and cannot be used as one matrix")]
    NotAdjacent {
        /// Scope.
        scope: String,
        /// Names asked for.
        names: String,
    },
    /// A size the op does not support.
    #[error("{scope}: {what}")]
    Unsupported {
        /// Scope.
        scope: String,
        /// What, and what is supported.
        what: String,
    },
}
