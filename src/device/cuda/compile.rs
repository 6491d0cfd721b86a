//! Compiling a kernel file for an architecture.

use std::ffi::{CString, c_char, c_int};

use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};

use super::{BACKEND, Nvrtc};
use crate::device::DeviceError;
use crate::kernel::{CUDA_COMMON, Precision, Source};

/// A compiled file: all its entry points.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// PTX, for drivers that are newer than the compiler and for tests.
    pub ptx: String,
    /// Machine code for exactly the architecture asked for.
    pub cubin: Vec<u8>,
    /// Warnings and ptxas's account of registers, spills and shared memory.
    pub log: String,
}

impl Nvrtc {
    /// Compiles a source's file with a variant's defines for `architecture` (80: `sm_80`); `STORED` is the name of the
    /// type of stored elements. The files of `kernels/common/` can be included; there are no other headers.
    ///
    /// # Errors
    /// [`DeviceError::Compile`] with the compiler's log, [`DeviceError::Backend`] if the compiler itself fails.
    pub fn compile(
        &self,
        source: &Source,
        defines: &[(String, u32)],
        precision: Precision,
        architecture: u32,
    ) -> Result<Compiled, DeviceError> {
        let headers: Vec<CString> = CUDA_COMMON.iter().map(|file| text(file.text)).collect();
        let names: Vec<CString> = CUDA_COMMON.iter().map(|file| text(file.name)).collect();
        let (headers, names) = (pointers(&headers), pointers(&names));
        let (code, name) = (text(source.file.text), text(source.file.name));
        let mut program = Program {
            nvrtc: self,
            handle: std::ptr::null_mut(),
        };
        // SAFETY: all strings end with NUL and outlive the call; the arrays have as many entries as the count says.
        let created = unsafe {
            (self.calls.create)(
                &mut program.handle,
                code.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                headers.as_ptr(),
                names.as_ptr(),
            )
        };
        self.succeeded(created, "nvrtcCreateProgram")?;

        let mut options = vec![
            text(&format!("--gpu-architecture=sm_{architecture}")),
            text("--std=c++17"),
            text("--generate-line-info"),
            text("--ptxas-options=-v"),
        ];
        options.push(text(&format!("--define-macro=STORED={}", precision.name())));
        for (name, value) in defines {
            options.push(text(&format!("--define-macro={name}={value}")));
        }
        let options = pointers(&options);
        // SAFETY: the program was created; the options end with NUL and outlive the call.
        let compiled = unsafe { (self.calls.compile)(program.handle, options.len() as c_int, options.as_ptr()) };
        let log = program.bytes(self.calls.log_size, self.calls.log, "nvrtcGetProgramLog")?;
        let log = readable(log);
        if compiled != nvrtcResult::NVRTC_SUCCESS {
            return Err(DeviceError::Compile {
                backend: BACKEND,
                file: source.file.name,
                log: format!("({compiled:?}, sm_{architecture}, NVRTC {:?})\n{log}", self.version()),
            });
        }
        let ptx = program.bytes(self.calls.ptx_size, self.calls.ptx, "nvrtcGetPTX")?;
        Ok(Compiled {
            ptx: readable(ptx),
            cubin: program.bytes(self.calls.cubin_size, self.calls.cubin, "nvrtcGetCUBIN")?,
            log,
        })
    }

    fn succeeded(&self, result: nvrtcResult, call: &str) -> Result<(), DeviceError> {
        if result == nvrtcResult::NVRTC_SUCCESS {
            return Ok(());
        }
        Err(DeviceError::Backend {
            backend: BACKEND,
            what: format!("{call} of {} failed: {result:?}", self.path()),
        })
    }
}

/// An NVRTC program, destroyed when dropped.
struct Program<'a> {
    nvrtc: &'a Nvrtc,
    handle: nvrtcProgram,
}

impl Program<'_> {
    /// One of the program's results.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(nvrtcProgram, *mut usize) -> nvrtcResult,
        get: unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> nvrtcResult,
        call: &str,
    ) -> Result<Vec<u8>, DeviceError> {
        let mut count = 0;
        // SAFETY: the program exists, and the result is a place for one number.
        self.nvrtc.succeeded(unsafe { size(self.handle, &mut count) }, call)?;
        let mut bytes = vec![0u8; count];
        // SAFETY: the program exists, and the buffer is as long as the library asked for.
        self.nvrtc
            .succeeded(unsafe { get(self.handle, bytes.as_mut_ptr().cast()) }, call)?;
        Ok(bytes)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: created by this library and destroyed once.
            let _ = unsafe { (self.nvrtc.calls.destroy)(&mut self.handle) };
        }
    }
}

fn text(text: &str) -> CString {
    CString::new(text).expect("sources and options contain no NUL")
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

/// Text without the NUL that ends it.
fn readable(bytes: Vec<u8>) -> String {
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').trim().to_string()
}
