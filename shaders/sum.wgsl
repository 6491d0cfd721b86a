// total = sum of x (src/ops/sum.rs), one workgroup: a batch has some thousand rows at most.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> x: array<f32>;     // [rows, 1]
@group(0) @binding(3) var<storage, read_write> total: array<f32>; // [1, 1]

@compute @workgroup_size(256)
fn sum(@builtin(local_invocation_index) thread: u32) {
    let rows = live(constants.rows, constants.rows_count, constants.rows_start);
    var terms = 0.0;
    for (var row = thread; row < rows; row += 256u) {
        terms += x[row];
    }
    let all = workgroup_sum(thread, terms);
    if thread == 0u {
        total[0] = all;
    }
}
