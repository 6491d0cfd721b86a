//! Devices and contexts: there is one device, and contexts differ by their handle only.

use std::ffi::{c_char, c_int, c_void};

use super::error::{Code, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE};
use super::{
    CURRENT, Called, Generation, MULTIPROCESSORS, NAME, SHARED_BYTES, call, call_in_context, call_initialized, give,
};
use crate::memory::TOTAL;

/// The primary context.
const PRIMARY: usize = 0x100;

/// Limits of a block and a grid.
pub const MAX_THREADS: u32 = 1024;
/// Threads of a block by dimension.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Blocks of a grid by dimension.
pub const MAX_GRID: [u32; 3] = [0x7fff_ffff, 65535, 65535];

fn check(device: c_int) -> Called {
    if device == 0 {
        Ok(())
    } else {
        Err(INVALID_DEVICE.into())
    }
}

/// `cuDeviceGetCount`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> Code {
    // SAFETY: the caller gives a place for a number.
    call_initialized(|_| unsafe { give(count, 1) })
}

/// `cuDeviceGet`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> Code {
    call_initialized(|_| {
        check(ordinal)?;
        // SAFETY: the caller gives a place for a number.
        unsafe { give(device, 0) }
    })
}

/// `cuDeviceGetName`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) -> Code {
    call_initialized(|_| {
        check(device)?;
        let text = NAME.to_bytes_with_nul();
        if name.is_null() || (length as usize) < text.len() {
            return Err(INVALID_VALUE.into());
        }
        // SAFETY: the caller gives `length` bytes, which is enough.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len()) };
        Ok(())
    })
}

/// `cuDeviceTotalMem`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> Code {
    call_initialized(|_| {
        check(device)?;
        // SAFETY: the caller gives a place for a number.
        unsafe { give(bytes, TOTAL) }
    })
}

/// `cuDeviceGetUuid`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) -> Code {
    call_initialized(|_| {
        check(device)?;
        // SAFETY: the caller gives a place for 16 bytes.
        unsafe { give(uuid, *b"PTX interpreter\0") }
    })
}

/// `cuDeviceGetUuid` of older versions.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuDeviceGetUuid_v2(uuid, device) }
}

/// Attributes by their number in `CUdevice_attribute`. What is not listed is 0: there is none of it.
fn attribute(generation: Generation, number: c_int) -> u32 {
    match number {
        1 => MAX_THREADS,
        2..=4 => MAX_BLOCK[number as usize - 2],
        5..=7 => MAX_GRID[number as usize - 5],
        8 => SHARED_BYTES,
        9 => 64 << 10,       // constant memory
        10 => 32,            // warp size
        11 => 0x7fff_ffff,   // pitch
        12 | 82 => 64 << 10, // registers of a block, of a multiprocessor
        13 => 1_410_000,     // clock rate, kHz
        16 => MULTIPROCESSORS,
        36 => 1_215_000, // memory clock rate, kHz
        37 => 5120,      // memory bus, bits
        38 => 40 << 20,  // L2 cache
        39 => generation.threads_per_multiprocessor(),
        19 | 31 | 40 | 41 => 1, // mapped host memory, concurrent kernels, copy engines, unified addresses
        75 => generation.capability() / 10,
        76 => generation.capability() % 10,
        78..=80 => 1, // stream priorities, L1 caches
        81 => generation.shared_per_multiprocessor(),
        87 => 2, // ratio of f32 to f64 throughput
        97 => generation.shared_on_request(),
        99 => 1, // host memory can be registered
        106 => generation.blocks_per_multiprocessor(),
        111 => 1024, // shared memory that the system takes
        115 => 1,    // memory pools
        _ => 0,
    }
}

/// `cuDeviceGetAttribute`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, number: c_int, device: c_int) -> Code {
    call_initialized(|driver| {
        check(device)?;
        // SAFETY: the caller gives a place for a number.
        unsafe { give(value, attribute(driver.generation, number) as c_int) }
    })
}

/// `cuDevicePrimaryCtxRetain`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> Code {
    call_initialized(|_| {
        check(device)?;
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(context, PRIMARY) }
    })
}

/// `cuDevicePrimaryCtxRelease`: the context stays, whoever else holds it.
#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Code {
    call(|_| check(device))
}

/// `cuCtxCreate`: a handle more.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxCreate_v4(context: *mut usize, parameters: *mut c_void, _flags: u32, device: c_int) -> Code {
    call_initialized(|driver| {
        check(device)?;
        if !parameters.is_null() {
            return Err(super::Error::new(
                super::error::NOT_SUPPORTED,
                "contexts with parameters",
            ));
        }
        let handle = driver.handle();
        CURRENT.set(handle);
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(context, handle) }
    })
}

/// `cuCtxDestroy`
#[unsafe(no_mangle)]
extern "C" fn cuCtxDestroy_v2(context: usize) -> Code {
    if CURRENT.get() == context {
        CURRENT.set(0);
    }
    super::error::SUCCESS
}

/// `cuCtxSetCurrent`
#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> Code {
    call(|driver| {
        if !driver.initialized {
            return Err(super::NOT_INITIALIZED.into());
        }
        CURRENT.set(context);
        Ok(())
    })
}

/// `cuCtxGetCurrent`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> Code {
    // SAFETY: the caller gives a place for a handle.
    call(|_| unsafe { give(context, CURRENT.get()) })
}

/// `cuCtxGetDevice`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> Code {
    // SAFETY: the caller gives a place for a number.
    call_in_context(|_| unsafe { give(device, 0) })
}

/// `cuCtxSetFlags`: how the host waits makes no difference.
#[unsafe(no_mangle)]
extern "C" fn cuCtxSetFlags(_flags: u32) -> Code {
    call_in_context(|_| Ok(()))
}

/// `cuCtxGetStreamPriorityRange`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> Code {
    call_in_context(|_| {
        // SAFETY: each is null or a place for a number.
        unsafe {
            if !least.is_null() {
                least.write(0);
            }
            if !greatest.is_null() {
                greatest.write(-5);
            }
        }
        Ok(())
    })
}

/// `cuCtxSynchronize`
#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Code {
    call_in_context(|driver| {
        driver.refuse_while_capturing("cuCtxSynchronize")?;
        driver.run_everything()
    })
}

/// `cuDevicePrimaryCtxReset`: also forgets an error that stays.
#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxReset_v2(device: c_int) -> Code {
    call(|driver| {
        check(device)?;
        driver.sticky = None;
        Ok(())
    })
}

/// `cuCtxGetApiVersion`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetApiVersion(context: usize, version: *mut u32) -> Code {
    if context == 0 {
        return INVALID_CONTEXT;
    }
    // SAFETY: the caller gives a place for a number.
    unsafe { super::write(version, 13000) }
}
