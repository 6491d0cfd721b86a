//! A product of row-major matrices in cuBLASLt's terms.
//!
//! Its matrices are column major: what lies there is the transpose of what lies here. So `D = L R` becomes
//! `D^T = R^T L^T`, the right factor comes first, and a factor is transposed there where it is transposed here:
//!
//! ```text
//! here                       there: m = n, n = m        A: columns x rows of the right factor's storage
//! y  = x W^T     [m, n]      y^T  = op(W) x^T           W [n, k] lies as k x n: transposed
//! dx = dy W      [m, n]      dx^T = W' dy^T             W [k, n] lies as n x k: as it is
//! dW = dy^T x    [m, n]      dW^T = x' op(dy)           dy [k, m] lies as m x k: transposed
//! ```
//!
//! A bias of the library runs along the rows of its result, which are the columns here: one number a column.

use crate::kernel::{DType, Dims, Kernel, Product};

/// One product's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// The library's A: the right factor.
    pub a: Matrix,
    /// The library's B: the left factor.
    pub b: Matrix,
    /// The library's C and D, which are one.
    pub d: Matrix,
    /// Whether D is added to.
    pub accumulate: bool,
    /// Argument of the bias, if there is one.
    pub bias: Option<usize>,
}

/// A matrix as the library sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Argument of the kernel.
    pub arg: usize,
    /// Type of its elements.
    pub dtype: DType,
    /// Whether its transpose is multiplied.
    pub transposed: bool,
    /// Rows, which lie without gaps: the width of the tensor.
    pub rows: u64,
    /// Columns: the tensor's capacity of rows.
    pub columns: u64,
}

impl Matrix {
    fn new(kernel: &Kernel, dims: &Dims, arg: usize, transposed: bool) -> Matrix {
        let [rows, width] = kernel.args[arg].shape;
        Matrix {
            arg,
            dtype: kernel.args[arg].element.dtype(dims.precision()),
            transposed,
            rows: dims.size(width) as u64,
            columns: dims.size(rows) as u64,
        }
    }

    /// Elements from one column to the next.
    pub fn leading(&self) -> i64 {
        self.rows as i64
    }
}

impl Arguments {
    /// Those of a kernel's launch.
    pub fn new(product: &Product, kernel: &Kernel, dims: &Dims) -> Arguments {
        let (left, right) = (product.left, product.right);
        Arguments {
            a: Matrix::new(kernel, dims, right.arg, right.transposed),
            b: Matrix::new(kernel, dims, left.arg, left.transposed),
            d: Matrix::new(kernel, dims, product.result, false),
            accumulate: product.accumulate.is_some_and(|flag| dims.flag(flag)),
            bias: product.bias,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Extent, Precision};
    use crate::ops::gemm::{BACKWARD_INPUT, BACKWARD_WEIGHT, FORWARD};

    /// 40 rows, a layer from k = 24 to n = 16, in bf16.
    fn arguments(kernel: &Kernel, flag: Option<(&'static str, u32)>) -> Arguments {
        let mut dims = Dims::default();
        for (symbol, size) in [("rows", 40), ("n", 16), ("k", 24)] {
            dims.bind(symbol, Extent::fixed(size));
        }
        if let Some((name, word)) = flag {
            dims.constant(name, word);
        }
        dims.store_as(Precision::Bf16);
        let source = kernel.cuda.as_ref().unwrap().storing(Precision::Bf16);
        Arguments::new(source.product.unwrap(), kernel, &dims)
    }

    /// Rows, columns, transposed.
    fn shape(matrix: Matrix) -> (u64, u64, bool) {
        (matrix.rows, matrix.columns, matrix.transposed)
    }

    /// Worked out by hand from the library's definition `D = op(A) op(B)`, op(A) of m x k, op(B) of k x n, D of m x n.
    #[test]
    fn the_three_layouts_are_those_worked_out_by_hand() {
        let forward = arguments(&FORWARD, None);
        assert_eq!([forward.a.arg, forward.b.arg, forward.d.arg], [1, 0, 3]);
        assert_eq!(
            [forward.a, forward.b, forward.d].map(shape),
            [(24, 16, true), (24, 40, false), (16, 40, false)]
        );
        assert_eq!((forward.bias, forward.accumulate), (Some(2), false));

        let input = arguments(&BACKWARD_INPUT, Some(("accumulate_dx", 1)));
        assert_eq!([input.a.arg, input.b.arg, input.d.arg], [1, 0, 2]);
        assert_eq!(
            [input.a, input.b, input.d].map(shape),
            [(24, 16, false), (16, 40, false), (24, 40, false)]
        );
        assert_eq!((input.bias, input.accumulate), (None, true));

        let weight = arguments(&BACKWARD_WEIGHT, Some(("accumulate_dw", 0)));
        assert_eq!([weight.a.arg, weight.b.arg, weight.d.arg], [1, 0, 2]);
        assert_eq!(
            [weight.a, weight.b, weight.d].map(shape),
            [(24, 40, false), (16, 40, true), (24, 16, false)]
        );
        assert!(!weight.accumulate);
        assert_eq!([weight.a.dtype, weight.d.dtype], [DType::Bf16, DType::F32]);
    }
}
