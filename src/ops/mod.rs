//! The ops: one room each, one line each in the registry.
//!
//! A room holds the mathematics, the kernel tables, the record function with its backward, the CPU implementation, the
//! f64 reference, the cost functions and the test cases.

pub mod adamw;
pub mod attention;
pub mod bias_grad;
pub mod bm25;
pub mod case;
pub mod class_cross_entropy;
pub mod copy;
pub mod dropout;
pub mod embedding;
pub mod fill;
pub mod gather;
pub mod gelu;
pub mod gemm;
pub mod grad_norm;
pub mod layer_norm;
pub mod masked_cross_entropy;
pub mod math;
pub mod probe;
pub mod sum;

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
        name: "attention",
        kernels: attention::KERNELS,
        cases: attention::cases,
    },
    Op {
        name: "gelu",
        kernels: gelu::KERNELS,
        cases: gelu::cases,
    },
    Op {
        name: "bias_grad",
        kernels: bias_grad::KERNELS,
        cases: bias_grad::cases,
    },
    Op {
        name: "copy",
        kernels: copy::KERNELS,
        cases: copy::cases,
    },
    Op {
        name: "fill",
        kernels: fill::KERNELS,
        cases: fill::cases,
    },
    Op {
        name: "gather",
        kernels: gather::KERNELS,
        cases: gather::cases,
    },
    Op {
        name: "embedding",
        kernels: embedding::KERNELS,
        cases: embedding::cases,
    },
    Op {
        name: "masked_cross_entropy",
        kernels: masked_cross_entropy::KERNELS,
        cases: masked_cross_entropy::cases,
    },
    Op {
        name: "class_cross_entropy",
        kernels: class_cross_entropy::KERNELS,
        cases: class_cross_entropy::cases,
    },
    Op {
        name: "sum",
        kernels: sum::KERNELS,
        cases: sum::cases,
    },
    Op {
        name: "grad_norm",
        kernels: grad_norm::KERNELS,
        cases: grad_norm::cases,
    },
    Op {
        name: "adamw",
        kernels: adamw::KERNELS,
        cases: adamw::cases,
    },
    Op {
        name: "bm25",
        kernels: bm25::KERNELS,
        cases: bm25::cases,
    },
    Op {
        name: "probe",
        kernels: probe::KERNELS,
        cases: probe::cases,
    },
];
