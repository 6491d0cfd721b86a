//! The driver's interface: the `cu...` functions that cudarc calls, over one lock.
//!
//! Handles are numbers that only mean something here. A finding is an error that stays: every later call returns it, as
//! after a crashed kernel on a device, until [`control`] resets it.

mod control;
mod device;
mod error;
mod function;
mod graph;
mod memory;
mod module;
mod stream;
mod work;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::counters::Counts;
use crate::execute::Settings;
use crate::finding::Finding;
use crate::memory::Memory;
use crate::ptx::Kernel;
use error::{Code, Error, INVALID_CONTEXT, INVALID_VALUE, NOT_INITIALIZED, SUCCESS};

pub use work::multiply;

/// Name of the device.
pub const NAME: &CStr = c"PTX interpreter (not a GPU)";
/// Multiprocessors that the device claims.
pub const MULTIPROCESSORS: u32 = 108;
/// Shared memory that a block may have.
pub const SHARED_BYTES: u32 = 48 << 10;

/// What the device claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    /// Of capability 7.5.
    Turing,
    /// Of capability 8.0.
    Ampere,
}

impl Generation {
    /// Of this capability as one number, 80 for 8.0.
    fn of(capability: u64) -> Option<Generation> {
        let all = [Generation::Turing, Generation::Ampere];
        all.into_iter()
            .find(|generation| u64::from(generation.capability()) == capability)
    }

    const fn capability(self) -> u32 {
        match self {
            Generation::Turing => 75,
            Generation::Ampere => 80,
        }
    }

    /// Shared memory that a block may have on request.
    const fn shared_on_request(self) -> u32 {
        match self {
            Generation::Turing => 64 << 10,
            Generation::Ampere => 163 << 10,
        }
    }

    /// Shared memory of a multiprocessor.
    const fn shared_per_multiprocessor(self) -> u32 {
        match self {
            Generation::Turing => 64 << 10,
            Generation::Ampere => 164 << 10,
        }
    }

    /// Threads of a multiprocessor.
    const fn threads_per_multiprocessor(self) -> u32 {
        match self {
            Generation::Turing => 1024,
            Generation::Ampere => 2048,
        }
    }

    /// Blocks of a multiprocessor.
    const fn blocks_per_multiprocessor(self) -> u32 {
        match self {
            Generation::Turing => 16,
            Generation::Ampere => 32,
        }
    }
}

/// Result of a call.
type Called<T = ()> = Result<T, Error>;

/// Everything behind the handles.
struct Driver {
    initialized: bool,
    generation: Generation,
    settings: Settings,
    lazy: bool,
    threads: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
    memory: Memory,
    next_handle: usize,
    modules: HashMap<usize, module::Loaded>,
    functions: HashMap<usize, function::Function>,
    streams: BTreeMap<usize, stream::Stream>,
    events: HashMap<usize, stream::Event>,
    graphs: HashMap<usize, graph::Graph>,
    pools: Vec<usize>,
    /// Number of the next piece of work.
    sequence: u64,
    /// The error that stays.
    sticky: Option<Error>,
    findings: Vec<Finding>,
    counts: BTreeMap<String, (Arc<Kernel>, Counts)>,
}

impl Driver {
    fn new() -> Driver {
        Driver {
            initialized: false,
            generation: Generation::Ampere,
            settings: Settings::default(),
            lazy: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            pool: None,
            memory: Memory::default(),
            next_handle: 0x1000,
            modules: HashMap::new(),
            functions: HashMap::new(),
            streams: BTreeMap::from([(0, stream::Stream::legacy())]),
            events: HashMap::new(),
            graphs: HashMap::new(),
            pools: Vec::new(),
            sequence: 0,
            sticky: None,
            findings: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn handle(&mut self) -> usize {
        self.next_handle += 16;
        self.next_handle
    }

    /// Notes what was found; the error that stays from now on.
    fn found(&mut self, finding: Finding) -> Error {
        let error = Error::from(&finding);
        self.findings.push(finding);
        self.sticky.get_or_insert(error).clone()
    }

    fn pool(&mut self) -> Called<Arc<rayon::ThreadPool>> {
        if let Some(pool) = &self.pool {
            return Ok(pool.clone());
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build();
        let pool = Arc::new(pool.map_err(|error| Error::new(error::OUT_OF_MEMORY, error.to_string()))?);
        self.pool = Some(pool.clone());
        Ok(pool)
    }
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| Mutex::new(Driver::new()));

thread_local! {
    /// The thread's current context.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

fn driver() -> MutexGuard<'static, Driver> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The code of a call's result, its text remembered.
fn code(result: Called) -> Code {
    match result {
        Ok(()) => SUCCESS,
        Err(error) => {
            error::remember(&error);
            error.code
        }
    }
}

/// A call that needs nothing but the driver.
fn call(f: impl FnOnce(&mut Driver) -> Called) -> Code {
    code(f(&mut driver()))
}

/// A call that needs a device: after cuInit, without an error that stays.
fn call_initialized(f: impl FnOnce(&mut Driver) -> Called) -> Code {
    call(|driver| {
        if !driver.initialized {
            return Err(NOT_INITIALIZED.into());
        }
        match &driver.sticky {
            Some(error) => Err(error.clone()),
            None => f(driver),
        }
    })
}

/// A call that needs a current context.
fn call_in_context(f: impl FnOnce(&mut Driver) -> Called) -> Code {
    call_initialized(|driver| match CURRENT.get() {
        0 => Err(INVALID_CONTEXT.into()),
        _ => f(driver),
    })
}

/// Writes a result where the caller wants it.
///
/// # Safety
/// `to` is null or a place for a value.
unsafe fn write<T>(to: *mut T, value: T) -> Code {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: not null, and so a place for a value.
    unsafe { to.write(value) };
    SUCCESS
}

/// Like [`write()`], within a call.
///
/// # Safety
/// `to` is null or a place for a value.
unsafe fn give<T>(to: *mut T, value: T) -> Called {
    // SAFETY: as the caller promises.
    match unsafe { write(to, value) } {
        SUCCESS => Ok(()),
        code => Err(code.into()),
    }
}

/// A text of the caller's.
///
/// # Safety
/// `text` is null or ends with NUL.
unsafe fn read_text(text: *const c_char) -> Called<String> {
    if text.is_null() {
        return Err(INVALID_VALUE.into());
    }
    // SAFETY: not null, and so a text that ends with NUL.
    Ok(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// `cuInit`: reads the environment, see [`crate::control`].
#[unsafe(no_mangle)]
extern "C" fn cuInit(flags: u32) -> Code {
    call(|driver| {
        if flags != 0 {
            return Err(INVALID_VALUE.into());
        }
        if !driver.initialized {
            driver.initialized = true;
            control::read_environment(driver)?;
        }
        Ok(())
    })
}

/// `cuDriverGetVersion`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut i32) -> Code {
    // SAFETY: the caller gives a place for a number.
    unsafe { write(version, 13000) }
}

/// `cuGetExportTable`: there are no private tables. NVRTC looks for the function in a driver that is loaded, and crashes
/// if it is missing.
#[unsafe(no_mangle)]
extern "C" fn cuGetExportTable(_table: *mut *const std::ffi::c_void, _id: *const std::ffi::c_void) -> Code {
    error::NOT_FOUND
}
