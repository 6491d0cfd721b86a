//! NVIDIA's run-time compiler, found and loaded at run time.
//!
//! Looked for in this order; the first that loads is used, and [`Nvrtc::path`] says which:
//!
//! 1. the file that the environment variable `TLM_NVRTC` names, and then nowhere else
//! 2. the loader's own path
//! 3. Python packages of a virtual environment (`pip install nvidia-cuda-nvrtc`): `$VIRTUAL_ENV`, `.venv`
//! 4. CUDA toolkits in `/usr/local`
//!
//! The functions are looked up here instead of through `cudarc::nvrtc`: that one searches by name alone, so that it
//! cannot be told which file to use, and panics where it finds none.

use std::ffi::{c_char, c_int};
use std::path::PathBuf;

use cudarc::nvrtc::sys::{nvrtcProgram, nvrtcResult};
use libloading::Library;

use super::BACKEND;
use crate::device::DeviceError;

/// Environment variable that names the library's file.
const VARIABLE: &str = "TLM_NVRTC";

#[cfg(windows)]
const NAMES: &[&str] = &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"];
#[cfg(not(windows))]
const NAMES: &[&str] = &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

#[cfg(windows)]
const IN_PACKAGES: &str = "Lib/site-packages/nvidia/*/bin/nvrtc64_*0.dll";
#[cfg(not(windows))]
const IN_PACKAGES: &str = "lib/python*/site-packages/nvidia/*/lib/libnvrtc.so.*";

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
        let mut tried = String::new();
        for path in candidates() {
            match Nvrtc::load(path.to_string_lossy().into_owned()) {
                Ok(nvrtc) => return Ok(nvrtc),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
                    tried += &format!("\n  {}: {cause}", path.display());
                }
            }
        }
        Err(DeviceError::Library {
            backend: BACKEND,
            library: "NVRTC",
            tried,
            remedy: "python3 -m venv .venv && .venv/bin/pip install nvidia-cuda-nvrtc, or set TLM_NVRTC to its file",
        })
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

fn candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return vec![path.into()];
    }
    let mut paths: Vec<PathBuf> = NAMES.iter().map(PathBuf::from).collect();
    let environments = std::env::var("VIRTUAL_ENV").into_iter().chain([".venv".to_string()]);
    let patterns = environments.map(|environment| format!("{environment}/{IN_PACKAGES}"));
    for pattern in patterns.chain(["/usr/local/cuda*/lib64/libnvrtc.so.*".to_string()]) {
        let found = glob::glob(&pattern).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = found.collect();
        found.sort();
        paths.extend(found.into_iter().rev()); // newest first
    }
    paths
}
