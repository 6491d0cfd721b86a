//! NVIDIA's library of matrix products: the variant of products that only a pin takes.
//!
//! A product's descriptors and algorithm are settled when a plan is loaded; replaying it is one call, which a captured graph
//! takes in like any launch. The library's own scratch is the caller's ([`Workspace`]). Sums that are split between blocks
//! are added up in f32 and in a fixed order, so that a product gives the same bits again on the same GPU with the same
//! version of the library.

mod arguments;
mod calls;

use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

use cudarc::cublaslt::sys::{
    cublasComputeType_t::CUBLAS_COMPUTE_32F, cublasLtEpilogue_t, cublasLtHandle_t, cublasLtMatmulAlgo_t,
    cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t, cublasLtReductionScheme_t,
    cublasStatus_t, cudaDataType,
};

use super::BACKEND;
use super::library::Wanted;
use super::memory::Memory;
use crate::device::DeviceError;
use crate::kernel::DType;
use arguments::Matrix;
use calls::{Calls, Descriptor};

pub(super) use arguments::Arguments;

static CUBLASLT: Wanted = Wanted {
    name: "cuBLASLt",
    variable: "TLM_CUBLASLT",
    names: NAMES,
    files: FILES,
    remedy: "python3 -m venv .venv && .venv/bin/pip install nvidia-cublas, or set TLM_CUBLASLT to its file; \
             without the pin in TLM_VARIANTS nothing needs it",
};

#[cfg(windows)]
const NAMES: &[&str] = &["cublasLt64_13.dll", "cublasLt64_12.dll"];
#[cfg(not(windows))]
const NAMES: &[&str] = &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"];

#[cfg(windows)]
const FILES: &str = "cublasLt64_*.dll";
#[cfg(not(windows))]
const FILES: &str = "libcublasLt.so.*";

/// The loaded library with a handle for the current context.
pub(super) struct CublasLt {
    path: String,
    calls: Calls,
    handle: cublasLtHandle_t,
}

// SAFETY: the library says that a handle may be used from several threads at once.
unsafe impl Send for CublasLt {}
// SAFETY: as above.
unsafe impl Sync for CublasLt {}

impl CublasLt {
    /// Loads it from a file, or from where it is found. A context is current.
    ///
    /// # Errors
    /// [`DeviceError::Library`] with all places that were tried, [`DeviceError::Backend`] if it does not start.
    pub fn open(file: Option<&Path>) -> Result<CublasLt, DeviceError> {
        let load = |path: String| Ok((Calls::load(&path)?, path));
        let (calls, path) = match file {
            None => CUBLASLT.find(load)?,
            Some(file) => CUBLASLT.load(file, load)?,
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the result is a place for a handle.
        let created = unsafe { (calls.create)(&mut handle) };
        let library = CublasLt { path, calls, handle };
        library.succeeded(created, "cublasLtCreate")?;
        Ok(library)
    }

    /// Version and place, for people.
    pub fn describe(&self) -> String {
        // SAFETY: the function only returns a number.
        let version = unsafe { (self.calls.version)() };
        format!("cuBLASLt {version} from {}", self.path)
    }

    fn succeeded(&self, status: cublasStatus_t, call: &str) -> Result<(), DeviceError> {
        calls::done(status).map_err(|status| self.failed(status, call))
    }

    fn failed(&self, status: cublasStatus_t, call: &str) -> DeviceError {
        DeviceError::Backend {
            backend: BACKEND,
            what: format!("{call} of {} failed: {status:?}", self.path),
        }
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: created by this library and destroyed once.
            let _ = unsafe { (self.calls.destroy)(self.handle) };
        }
    }
}

/// Memory that products use one after the other: a rounded bias, then the library's own scratch.
pub(super) struct Workspace(pub Memory);

impl Workspace {
    /// Bytes for a bias.
    pub const BIAS: usize = 1 << 20;
    /// Bytes for the library: what NVIDIA recommends for Hopper, and enough for everything older.
    const SCRATCH: usize = 32 << 20;
    /// Words of both.
    pub const WORDS: usize = (Workspace::BIAS + Workspace::SCRATCH) / 4;

    /// Where a rounded bias lies.
    pub fn bias(&self) -> u64 {
        self.0.address
    }

    fn scratch(&self) -> u64 {
        self.0.address + Workspace::BIAS as u64
    }
}

/// A product that is ready to be launched.
pub(super) struct Matmul {
    library: Arc<CublasLt>,
    operation: Descriptor,
    layouts: [Descriptor; 3],
    algorithm: cublasLtMatmulAlgo_t,
    /// A, B, D.
    addresses: [u64; 3],
    scratch: u64,
    beta: f32,
}

// SAFETY: descriptors are memory of the host that belongs to this product alone.
unsafe impl Send for Matmul {}

impl Matmul {
    /// Describes a product and asks for its algorithm. `addresses` are those of the kernel's tensors, `bias` that of what
    /// is added to each column, in the result's type.
    ///
    /// # Errors
    /// [`DeviceError::Backend`] where the library has no algorithm.
    pub fn new(
        library: &Arc<CublasLt>,
        workspace: &Workspace,
        arguments: &Arguments,
        addresses: &[u64],
        bias: Option<u64>,
    ) -> Result<Matmul, DeviceError> {
        let calls = &library.calls;
        let operation = calls.operation(CUBLAS_COMPUTE_32F, cudaDataType::CUDA_R_32F);
        let operation = operation.map_err(|status| library.failed(status, "cublasLtMatmulDescCreate"))?;
        let set = |attribute: Attribute, value: &dyn Bytes| {
            let (start, length) = value.bytes();
            // SAFETY: the descriptor exists; the value lives until the call returns.
            let status = unsafe { (calls.set_operation)(operation.handle.cast(), attribute, start, length) };
            library.succeeded(status, &format!("cublasLtMatmulDescSetAttribute of {attribute:?}"))
        };
        set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &u32::from(arguments.a.transposed),
        )?;
        set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            &u32::from(arguments.b.transposed),
        )?;
        if let Some(bias) = bias {
            let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        let layout = |matrix: &Matrix| {
            let layout = calls.layout(data_type(matrix.dtype), matrix.rows, matrix.columns, matrix.leading());
            layout.map_err(|status| library.failed(status, "cublasLtMatrixLayoutCreate"))
        };
        let layouts = [layout(&arguments.a)?, layout(&arguments.b)?, layout(&arguments.d)?];
        let algorithm = algorithm(library, &operation, &layouts).map_err(|status| {
            let Arguments { a, b, d, .. } = arguments;
            library.failed(
                status,
                &format!("cublasLtMatmulAlgoGetHeuristic for {a:?} x {b:?} = {d:?}"),
            )
        })?;
        Ok(Matmul {
            library: Arc::clone(library),
            operation,
            layouts,
            algorithm,
            addresses: [&arguments.a, &arguments.b, &arguments.d].map(|matrix| addresses[matrix.arg]),
            scratch: workspace.scratch(),
            beta: f32::from(u8::from(arguments.accumulate)),
        })
    }

    /// Puts the product on a stream.
    ///
    /// # Errors
    /// [`DeviceError::Backend`].
    pub fn launch(&self, stream: cudarc::driver::sys::CUstream, what: &str) -> Result<(), DeviceError> {
        let [a, b, d] = self.addresses.map(|address| address as *mut c_void);
        let [layout_a, layout_b, layout_d]: [cublasLtMatrixLayout_t; 3] =
            self.layouts.each_ref().map(|layout| layout.handle.cast());
        let operation: cublasLtMatmulDesc_t = self.operation.handle.cast();
        let alpha = 1.0f32;
        // SAFETY: handle and descriptors live; the addresses are those of tensors with the layouts' sizes, on the device
        // that the stream belongs to; scalars are read before the call returns.
        let status = unsafe {
            (self.library.calls.matmul)(
                self.library.handle,
                operation,
                (&raw const alpha).cast(),
                a,
                layout_a,
                b,
                layout_b,
                (&raw const self.beta).cast(),
                d,
                layout_d,
                d,
                layout_d,
                &self.algorithm,
                self.scratch as *mut c_void,
                Workspace::SCRATCH,
                stream.cast(),
            )
        };
        self.library.succeeded(status, &format!("{what}: cublasLtMatmul"))
    }
}

/// The library's first choice among algorithms that split sums deterministically.
fn algorithm(
    library: &CublasLt,
    operation: &Descriptor,
    layouts: &[Descriptor; 3],
) -> Result<cublasLtMatmulAlgo_t, cublasStatus_t> {
    let calls = &library.calls;
    let preference = calls.preference()?;
    let schemes = cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    let limits: [(Preference, &dyn Bytes); 2] = [
        (
            Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &(Workspace::SCRATCH as u64),
        ),
        (Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes),
    ];
    for (attribute, value) in limits {
        let (start, length) = value.bytes();
        // SAFETY: the descriptor exists; the value lives until the call returns.
        calls::done(unsafe { (calls.set_preference)(preference.handle.cast(), attribute, start, length) })?;
    }
    calls.heuristic(library.handle, operation, layouts, &preference)
}

fn data_type(dtype: DType) -> cudaDataType {
    match dtype {
        DType::F16 => cudaDataType::CUDA_R_16F,
        DType::Bf16 => cudaDataType::CUDA_R_16BF,
        DType::F32 => cudaDataType::CUDA_R_32F,
        DType::U32 => unreachable!("products are of numbers"),
    }
}

/// A value of an attribute.
trait Bytes {
    /// Where it lies and how long it is.
    fn bytes(&self) -> (*const c_void, usize);
}

macro_rules! values {
    ($($value:ty),*) => {$(
        impl Bytes for $value {
            fn bytes(&self) -> (*const c_void, usize) {
                (std::ptr::from_ref(self).cast(), size_of::<$value>())
            }
        }
    )*};
}

values!(u32, u64);
