//! Timing a launch's variants on a GPU, on scratch memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::{CudaStream, result};

use super::gpu::{Shared, failed};
use super::memory::Memory;
use super::module::{Wanted, prepare, source};
use super::program::LoadedLaunch;
use crate::device::DeviceError;
use crate::device::tuning::{Trial, time_of_one};
use crate::kernel::{Source, StepParams, Variant};
use crate::plan::Launch;

/// A GPU and a stream of it.
pub(super) struct Tried<'a> {
    pub shared: &'a Shared,
    pub stream: &'a Arc<CudaStream>,
}

impl Trial for Tried<'_> {
    fn hardware(&self) -> String {
        let info = &self.shared.info;
        format!("{}, sm_{}, {} bytes", info.name, info.architecture, info.memory)
    }

    fn source(&self, launch: &Launch) -> Result<&'static Source, DeviceError> {
        source(launch.kernel, &launch.dims)
    }

    fn runs(&self, launch: &Launch, source: &Source, variant: &Variant) -> bool {
        source.shared_bytes(&launch.dims, variant) <= self.shared.shared_memory
    }

    fn times(&self, launch: &Launch, words: &[usize], variants: &[usize]) -> Result<Vec<Duration>, DeviceError> {
        let Tried { shared, stream } = *self;
        let mut scratch = Vec::with_capacity(words.len());
        for &words in words {
            scratch.push(Memory::zeros(shared, stream, "scratch for measuring", words)?);
        }
        let step = Memory::zeros(shared, stream, "scalars for measuring", StepParams::WORDS)?;
        let all = StepParams::all_live();
        // SAFETY: the memory has just been allocated with this length; the stream is waited for below.
        unsafe { result::memcpy_htod_async(step.address, all.words(), stream.cu_stream()) }
            .and_then(|()| stream.synchronize())
            .map_err(|error| failed("scalars for measuring", error))?;
        let source = source(launch.kernel, &launch.dims)?;
        let wanted = |index: usize| Wanted::new(source, index, &launch.dims);
        prepare(shared, &variants.iter().map(|&index| wanted(index)).collect::<Vec<_>>())?;
        let tensors: Vec<u64> = scratch.iter().map(|memory| memory.address).collect();
        let time = |&index: &usize| {
            let loaded = LoadedLaunch::new(shared, launch, &wanted(index), &tensors, step.address)?;
            time_of_one(&mut |launches| {
                let start = Instant::now();
                (0..launches).try_for_each(|_| loaded.launch(stream))?;
                stream
                    .synchronize()
                    .map_err(|error| failed(&format!("measuring {}", launch.kernel.name), error))?;
                Ok(start.elapsed())
            })
        };
        variants.iter().map(time).collect()
    }
}
