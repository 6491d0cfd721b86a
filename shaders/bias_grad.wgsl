// Column sums in two passes (src/ops/bias_grad.rs). A workgroup sums 64 columns: 4 groups of threads take every fourth
// row, a tree adds the groups. Bytes moved: every element once.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
    width: u32,
    blocks: u32,
    accumulate_d: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> dy: array<Stored>;    // [rows, width]
@group(0) @binding(3) var<storage, read_write> partials: array<f32>; // [blocks, width]
@group(0) @binding(4) var<storage, read_write> d: array<f32>;        // [1, width]

const COLUMNS = 64u;
const GROUPS = 4u;
const BLOCK_ROWS = 64u;

// partials[block] = sums over 64 rows of dy; zero without live rows
@compute @workgroup_size(256)
fn bias_grad_partial(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live(constants.rows, constants.rows_count, constants.rows_start);
    let column = group.x * COLUMNS + thread % COLUMNS;
    let first = group.y * BLOCK_ROWS;
    let end = min(first + BLOCK_ROWS, rows);
    var sum = 0.0;
    if column < constants.width {
        for (var row = first + thread / COLUMNS; row < end; row += GROUPS) {
            sum += f32(dy[row * constants.width + column]);
        }
    }
    let total = group_sum(thread, sum);
    if thread < COLUMNS && column < constants.width {
        partials[group.y * constants.width + column] = total;
    }
}

// d (+)= sum over the blocks
@compute @workgroup_size(256)
fn bias_grad_finish(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = group.x * COLUMNS + thread % COLUMNS;
    var sum = 0.0;
    if column < constants.width {
        for (var block = thread / COLUMNS; block < constants.blocks; block += GROUPS) {
            sum += partials[block * constants.width + column];
        }
    }
    let total = group_sum(thread, sum);
    if thread < COLUMNS && column < constants.width {
        if constants.accumulate_d != 0u {
            d[column] += total;
        } else {
            d[column] = total;
        }
    }
}
