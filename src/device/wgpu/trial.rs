//! Timing a launch's variants on an adapter, on scratch buffers.

use std::time::{Duration, Instant};

use super::adapter::Shared;
use super::dispatch;
use super::pipeline::{Pipeline, pipeline, source};
use super::program::{Bound, LoadedLaunch, Tensor, bind, constants, uniform};
use crate::device::DeviceError;
use crate::device::tuning::{Trial, time_of_one};
use crate::kernel::{Grid, Source, StepParams, Variant};
use crate::plan::{ALIGN, Launch};

impl Trial for Shared {
    fn hardware(&self) -> String {
        format!("{}, {}, {}", self.info.name, self.info.api, self.info.driver)
    }

    fn source(&self, launch: &Launch) -> Result<&'static Source, DeviceError> {
        source(launch.kernel)
    }

    fn runs(&self, _: &Launch, _: &Source, variant: &Variant) -> bool {
        self.has(variant)
    }

    fn times(&self, launch: &Launch, words: &[usize], variants: &[usize]) -> Result<Vec<Duration>, DeviceError> {
        let (scratch, source) = (Scratch::new(self, words)?, source(launch.kernel)?);
        let mut times = Vec::with_capacity(variants.len());
        for &index in variants {
            let pipeline = pipeline(self, launch.kernel, index, &launch.dims)?;
            let grid = source.workgroups(launch.kernel, &launch.dims, &source.variants[index]);
            times.push(time(self, &scratch.bind(self, launch, &pipeline, grid)?)?);
        }
        Ok(times)
    }
}

/// Buffers of zeros for a launch's tensors, and scalars that say that all rows are live.
struct Scratch {
    tensors: Vec<(wgpu::Buffer, usize)>,
    step: wgpu::Buffer,
}

impl Scratch {
    fn new(shared: &Shared, words: &[usize]) -> Result<Scratch, DeviceError> {
        let mut tensors = Vec::with_capacity(words.len());
        for &words in words {
            let buffer = shared.watched("scratch for measuring", || {
                shared.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("scratch"),
                    size: 4 * words.next_multiple_of(ALIGN).max(ALIGN) as u64,
                    usage: wgpu::BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            })?;
            tensors.push((buffer, words.max(1)));
        }
        let all = StepParams::all_live();
        let step = uniform(shared, "scalars for measuring", all.words())?;
        Ok(Scratch { tensors, step })
    }

    fn bind(
        &self,
        shared: &Shared,
        launch: &Launch,
        pipeline: &Pipeline,
        grid: Grid,
    ) -> Result<LoadedLaunch, DeviceError> {
        let block = uniform(shared, "constants for measuring", &constants(launch, pipeline))?;
        let tensors: Vec<Tensor> = self
            .tensors
            .iter()
            .map(|(buffer, words)| Tensor {
                buffer,
                offset: 0,
                words: *words,
            })
            .collect();
        let bound = Bound {
            step: &self.step,
            constants: (&block, 0),
            tensors: &tensors,
            empty: &self.step,
        };
        bind(shared, launch, pipeline, &bound, grid)
    }
}

fn time(shared: &Shared, loaded: &LoadedLaunch) -> Result<Duration, DeviceError> {
    time_of_one(&mut |dispatches| {
        let mut encoder = shared.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..dispatches {
            dispatch(&mut pass, loaded);
        }
        drop(pass);
        let start = Instant::now();
        let submission = shared.queue.submit([encoder.finish()]);
        shared.wait(Some(submission))?;
        Ok(start.elapsed())
    })
}
