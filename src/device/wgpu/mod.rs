//! The WebGPU backend: Vulkan, Metal and DX12 through wgpu.
//!
//! ```text
//! open    adapter with all its limits; pipelines are compiled once per kernel and variant and kept with it
//! new     one buffer per Space (the arena is several where one cannot be as large), one staging buffer, the ring
//! load    a bind group and a block of launch constants per launch
//! submit  one encoder: inputs up, the step's scalars to their uniform block, a compute pass per program, Readback down
//! ```
//!
//! # Bindings
//!
//! Each argument of a launch is a binding of its own, the tensor's range of its Space's buffer, to whole quads of words.
//! This is what WebGPU's rules and the plan's promises allow together:
//!
//! * Bindings begin at multiples of [`ALIGN`] words, which is 256 bytes: the largest `minStorageBufferOffsetAlignment`
//!   that WebGPU permits an adapter. No offset has to be passed to a shader, and no range is widened to make it fit.
//! * Ranges of one buffer in one dispatch may be bound several times if none overlaps a written one. [`check`] has
//!   refused any launch that would; widened ranges could not keep this.
//! * One buffer must not be bound read-only and writable in one dispatch, and input tensors of a launch share the arena
//!   with its outputs: all tensors are `var<storage, read_write>`. Uniform and storage exclude each other as well, so
//!   that the step's scalars, the beginning of [`Space::Inputs`], are copied to a uniform block of their own.
//! * A shader's bounds checks, where compiled in, check against the tensor, not against the arena.
//! * A tensor, not the arena or all parameters together, must fit `maxStorageBufferBindingSize` (128 MiB on small
//!   adapters); the number of tensors must fit `maxStorageBuffersPerShaderStage` (8 on the smallest).
//!
//! The alternative, binding every Space whole and adding offsets in the shader, would need generated accessors for each
//! combination of Spaces, and lose vector types, bounds and large models on small adapters.
//!
//! wgpu orders dispatches that touch the same buffer. Work that could run long is cut into several submits.

mod adapter;
mod lanes;
mod pipeline;
mod program;
mod ring;
mod shader;
mod trial;

use std::time::Duration;

use super::tuning::{Tuning, Variants};
use super::turns::SLOTS;
use super::{Device, DeviceError, Program, Sizes, check, range_check};
use crate::kernel::StepParams;
use crate::plan::{ALIGN, Plan, Space};
use program::{Buffers, Loaded, MOST_ARGS};
use ring::Ring;
use shader::BACKEND;

pub use adapter::{Adapter, AdapterInfo, AdapterKind, Choice, Objects, list, preferred};
pub use shader::{Block, Interface, Shader};

/// Words that are read or written at a time.
const STAGING_WORDS: usize = 1 << 20;
/// Launches in one set of timestamps: two each, at most `QUERY_SET_MAX_QUERIES`.
const TIMED_LAUNCHES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;

/// An adapter with buffers and loaded plans.
pub struct WgpuDevice {
    adapter: Adapter,
    sizes: Sizes,
    tuning: Tuning,
    buffers: Buffers,
    staging: wgpu::Buffer,
    ring: Ring,
    programs: Vec<Loaded>,
}

impl WgpuDevice {
    /// Allocates the buffers, zeroed.
    ///
    /// # Errors
    /// [`DeviceError::Limit`], [`DeviceError::OutOfMemory`]; [`DeviceError::Backend`] for measurements that cannot be read.
    pub fn new(adapter: &Adapter, sizes: Sizes, variants: &Variants) -> Result<WgpuDevice, DeviceError> {
        let shared = &adapter.shared;
        let limits = adapter.limits();
        for space in Space::ALL.into_iter().filter(|&space| space != Space::Arena) {
            let (bytes, most) = (4 * sizes.words(space) as u64, 4 * limits.buffer as u64);
            shared.limit(&format!("{space:?}"), "bytes in one buffer", bytes, most)?;
        }
        let allocate = |label: &str, words: usize, usage: wgpu::BufferUsages| {
            let size = 4 * words.max(ALIGN) as u64;
            shared.watched(&format!("{label} ({size} bytes)"), || {
                shared.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size,
                    usage,
                    mapped_at_creation: false,
                })
            })
        };
        use wgpu::BufferUsages as Usage;
        let mut spaces = Vec::with_capacity(Space::ALL.len());
        for space in Space::ALL {
            let (usage, mut segments) = (Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST, Vec::new());
            for start in (0..sizes.words(space).max(1)).step_by(limits.buffer) {
                let words = sizes.words(space).saturating_sub(start).min(limits.buffer);
                segments.push(allocate(&format!("{space:?}"), words, usage)?);
            }
            spaces.push(segments);
        }
        let buffers = Buffers {
            spaces: spaces.try_into().expect("one buffer per space"),
            step: allocate("step parameters", StepParams::WORDS, Usage::UNIFORM | Usage::COPY_DST)?,
            empty: allocate("empty tensors", MOST_ARGS * ALIGN, Usage::STORAGE)?,
            limits,
        };
        Ok(WgpuDevice {
            adapter: adapter.clone(),
            sizes,
            tuning: Tuning::new(variants, BACKEND)?,
            buffers,
            staging: allocate("staging", STAGING_WORDS, Usage::MAP_READ | Usage::COPY_DST)?,
            ring: Ring::new(shared, sizes.inputs.max(ALIGN), sizes.readback.max(ALIGN))?,
            programs: Vec::new(),
        })
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor::default();
        self.adapter.shared.device.create_command_encoder(&descriptor)
    }

    /// The step's scalars to where the shaders read them.
    fn copy_step(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.sizes.inputs >= StepParams::WORDS {
            let ((from, _), bytes) = (self.buffers.at(Space::Inputs, 0), 4 * StepParams::WORDS as u64);
            encoder.copy_buffer_to_buffer(from, 0, &self.buffers.step, 0, bytes);
        }
    }

    /// Loads a plan whose launches dispatch no workgroup. What remains of a step is the host's own time and the driver's:
    /// `benches/wgpu.rs` measures it.
    ///
    /// # Errors
    /// As [`Device::load`].
    pub fn load_idle(&mut self, plan: &Plan) -> Result<Program, DeviceError> {
        let program = self.load(plan)?;
        for launch in &mut self.programs[program.0].launches {
            launch.grid = [0; 3];
        }
        Ok(program)
    }

    /// Dispatches of a program.
    #[must_use]
    pub fn dispatches(&self, program: Program) -> usize {
        let launches = &self.programs[program.0].launches;
        launches.iter().map(|launch| launch.stages.len()).sum()
    }

    /// Appends a program's launches to what an encoder holds. Where the program is cut, the encoder is submitted and the
    /// rest goes into a new one, which is returned.
    fn encode(&self, mut encoder: wgpu::CommandEncoder, program: Program) -> wgpu::CommandEncoder {
        let loaded = &self.programs[program.0];
        for (index, range) in loaded.submits.iter().enumerate() {
            if index > 0 {
                let full = std::mem::replace(&mut encoder, self.encoder());
                self.adapter.shared.queue.submit([full.finish()]);
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for launch in &loaded.launches[range.clone()] {
                dispatch(&mut pass, launch);
            }
        }
        encoder
    }

    /// Copies the beginning of the staging buffer out, once everything submitted has finished.
    fn read_staging(&self, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let shared = &self.adapter.shared;
        let slice = self.staging.slice(..bytes.len() as u64);
        slice.map_async(wgpu::MapMode::Read, |_| ()); // a failure shows in `wait` or in the mapped range
        shared.wait(None)?;
        let mapped = slice.get_mapped_range().map_err(|error| DeviceError::Backend {
            backend: BACKEND,
            what: format!("reading back from {}: {error}", shared.info),
        })?;
        bytes.copy_from_slice(&mapped);
        drop(mapped);
        self.staging.unmap();
        Ok(())
    }

    /// Runs launches `range` of a program with a pass for each and returns their times.
    fn run_timed_range(&self, loaded: &Loaded, range: std::ops::Range<usize>) -> Result<Vec<Duration>, DeviceError> {
        let shared = &self.adapter.shared;
        let count = 2 * range.len() as u32;
        let what = format!("timestamps of {}", loaded.name);
        let (queries, resolved) = shared.watched(&what, || {
            let queries = shared.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let resolved = shared.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: 8 * u64::from(count),
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            (queries, resolved)
        })?;
        let mut encoder = self.encoder();
        self.copy_step(&mut encoder);
        for (index, launch) in loaded.launches[range].iter().enumerate() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(2 * index as u32),
                    end_of_pass_write_index: Some(2 * index as u32 + 1),
                }),
            });
            dispatch(&mut pass, launch);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &self.staging, 0, 8 * u64::from(count));
        shared.queue.submit([encoder.finish()]);
        let mut ticks = vec![0u64; count as usize];
        self.read_staging(bytemuck::cast_slice_mut(&mut ticks))?;
        let period = f64::from(shared.queue.get_timestamp_period());
        let time = |pair: &[u64]| Duration::from_nanos((pair[1].saturating_sub(pair[0]) as f64 * period) as u64);
        Ok(ticks.chunks_exact(2).map(time).collect())
    }
}

fn dispatch(pass: &mut wgpu::ComputePass, launch: &program::LoadedLaunch) {
    let [x, y, z] = launch.grid;
    pass.set_bind_group(0, &launch.bindings, &[]);
    for stage in &launch.stages {
        pass.set_pipeline(stage);
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Device for WgpuDevice {
    fn describe(&self) -> String {
        format!("wgpu, adapter {}", self.adapter.info())
    }

    fn remark(&self) -> Option<String> {
        self.tuning.remark()
    }

    fn load(&mut self, plan: &Plan) -> Result<Program, DeviceError> {
        check(plan, &self.sizes)?;
        let shared = &self.adapter.shared;
        if !self.adapter.stores(plan.precision) {
            return Err(DeviceError::Precision {
                what: format!("plan `{}`", plan.name),
                precision: plan.precision.name(),
                device: shared.info.to_string(),
                available: self.adapter.precisions(),
            });
        }
        let chosen = self.tuning.choose(&**shared, plan)?;
        let loaded = Loaded::new(shared, &self.buffers, &chosen, plan)?;
        self.programs.push(loaded);
        Ok(Program(self.programs.len() - 1))
    }

    fn variants(&self, program: Program) -> &[&'static str] {
        &self.programs[program.0].variants
    }

    fn write(&mut self, space: Space, offset: usize, words: &[u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, space, offset, words.len())?;
        let queue = &self.adapter.shared.queue;
        for part in self.buffers.parts(offset, words.len(), STAGING_WORDS) {
            if part.start > offset {
                queue.submit([]); // lets the driver give the last part's staging memory back
            }
            let (buffer, start) = self.buffers.at(space, part.start);
            let bytes = bytemuck::cast_slice(&words[part.start - offset..part.end - offset]);
            queue.write_buffer(buffer, 4 * start as u64, bytes);
        }
        self.adapter.shared.check()
    }

    fn read(&mut self, space: Space, offset: usize, words: &mut [u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, space, offset, words.len())?;
        for part in self.buffers.parts(offset, words.len(), STAGING_WORDS) {
            let (buffer, start) = self.buffers.at(space, part.start);
            let mut encoder = self.encoder();
            encoder.copy_buffer_to_buffer(buffer, 4 * start as u64, &self.staging, 0, 4 * part.len() as u64);
            self.adapter.shared.queue.submit([encoder.finish()]);
            let out = &mut words[part.start - offset..part.end - offset];
            self.read_staging(bytemuck::cast_slice_mut(out))?;
        }
        Ok(())
    }

    fn run(&mut self, program: Program) -> Result<(), DeviceError> {
        let mut encoder = self.encoder();
        self.copy_step(&mut encoder);
        let encoder = self.encode(encoder, program);
        self.adapter.shared.queue.submit([encoder.finish()]);
        self.adapter.shared.check()
    }

    fn ring(&self) -> usize {
        SLOTS
    }

    fn submit(&mut self, inputs: &[u32], programs: &[Program]) -> Result<(), DeviceError> {
        range_check(&self.sizes, Space::Inputs, 0, inputs.len())?;
        let mut encoder = self.encoder();
        let slot = self.ring.begin(inputs)?;
        let (up, down) = (slot.upload.clone(), slot.readback.clone());
        encoder.copy_buffer_to_buffer(&up, 0, self.buffers.at(Space::Inputs, 0).0, 0, 4 * inputs.len() as u64);
        self.copy_step(&mut encoder);
        for &program in programs {
            encoder = self.encode(encoder, program);
        }
        encoder.copy_buffer_to_buffer(self.buffers.at(Space::Readback, 0).0, 0, &down, 0, down.size());
        let submission = self.adapter.shared.queue.submit([encoder.finish()]);
        self.ring.submitted(submission);
        self.adapter.shared.check()
    }

    fn collect(&mut self, readback: &mut [u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, Space::Readback, 0, readback.len())?;
        self.ring.collect(&self.adapter.shared, readback)
    }

    fn run_timed(&mut self, program: Program, times: &mut [Duration]) -> Result<(), DeviceError> {
        let shared = &self.adapter.shared;
        if !shared.timestamps {
            return Err(DeviceError::Backend {
                backend: BACKEND,
                what: format!("{} has no timestamps: launches cannot be timed one by one", shared.info),
            });
        }
        let loaded = &self.programs[program.0];
        for start in (0..loaded.launches.len()).step_by(TIMED_LAUNCHES) {
            let range = start..loaded.launches.len().min(start + TIMED_LAUNCHES);
            let measured = self.run_timed_range(loaded, range.clone())?;
            for (time, measured) in times[range].iter_mut().zip(measured) {
                *time += measured;
            }
        }
        Ok(())
    }
}
