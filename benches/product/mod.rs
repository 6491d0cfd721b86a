//! One matrix product, computed by crate `gemm` or described for the crate's own `multiply`.

use tlm::ops::gemm::cpu::{Epilogue, Operand, Product};

/// C `[m, n]` = A B, summed over `k`, with the distances of A (row, step) and B (column, step).
#[derive(Clone, Copy)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: [usize; 2],
    pub b: [usize; 2],
    pub ldc: usize,
}

/// Words that a matrix of `outer` x `inner` elements at these distances spans.
pub fn span(outer: usize, inner: usize, [o, i]: [usize; 2]) -> usize {
    (outer - 1) * o + (inner - 1) * i + 1
}

/// `len` numbers between -1 and 1.
pub fn fill(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

impl Shape {
    /// The product through crate `gemm`.
    pub fn theirs(&self, a: &[f32], b: &[f32], c: &mut [f32], parallelism: gemm::Parallelism) {
        assert!(a.len() >= span(self.m, self.k, self.a) && b.len() >= span(self.n, self.k, self.b));
        assert!(c.len() >= span(self.m, self.n, [self.ldc, 1]));
        // SAFETY: the slices cover the shape at these distances.
        unsafe {
            gemm::gemm(
                self.m,
                self.n,
                self.k,
                c.as_mut_ptr(),
                1,
                self.ldc as isize,
                false,
                a.as_ptr(),
                self.a[1] as isize,
                self.a[0] as isize,
                b.as_ptr(),
                self.b[0] as isize,
                self.b[1] as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }

    /// The same for the crate's own `multiply` and `multiply_here`.
    pub fn ours<'a>(&self, a: &'a [f32], b: &'a [f32]) -> Product<'a> {
        let operand = |data, [outer, inner]: [usize; 2]| Operand { data, outer, inner };
        Product {
            m: self.m,
            n: self.n,
            k: self.k,
            a: operand(a, self.a),
            b: operand(b, self.b),
            ldc: self.ldc,
            accumulate: false,
            epilogue: Epilogue::None,
        }
    }
}
