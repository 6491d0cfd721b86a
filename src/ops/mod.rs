//! The ops: one room each, one line each in the registry.
//!
//! A room holds the mathematics, the kernel tables, the record function with its backward, the CPU implementation, the
//! f64 reference, the cost functions and the test cases.

pub mod attention;
pub mod bias_grad;
pub mod case;
pub mod copy;
pub mod dropout;
pub mod gelu;
pub mod gemm;
pub mod layer_norm;
pub mod math;

use crate::kernel::Kernel;
use case::Case;

/// An op as the registry knows it.
pub struct Op {
    /// Stem of its room, its `.cu` and its `.wgsl` file.
    pub name: &'static str,
    /// Kernels.
    pub kernels: &'static [&'static Kernel],
    /// Test cases.
    pub cases: fn() -> Vec<Case>,
}

/// Every op. Tests, benchmarks, the generated table in `docs/ops.md` and the argument checks walk it.
pub static REGISTRY: &[Op] = &[
    Op {
        name: "layer_norm",
        kernels: layer_norm::KERNELS,
        cases: layer_norm::cases,
    },
    Op {
        name: "gemm",
        kernels: gemm::KERNELS,
        cases: gemm::cases,
    },
    Op {
        name: "gelu",
        kernels: gelu::KERNELS,
        cases: Vec::new,
    },
    Op {
        name: "bias_grad",
        kernels: bias_grad::KERNELS,
        cases: Vec::new,
    },
    Op {
        name: "copy",
        kernels: copy::KERNELS,
        cases: Vec::new,
    },
];
