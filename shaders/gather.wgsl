// Picked rows of a tensor (src/ops/gather.rs), a workgroup a picked row. Bytes moved: each picked row in and out. The row
// numbers ascend strictly, so that no two workgroups of the backward meet.

struct Constants {
    picked: u32,
    picked_count: u32,
    picked_start: u32,
    width: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> x: array<Stored>;  // [rows, width]
@group(0) @binding(3) var<storage, read_write> index: array<u32>; // [picked, 1]
@group(0) @binding(4) var<storage, read_write> y: array<Stored>;  // [picked, width]
@group(0) @binding(5) var<storage, read_write> dy: array<Stored>; // [picked, width]
@group(0) @binding(6) var<storage, read_write> dx: array<Stored>; // [rows, width]

fn live_picked() -> u32 {
    return live(constants.picked, constants.picked_count, constants.picked_start);
}

// y = x[index]
@compute @workgroup_size(256)
fn gather_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let picked = workgroup_number(group, groups);
    if picked >= live_picked() {
        return;
    }
    let row = index[picked];
    for (var column = thread; column < constants.width; column += 256u) {
        y[picked * constants.width + column] = x[row * constants.width + column];
    }
}

// dx[index] += dy
@compute @workgroup_size(256)
fn gather_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let picked = workgroup_number(group, groups);
    if picked >= live_picked() {
        return;
    }
    let row = index[picked];
    for (var column = thread; column < constants.width; column += 256u) {
        let element = row * constants.width + column;
        dx[element] = Stored(f32(dx[element]) + f32(dy[picked * constants.width + column]));
    }
}
