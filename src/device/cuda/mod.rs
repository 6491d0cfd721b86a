//! CUDA: kernels compiled at run time by NVRTC, which needs neither a GPU nor a toolkit, only its library.
//!
//! # How a kernel is called
//!
//! An entry point of `kernels/*.cu` is an `extern "C" __global__` function whose parameters follow its kernel's table:
//!
//! ```text
//! extern "C" __global__ void __launch_bounds__(threads) entry(
//!     const T* name, ...              In arguments, in the order of Kernel::args; T is Stored, float or u32
//!     T* name, ...                    Out and InOut arguments, in the same sequence
//!     const StepParams* step_params,  the device's copy, for every kernel
//!     u32 name, ...                   Kernel::constants, in order, `_` for `.`; float where the bits are those of an f32
//! )
//! ```
//!
//! Written tensors overlap nothing else of the launch ([`check`](super::check)), so every pointer may be `__restrict__`.
//! `Stored` is the type of elements of the plan's precision: the macro `STORED` is `f32`, `f16` or `bf16`
//! (`kernels/common/stored.cuh`). A launch takes the program of [`Source::storing`](crate::kernel::Source::storing) its own
//! precision, with the variant's and the compiled-in defines, the grid of `Source::workgroups` and `Source::shared` bytes of
//! dynamic shared memory; above 48 KiB the function must be told first
//! (`CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`). Blocks are one-dimensional, `Variant::threads` long. The tests compare
//! every signature and the parameters in the compiled PTX with the tables.
//!
//! Tensors begin at multiples of 256 bytes ([`ALIGN`](crate::plan::ALIGN)); copies of parameters at multiples of 128.
//!
//! Inline PTX stands in small `__device__` functions of `kernels/common/` only.

mod compile;
mod nvrtc;

pub use compile::Compiled;
pub use nvrtc::Nvrtc;

/// Name of the backend in messages.
const BACKEND: &str = "cuda";
