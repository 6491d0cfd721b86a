//! A plan loaded on an adapter: pipelines, bind groups and launch constants, all made once.

use std::ops::Range;

use super::adapter::Shared;
use super::pipeline::{Pipeline, pipeline, source};
use super::shader::BACKEND;
use crate::device::DeviceError;
use crate::kernel::{Arg, Grid, Sizes, StepParams};
use crate::plan::{ALIGN, Launch, Limits, Plan, Space, Value};

/// Bytes to which bindings are aligned: no adapter may ask for more.
const ALIGN_BYTES: u64 = 4 * ALIGN as u64;
/// Floating-point operations in one submit, at most (a launch is never cut): a second on a slow integrated GPU, where a
/// watchdog resets the driver after two.
const SUBMIT_FLOPS: u64 = 50_000_000_000;

/// The device's buffers as bindings see them.
pub(super) struct Buffers {
    /// Those of each space, in the order of [`Space::ALL`]: one, or as many of [`Limits::buffer`] words as the arena takes.
    pub spaces: [Vec<wgpu::Buffer>; Space::ALL.len()],
    /// The first words of [`Space::Inputs`] as a uniform block.
    pub step: wgpu::Buffer,
    /// What is bound for tensors without elements, as WebGPU binds at least one: a block of [`ALIGN`] words for each
    /// argument of a launch. No kernel touches it.
    pub empty: wgpu::Buffer,
    /// What the adapter can hold in one piece.
    pub limits: Limits,
}

/// Tensors of one kernel at most.
pub(super) const MOST_ARGS: usize = 16;

impl Buffers {
    /// The buffer that holds a word of a space, and the word's number in it.
    pub fn at(&self, space: Space, word: usize) -> (&wgpu::Buffer, usize) {
        let segments = &self.spaces[space.index()];
        // A range without words may stand behind the last segment.
        let segment = (word / self.limits.buffer).min(segments.len() - 1);
        (&segments[segment], word - segment * self.limits.buffer)
    }

    /// The parts of a range that lie in one buffer each, at most `most` words long.
    pub fn parts(&self, start: usize, words: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
        let (end, buffer) = (start + words, self.limits.buffer);
        let mut next = start;
        std::iter::from_fn(move || {
            let begin = next;
            next = end.min(begin + most).min((begin / buffer + 1).saturating_mul(buffer));
            (begin < end).then_some(begin..next)
        })
    }
}

/// Words to which bindings are widened, for tensors that a shader reads four elements at a time. The next tensor begins at a
/// multiple of [`ALIGN`], so none is reached.
const QUAD: usize = 4;

/// See the module.
pub(super) struct Loaded {
    pub name: String,
    pub launches: Vec<LoadedLaunch>,
    /// Variant of each launch.
    pub variants: Vec<&'static str>,
    /// Launches of each submit.
    pub submits: Vec<Range<usize>>,
}

/// One dispatch for each of the kernel's entry points.
pub(super) struct LoadedLaunch {
    pub stages: Vec<wgpu::ComputePipeline>,
    pub bindings: wgpu::BindGroup,
    pub grid: Grid,
}

impl Loaded {
    /// Prepares a plan whose places have been checked; `chosen` is the variant of each launch.
    pub fn new(shared: &Shared, buffers: &Buffers, chosen: &[usize], plan: &Plan) -> Result<Loaded, DeviceError> {
        let mut pipelines = Vec::with_capacity(plan.launches.len());
        for (launch, &variant) in plan.launches.iter().zip(chosen) {
            pipelines.push(pipeline(shared, launch.kernel, variant, &launch.dims)?);
        }
        let (mut words, mut offsets) = (Vec::new(), Vec::new());
        for (launch, pipeline) in plan.launches.iter().zip(&pipelines) {
            offsets.push(4 * words.len() as u64);
            words.extend(constants(launch, pipeline));
            words.resize(words.len().next_multiple_of(ALIGN), 0);
        }
        let block = uniform(shared, "launch constants", &words)?;
        let (mut launches, mut variants) = (Vec::new(), Vec::new());
        for (index, launch) in plan.launches.iter().enumerate() {
            let source = source(launch.kernel)?;
            let variant = &source.variants[chosen[index]];
            variants.push(variant.name);
            launches.push(bind(
                shared,
                launch,
                &pipelines[index],
                &Bound {
                    step: &buffers.step,
                    constants: (&block, offsets[index]),
                    tensors: &tensors(shared, buffers, plan, launch)?,
                    empty: &buffers.empty,
                },
                source.workgroups(launch.kernel, &launch.dims, variant),
            )?);
        }
        Ok(Loaded {
            name: plan.name.clone(),
            launches,
            variants,
            submits: submits(plan),
        })
    }
}

/// The launch constants as the shader's block has them; empty where it has none.
pub(super) fn constants(launch: &Launch, pipeline: &Pipeline) -> Vec<u32> {
    let Some(block) = &pipeline.interface.constants else {
        return Vec::new();
    };
    let mut words = vec![0; block.words];
    for (name, &place) in launch.kernel.constants.iter().zip(&block.places) {
        let word = launch.dims.device_word(name);
        words[place] = word.expect("the recorder found every constant of the table");
    }
    words
}

/// A uniform buffer with these words.
pub(super) fn uniform(shared: &Shared, label: &'static str, words: &[u32]) -> Result<wgpu::Buffer, DeviceError> {
    shared.watched(label, || {
        let buffer = shared.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: (4 * words.len() as u64).max(ALIGN_BYTES),
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        shared.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        buffer
    })
}

/// A tensor's words in a buffer.
#[derive(Clone, Copy)]
pub(super) struct Tensor<'a> {
    pub buffer: &'a wgpu::Buffer,
    /// First word, a multiple of [`ALIGN`].
    pub offset: usize,
    pub words: usize,
}

/// What a launch's bindings show.
pub(super) struct Bound<'a> {
    pub step: &'a wgpu::Buffer,
    /// The block of launch constants and its first byte.
    pub constants: (&'a wgpu::Buffer, u64),
    /// In the order of the kernel's table.
    pub tensors: &'a [Tensor<'a>],
    pub empty: &'a wgpu::Buffer,
}

/// The tensors of a plan's launch.
fn tensors<'a>(
    shared: &Shared,
    buffers: &'a Buffers,
    plan: &Plan,
    launch: &Launch,
) -> Result<Vec<Tensor<'a>>, DeviceError> {
    let of_value = |(arg, &value): (&Arg, &Value)| {
        let place = plan.place(value);
        if !place.offset.is_multiple_of(ALIGN) {
            return Err(DeviceError::Misaligned {
                backend: BACKEND,
                scope: launch.scope.clone(),
                kernel: launch.kernel.name,
                arg: arg.name,
                space: place.space,
                offset: place.offset,
                align: ALIGN,
            });
        }
        let needed = 4 * place.words as u64;
        let what = format!("{}: {}, `{}`", launch.scope, launch.kernel.name, arg.name);
        shared.limit(&what, "bytes in one tensor", needed, 4 * buffers.limits.tensor as u64)?;
        let (buffer, offset) = buffers.at(place.space, place.offset);
        Ok(Tensor {
            buffer,
            offset,
            words: place.words,
        })
    };
    launch.kernel.args.iter().zip(&launch.values).map(of_value).collect()
}

/// Checks a launch against the adapter's limits and makes its bind group.
pub(super) fn bind(
    shared: &Shared,
    launch: &Launch,
    pipeline: &Pipeline,
    bound: &Bound,
    grid: Grid,
) -> Result<LoadedLaunch, DeviceError> {
    let kernel = launch.kernel;
    let what = || format!("{}: {}", launch.scope, kernel.name);
    let groups = u64::from(shared.limits.max_compute_workgroups_per_dimension);
    for side in grid {
        shared.limit(&what(), "workgroups in one direction", u64::from(side), groups)?;
    }
    let mut entries = Vec::with_capacity(kernel.args.len() + 2);
    let mut show = |binding: u32, buffer, offset: u64, bytes: u64| {
        entries.push(wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: wgpu::BufferSize::new(bytes),
            }),
        });
    };
    if let Some(binding) = pipeline.interface.step {
        show(binding, bound.step, 0, 4 * StepParams::WORDS as u64);
    }
    if let Some(block) = &pipeline.interface.constants {
        show(
            block.binding,
            bound.constants.0,
            bound.constants.1,
            4 * block.words as u64,
        );
    }
    for (slot, (tensor, &binding)) in bound.tensors.iter().zip(&pipeline.interface.args).enumerate() {
        if tensor.words == 0 {
            show(binding, bound.empty, 4 * (slot * ALIGN) as u64, 4);
            continue;
        }
        let bytes = 4 * tensor.words.next_multiple_of(QUAD) as u64;
        show(binding, tensor.buffer, 4 * tensor.offset as u64, bytes);
    }
    let bindings = shared.watched(&what(), || {
        shared.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.layout,
            entries: &entries,
        })
    })?;
    Ok(LoadedLaunch {
        stages: pipeline.stages.clone(),
        bindings,
        grid,
    })
}

/// Cuts the launches where [`SUBMIT_FLOPS`] would be exceeded.
fn submits(plan: &Plan) -> Vec<Range<usize>> {
    let mut submits = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (index, launch) in plan.launches.iter().enumerate() {
        let flops = (launch.kernel.cost)(&Sizes::new(&launch.dims, None)).flops;
        if index > start && sum + flops > SUBMIT_FLOPS {
            submits.push(start..index);
            (start, sum) = (index, 0);
        }
        sum += flops;
    }
    submits.push(start..plan.launches.len());
    submits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{DType, Extent};
    use crate::ops::gemm::{Layer, linear};
    use crate::plan::{Init, ParamSpec, ParamTable, Recorder};

    #[test]
    fn submits_are_cut_where_they_would_run_long_and_lose_no_launch() {
        let spec = |name: &str, rows: u32| ParamSpec {
            name: name.to_string(),
            rows,
            width: 1_000,
            decay: true,
            head: false,
            init: Init::Zeros,
            vector: rows == 1,
        };
        let params = ParamTable::new(vec![spec("layer.weight", 1_000), spec("layer.bias", 1)]);
        let mut r = Recorder::new("long", &params);
        let mut x = r.input("x", Extent::fixed(10_000), 1_000, DType::F32);
        for _ in 0..6 {
            let layer = Layer::named(&mut r, "layer").unwrap();
            x = linear(&mut r, x, layer).unwrap(); // 20 GFLOP
        }
        assert_eq!(submits(&r.finish()), [0..2, 2..4, 4..6]);
    }
}
