//! Kernels that are one matrix product: what a vendor's library needs to know to compute them in its own way.

use super::Source;

/// `result = left right (+ bias) (+ result)` of row-major matrices, and what follows. Arguments are indices into
/// [`Kernel::args`](super::Kernel::args); the shapes are those of the argument table.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// `[m, k]`, or `[k, m]` if transposed.
    pub left: Factor,
    /// `[k, n]`, or `[n, k]` if transposed.
    pub right: Factor,
    /// `[m, n]`.
    pub result: usize,
    /// `[1, n]`, added to every row.
    pub bias: Option<usize>,
    /// The constant that says whether the product is added to what the result holds.
    pub accumulate: Option<&'static str>,
    /// What is done with the result.
    pub finish: Finish,
    /// The passes around it: entry points with the names below, whose parameters are their tensors and, unless they are
    /// about a bias, the step's scalars and `rows, rows.count, rows.start, width`.
    pub around: &'static Source,
}

/// A factor of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Argument.
    pub arg: usize,
    /// Whether its transpose is meant.
    pub transposed: bool,
}

/// What follows a product, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Nothing.
    Nothing,
    /// The argument `into` becomes GELU of the result.
    Gelu {
        /// Argument.
        into: usize,
    },
    /// The result is multiplied by the derivative of GELU at the argument `at`.
    GeluDerivative {
        /// Argument.
        at: usize,
    },
}

impl Product {
    /// `(bias, rounded, width)`: rounds an f32 bias.
    pub const ROUND_BIAS: &'static str = "vendor_bias";
    /// `(x, ...)`: clears rows beyond the live ones.
    pub const CLEAR: &'static str = "vendor_clear";
    /// `(z, a, ...)`: GELU.
    pub const GELU: &'static str = "vendor_gelu";
    /// `(z, dz, ...)`: multiplies by GELU's derivative.
    pub const GELU_DERIVATIVE: &'static str = "vendor_gelu_derivative";

    /// `result = left right`.
    pub const fn new(left: Factor, right: Factor, result: usize, around: &'static Source) -> Product {
        Product {
            left,
            right,
            result,
            bias: None,
            accumulate: None,
            finish: Finish::Nothing,
            around,
        }
    }

    /// The same with a bias.
    pub const fn with_bias(self, bias: usize) -> Product {
        Product {
            bias: Some(bias),
            ..self
        }
    }

    /// The same, added to the result where a constant says so.
    pub const fn accumulating(self, flag: &'static str) -> Product {
        Product {
            accumulate: Some(flag),
            ..self
        }
    }

    /// The same with something that follows.
    pub const fn then(self, finish: Finish) -> Product {
        Product { finish, ..self }
    }
}

impl Factor {
    /// An argument as it lies.
    pub const fn plain(arg: usize) -> Factor {
        Factor { arg, transposed: false }
    }

    /// The transpose of an argument.
    pub const fn transposed(arg: usize) -> Factor {
        Factor { arg, transposed: true }
    }
}
