//! How many threads that follow each other in a workgroup exchange values directly.
//!
//! WGSL says neither how large subgroups are nor which threads form one. Drivers put threads that follow each other into
//! one subgroup, of at least the size that the adapter reports; variants that rely on it are used only where a shader
//! that tries it has seen every value arrive.

use super::adapter::{Shared, backend};
use crate::device::DeviceError;

/// Threads of the workgroup that tries.
const THREADS: u32 = 256;
/// Most lanes that are made use of: half of what a tree over [`THREADS`] adds up.
const MOST: u32 = 128;

/// The shader: 1 for each thread that got its partners' numbers, for every distance below `lanes`.
fn text(lanes: u32) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> arrived: array<u32>;

@compute @workgroup_size({THREADS})
fn exchange(@builtin(local_invocation_index) thread: u32) {{
    var all = 1u;
    for (var mask = 1u; mask < {lanes}u; mask *= 2u) {{
        all &= u32(subgroupShuffleXor(thread, mask) == (thread ^ mask));
    }}
    arrived[thread] = all;
}}
"
    )
}

/// The number of lanes, where the adapter's smallest subgroup is of this size; 1 if the exchange does not work.
pub(super) fn lanes(shared: &Shared, smallest: u32) -> Result<u32, DeviceError> {
    let lanes = if smallest.is_power_of_two() {
        smallest.min(MOST)
    } else {
        1
    };
    if lanes == 1 {
        return Ok(1);
    }
    let (device, bytes) = (&shared.device, 4 * u64::from(THREADS));
    let read = shared.watched("trying subgroups", || {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("exchange"),
            source: wgpu::ShaderSource::Wgsl(text(lanes).into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("exchange"),
            layout: None,
            module: &module,
            entry_point: Some("exchange"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let buffer = |label, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage,
                mapped_at_creation: false,
            })
        };
        let arrived = buffer("arrived", wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
        let read = buffer("read", wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("exchange"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry {
                binding: 0,
                resource: arrived.as_entire_binding(),
            }],
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        encoder.copy_buffer_to_buffer(&arrived, 0, &read, 0, bytes);
        shared.queue.submit([encoder.finish()]);
        read.map_async(wgpu::MapMode::Read, .., |_| ()); // a failure shows in `wait` or in the mapped range
        read
    })?;
    shared.wait(None)?;
    let mapped = read.get_mapped_range(..);
    let mapped = mapped.map_err(|error| backend(format!("trying subgroups of {}: {error}", shared.info)))?;
    let all = bytemuck::pod_collect_to_vec::<u8, u32>(&mapped)
        .iter()
        .all(|&one| one == 1);
    Ok(if all { lanes } else { 1 })
}
