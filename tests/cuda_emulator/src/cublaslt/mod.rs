//! A model of cuBLASLt: the functions that a caller of `cublasLtMatmul` needs, with the meaning that NVIDIA's documentation
//! gives them, on the interpreter's memory and streams. It is exported by the same library, which a test names as the file
//! of cuBLASLt.
//!
//! ```text
//! D = alpha op(A) op(B) + beta C (+ bias)     column major; op(A) of m x k, op(B) of k x n, C and D of m x n
//! ```
//!
//! What is modelled: column order without batches, transposes, f32 accumulation of f32, f16 and bf16, the epilogue of a
//! bias (one number for each of the m rows, in D's type), scalars on the host, a workspace. Everything else is refused
//! with the status of what is not supported, so that a caller cannot rely on it. A product overwrites the workspace that its
//! algorithm needs, and its operands are checked like a kernel's accesses. An algorithm must come from the heuristic.

mod product;

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::driver;
use product::{Layout, Operation};

pub use product::Product;

/// A `cublasStatus_t`.
type Status = u32;

const SUCCESS: Status = 0;
const INVALID_VALUE: Status = 7;
const EXECUTION_FAILED: Status = 13;
const NOT_SUPPORTED: Status = 15;

/// Version that the model claims.
const VERSION: usize = 130_000;
/// Marks an algorithm as the heuristic's.
const ALGORITHM: u64 = 0x6d6f_6465_6c21;
/// Workspace that an algorithm of the heuristic needs, if so much is allowed.
const WORKSPACE: u64 = 1 << 16;

/// What is behind a handle.
#[derive(Clone, Copy)]
enum Object {
    Library,
    Operation(Operation),
    Layout(Layout),
    Preference { workspace: u64 },
}

#[derive(Default)]
struct Objects {
    last: usize,
    by_handle: HashMap<usize, Object>,
}

static OBJECTS: LazyLock<Mutex<Objects>> = LazyLock::new(Mutex::default);

fn objects() -> MutexGuard<'static, Objects> {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(handle: usize) -> Result<Object, Status> {
    objects().by_handle.get(&handle).copied().ok_or(INVALID_VALUE)
}

fn layout(handle: usize) -> Result<Layout, Status> {
    match find(handle)? {
        Object::Layout(layout) => Ok(layout),
        _ => Err(INVALID_VALUE),
    }
}

fn operation(handle: usize) -> Result<Operation, Status> {
    match find(handle)? {
        Object::Operation(operation) => Ok(operation),
        _ => Err(INVALID_VALUE),
    }
}

fn status(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(SUCCESS)
}

/// Writes the handle of a new object.
///
/// # Safety
/// `to` is null or a place for a handle.
unsafe fn create(to: *mut usize, object: Object) -> Status {
    if to.is_null() {
        return INVALID_VALUE;
    }
    let mut objects = objects();
    objects.last += 16;
    let handle = objects.last;
    objects.by_handle.insert(handle, object);
    // SAFETY: not null, and so a place for a handle.
    unsafe { to.write(handle) };
    SUCCESS
}

fn destroy(handle: usize) -> Status {
    match objects().by_handle.remove(&handle) {
        Some(_) => SUCCESS,
        None => INVALID_VALUE,
    }
}

/// An attribute's value, whose size is what the documentation says.
///
/// # Safety
/// `from` has `size` bytes.
unsafe fn value<T: Copy>(from: *const c_void, size: usize) -> Result<T, Status> {
    if from.is_null() || size != size_of::<T>() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: there are as many bytes as the type has.
    Ok(unsafe { from.cast::<T>().read_unaligned() })
}

/// `cublasLtGetVersion`
#[unsafe(no_mangle)]
extern "C" fn cublasLtGetVersion() -> usize {
    VERSION
}

/// `cublasLtCreate`
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtCreate(handle: *mut usize) -> Status {
    // SAFETY: the caller gives a place for a handle.
    unsafe { create(handle, Object::Library) }
}

/// `cublasLtDestroy`
#[unsafe(no_mangle)]
extern "C" fn cublasLtDestroy(handle: usize) -> Status {
    destroy(handle)
}

/// `cublasLtMatmulDescCreate`
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulDescCreate(handle: *mut usize, compute: u32, scale: u32) -> Status {
    match Operation::new(compute, scale) {
        // SAFETY: the caller gives a place for a handle.
        Some(operation) => unsafe { create(handle, Object::Operation(operation)) },
        None => NOT_SUPPORTED,
    }
}

/// `cublasLtMatmulDescDestroy`
#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescDestroy(handle: usize) -> Status {
    destroy(handle)
}

/// `cublasLtMatmulDescSetAttribute`
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    handle: usize,
    attribute: u32,
    from: *const c_void,
    size: usize,
) -> Status {
    const TRANSPOSE_A: u32 = 3;
    const TRANSPOSE_B: u32 = 4;
    const EPILOGUE: u32 = 7;
    const BIAS_POINTER: u32 = 8;
    let set = || {
        let mut operation = operation(handle)?;
        // SAFETY: the caller gives as many bytes as it says.
        unsafe {
            match attribute {
                TRANSPOSE_A => {
                    operation.transposed[0] = product::transposed(value(from, size)?).ok_or(NOT_SUPPORTED)?
                }
                TRANSPOSE_B => {
                    operation.transposed[1] = product::transposed(value(from, size)?).ok_or(NOT_SUPPORTED)?
                }
                EPILOGUE => operation.adds_bias = product::adds_bias(value(from, size)?).ok_or(NOT_SUPPORTED)?,
                BIAS_POINTER => operation.bias = value(from, size)?,
                _ => return Err(NOT_SUPPORTED),
            }
        }
        objects().by_handle.insert(handle, Object::Operation(operation));
        Ok(())
    };
    status(set())
}

/// `cublasLtMatrixLayoutCreate`
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatrixLayoutCreate(
    handle: *mut usize,
    data: u32,
    rows: u64,
    columns: u64,
    leading: i64,
) -> Status {
    match Layout::new(data, rows, columns, leading) {
        // SAFETY: the caller gives a place for a handle.
        Ok(layout) => unsafe { create(handle, Object::Layout(layout)) },
        Err(refused) => refused,
    }
}

/// `cublasLtMatrixLayoutDestroy`
#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutDestroy(handle: usize) -> Status {
    destroy(handle)
}

/// `cublasLtMatmulPreferenceCreate`: without a workspace unless one is allowed.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulPreferenceCreate(handle: *mut usize) -> Status {
    // SAFETY: the caller gives a place for a handle.
    unsafe { create(handle, Object::Preference { workspace: 0 }) }
}

/// `cublasLtMatmulPreferenceDestroy`
#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceDestroy(handle: usize) -> Status {
    destroy(handle)
}

/// `cublasLtMatmulPreferenceSetAttribute`
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    handle: usize,
    attribute: u32,
    from: *const c_void,
    size: usize,
) -> Status {
    const WORKSPACE_BYTES: u32 = 1;
    const REDUCTION_SCHEMES: u32 = 3;
    const ALL_SCHEMES: u32 = 7;
    let set = || {
        let Object::Preference { .. } = find(handle)? else {
            return Err(INVALID_VALUE);
        };
        // SAFETY: the caller gives as many bytes as it says.
        unsafe {
            match attribute {
                WORKSPACE_BYTES => {
                    let workspace = value(from, size)?;
                    objects().by_handle.insert(handle, Object::Preference { workspace });
                }
                // Sums are never split here, which every mask allows.
                REDUCTION_SCHEMES if value::<u32>(from, size)? <= ALL_SCHEMES => {}
                REDUCTION_SCHEMES => return Err(INVALID_VALUE),
                _ => return Err(NOT_SUPPORTED),
            }
        }
        Ok(())
    };
    status(set())
}

/// A `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
struct Choice {
    algorithm: [u64; 8],
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// `cublasLtMatmulAlgoGetHeuristic`: the one algorithm that there is.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    library: usize,
    operation: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    preference: usize,
    requested: c_int,
    choices: *mut Choice,
    found: *mut c_int,
) -> Status {
    let choose = || {
        let (Object::Library, Object::Preference { workspace }) = (find(library)?, find(preference)?) else {
            return Err(INVALID_VALUE);
        };
        if requested < 1 || choices.is_null() || found.is_null() {
            return Err(INVALID_VALUE);
        }
        let layouts = [layout(a)?, layout(b)?, layout(c)?, layout(d)?];
        self::operation(operation)?.check(&layouts)?;
        let workspace = workspace.min(WORKSPACE);
        let choice = Choice {
            algorithm: [ALGORITHM, workspace, 0, 0, 0, 0, 0, 0],
            workspace: workspace as usize,
            state: SUCCESS,
            waves: 1.0,
            reserved: [0; 4],
        };
        // SAFETY: neither is null, and there is room for at least one.
        unsafe {
            choices.write(choice);
            found.write(1);
        }
        Ok(())
    };
    status(choose())
}

/// `cublasLtMatmul`
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmul(
    library: usize,
    operation: usize,
    alpha: *const f32,
    a: u64,
    layout_a: usize,
    b: u64,
    layout_b: usize,
    beta: *const f32,
    c: u64,
    layout_c: usize,
    d: u64,
    layout_d: usize,
    algorithm: *const [u64; 8],
    workspace: u64,
    workspace_bytes: usize,
    stream: usize,
) -> Status {
    let multiply = || {
        let Object::Library = find(library)? else {
            return Err(INVALID_VALUE);
        };
        if alpha.is_null() || beta.is_null() || algorithm.is_null() {
            return Err(INVALID_VALUE);
        }
        let layouts = [
            layout(layout_a)?,
            layout(layout_b)?,
            layout(layout_c)?,
            layout(layout_d)?,
        ];
        let operation = self::operation(operation)?;
        operation.check(&layouts)?;
        // In place, C and D are laid out alike.
        if c == d && layouts[2] != layouts[3] {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null; scalars are f32, the algorithm is of eight words.
        let (alpha, beta, [mark, needed, ..]) = unsafe { (alpha.read(), beta.read(), algorithm.read()) };
        if mark != ALGORITHM || needed > workspace_bytes as u64 {
            return Err(INVALID_VALUE);
        }
        let product = Product {
            operation,
            layouts,
            addresses: [a, b, c, d],
            alpha,
            beta,
            workspace: (workspace, needed as usize),
        };
        match driver::multiply(stream, product) {
            true => Ok(()),
            false => Err(EXECUTION_FAILED),
        }
    };
    status(multiply())
}
