//! Kernels and their launches, within the limits of the device.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use super::device::{MAX_BLOCK, MAX_GRID, MAX_THREADS};
use super::error::{Code, INVALID_HANDLE, INVALID_VALUE, NOT_SUPPORTED};
use super::work::Work;
use super::{Called, Driver, Error, Generation, SHARED_BYTES, call_in_context, give};
use crate::execute::{Launch, dynamic_shared_start};
use crate::ptx::Kernel;

/// A kernel's handle.
pub struct Function {
    /// Its module.
    pub module: usize,
    /// What it runs.
    pub kernel: Arc<Kernel>,
    variables: Arc<Vec<u64>>,
    /// Dynamic shared memory that a launch may ask for.
    max_dynamic_shared: u32,
}

impl Function {
    /// With the limit that needs no request.
    pub fn new(module: usize, kernel: Arc<Kernel>, variables: Arc<Vec<u64>>) -> Function {
        let max_dynamic_shared = SHARED_BYTES.saturating_sub(kernel.static_shared);
        Function {
            module,
            kernel,
            variables,
            max_dynamic_shared,
        }
    }
}

impl Driver {
    fn function(&self, handle: usize) -> Called<&Function> {
        Ok(self.functions.get(&handle).ok_or(INVALID_HANDLE)?)
    }

    fn launch(
        &mut self,
        handle: usize,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        stream: usize,
        parameters: Parameters,
    ) -> Called {
        let function = self.function(handle)?;
        let kernel = &function.kernel;
        check_shape(kernel, grid, block)?;
        let limit = function.max_dynamic_shared;
        if dynamic_shared > limit {
            let text = format!(
                "{}: {dynamic_shared} bytes of dynamic shared memory, {limit} are allowed \
                 (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)",
                kernel.name
            );
            return Err(Error::new(INVALID_VALUE, text));
        }
        if kernel.static_shared > SHARED_BYTES {
            let text = format!(
                "{}: {} bytes of static shared memory",
                kernel.name, kernel.static_shared
            );
            return Err(Error::new(INVALID_VALUE, text));
        }
        let parameters = parameters.gather(kernel)?;
        let launch = Launch {
            kernel: kernel.clone(),
            variables: function.variables.clone(),
            grid,
            block,
            dynamic_shared,
            parameters,
        };
        self.enqueue(stream, Work::Launch(launch))
    }
}

fn check_shape(kernel: &Kernel, grid: [u32; 3], block: [u32; 3]) -> Called {
    let threads = block.iter().map(|size| u64::from(*size)).product::<u64>();
    let blocks = grid.iter().map(|size| u64::from(*size)).product::<u64>();
    let refuse = |text: String| Err(Error::new(INVALID_VALUE, format!("{}: {text}", kernel.name)));
    for dimension in 0..3 {
        if !(1..=MAX_BLOCK[dimension]).contains(&block[dimension]) {
            return refuse(format!("block of {block:?} threads, at most {MAX_BLOCK:?}"));
        }
        if !(1..=MAX_GRID[dimension]).contains(&grid[dimension]) {
            return refuse(format!("grid of {grid:?} blocks, at most {MAX_GRID:?}"));
        }
    }
    let most = u64::from(kernel.max_threads.min(MAX_THREADS));
    if threads > most {
        return refuse(format!("block of {threads} threads, at most {most}"));
    }
    if let Some(required) = kernel.required_block
        && required != block
    {
        return refuse(format!("block of {block:?} threads, {required:?} are required"));
    }
    if blocks > 1 << 31 {
        return Err(Error::new(NOT_SUPPORTED, format!("{}: {blocks} blocks", kernel.name)));
    }
    Ok(())
}

/// The two ways to pass parameters.
struct Parameters {
    pointers: *const *const u8,
    extra: *const *const c_void,
}

impl Parameters {
    /// The parameters as the kernel declares them.
    fn gather(&self, kernel: &Kernel) -> Called<Vec<u8>> {
        let mut bytes = vec![0; kernel.parameter_bytes()];
        if !self.extra.is_null() {
            return self.gather_buffer(kernel, bytes);
        }
        if self.pointers.is_null() && !kernel.parameters.is_empty() {
            return Err(Error::new(INVALID_VALUE, format!("{}: no parameters", kernel.name)));
        }
        for (at, (offset, size)) in kernel.parameters.iter().enumerate() {
            // SAFETY: the caller gives as many pointers as the kernel has parameters, each to a value of its size.
            let source = unsafe { *self.pointers.add(at) };
            if source.is_null() {
                return Err(Error::new(
                    INVALID_VALUE,
                    format!("{}: parameter {at} is null", kernel.name),
                ));
            }
            let place = &mut bytes[*offset as usize..(*offset + *size) as usize];
            // SAFETY: see above.
            place.copy_from_slice(unsafe { std::slice::from_raw_parts(source, place.len()) });
        }
        Ok(bytes)
    }

    fn gather_buffer(&self, kernel: &Kernel, mut bytes: Vec<u8>) -> Called<Vec<u8>> {
        const END: usize = 0;
        const POINTER: usize = 1;
        const SIZE: usize = 2;
        let (mut buffer, mut size) = (std::ptr::null::<u8>(), 0usize);
        let mut at = 0;
        loop {
            // SAFETY: the list consists of pairs and ends with END.
            match unsafe { *self.extra.add(at) } as usize {
                END => break,
                // SAFETY: the second of a pair.
                POINTER => buffer = unsafe { *self.extra.add(at + 1) }.cast(),
                // SAFETY: the second of a pair, a pointer to a size.
                SIZE => size = unsafe { *(*self.extra.add(at + 1)).cast::<usize>() },
                _ => return Err(INVALID_VALUE.into()),
            }
            at += 2;
        }
        if buffer.is_null() || size < bytes.len() {
            let text = format!(
                "{}: {size} bytes of parameters, {} are declared",
                kernel.name,
                bytes.len()
            );
            return Err(Error::new(INVALID_VALUE, text));
        }
        let length = bytes.len();
        // SAFETY: the buffer has `size` bytes, which is enough.
        bytes.copy_from_slice(unsafe { std::slice::from_raw_parts(buffer, length) });
        Ok(bytes)
    }
}

/// `cuLaunchKernel`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    dynamic_shared: c_uint,
    stream: usize,
    pointers: *const *const u8,
    extra: *const *const c_void,
) -> Code {
    call_in_context(|driver| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let parameters = Parameters { pointers, extra };
        driver.launch(function, grid, block, dynamic_shared, stream, parameters)
    })
}

/// `CUlaunchConfig`
#[repr(C)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    stream: usize,
    attributes: *const c_void,
    attribute_count: u32,
}

/// `cuLaunchKernelEx`, without attributes.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernelEx(
    config: *const LaunchConfig,
    function: usize,
    pointers: *const *const u8,
    extra: *const *const c_void,
) -> Code {
    call_in_context(|driver| {
        // SAFETY: the caller gives a configuration or null.
        let config = unsafe { config.as_ref() }.ok_or(INVALID_VALUE)?;
        if config.attribute_count > 0 && !config.attributes.is_null() {
            return Err(Error::new(NOT_SUPPORTED, "launches with attributes"));
        }
        let parameters = Parameters { pointers, extra };
        driver.launch(
            function,
            config.grid,
            config.block,
            config.dynamic_shared,
            config.stream,
            parameters,
        )
    })
}

/// `cuFuncGetAttribute`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: usize) -> Code {
    call_in_context(|driver| {
        let function = driver.function(function)?;
        let kernel = &function.kernel;
        let found = match attribute {
            0 => kernel.max_threads,
            1 => kernel.static_shared,
            3 => kernel.local_bytes,
            4 => kernel.registers.min(255) as u32, // of PTX, not of a device
            5 | 6 => 80,
            8 => function.max_dynamic_shared,
            2 | 7 | 9 => 0,
            _ => return Err(INVALID_VALUE.into()),
        };
        // SAFETY: the caller gives a place for a number.
        unsafe { give(value, found as c_int) }
    })
}

/// `cuFuncSetAttribute`
#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: usize, attribute: c_int, value: c_int) -> Code {
    const MAX_DYNAMIC_SHARED: c_int = 8;
    const CARVEOUT: c_int = 9;
    call_in_context(|driver| {
        let on_request = driver.generation.shared_on_request();
        let function = driver.functions.get_mut(&function).ok_or(INVALID_HANDLE)?;
        let most = on_request - function.kernel.static_shared;
        match attribute {
            CARVEOUT => Ok(()),
            MAX_DYNAMIC_SHARED if (0..=most as c_int).contains(&value) => {
                function.max_dynamic_shared = value as u32;
                Ok(())
            }
            MAX_DYNAMIC_SHARED => {
                let text = format!(
                    "{}: {value} bytes of dynamic shared memory, at most {most}",
                    function.kernel.name
                );
                Err(Error::new(INVALID_VALUE, text))
            }
            _ => Err(INVALID_VALUE.into()),
        }
    })
}

/// `cuFuncSetCacheConfig`: there are no caches.
#[unsafe(no_mangle)]
extern "C" fn cuFuncSetCacheConfig(_function: usize, _config: c_int) -> Code {
    call_in_context(|_| Ok(()))
}

/// Blocks that fit into a multiprocessor by threads and shared memory; registers are not known.
fn resident_blocks(generation: Generation, kernel: &Kernel, threads: u32, dynamic_shared: u32) -> u32 {
    let threads = threads.max(1).next_multiple_of(32);
    let shared = dynamic_shared_start(kernel) + dynamic_shared + 1024;
    let by_threads = generation.threads_per_multiprocessor() / threads;
    let by_shared = generation.shared_per_multiprocessor() / shared;
    by_threads.min(by_shared).min(generation.blocks_per_multiprocessor())
}

/// `cuOccupancyMaxActiveBlocksPerMultiprocessor`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: usize,
    threads: c_int,
    dynamic_shared: usize,
) -> Code {
    call_in_context(|driver| {
        let kernel = &driver.function(function)?.kernel;
        let found = resident_blocks(driver.generation, kernel, threads as u32, dynamic_shared as u32);
        // SAFETY: the caller gives a place for a number.
        unsafe { give(blocks, found as c_int) }
    })
}

/// `cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags`
#[unsafe(no_mangle)]
unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: *mut c_int,
    function: usize,
    threads: c_int,
    dynamic_shared: usize,
    _flags: c_uint,
) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, dynamic_shared) }
}

/// `cuLaunchCooperativeKernel`, whatever its arguments: blocks cannot wait for each other.
#[unsafe(no_mangle)]
extern "C" fn cuLaunchCooperativeKernel() -> Code {
    let text = "cooperative launches: the blocks of a grid run one after the other";
    super::code(Err(Error::new(NOT_SUPPORTED, text)))
}
