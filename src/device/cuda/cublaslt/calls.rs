//! Functions of `cublasLt.h`, and descriptors that are destroyed when dropped.

use std::ffi::{c_int, c_void};

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t,
    cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
    cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType, cudaStream_t,
};
use libloading::Library;

/// The functions. The library stays loaded until the process ends.
pub(super) struct Calls {
    pub create: unsafe extern "C" fn(*mut cublasLtHandle_t) -> cublasStatus_t,
    pub destroy: unsafe extern "C" fn(cublasLtHandle_t) -> cublasStatus_t,
    pub version: unsafe extern "C" fn() -> usize,
    create_operation:
        unsafe extern "C" fn(*mut cublasLtMatmulDesc_t, cublasComputeType_t, cudaDataType) -> cublasStatus_t,
    destroy_operation: Destroy,
    pub set_operation: unsafe extern "C" fn(
        cublasLtMatmulDesc_t,
        cublasLtMatmulDescAttributes_t,
        *const c_void,
        usize,
    ) -> cublasStatus_t,
    create_layout: unsafe extern "C" fn(*mut cublasLtMatrixLayout_t, cudaDataType, u64, u64, i64) -> cublasStatus_t,
    destroy_layout: Destroy,
    create_preference: unsafe extern "C" fn(*mut cublasLtMatmulPreference_t) -> cublasStatus_t,
    destroy_preference: Destroy,
    pub set_preference: unsafe extern "C" fn(
        cublasLtMatmulPreference_t,
        cublasLtMatmulPreferenceAttributes_t,
        *const c_void,
        usize,
    ) -> cublasStatus_t,
    heuristic: Heuristic,
    pub matmul: Matmul,
}

type Destroy = unsafe extern "C" fn(*mut c_void) -> cublasStatus_t;

/// Handle, operation, A, B, C, D, preference, how many, results, how many there are.
type Heuristic = unsafe extern "C" fn(
    cublasLtHandle_t,
    cublasLtMatmulDesc_t,
    cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t,
    cublasLtMatmulPreference_t,
    c_int,
    *mut cublasLtMatmulHeuristicResult_t,
    *mut c_int,
) -> cublasStatus_t;

/// Handle, operation, alpha, A, B, beta, C, D (each with its layout), algorithm, scratch with its length, stream.
type Matmul = unsafe extern "C" fn(
    cublasLtHandle_t,
    cublasLtMatmulDesc_t,
    *const c_void,
    *const c_void,
    cublasLtMatrixLayout_t,
    *const c_void,
    cublasLtMatrixLayout_t,
    *const c_void,
    *const c_void,
    cublasLtMatrixLayout_t,
    *mut c_void,
    cublasLtMatrixLayout_t,
    *const cublasLtMatmulAlgo_t,
    *mut c_void,
    usize,
    cudaStream_t,
) -> cublasStatus_t;

/// A descriptor of any kind.
pub(super) struct Descriptor {
    pub handle: *mut c_void,
    destroy: Destroy,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created by the library and destroyed once.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

/// A status as a result.
pub(super) fn done(status: cublasStatus_t) -> Result<(), cublasStatus_t> {
    match status {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        failed => Err(failed),
    }
}

impl Calls {
    pub fn load(path: &str) -> Result<Calls, libloading::Error> {
        // SAFETY: the library's initialisers are NVIDIA's; the symbols have the types of cublasLt.h, unchanged since CUDA 11.
        unsafe {
            let library = Library::new(path)?;
            let calls = Calls {
                create: *library.get(c"cublasLtCreate")?,
                destroy: *library.get(c"cublasLtDestroy")?,
                version: *library.get(c"cublasLtGetVersion")?,
                create_operation: *library.get(c"cublasLtMatmulDescCreate")?,
                destroy_operation: *library.get(c"cublasLtMatmulDescDestroy")?,
                set_operation: *library.get(c"cublasLtMatmulDescSetAttribute")?,
                create_layout: *library.get(c"cublasLtMatrixLayoutCreate")?,
                destroy_layout: *library.get(c"cublasLtMatrixLayoutDestroy")?,
                create_preference: *library.get(c"cublasLtMatmulPreferenceCreate")?,
                destroy_preference: *library.get(c"cublasLtMatmulPreferenceDestroy")?,
                set_preference: *library.get(c"cublasLtMatmulPreferenceSetAttribute")?,
                heuristic: *library.get(c"cublasLtMatmulAlgoGetHeuristic")?,
                matmul: *library.get(c"cublasLtMatmul")?,
            };
            std::mem::forget(library);
            Ok(calls)
        }
    }

    pub fn operation(&self, compute: cublasComputeType_t, scale: cudaDataType) -> Result<Descriptor, cublasStatus_t> {
        let mut handle: cublasLtMatmulDesc_t = std::ptr::null_mut();
        // SAFETY: the result is a place for a handle.
        done(unsafe { (self.create_operation)(&mut handle, compute, scale) })?;
        Ok(Descriptor {
            handle: handle.cast(),
            destroy: self.destroy_operation,
        })
    }

    pub fn layout(
        &self,
        data: cudaDataType,
        rows: u64,
        columns: u64,
        leading: i64,
    ) -> Result<Descriptor, cublasStatus_t> {
        let mut handle: cublasLtMatrixLayout_t = std::ptr::null_mut();
        // SAFETY: the result is a place for a handle.
        done(unsafe { (self.create_layout)(&mut handle, data, rows, columns, leading) })?;
        Ok(Descriptor {
            handle: handle.cast(),
            destroy: self.destroy_layout,
        })
    }

    pub fn preference(&self) -> Result<Descriptor, cublasStatus_t> {
        let mut handle: cublasLtMatmulPreference_t = std::ptr::null_mut();
        // SAFETY: the result is a place for a handle.
        done(unsafe { (self.create_preference)(&mut handle) })?;
        Ok(Descriptor {
            handle: handle.cast(),
            destroy: self.destroy_preference,
        })
    }

    /// The library's first choice; `layouts` are those of A, B and D.
    pub fn heuristic(
        &self,
        handle: cublasLtHandle_t,
        operation: &Descriptor,
        layouts: &[Descriptor; 3],
        preference: &Descriptor,
    ) -> Result<cublasLtMatmulAlgo_t, cublasStatus_t> {
        let [a, b, d]: [cublasLtMatrixLayout_t; 3] = layouts.each_ref().map(|layout| layout.handle.cast());
        let mut found = 0;
        let mut first = cublasLtMatmulHeuristicResult_t {
            algo: cublasLtMatmulAlgo_t { data: [0; 8] },
            workspaceSize: 0,
            state: cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
            wavesCount: 0.0,
            reserved: [0; 4],
        };
        // SAFETY: handle and descriptors live; there is a place for the one result that is asked for.
        let status = unsafe {
            (self.heuristic)(
                handle,
                operation.handle.cast(),
                a,
                b,
                d,
                d,
                preference.handle.cast(),
                1,
                &mut first,
                &mut found,
            )
        };
        done(status)?;
        done(first.state)?; // not supported, as it was, where there is none
        Ok(first.algo)
    }
}
