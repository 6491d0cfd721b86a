//! The CPU backend: a loop over kernel functions, each parallel over fixed partitions with rayon.
//!
//! Always there, no system library. Results do not depend on the number of threads: every kernel cuts its work at
//! places that depend on sizes alone, and sums in a fixed order.

mod simd;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Device, DeviceError, Program, Sizes, check, range_check};
use crate::kernel::{Call, Dims, Kernel, Precision, RawArg, StepParams};
use crate::plan::{ALIGN, Plan, Space};

pub use simd::{LANES, instruction_set, vectorised};

/// One buffer: 256-byte aligned words, reached through one raw pointer for as long as the device lives.
struct Buffer {
    lines: *mut [Line],
    len: usize,
}

// SAFETY: the buffer owns its allocation; access goes through `&mut CpuDevice` only.
unsafe impl Send for Buffer {}

/// [`ALIGN`] words, aligned as every tensor is.
#[repr(C, align(256))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Line([u32; ALIGN]);

impl Buffer {
    fn zeroed(space: Space, len: usize) -> Result<Buffer, DeviceError> {
        let mut lines = Vec::new();
        let reserved = lines.try_reserve_exact(len.div_ceil(ALIGN));
        reserved.map_err(|error| DeviceError::OutOfMemory {
            backend: "cpu",
            what: format!("{space:?}, {len} words ({error})"),
        })?;
        lines.resize(len.div_ceil(ALIGN), Line([0; ALIGN]));
        Ok(Buffer {
            lines: Box::into_raw(lines.into_boxed_slice()),
            len,
        })
    }

    fn start(&self) -> *mut u32 {
        self.lines.cast::<u32>()
    }

    fn as_mut(&mut self) -> &mut [u32] {
        // SAFETY: the allocation holds at least `len` words and `&mut self` is the only way to it.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `zeroed`, freed once.
        drop(unsafe { Box::from_raw(self.lines) });
    }
}

struct LoadedLaunch {
    kernel: &'static Kernel,
    dims: Dims,
    args: Vec<RawArg>,
}

/// The CPU with its buffers and loaded plans.
pub struct CpuDevice {
    sizes: Sizes,
    /// In the order of [`Space::ALL`].
    buffers: Vec<Buffer>,
    programs: Vec<Vec<LoadedLaunch>>,
    pool: Arc<rayon::ThreadPool>,
}

impl CpuDevice {
    /// Allocates the buffers, zeroed, and starts `threads` workers (0: one per core).
    ///
    /// # Errors
    /// [`DeviceError::Backend`] if the threads cannot be started, [`DeviceError::OutOfMemory`].
    pub fn new(sizes: Sizes, threads: usize) -> Result<CpuDevice, DeviceError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("cpu-{index}"));
        let pool = pool.build().map_err(|error| DeviceError::Backend {
            backend: "cpu",
            what: format!("cannot start {threads} threads: {error}; ask for fewer with --threads"),
        })?;
        let mut buffers = Vec::with_capacity(Space::ALL.len());
        for space in Space::ALL {
            buffers.push(Buffer::zeroed(space, sizes.words(space))?);
        }
        Ok(CpuDevice {
            sizes,
            buffers,
            programs: Vec::new(),
            pool: Arc::new(pool),
        })
    }

    /// The workers. A caller on one of them (inside `install`) reaches the others without a queue; from outside, rayon's
    /// queue takes a block of memory for every 63 runs.
    pub fn pool(&self) -> Arc<rayon::ThreadPool> {
        Arc::clone(&self.pool)
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn buffer(&mut self, space: Space) -> &mut Buffer {
        &mut self.buffers[space.index()]
    }

    fn replay(&mut self, program: Program, mut after: impl FnMut(usize) + Send) {
        let mut step = StepParams::default();
        let words = bytemuck::cast_slice_mut(std::slice::from_mut(&mut step));
        if self.sizes.inputs >= StepParams::WORDS {
            words.copy_from_slice(&self.buffer(Space::Inputs).as_mut()[..StepParams::WORDS]);
        }
        let launches = &self.programs[program.0];
        self.pool.install(|| {
            for (index, launch) in launches.iter().enumerate() {
                // SAFETY: `load` resolved the arguments into this device's buffers, which live as long as it does and
                // are never reallocated, and `check` refused launches whose written ranges overlap others; `&mut self`
                // keeps every other user of the buffers out.
                let call = unsafe { Call::new(launch.kernel, &launch.dims, &step, &launch.args) };
                (launch.kernel.cpu)(&call);
                after(index);
            }
        });
    }
}

impl Device for CpuDevice {
    fn describe(&self) -> String {
        format!("cpu ({}, {} threads)", instruction_set(), self.threads())
    }

    fn load(&mut self, plan: &Plan) -> Result<Program, DeviceError> {
        check(plan, &self.sizes)?;
        if plan.precision != Precision::F32 {
            return Err(DeviceError::Precision {
                what: format!("plan `{}`", plan.name),
                precision: plan.precision.name(),
                device: self.describe(),
                available: "f32",
            });
        }
        let mut launches = Vec::with_capacity(plan.launches.len());
        for launch in &plan.launches {
            let mut args = Vec::with_capacity(launch.values.len());
            for &value in &launch.values {
                let place = plan.place(value);
                let start = self.buffer(place.space).start();
                // SAFETY: `check` found the range inside the buffer, which is never reallocated while the device lives.
                args.push(unsafe { RawArg::new(start.add(place.offset), place.words) });
            }
            launches.push(LoadedLaunch {
                kernel: launch.kernel,
                dims: launch.dims.clone(),
                args,
            });
        }
        self.pool.broadcast(|_| {
            for launch in &plan.launches {
                if let Some(reserve) = launch.kernel.reserve {
                    reserve(&launch.dims);
                }
            }
        });
        self.programs.push(launches);
        Ok(Program(self.programs.len() - 1))
    }

    fn write(&mut self, space: Space, offset: usize, words: &[u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, space, offset, words.len())?;
        self.buffer(space).as_mut()[offset..offset + words.len()].copy_from_slice(words);
        Ok(())
    }

    fn read(&mut self, space: Space, offset: usize, words: &mut [u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, space, offset, words.len())?;
        words.copy_from_slice(&self.buffer(space).as_mut()[offset..offset + words.len()]);
        Ok(())
    }

    fn run(&mut self, program: Program) -> Result<(), DeviceError> {
        self.replay(program, |_| ());
        Ok(())
    }

    fn run_timed(&mut self, program: Program, times: &mut [Duration]) -> Result<(), DeviceError> {
        let mut last = Instant::now();
        self.replay(program, |index| {
            let now = Instant::now();
            times[index] += now - last;
            last = now;
        });
        Ok(())
    }
}
