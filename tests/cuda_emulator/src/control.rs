//! The side of the tests: finding and loading the library, and its settings, findings and counters.
//!
//! A test of another crate of the workspace has this crate among its dev-dependencies. Cargo then builds the library
//! `libcuda_emulator.so` beside the test's executable; it works on Linux. Before the first call of cudarc:
//!
//! ```no_run
//! use cuda_emulator::control::Control;
//!
//! let control = Control::find().expect("cargo builds the library beside the tests");
//! control.set_seed(7);
//! control.set_counters(true);
//! // cudarc finds libcuda.so.1, because a library of that name is loaded
//! println!("{}", control.findings().join("\n"));
//! ```
//!
//! The settings can also stand in the environment: `CUDA_EMULATOR_SEED`, `_CHECKED`, `_LAZY`, `_COUNTERS`, `_THREADS`,
//! `_STEP_LIMIT` and `_CAPABILITY`, each a number, read at `cuInit`.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};

use libloading::Library;

/// File name of the library as cargo builds it.
pub const FILE_NAME: &str = "libcuda_emulator.so";

/// Why the library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It is not there.
    #[error("no {FILE_NAME} in {}", places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", "))]
    NotFound {
        /// Folders that were searched.
        places: Vec<PathBuf>,
    },
    /// It does not load, or is another library.
    #[error("{}: {source}", path.display())]
    Load {
        /// File.
        path: PathBuf,
        /// Why.
        source: libloading::Error,
    },
    /// A driver is loaded already, and it is not the emulator.
    #[error("libcuda.so.1 is loaded already, from elsewhere: load the emulator before the first call of cudarc")]
    OtherDriver,
}

/// The loaded library. It stays loaded until the process ends.
pub struct Control {
    set: unsafe extern "C" fn(*const c_char, u64) -> c_int,
    findings: unsafe extern "C" fn() -> *mut c_char,
    counters: unsafe extern "C" fn() -> *mut c_char,
    free_text: unsafe extern "C" fn(*mut c_char),
    reset: unsafe extern "C" fn() -> c_int,
    pending: unsafe extern "C" fn() -> u64,
    name_memory: unsafe extern "C" fn(u64, u64, *const c_char) -> c_int,
}

impl Control {
    /// Loads the library that lies beside the running executable, a folder above it, or in `deps` there.
    ///
    /// # Errors
    /// [`ControlError`]
    pub fn find() -> Result<Control, ControlError> {
        let executable = std::env::current_exe().unwrap_or_default();
        let mut places: Vec<PathBuf> = executable.ancestors().skip(1).take(2).map(Path::to_path_buf).collect();
        places.extend(places.last().map(|folder| folder.join("deps")));
        match places
            .iter()
            .map(|place| place.join(FILE_NAME))
            .find(|path| path.is_file())
        {
            Some(path) => Control::load(&path),
            None => Err(ControlError::NotFound { places }),
        }
    }

    /// Loads the library from an absolute path.
    ///
    /// # Errors
    /// [`ControlError`]
    pub fn load(path: &Path) -> Result<Control, ControlError> {
        let error = |source| ControlError::Load {
            path: path.to_path_buf(),
            source,
        };
        // SAFETY: the library is this crate's; its functions have the types given here.
        unsafe {
            let library = Library::new(path).map_err(error)?;
            let control = Control {
                set: *library.get(c"cuda_emulator_set").map_err(error)?,
                findings: *library.get(c"cuda_emulator_findings").map_err(error)?,
                counters: *library.get(c"cuda_emulator_counters").map_err(error)?,
                free_text: *library.get(c"cuda_emulator_free_text").map_err(error)?,
                reset: *library.get(c"cuda_emulator_reset").map_err(error)?,
                pending: *library.get(c"cuda_emulator_pending").map_err(error)?,
                name_memory: *library.get(c"cuda_emulator_name_memory").map_err(error)?,
            };
            std::mem::forget(library);
            // What cudarc will get under the driver's name.
            let driver = Library::new("libcuda.so.1").map_err(error)?;
            if driver.get::<unsafe extern "C" fn()>(c"cuda_emulator_set").is_err() {
                return Err(ControlError::OtherDriver);
            }
            std::mem::forget(driver);
            Ok(control)
        }
    }

    fn set(&self, name: &CStr, value: u64) {
        // SAFETY: the library is loaded, and the name ends with NUL.
        let code = unsafe { (self.set)(name.as_ptr(), value) };
        assert_eq!(code, 0, "{name:?} cannot be {value}");
    }

    /// Order of warps and lanes, and of the arrival of asynchronous copies: 0 is the order of the text, others are random.
    pub fn set_seed(&self, seed: u64) {
        self.set(c"seed", seed);
    }

    /// Whether races and uninitialised reads are looked for; bounds, barriers and masks always are. On by default.
    pub fn set_checked(&self, on: bool) {
        self.set(c"checked", u64::from(on));
    }

    /// Whether work waits until a synchronisation needs it. Off by default.
    pub fn set_lazy(&self, on: bool) {
        self.set(c"lazy", u64::from(on));
    }

    /// Whether requests and instructions are counted by line. Off by default.
    pub fn set_counters(&self, on: bool) {
        self.set(c"counters", u64::from(on));
    }

    /// Threads of the host that run blocks. All by default.
    pub fn set_threads(&self, threads: usize) {
        self.set(c"threads", threads as u64);
    }

    /// Instructions of a block's warps after which a launch counts as hung.
    pub fn set_step_limit(&self, instructions: u64) {
        self.set(c"step_limit", instructions);
    }

    /// Compute capability of the device as one number: 80 (by default) or 75, whose blocks have less shared memory and which
    /// takes no later PTX. A device that was opened before knows itself as it was.
    pub fn set_capability(&self, capability: u64) {
        self.set(c"capability", capability);
    }

    /// What was found since the last reset.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        self.text(self.findings).lines().map(str::to_string).collect()
    }

    /// What was counted since the last reset: by kernel its launches, blocks, instructions of threads by class and, where
    /// counters were on, by line of source requests, sectors, wavefronts and instructions.
    #[must_use]
    pub fn counters(&self) -> serde_json::Value {
        serde_json::from_str(&self.text(self.counters)).unwrap_or_default()
    }

    /// Forgets findings, the error that stays, counters, and work that is queued.
    pub fn reset(&self) {
        // SAFETY: the library is loaded.
        unsafe { (self.reset)() };
    }

    /// Pieces of work that are queued and not done.
    #[must_use]
    pub fn pending(&self) -> u64 {
        // SAFETY: the library is loaded.
        unsafe { (self.pending)() }
    }

    /// Gives a part of device memory a name, for messages about it.
    pub fn name_memory(&self, start: u64, bytes: u64, name: &str) {
        let name = CString::new(name.replace('\0', " ")).unwrap_or_default();
        // SAFETY: the library is loaded, and the name ends with NUL.
        unsafe { (self.name_memory)(start, bytes, name.as_ptr()) };
    }

    fn text(&self, get: unsafe extern "C" fn() -> *mut c_char) -> String {
        // SAFETY: the library gives a text that ends with NUL and is freed once, after it is copied.
        unsafe {
            let text = get();
            let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
            (self.free_text)(text);
            copy
        }
    }
}
