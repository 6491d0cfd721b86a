//! A plan loaded on an adapter: pipelines, bind groups and launch constants, all made once.

use super::adapter::Shared;
use super::pipeline::{Pipeline, pipeline, source};
use super::shader::BACKEND;
use crate::device::{DeviceError, SPACES};
use crate::kernel::{Grid, Sizes, Source, StepParams};
use crate::plan::{ALIGN, Launch, Plan, Space};

/// Bytes to which bindings are aligned: no adapter may ask for more.
const ALIGN_BYTES: u64 = 4 * ALIGN as u64;
/// Floating-point operations in one submit, at most (a launch is never cut): a second on a slow integrated GPU, where a
/// watchdog resets the driver after two.
const SUBMIT_FLOPS: u64 = 50_000_000_000;

/// The device's buffers as bindings see them.
pub(super) struct Buffers {
    /// One per space, in the order of [`SPACES`].
    pub spaces: [wgpu::Buffer; SPACES.len()],
    /// The first words of [`Space::Inputs`] as a uniform block.
    pub step: wgpu::Buffer,
    /// What is bound for tensors without elements, as WebGPU binds at least one: a block of [`ALIGN`] words for each
    /// argument of a launch. No kernel touches it.
    pub empty: wgpu::Buffer,
}

/// Words to which bindings are widened, for tensors that a shader reads four elements at a time. The next tensor begins at a
/// multiple of [`ALIGN`], so none is reached.
const QUAD: usize = 4;

/// Tensors of one kernel at most.
pub(super) const MOST_ARGS: usize = 16;

impl Buffers {
    /// The buffer of a space.
    pub fn of(&self, space: Space) -> &wgpu::Buffer {
        let index = SPACES.iter().position(|&other| other == space);
        &self.spaces[index.expect("SPACES holds every space")]
    }
}

/// Which variant of each kernel a device launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variants {
    /// The first, which every adapter can run.
    #[default]
    First,
    /// The one with this number, or the last: tests walk through them with it.
    Nth(usize),
}

impl Variants {
    fn choose(self, source: &Source) -> usize {
        match self {
            Variants::First => 0,
            Variants::Nth(index) => index.min(source.variants.len() - 1),
        }
    }
}

/// See the module.
pub(super) struct Loaded {
    pub name: String,
    pub launches: Vec<LoadedLaunch>,
    /// Launches of each submit.
    pub submits: Vec<std::ops::Range<usize>>,
}

/// One dispatch for each of the kernel's entry points.
pub(super) struct LoadedLaunch {
    pub stages: Vec<wgpu::ComputePipeline>,
    pub bindings: wgpu::BindGroup,
    pub grid: Grid,
}

impl Loaded {
    /// Prepares a plan whose places have been checked.
    pub fn new(shared: &Shared, buffers: &Buffers, variants: Variants, plan: &Plan) -> Result<Loaded, DeviceError> {
        let (mut chosen, mut pipelines) = (Vec::new(), Vec::new());
        for launch in &plan.launches {
            let variant = variants.choose(source(launch.kernel)?);
            chosen.push(&source(launch.kernel)?.variants[variant]);
            pipelines.push(pipeline(shared, launch.kernel, variant, &launch.dims)?);
        }
        let (words, offsets) = constants(plan, &pipelines);
        let block = shared.watched("the launch constants", || {
            let block = shared.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("launch constants"),
                size: (4 * words.len() as u64).max(ALIGN_BYTES),
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            shared.queue.write_buffer(&block, 0, bytemuck::cast_slice(&words));
            block
        })?;
        let mut launches = Vec::with_capacity(plan.launches.len());
        for (index, launch) in plan.launches.iter().enumerate() {
            let grid = (launch.kernel.grid)(&launch.dims, chosen[index]);
            let block = (&block, offsets[index]);
            launches.push(load(shared, buffers, plan, launch, &pipelines[index], block, grid)?);
        }
        Ok(Loaded {
            name: plan.name.clone(),
            launches,
            submits: submits(plan),
        })
    }
}

/// The launch constants of all launches, each block aligned, and where each begins, in bytes.
fn constants(plan: &Plan, pipelines: &[Pipeline]) -> (Vec<u32>, Vec<u64>) {
    let (mut words, mut offsets) = (Vec::new(), Vec::new());
    for (launch, pipeline) in plan.launches.iter().zip(pipelines) {
        let start = words.len();
        offsets.push(4 * start as u64);
        let Some(block) = &pipeline.interface.constants else {
            continue;
        };
        words.resize((start + block.words).next_multiple_of(ALIGN), 0);
        for (name, place) in launch.kernel.constants.iter().zip(&block.places) {
            let word = launch.dims.device_word(name);
            words[start + place] = word.expect("the recorder found every constant of the table");
        }
    }
    (words, offsets)
}

fn load(
    shared: &Shared,
    buffers: &Buffers,
    plan: &Plan,
    launch: &Launch,
    pipeline: &Pipeline,
    (block, offset): (&wgpu::Buffer, u64),
    grid: Grid,
) -> Result<LoadedLaunch, DeviceError> {
    let kernel = launch.kernel;
    let what = || format!("{}: {}", launch.scope, kernel.name);
    let groups = u64::from(shared.limits.max_compute_workgroups_per_dimension);
    for side in grid {
        shared.limit(&what(), "workgroups in one direction", u64::from(side), groups)?;
    }
    let mut entries = Vec::with_capacity(kernel.args.len() + 2);
    let mut bind = |binding: u32, buffer, offset: u64, bytes: u64| {
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
        bind(binding, &buffers.step, 0, 4 * StepParams::WORDS as u64);
    }
    if let Some(constants) = &pipeline.interface.constants {
        bind(constants.binding, block, offset, 4 * constants.words as u64);
    }
    let args = kernel.args.iter().zip(&launch.values).zip(&pipeline.interface.args);
    for (slot, ((arg, &value), &binding)) in args.enumerate() {
        let place = plan.place(value);
        if !place.offset.is_multiple_of(ALIGN) {
            return Err(DeviceError::Misaligned {
                backend: BACKEND,
                scope: launch.scope.clone(),
                kernel: kernel.name,
                arg: arg.name,
                space: place.space,
                offset: place.offset,
                align: ALIGN,
            });
        }
        let bytes = 4 * place.words.next_multiple_of(QUAD) as u64;
        let most = shared.limits.max_storage_buffer_binding_size;
        shared.limit(
            &format!("{}, `{}`", what(), arg.name),
            "bytes in one tensor",
            bytes,
            most,
        )?;
        if bytes == 0 {
            bind(binding, &buffers.empty, 4 * (slot * ALIGN) as u64, 4);
            continue;
        }
        bind(binding, buffers.of(place.space), 4 * place.offset as u64, bytes);
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
fn submits(plan: &Plan) -> Vec<std::ops::Range<usize>> {
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
