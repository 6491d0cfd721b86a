//! Pipelines: one per kernel and variant, compiled at its first use and kept with the adapter.

use std::collections::HashMap;

use super::adapter::Shared;
use super::shader::{BACKEND, Interface, Shader};
use crate::device::DeviceError;
use crate::kernel::{Kernel, Source};

/// Compiled files by name.
pub(super) type Shaders = HashMap<&'static str, Compiled>;

/// One op file with its pipelines by kernel and variant.
pub(super) struct Compiled {
    shader: Shader,
    module: wgpu::ShaderModule,
    pipelines: HashMap<(&'static str, usize), Pipeline>,
}

/// A kernel ready to be bound and dispatched.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    pub interface: Interface,
}

/// The pipeline of a kernel's variant.
///
/// # Errors
/// [`DeviceError::Missing`], [`DeviceError::Compile`], [`DeviceError::Interface`], [`DeviceError::Limit`].
pub(super) fn pipeline(shared: &Shared, kernel: &'static Kernel, variant: usize) -> Result<Pipeline, DeviceError> {
    let source = kernel.wgsl.as_ref().ok_or(DeviceError::Missing {
        backend: BACKEND,
        kernel: kernel.name,
    })?;
    let mut shaders = shared.shaders.lock().expect("nobody panics while compiling");
    if !shaders.contains_key(source.file.name) {
        shaders.insert(source.file.name, compile(shared, source)?);
    }
    let compiled = shaders.get_mut(source.file.name).expect("just inserted");
    if let Some(pipeline) = compiled.pipelines.get(&(kernel.name, variant)) {
        return Ok(pipeline.clone());
    }
    let pipeline = build(shared, compiled, kernel, source, variant)?;
    compiled.pipelines.insert((kernel.name, variant), pipeline.clone());
    Ok(pipeline)
}

fn compile(shared: &Shared, source: &Source) -> Result<Compiled, DeviceError> {
    let shader = Shader::new(source)?;
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(source.file.name),
        source: wgpu::ShaderSource::Wgsl(shader.text.as_str().into()),
    };
    let module = shared.watched(source.file.name, || {
        if shared.checked {
            return shared.device.create_shader_module(descriptor);
        }
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        // SAFETY: the shaders are the crate's own. They index inside their tensors, their loops end and they divide by
        // constants; the tests run every kernel with and without checks and compare bits and surroundings.
        unsafe { shared.device.create_shader_module_trusted(descriptor, checks) }
    })?;
    Ok(Compiled {
        shader,
        module,
        pipelines: HashMap::new(),
    })
}

fn build(
    shared: &Shared,
    compiled: &Compiled,
    kernel: &'static Kernel,
    source: &Source,
    variant: usize,
) -> Result<Pipeline, DeviceError> {
    let interface = compiled.shader.interface(kernel, source)?;
    let limits = &shared.limits;
    let limit = |unit, needed: usize, available: u64| shared.limit(kernel.name, unit, needed as u64, available);
    let buffers = u64::from(limits.max_storage_buffers_per_shader_stage);
    limit("tensors", interface.args.len(), buffers)?;
    let invocations = limits
        .max_compute_invocations_per_workgroup
        .min(limits.max_compute_workgroup_size_x);
    limit("threads per workgroup", source.threads as usize, u64::from(invocations))?;
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
    let constants: Vec<(&str, f64)> = source
        .defines
        .iter()
        .chain(kernel.variants[variant].defines)
        .map(|&(name, value)| (name, f64::from(value)))
        .collect();
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
        let pipeline = shared.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&pipeline_layout),
            module: &compiled.module,
            entry_point: Some(source.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Pipeline {
            pipeline,
            layout,
            interface,
        }
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
