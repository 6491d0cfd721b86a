//! CUDA: kernels compiled at run time by NVRTC, which needs neither a GPU nor a toolkit, only its library.
//!
//! # How a kernel is called
//!
//! An entry point of `kernels/*.cu` is an `extern "C" __global__` function whose parameters follow its kernel's table:
//!
//! ```text
//! extern "C" __global__ void __launch_bounds__(threads) entry(
//!     const T* name, ...              In arguments, in the order of Kernel::args; T is float or u32
//!     T* name, ...                    Out and InOut arguments, in the same sequence
//!     const StepParams* step_params,  the device's copy, for every kernel
//!     u32 name, ...                   Kernel::constants, in order, `_` for `.`; float where the bits are those of an f32
//! )
//! ```
//!
//! Written tensors overlap nothing else of the launch ([`check`](super::check)), so every pointer may be `__restrict__`.
//! Blocks are one-dimensional, `Source::threads` long; the grid is `Kernel::grid`. The tests compare every signature and
//! the parameters in the compiled PTX with the tables.
//!
//! Inline PTX stands in small `__device__` functions of `kernels/common/` only.

mod compile;
mod nvrtc;

pub use compile::Compiled;
pub use nvrtc::Nvrtc;

/// Name of the backend in messages.
const BACKEND: &str = "cuda";
