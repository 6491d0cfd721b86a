//! Pipelines: one per kernel, variant and compiled constants, made at its first use and kept with the adapter.

use std::collections::HashMap;

use super::adapter::{Shared, backend};
use super::shader::{BACKEND, Interface, Shader};
use crate::device::DeviceError;
use crate::kernel::{Dims, Kernel, Precision, Source};

/// Pipelines by kernel, variant, how elements are stored, and the values of the constants that are compiled in.
pub(super) type Pipelines = HashMap<(&'static str, usize, Precision, Vec<u32>), Pipeline>;

/// A kernel ready to be bound and dispatched.
#[derive(Clone)]
pub(super) struct Pipeline {
    /// One per entry point, in order.
    pub stages: Vec<wgpu::ComputePipeline>,
    /// Of all of them.
    pub layout: wgpu::BindGroupLayout,
    pub interface: Interface,
}

/// A kernel's WGSL.
///
/// # Errors
/// [`DeviceError::Missing`].
pub(super) fn source(kernel: &'static Kernel) -> Result<&'static Source, DeviceError> {
    kernel.wgsl.as_ref().ok_or(DeviceError::Missing {
        backend: BACKEND,
        kernel: kernel.name,
    })
}

/// The pipeline of a kernel's variant for a launch of these sizes.
///
/// # Errors
/// [`DeviceError::Missing`], [`DeviceError::Compile`], [`DeviceError::Interface`], [`DeviceError::Limit`].
pub(super) fn pipeline(
    shared: &Shared,
    kernel: &'static Kernel,
    variant: usize,
    dims: &Dims,
) -> Result<Pipeline, DeviceError> {
    let source = source(kernel)?;
    let compiled = source.compiled.iter().map(|name| dims.word(name)).collect();
    let key = (kernel.name, variant, dims.precision(), compiled);
    let mut pipelines = shared.pipelines.lock().expect("nobody panics while compiling");
    if let Some(pipeline) = pipelines.get(&key) {
        return Ok(pipeline.clone());
    }
    let pipeline = build(shared, kernel, source, variant, dims)?;
    pipelines.insert(key, pipeline.clone());
    Ok(pipeline)
}

fn build(
    shared: &Shared,
    kernel: &'static Kernel,
    source: &Source,
    variant: usize,
    dims: &Dims,
) -> Result<Pipeline, DeviceError> {
    let variant = &source.variants[variant];
    if !shared.has(variant) {
        return Err(backend(format!(
            "{} variant {} exchanges values between the threads of a subgroup, which {} does not offer",
            kernel.name, variant.name, shared.info
        )));
    }
    let shader = Shader::new(source, variant, dims, shared.lanes)?;
    let interface = shader.interface(kernel, source)?;
    let limits = &shared.limits;
    let limit = |unit, needed: usize, available: u64| shared.limit(kernel.name, unit, needed as u64, available);
    let buffers = u64::from(limits.max_storage_buffers_per_shader_stage);
    limit("tensors", interface.args.len(), buffers)?;
    let invocations = limits
        .max_compute_invocations_per_workgroup
        .min(limits.max_compute_workgroup_size_x);
    limit(
        "threads per workgroup",
        variant.threads as usize,
        u64::from(invocations),
    )?;
    let memory = u64::from(limits.max_compute_workgroup_storage_size);
    limit("bytes of workgroup memory", interface.workgroup_bytes as usize, memory)?;

    let uniforms = interface
        .step
        .into_iter()
        .chain(interface.constants.as_ref().map(|block| block.binding));
    let mut entries: Vec<_> = uniforms
        .map(|binding| entry(binding, wgpu::BufferBindingType::Uniform))
        .collect();
    let storage = wgpu::BufferBindingType::Storage { read_only: false };
    entries.extend(interface.args.iter().map(|&binding| entry(binding, storage)));
    let module = module(shared, kernel, &shader)?;
    shared.watched(kernel.name, || {
        let layout = shared
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(kernel.name),
                entries: &entries,
            });
        let pipeline_layout = shared.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let stage = |entry: &&'static str| {
            shared.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            })
        };
        Pipeline {
            stages: source.entries.iter().map(stage).collect(),
            layout,
            interface,
        }
    })
}

fn module(shared: &Shared, kernel: &Kernel, shader: &Shader) -> Result<wgpu::ShaderModule, DeviceError> {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(kernel.name),
        source: wgpu::ShaderSource::Wgsl(shader.text.as_str().into()),
    };
    shared.watched(kernel.name, || {
        if shared.checked {
            return shared.device.create_shader_module(descriptor);
        }
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        // SAFETY: the shaders are the crate's own. They index inside their tensors, their loops end and they divide by
        // constants; the tests run every kernel with and without checks and compare bits and surroundings.
        unsafe { shared.device.create_shader_module_trusted(descriptor, checks) }
    })
}

fn entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    }
}
