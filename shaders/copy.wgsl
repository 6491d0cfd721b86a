// Copies (src/ops/copy.rs), a thread an element.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
    width: u32,
    accumulate_y: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> x: array<Stored>; // [rows, width]
@group(0) @binding(3) var<storage, read_write> y: array<Stored>; // [rows, width]
@group(0) @binding(4) var<storage, read_write> wide: array<f32>; // [rows, width]

// y (+)= x
@compute @workgroup_size(256)
fn copy(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let element = covered_element(group, groups, thread);
    if element < live(constants.rows, constants.rows_count, constants.rows_start) * constants.width {
        if constants.accumulate_y != 0u {
            y[element] = Stored(f32(y[element]) + f32(x[element]));
        } else {
            y[element] = x[element];
        }
    }
}

// wide = x
@compute @workgroup_size(256)
fn copy_widen(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let element = covered_element(group, groups, thread);
    if element < live(constants.rows, constants.rows_count, constants.rows_start) * constants.width {
        wide[element] = f32(x[element]);
    }
}
