// LayerNorm, alone and fused with dropout and the residual sum (src/ops/layer_norm).
//
// Forward: one workgroup a row; each thread keeps no state between the three passes over the row (mean, variance,
// result), which stays in cache. Bytes moved: the row once in, once out, per tensor.
//
// Backward: one workgroup per block of 64 rows. For each row two sums and ds; then the block's column sums for dgamma and
// dbeta, a thread a column, from dy and x that are still in L2. bias_grad.finish adds the blocks.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
    width: u32,
    epsilon: f32,
    threshold: u32,
    keep_scale: f32,
    op: u32,
    accumulate_dx: u32,
    accumulate_dresidual: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> x: array<f32>;               // [rows, width]
@group(0) @binding(3) var<storage, read_write> residual: array<f32>;        // [rows, width]
@group(0) @binding(4) var<storage, read_write> sum: array<f32>;             // [rows, width]
@group(0) @binding(5) var<storage, read_write> gamma: array<f32>;           // [1, width]
@group(0) @binding(6) var<storage, read_write> beta: array<f32>;            // [1, width]
@group(0) @binding(7) var<storage, read_write> y: array<f32>;               // [rows, width]
@group(0) @binding(8) var<storage, read_write> stats: array<f32>;           // [rows, 2]: mean, rstd
@group(0) @binding(9) var<storage, read_write> dy: array<f32>;              // [rows, width]
@group(0) @binding(10) var<storage, read_write> dx: array<f32>;             // [rows, width]
@group(0) @binding(11) var<storage, read_write> dresidual: array<f32>;      // [rows, width]
@group(0) @binding(12) var<storage, read_write> dgamma_partials: array<f32>; // [blocks, width]
@group(0) @binding(13) var<storage, read_write> dbeta_partials: array<f32>; // [blocks, width]

const THREADS = 256u;
const BLOCK_ROWS = 64u;

fn live_rows() -> u32 {
    return live(constants.rows, constants.rows_count, constants.rows_start);
}

fn factor(element: u32) -> f32 {
    return dropout_factor(element, constants.op, constants.threshold, constants.keep_scale);
}

// y = dropout(LN(x))
@compute @workgroup_size(256)
fn layer_norm_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x;
    if row >= live_rows() {
        return;
    }
    let width = constants.width;
    let first = row * width;
    var total = 0.0;
    for (var column = thread; column < width; column += THREADS) {
        total += x[first + column];
    }
    let mean = workgroup_sum(thread, total) / f32(width);
    var squares = 0.0;
    for (var column = thread; column < width; column += THREADS) {
        let centred = x[first + column] - mean;
        squares += centred * centred;
    }
    let variance = workgroup_sum(thread, squares) / f32(width);
    let rstd = 1.0 / sqrt(variance + constants.epsilon);
    if thread == 0u {
        stats[2u * row] = mean;
        stats[2u * row + 1u] = rstd;
    }
    for (var column = thread; column < width; column += THREADS) {
        let element = first + column;
        let xhat = (x[element] - mean) * rstd;
        y[element] = fma(xhat, gamma[column], beta[column]) * factor(element);
    }
}

// sum = residual + dropout(sum), y = LN(sum). Each thread reads in the later passes only what it wrote itself.
@compute @workgroup_size(256)
fn layer_norm_residual_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x;
    if row >= live_rows() {
        return;
    }
    let width = constants.width;
    let first = row * width;
    var total = 0.0;
    for (var column = thread; column < width; column += THREADS) {
        let element = first + column;
        let s = residual[element] + sum[element] * factor(element);
        sum[element] = s;
        total += s;
    }
    let mean = workgroup_sum(thread, total) / f32(width);
    var squares = 0.0;
    for (var column = thread; column < width; column += THREADS) {
        let centred = sum[first + column] - mean;
        squares += centred * centred;
    }
    let variance = workgroup_sum(thread, squares) / f32(width);
    let rstd = 1.0 / sqrt(variance + constants.epsilon);
    if thread == 0u {
        stats[2u * row] = mean;
        stats[2u * row + 1u] = rstd;
    }
    for (var column = thread; column < width; column += THREADS) {
        let element = first + column;
        let xhat = (sum[element] - mean) * rstd;
        y[element] = fma(xhat, gamma[column], beta[column]);
    }
}

// dx (+)= LN'(dropout'(dy)) and the block's column sums
@compute @workgroup_size(256)
fn layer_norm_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let width = constants.width;
    let first_row = group.x * BLOCK_ROWS;
    let end_row = min(first_row + BLOCK_ROWS, live_rows());
    for (var row = first_row; row < end_row; row += 1u) {
        let first = row * width;
        let mean = stats[2u * row];
        let rstd = stats[2u * row + 1u];
        var of_g = 0.0;
        var of_gx = 0.0;
        for (var column = thread; column < width; column += THREADS) {
            let element = first + column;
            let g = dy[element] * factor(element) * gamma[column];
            of_g += g;
            of_gx += g * (x[element] - mean) * rstd;
        }
        let mean_g = workgroup_sum(thread, of_g) / f32(width);
        let mean_gx = workgroup_sum(thread, of_gx) / f32(width);
        for (var column = thread; column < width; column += THREADS) {
            let element = first + column;
            let g = dy[element] * factor(element) * gamma[column];
            let xhat = (x[element] - mean) * rstd;
            let ds = rstd * (g - mean_g - xhat * mean_gx);
            if constants.accumulate_dx != 0u {
                dx[element] += ds;
            } else {
                dx[element] = ds;
            }
        }
    }
    for (var column = thread; column < width; column += THREADS) {
        var dgamma = 0.0;
        var dbeta = 0.0;
        for (var row = first_row; row < end_row; row += 1u) {
            let element = row * width + column;
            let d = dy[element] * factor(element);
            dgamma += d * (x[element] - stats[2u * row]) * stats[2u * row + 1u];
            dbeta += d;
        }
        dgamma_partials[group.x * width + column] = dgamma;
        dbeta_partials[group.x * width + column] = dbeta;
    }
}

// dresidual (+)= ds, dx = dropout'(ds) and the block's column sums
@compute @workgroup_size(256)
fn layer_norm_residual_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let width = constants.width;
    let first_row = group.x * BLOCK_ROWS;
    let end_row = min(first_row + BLOCK_ROWS, live_rows());
    for (var row = first_row; row < end_row; row += 1u) {
        let first = row * width;
        let mean = stats[2u * row];
        let rstd = stats[2u * row + 1u];
        var of_g = 0.0;
        var of_gx = 0.0;
        for (var column = thread; column < width; column += THREADS) {
            let element = first + column;
            let g = dy[element] * gamma[column];
            of_g += g;
            of_gx += g * (sum[element] - mean) * rstd;
        }
        let mean_g = workgroup_sum(thread, of_g) / f32(width);
        let mean_gx = workgroup_sum(thread, of_gx) / f32(width);
        for (var column = thread; column < width; column += THREADS) {
            let element = first + column;
            let g = dy[element] * gamma[column];
            let xhat = (sum[element] - mean) * rstd;
            let ds = rstd * (g - mean_g - xhat * mean_gx);
            if constants.accumulate_dresidual != 0u {
                dresidual[element] += ds;
            } else {
                dresidual[element] = ds;
            }
            dx[element] = ds * factor(element);
        }
    }
    for (var column = thread; column < width; column += THREADS) {
        var dgamma = 0.0;
        var dbeta = 0.0;
        for (var row = first_row; row < end_row; row += 1u) {
            let element = row * width + column;
            dgamma += dy[element] * (sum[element] - stats[2u * row]) * stats[2u * row + 1u];
            dbeta += dy[element];
        }
        dgamma_partials[group.x * width + column] = dgamma;
        dbeta_partials[group.x * width + column] = dbeta;
    }
}
