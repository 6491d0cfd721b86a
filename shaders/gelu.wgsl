// dz = da gelu'(z) (src/ops/gelu.rs), a thread an element.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
    width: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> da: array<Stored>; // [rows, width]
@group(0) @binding(3) var<storage, read_write> z: array<Stored>;  // [rows, width]
@group(0) @binding(4) var<storage, read_write> dz: array<Stored>; // [rows, width]

@compute @workgroup_size(256)
fn gelu_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let element = covered_element(group, groups, thread);
    if element < live(constants.rows, constants.rows_count, constants.rows_start) * constants.width {
        dz[element] = Stored(f32(da[element]) * gelu_derivative(f32(z[element])));
    }
}
