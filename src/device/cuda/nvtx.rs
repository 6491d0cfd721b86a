//! Names for NVIDIA's profilers: ranges around launches, so that Nsight shows scope and kernel as every other profile here does.
//!
//! `libnvToolsExt` is loaded where it is found; without it nothing is named, and nothing else changes. Ranges are pushed where
//! launches are put on the stream one by one, which is how they are timed; a replayed graph has none.

use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

use libloading::Library;

/// Names under which the library is installed.
const NAMES: [&str; 3] = ["libnvToolsExt.so.1", "libnvToolsExt.so", "nvToolsExt64_1.dll"];

/// The library's two functions.
pub(super) struct Nvtx {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
    // Behind the functions, which point into it.
    _library: Library,
}

impl Nvtx {
    /// The library of this machine.
    pub fn find() -> Option<&'static Nvtx> {
        static FOUND: OnceLock<Option<Nvtx>> = OnceLock::new();
        FOUND
            .get_or_init(|| NAMES.iter().find_map(|name| Nvtx::load(name)))
            .as_ref()
    }

    fn load(name: &str) -> Option<Nvtx> {
        // SAFETY: the library's initialisers do nothing but look for a profiler; the functions have the signatures of
        // nvToolsExt.h.
        unsafe {
            let library = Library::new(name).ok()?;
            let push = *library.get(b"nvtxRangePushA\0").ok()?;
            let pop = *library.get(b"nvtxRangePop\0").ok()?;
            Some(Nvtx {
                push,
                pop,
                _library: library,
            })
        }
    }

    /// Runs `body` in a range of this name.
    pub fn range<T>(&self, name: &str, body: impl FnOnce() -> T) -> T {
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: the string ends with a zero and outlives the call, which copies it.
        unsafe { (self.push)(name.as_ptr()) };
        let result = body();
        // SAFETY: takes nothing.
        unsafe { (self.pop)() };
        result
    }
}

/// Runs `body` in a range of this name where a library was found.
pub(super) fn range<T>(nvtx: Option<&Nvtx>, name: &str, body: impl FnOnce() -> T) -> T {
    match nvtx {
        Some(nvtx) => nvtx.range(name, body),
        None => body(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library with the two functions that writes down what it is told.
    const SOURCE: &str = "#include <stdlib.h>\n#include <string.h>\nstatic char log_[256];\n\
        int nvtxRangePushA(const char *name) { strcat(log_, \"+\"); strcat(log_, name); return 0; }\n\
        int nvtxRangePop(void) { strcat(log_, \"-\"); return 0; }\n\
        const char *written(void) { return log_; }\n";

    #[cfg(target_os = "linux")]
    #[test]
    fn ranges_enclose_what_runs_in_them() {
        let directory = tempfile::tempdir().unwrap();
        let [source, library] = ["nvtx.c", "libnvtx.so"].map(|name| directory.path().join(name));
        std::fs::write(&source, SOURCE).unwrap();
        let compiled = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(compiled.unwrap().success());
        let nvtx = Nvtx::load(library.to_str().unwrap()).unwrap();
        let value = nvtx.range("layer0/attention: gemm.forward", || nvtx.range("inner", || 7));
        assert_eq!((value, range(None, "nobody listens", || 8)), (7, 8));
        let written: unsafe extern "C" fn() -> *const c_char = unsafe { *nvtx._library.get(b"written\0").unwrap() };
        let log = unsafe { std::ffi::CStr::from_ptr(written()) };
        assert_eq!(log.to_str().unwrap(), "+layer0/attention: gemm.forward+inner--");
        assert!(Nvtx::load("/nowhere/libnvToolsExt.so").is_none());
    }
}
