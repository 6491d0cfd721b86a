//! Memory on the GPU and pinned memory of the host, freed when dropped.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use super::BACKEND;
use super::gpu::{Shared, failed};
use crate::device::DeviceError;

/// Words on the GPU.
pub(super) struct Memory {
    context: Arc<CudaContext>,
    /// Address of the first.
    pub address: sys::CUdeviceptr,
}

impl Memory {
    /// Words of zeros; at least one.
    pub fn zeros(shared: &Shared, stream: &CudaStream, label: &str, words: usize) -> Result<Memory, DeviceError> {
        let bytes = 4 * words.max(1);
        let context = &shared.context;
        context
            .bind_to_thread()
            .map_err(|error| failed("binding the GPU", error))?;
        // SAFETY: the memory is filled below before anything reads it.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(|error| {
            if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return failed(&format!("allocating {label}"), error);
            }
            let free = result::mem_get_info().map_or(0, |(free, _)| free);
            DeviceError::OutOfMemory {
                backend: BACKEND,
                what: format!("{label} ({bytes} bytes; {free} are free) on GPU {}", shared.info),
            }
        })?;
        let memory = Memory {
            context: Arc::clone(context),
            address,
        };
        // SAFETY: the range has just been allocated with this length.
        unsafe { result::memset_d8_async(address, 0, bytes, stream.cu_stream()) }
            .map_err(|error| failed(&format!("clearing {label}"), error))?;
        Ok(memory)
    }

    /// Address of a word.
    pub fn at(&self, word: usize) -> sys::CUdeviceptr {
        self.address + 4 * word as u64
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A failure on the way out has nobody to tell: the driver reports it at the next call that matters.
        let _ = self.context.bind_to_thread();
        // SAFETY: allocated in `zeros` and freed once; streams that used it are waited for by the driver.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Words of the host that the GPU reads and writes on its own.
pub(super) struct Pinned {
    context: Arc<CudaContext>,
    start: *mut u32,
    words: usize,
}

// SAFETY: the memory belongs to this value alone and may be used from any thread.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Words of zeros; at least one.
    pub fn zeros(shared: &Shared, words: usize) -> Result<Pinned, DeviceError> {
        let words = words.max(1);
        let context = Arc::clone(&shared.context);
        context
            .bind_to_thread()
            .map_err(|error| failed("binding the GPU", error))?;
        // SAFETY: the memory is filled right below.
        let start = unsafe { result::malloc_host(4 * words, 0) };
        let start: *mut u32 = start.map_err(|error| failed("allocating pinned memory", error))?.cast();
        // SAFETY: so many bytes have just been allocated.
        unsafe { std::ptr::write_bytes(start, 0, words) };
        Ok(Pinned { context, start, words })
    }

    /// The words, while no transfer of them is on its way.
    pub fn words(&mut self) -> &mut [u32] {
        // SAFETY: allocated with this length and written in `zeros`; the ring waits for a slot's transfers before its
        // words are touched again.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.words) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.context.bind_to_thread();
        // SAFETY: allocated in `zeros` and freed once; the device has waited for its stream before.
        let _ = unsafe { result::free_host(self.start.cast()) };
    }
}
