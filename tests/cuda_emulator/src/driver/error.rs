//! Error codes of the driver's interface, with what they are called and what is said about them.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::{LazyLock, Mutex};

use crate::finding::{Finding, Kind};

/// A `CUresult`.
pub type Code = i32;

/// `CUDA_SUCCESS`
pub const SUCCESS: Code = 0;
/// `CUDA_ERROR_INVALID_VALUE`
pub const INVALID_VALUE: Code = 1;
/// `CUDA_ERROR_OUT_OF_MEMORY`
pub const OUT_OF_MEMORY: Code = 2;
/// `CUDA_ERROR_NOT_INITIALIZED`
pub const NOT_INITIALIZED: Code = 3;
/// `CUDA_ERROR_INVALID_DEVICE`
pub const INVALID_DEVICE: Code = 101;
/// `CUDA_ERROR_INVALID_CONTEXT`
pub const INVALID_CONTEXT: Code = 201;
/// `CUDA_ERROR_NO_BINARY_FOR_GPU`
pub const NO_BINARY_FOR_GPU: Code = 209;
/// `CUDA_ERROR_INVALID_PTX`
pub const INVALID_PTX: Code = 218;
/// `CUDA_ERROR_FILE_NOT_FOUND`
pub const FILE_NOT_FOUND: Code = 301;
/// `CUDA_ERROR_INVALID_HANDLE`
pub const INVALID_HANDLE: Code = 400;
/// `CUDA_ERROR_NOT_FOUND`
pub const NOT_FOUND: Code = 500;
/// `CUDA_ERROR_NOT_READY`
pub const NOT_READY: Code = 600;
/// `CUDA_ERROR_ILLEGAL_ADDRESS`
pub const ILLEGAL_ADDRESS: Code = 700;
/// `CUDA_ERROR_LAUNCH_TIMEOUT`
pub const LAUNCH_TIMEOUT: Code = 702;
/// `CUDA_ERROR_MISALIGNED_ADDRESS`
pub const MISALIGNED_ADDRESS: Code = 716;
/// `CUDA_ERROR_LAUNCH_FAILED`
pub const LAUNCH_FAILED: Code = 719;
/// `CUDA_ERROR_NOT_SUPPORTED`
pub const NOT_SUPPORTED: Code = 801;
/// `CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`
pub const CAPTURE_UNSUPPORTED: Code = 900;
/// `CUDA_ERROR_STREAM_CAPTURE_INVALIDATED`
pub const CAPTURE_INVALIDATED: Code = 901;
/// `CUDA_ERROR_STREAM_CAPTURE_ISOLATION`
pub const CAPTURE_ISOLATION: Code = 905;
/// `CUDA_ERROR_CAPTURED_EVENT`
pub const CAPTURED_EVENT: Code = 907;
/// `CUDA_ERROR_ILLEGAL_STATE`
pub const ILLEGAL_STATE: Code = 401;

const CODES: &[(Code, &CStr, &CStr)] = &[
    (SUCCESS, c"CUDA_SUCCESS", c"no error"),
    (INVALID_VALUE, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
    (OUT_OF_MEMORY, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (NOT_INITIALIZED, c"CUDA_ERROR_NOT_INITIALIZED", c"cuInit was not called"),
    (INVALID_DEVICE, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
    (
        INVALID_CONTEXT,
        c"CUDA_ERROR_INVALID_CONTEXT",
        c"no context is current in this thread",
    ),
    (
        NO_BINARY_FOR_GPU,
        c"CUDA_ERROR_NO_BINARY_FOR_GPU",
        c"no code that this device can run",
    ),
    (INVALID_PTX, c"CUDA_ERROR_INVALID_PTX", c"the PTX does not load"),
    (FILE_NOT_FOUND, c"CUDA_ERROR_FILE_NOT_FOUND", c"file not found"),
    (INVALID_HANDLE, c"CUDA_ERROR_INVALID_HANDLE", c"invalid handle"),
    (ILLEGAL_STATE, c"CUDA_ERROR_ILLEGAL_STATE", c"not in this state"),
    (NOT_FOUND, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
    (NOT_READY, c"CUDA_ERROR_NOT_READY", c"not ready"),
    (
        ILLEGAL_ADDRESS,
        c"CUDA_ERROR_ILLEGAL_ADDRESS",
        c"an illegal memory access was encountered",
    ),
    (LAUNCH_TIMEOUT, c"CUDA_ERROR_LAUNCH_TIMEOUT", c"the launch ran too long"),
    (
        MISALIGNED_ADDRESS,
        c"CUDA_ERROR_MISALIGNED_ADDRESS",
        c"misaligned address",
    ),
    (LAUNCH_FAILED, c"CUDA_ERROR_LAUNCH_FAILED", c"the launch failed"),
    (NOT_SUPPORTED, c"CUDA_ERROR_NOT_SUPPORTED", c"not supported"),
    (
        CAPTURE_UNSUPPORTED,
        c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        c"not permitted while a stream is captured",
    ),
    (
        CAPTURE_INVALIDATED,
        c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        c"an earlier error ended the capture",
    ),
    (
        CAPTURE_ISOLATION,
        c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
        c"a captured stream depends on work outside",
    ),
    (
        CAPTURED_EVENT,
        c"CUDA_ERROR_CAPTURED_EVENT",
        c"the event was recorded in a captured stream",
    ),
];

/// Why a call failed.
#[derive(Clone, Debug)]
pub struct Error {
    /// The code.
    pub code: Code,
    /// More about it; may be empty.
    pub text: String,
}

impl Error {
    /// With an explanation.
    pub fn new(code: Code, text: impl Into<String>) -> Error {
        Error {
            code,
            text: text.into(),
        }
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Error {
        Error::new(code, "")
    }
}

impl From<&Finding> for Error {
    fn from(finding: &Finding) -> Error {
        let code = match finding.kind {
            Kind::OutOfBounds | Kind::UseAfterFree => ILLEGAL_ADDRESS,
            Kind::Misaligned => MISALIGNED_ADDRESS,
            Kind::Timeout => LAUNCH_TIMEOUT,
            _ => LAUNCH_FAILED,
        };
        Error::new(code, finding.to_string())
    }
}

/// What was said last about each code.
static SAID: LazyLock<Mutex<HashMap<Code, &'static CStr>>> = LazyLock::new(Mutex::default);

/// Remembers an error's text for `cuGetErrorString`, which gives out pointers that stay valid: texts are never freed.
pub fn remember(error: &Error) {
    if error.text.is_empty() {
        return;
    }
    let meaning = entry(error.code).map_or("", |(.., meaning)| meaning.to_str().unwrap_or_default());
    let text = format!("{meaning}: {}", error.text).replace('\0', " ");
    let text = CString::new(text).expect("its NULs are replaced");
    if let Ok(mut said) = SAID.lock() {
        let known = said.get(&error.code).is_some_and(|known| **known == *text);
        if !known {
            said.insert(error.code, Box::leak(text.into_boxed_c_str()));
        }
    }
}

fn entry(code: Code) -> Option<&'static (Code, &'static CStr, &'static CStr)> {
    CODES.iter().find(|(known, ..)| *known == code)
}

/// `cuGetErrorName`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(code: Code, out: *mut *const c_char) -> Code {
    match entry(code) {
        // SAFETY: the caller gives a place for one pointer.
        Some((_, name, _)) => unsafe { super::write(out, name.as_ptr()) },
        None => INVALID_VALUE,
    }
}

/// `cuGetErrorString`: what the code means and what was last said about it.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(code: Code, out: *mut *const c_char) -> Code {
    let said = SAID.lock().ok().and_then(|said| said.get(&code).copied());
    match said.or(entry(code).map(|(.., meaning)| *meaning)) {
        // SAFETY: the caller gives a place for one pointer.
        Some(text) => unsafe { super::write(out, text.as_ptr()) },
        None => INVALID_VALUE,
    }
}
