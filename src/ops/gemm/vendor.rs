//! The room's kernels as products of NVIDIA's library.
//!
//! cuBLASLt takes the number of rows from the host, and the host has only the capacity: it multiplies the rows beyond the
//! live ones too and writes there, where nobody reads. Only a sum over rows would take them in, so they are cleared before
//! a weight's gradient. A bias beside elements of two bytes is rounded to them, because the library's has the type of the
//! result. GELU is a pass of its own: the library's is the tanh approximation. Both are why the fused kernels can be faster
//! where `k` is small; nothing of it has run on hardware.

use crate::kernel::{Factor, File, Finish, Product, Source};

/// The passes around a product.
static AROUND: Source = Source::new(
    File {
        name: "kernels/gemm_vendor.cu",
        text: include_str!("../../../kernels/gemm_vendor.cu"),
    },
    &[
        Product::ROUND_BIAS,
        Product::CLEAR,
        Product::GELU,
        Product::GELU_DERIVATIVE,
    ],
);

const fn product(left: Factor, right: Factor, result: usize) -> Product {
    Product::new(left, right, result, &AROUND)
}

pub(super) const FORWARD: Product = product(Factor::plain(0), Factor::transposed(1), 3).with_bias(2);

pub(super) const FORWARD_GELU: Product = FORWARD.then(Finish::Gelu { into: 4 });

pub(super) const BACKWARD_INPUT: Product = product(Factor::plain(0), Factor::plain(1), 2).accumulating("accumulate_dx");

pub(super) const BACKWARD_GELU: Product =
    product(Factor::plain(0), Factor::plain(1), 3).then(Finish::GeluDerivative { at: 2 });

pub(super) const BACKWARD_WEIGHT: Product =
    product(Factor::transposed(0), Factor::plain(1), 2).accumulating("accumulate_dw");
