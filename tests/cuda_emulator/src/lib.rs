//! A CUDA driver that interprets PTX on the CPU, so that kernels are run and checked on machines without a GPU.
//!
//! NVRTC compiles the kernels as it would for a device; cudarc, unmodified, loads the PTX into what it takes for
//! `libcuda.so.1`; this crate is that library. It runs the kernels, and while it does so looks for what hardware lets
//! pass: accesses out of bounds, races, barriers that not all threads reach, memory that nobody wrote. A finding names
//! the line of the `.cu` file, the block, the thread and what was accessed. It also counts what makes kernels slow:
//! sectors of device memory and conflicts between the banks of shared memory.
//!
//! What it cannot show is speed, missing memory fences, the rounding of tensor cores within a sum and the error of
//! approximate instructions. The device is called "PTX interpreter (not a GPU)"; times are times of the host.
//!
//! From the top down:
//!
//! | module | what it does |
//! |---|---|
//! | [`control`] | what tests use: loading the library, settings, findings, counters |
//! | `cublaslt` | a model of NVIDIA's library of products on the same memory and streams |
//! | `driver` | the functions that cudarc calls: devices, memory, modules, streams, graphs |
//! | `execute` | runs a launch: blocks, warps, barriers, memory, exchanges, matrix products, and the checks |
//! | `semantics` | what each instruction computes |
//! | `ptx` | from text to instructions |
//! | `counters`, `finding`, `memory`, `rows` | what these work with |

#![deny(missing_docs)]
#![allow(non_snake_case, reason = "exported functions have the names of the interfaces")]

pub mod control;
mod counters;
mod cublaslt;
mod driver;
mod execute;
mod finding;
mod memory;
mod ptx;
mod rows;
mod semantics;
