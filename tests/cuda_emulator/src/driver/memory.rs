//! Memory: allocations, copies and fills.
//!
//! Asynchronous copies from and to pinned host memory (`cuMemHostAlloc`, `cuMemHostRegister`) touch it when the stream
//! comes to them. Those from pageable memory take the data at once, and those to pageable memory are finished before the
//! call returns, which is what drivers do; in a captured graph both touch host memory whenever the graph runs.

use std::ffi::{c_int, c_uint, c_void};

use super::error::{Code, INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY};
use super::work::Work;
use super::{Called, Driver, Error, call_in_context, call_initialized, give};
use crate::memory::{Owner, TOTAL};

impl Driver {
    fn allocate(&mut self, bytes: usize) -> Called<u64> {
        if bytes == 0 {
            return Err(INVALID_VALUE.into());
        }
        let text = || format!("{bytes} bytes, {} in use of {TOTAL}", self.memory.used());
        let message = text();
        self.memory
            .allocate(bytes)
            .ok_or_else(|| Error::new(OUT_OF_MEMORY, message))
    }

    /// A copy to the device on a stream.
    fn copy_to_device(&mut self, to: u64, from: usize, bytes: usize, stream: usize) -> Called {
        let captured = self.is_capturing(stream);
        let staged = if captured || self.memory.is_pinned(from as u64) {
            None
        } else {
            // SAFETY: the caller gives `bytes` readable bytes.
            Some(unsafe { std::slice::from_raw_parts(from as *const u8, bytes) }.to_vec())
        };
        self.enqueue(
            stream,
            Work::ToDevice {
                to,
                from,
                staged,
                bytes,
            },
        )
    }

    fn copy_to_host(&mut self, to: usize, from: u64, bytes: usize, stream: usize) -> Called {
        let waits = !self.is_capturing(stream) && !self.memory.is_pinned(to as u64);
        self.enqueue(stream, Work::ToHost { to, from, bytes })?;
        if waits { self.run_stream(stream) } else { Ok(()) }
    }

    /// A synchronous call: on the legacy stream, and finished when it returns.
    fn now(&mut self, what: &str, work: Work) -> Called {
        self.refuse_while_capturing(what)?;
        self.enqueue(0, work)?;
        self.run_stream(0)
    }
}

/// `cuMemAlloc`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Code {
    call_in_context(|driver| {
        driver.refuse_while_capturing("cuMemAlloc")?;
        let start = driver.allocate(bytes)?;
        // SAFETY: the caller gives a place for an address.
        unsafe { give(address, start) }
    })
}

/// `cuMemFree`: waits for everything first.
#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> Code {
    call_in_context(|driver| {
        if address == 0 {
            return Ok(());
        }
        driver.refuse_while_capturing("cuMemFree")?;
        driver.run_everything()?;
        if driver.memory.free(address) {
            return Ok(());
        }
        Err(Error::new(
            INVALID_VALUE,
            format!("cuMemFree of {address:#x}, which is not allocated"),
        ))
    })
}

/// `cuMemAllocAsync`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: usize) -> Code {
    call_in_context(|driver| {
        if driver.is_capturing(stream) {
            return Err(Error::new(NOT_SUPPORTED, "allocations within a graph"));
        }
        driver.stream(stream)?;
        let start = driver.allocate(bytes)?;
        // SAFETY: the caller gives a place for an address.
        unsafe { give(address, start) }
    })
}

/// `cuMemAllocFromPoolAsync`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, _pool: usize, stream: usize) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuMemAllocAsync(address, bytes, stream) }
}

/// `cuMemFreeAsync`
#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, stream: usize) -> Code {
    call_in_context(|driver| {
        if driver.is_capturing(stream) {
            return Err(Error::new(NOT_SUPPORTED, "frees within a graph"));
        }
        driver.enqueue(stream, Work::Free(address))
    })
}

/// `cuMemGetInfo`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    call_in_context(|driver| {
        // SAFETY: the caller gives places for two numbers.
        unsafe {
            give(free, TOTAL - driver.memory.used())?;
            give(total, TOTAL)
        }
    })
}

/// `cuMemGetAddressRange`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64) -> Code {
    call_in_context(|driver| {
        let Some((start, size)) = driver.memory.range_of(address) else {
            return Err(super::error::NOT_FOUND.into());
        };
        // SAFETY: each is null or a place for a number.
        unsafe {
            if !base.is_null() {
                base.write(start);
            }
            if !bytes.is_null() {
                bytes.write(size);
            }
        }
        Ok(())
    })
}

/// `cuMemHostAlloc`: kernels can use it, too.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, _flags: c_uint) -> Code {
    call_in_context(|driver| {
        if bytes == 0 {
            return Err(INVALID_VALUE.into());
        }
        let start = driver.memory.reserve(bytes, Owner::Host).ok_or(OUT_OF_MEMORY)?;
        // SAFETY: the caller gives a place for a pointer.
        unsafe { give(address, start as *mut c_void) }
    })
}

/// `cuMemFreeHost`
#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: u64) -> Code {
    call_in_context(|driver| {
        driver.run_everything()?;
        if driver.memory.free(address) {
            Ok(())
        } else {
            Err(INVALID_VALUE.into())
        }
    })
}

/// `cuMemHostRegister`
#[unsafe(no_mangle)]
extern "C" fn cuMemHostRegister_v2(address: u64, bytes: usize, _flags: c_uint) -> Code {
    call_in_context(|driver| {
        driver.memory.register(address, bytes);
        Ok(())
    })
}

/// `cuMemHostUnregister`
#[unsafe(no_mangle)]
extern "C" fn cuMemHostUnregister(address: u64) -> Code {
    cuMemFreeHost(address)
}

/// `cuMemHostGetDevicePointer`: the same address.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostGetDevicePointer_v2(device: *mut u64, host: u64, _flags: c_uint) -> Code {
    // SAFETY: the caller gives a place for an address.
    call_in_context(|_| unsafe { give(device, host) })
}

/// `cuMemcpyHtoD`
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoD_v2(to: u64, from: usize, bytes: usize) -> Code {
    call_in_context(|driver| {
        driver.refuse_while_capturing("cuMemcpyHtoD")?;
        driver.copy_to_device(to, from, bytes, 0)?;
        driver.run_stream(0)
    })
}

/// `cuMemcpyHtoDAsync`
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: usize, bytes: usize, stream: usize) -> Code {
    call_in_context(|driver| driver.copy_to_device(to, from, bytes, stream))
}

/// `cuMemcpyDtoH`
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoH_v2(to: usize, from: u64, bytes: usize) -> Code {
    call_in_context(|driver| driver.now("cuMemcpyDtoH", Work::ToHost { to, from, bytes }))
}

/// `cuMemcpyDtoHAsync`
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: usize, from: u64, bytes: usize, stream: usize) -> Code {
    call_in_context(|driver| driver.copy_to_host(to, from, bytes, stream))
}

/// `cuMemcpyDtoD`
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> Code {
    call_in_context(|driver| driver.now("cuMemcpyDtoD", Work::OnDevice { to, from, bytes }))
}

/// `cuMemcpyDtoDAsync`
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> Code {
    call_in_context(|driver| driver.enqueue(stream, Work::OnDevice { to, from, bytes }))
}

/// `cuMemcpyPeerAsync`: there is one device.
#[unsafe(no_mangle)]
extern "C" fn cuMemcpyPeerAsync(to: u64, _: usize, from: u64, _: usize, bytes: usize, stream: usize) -> Code {
    cuMemcpyDtoDAsync_v2(to, from, bytes, stream)
}

fn fill(to: u64, pattern: u32, width: usize, count: usize) -> Work {
    Work::Fill {
        to,
        pattern,
        width,
        count,
    }
}

/// `cuMemsetD8`
#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8_v2(to: u64, value: u8, count: usize) -> Code {
    call_in_context(|driver| driver.now("cuMemsetD8", fill(to, u32::from(value), 1, count)))
}

/// `cuMemsetD16`
#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16_v2(to: u64, value: u16, count: usize) -> Code {
    call_in_context(|driver| driver.now("cuMemsetD16", fill(to, u32::from(value), 2, count)))
}

/// `cuMemsetD32`
#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32_v2(to: u64, value: u32, count: usize) -> Code {
    call_in_context(|driver| driver.now("cuMemsetD32", fill(to, value, 4, count)))
}

/// `cuMemsetD8Async`
#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: usize) -> Code {
    call_in_context(|driver| driver.enqueue(stream, fill(to, u32::from(value), 1, count)))
}

/// `cuMemsetD16Async`
#[unsafe(no_mangle)]
extern "C" fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: usize) -> Code {
    call_in_context(|driver| driver.enqueue(stream, fill(to, u32::from(value), 2, count)))
}

/// `cuMemsetD32Async`
#[unsafe(no_mangle)]
extern "C" fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: usize) -> Code {
    call_in_context(|driver| driver.enqueue(stream, fill(to, value, 4, count)))
}

/// `cuDeviceGetDefaultMemPool`: pools are all alike.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut usize, _device: c_int) -> Code {
    // SAFETY: the caller gives a place for a handle.
    call_initialized(|_| unsafe { give(pool, 0x200) })
}

/// `cuDeviceGetMemPool`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetMemPool(pool: *mut usize, device: c_int) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuDeviceGetDefaultMemPool(pool, device) }
}

/// `cuDeviceSetMemPool`
#[unsafe(no_mangle)]
extern "C" fn cuDeviceSetMemPool(_device: c_int, _pool: usize) -> Code {
    call_initialized(|_| Ok(()))
}

/// `cuMemPoolCreate`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemPoolCreate(pool: *mut usize, _properties: *const c_void) -> Code {
    call_initialized(|driver| {
        let handle = driver.handle();
        driver.pools.push(handle);
        // SAFETY: the caller gives a place for a handle.
        unsafe { give(pool, handle) }
    })
}

/// `cuMemPoolDestroy`
#[unsafe(no_mangle)]
extern "C" fn cuMemPoolDestroy(pool: usize) -> Code {
    call_initialized(|driver| {
        driver.pools.retain(|other| *other != pool);
        Ok(())
    })
}

/// `cuMemPoolTrimTo`: pools hold nothing back.
#[unsafe(no_mangle)]
extern "C" fn cuMemPoolTrimTo(_pool: usize, _bytes: usize) -> Code {
    call_initialized(|_| Ok(()))
}

/// `cuMemPoolGetAttribute`: all of them are 0.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemPoolGetAttribute(_pool: usize, attribute: c_int, value: *mut c_void) -> Code {
    const FIRST_OF_64_BITS: c_int = 4;
    call_initialized(|_| {
        // SAFETY: the caller gives a place for a number of 32 or 64 bits, as the attribute is.
        unsafe {
            if attribute < FIRST_OF_64_BITS {
                give(value.cast::<u32>(), 0)
            } else {
                give(value.cast::<u64>(), 0)
            }
        }
    })
}

/// `cuMemPoolSetAttribute`: thresholds change nothing.
#[unsafe(no_mangle)]
extern "C" fn cuMemPoolSetAttribute(_pool: usize, _attribute: c_int, _value: *mut c_void) -> Code {
    call_initialized(|_| Ok(()))
}
