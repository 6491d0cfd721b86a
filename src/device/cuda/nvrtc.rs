//! NVIDIA's run-time compiler.

use std::ffi::{c_char, c_int};

use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};
use libloading::Library;

use super::library::Wanted;
use crate::device::DeviceError;

static NVRTC: Wanted = Wanted {
    name: "NVRTC",
    variable: "TLM_NVRTC",
    names: NAMES,
    files: FILES,
    remedy: "python3 -m venv .venv && .venv/bin/pip install nvidia-cuda-nvrtc, or set TLM_NVRTC to its file",
};

#[cfg(windows)]
const NAMES: &[&str] = &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];
#[cfg(not(windows))]
const NAMES: &[&str] = &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

#[cfg(windows)]
const FILES: &str = "nvrtc64_*0.dll";
#[cfg(not(windows))]
const FILES: &str = "libnvrtc.so.*";

/// The loaded library. It stays loaded until the process ends.
pub struct Nvrtc {
    path: String,
    version: (i32, i32),
    pub(super) calls: Calls,
}

type Get<T> = unsafe extern "C" fn(nvrtcProgram, *mut T) -> nvrtcResult;

/// Functions of `nvrtc.h`.
pub(super) struct Calls {
    pub create: unsafe extern "C" fn(
        *mut nvrtcProgram,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> nvrtcResult,
    pub compile: unsafe extern "C" fn(nvrtcProgram, c_int, *const *const c_char) -> nvrtcResult,
    pub destroy: unsafe extern "C" fn(*mut nvrtcProgram) -> nvrtcResult,
    pub log_size: Get<usize>,
    pub log: Get<c_char>,
    pub ptx_size: Get<usize>,
    pub ptx: Get<c_char>,
    pub cubin_size: Get<usize>,
    pub cubin: Get<c_char>,
}

impl Nvrtc {
    /// Finds and loads the library.
    ///
    /// # Errors
    /// [`DeviceError::Library`] with all places that were tried.
    pub fn find() -> Result<Nvrtc, DeviceError> {
        NVRTC.find(Nvrtc::load)
    }

    /// File or name that was loaded.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Version: major, minor.
    #[must_use]
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    fn load(path: String) -> Result<Nvrtc, libloading::Error> {
        // SAFETY: the library's initialisers are NVIDIA's; the symbols have the types of nvrtc.h, unchanged since CUDA 11.
        unsafe {
            let library = Library::new(&path)?;
            let calls = Calls {
                create: *library.get(c"nvrtcCreateProgram")?,
                compile: *library.get(c"nvrtcCompileProgram")?,
                destroy: *library.get(c"nvrtcDestroyProgram")?,
                log_size: *library.get(c"nvrtcGetProgramLogSize")?,
                log: *library.get(c"nvrtcGetProgramLog")?,
                ptx_size: *library.get(c"nvrtcGetPTXSize")?,
                ptx: *library.get(c"nvrtcGetPTX")?,
                cubin_size: *library.get(c"nvrtcGetCUBINSize")?,
                cubin: *library.get(c"nvrtcGetCUBIN")?,
            };
            let get_version =
                library.get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> nvrtcResult>(c"nvrtcVersion")?;
            let mut version = (0, 0);
            let _ = get_version(&mut version.0, &mut version.1); // fails for null pointers only
            std::mem::forget(library);
            Ok(Nvrtc { path, version, calls })
        }
    }
}
