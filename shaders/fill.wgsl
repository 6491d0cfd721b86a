// x = 0 (src/ops/fill.rs), a thread an element.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
    width: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> x: array<Stored>; // [rows, width]

@compute @workgroup_size(256)
fn fill_zero(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let element = covered_element(group, groups, thread);
    if element < live(constants.rows, constants.rows_count, constants.rows_start) * constants.width {
        x[element] = Stored(0.0);
    }
}
