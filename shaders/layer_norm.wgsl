// LayerNorm, alone and fused with dropout and the residual sum (src/ops/layer_norm).
//
// Forward: one workgroup a row of s, what is normalised; each thread keeps no state between the three passes over the row (mean, variance,
// result), which stays in cache. Bytes moved: the row once in, once out, per tensor.
//
// Backward: one workgroup per block of 64 rows. For each row two sums and ds; then the block's column sums for dgamma and
// dbeta, a thread a column, from dy and s that are still in L2. bias_grad.finish adds the blocks.

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

@group(0) @binding(2) var<storage, read_write> s: array<f32>;               // [rows, width]
@group(0) @binding(3) var<storage, read_write> residual: array<f32>;        // [rows, width]
@group(0) @binding(4) var<storage, read_write> gamma: array<f32>;           // [1, width]
@group(0) @binding(5) var<storage, read_write> beta: array<f32>;            // [1, width]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;               // [rows, width]
@group(0) @binding(7) var<storage, read_write> stats: array<f32>;           // [rows, 2]: mean, rstd
@group(0) @binding(8) var<storage, read_write> dy: array<f32>;              // [rows, width]
@group(0) @binding(9) var<storage, read_write> dx: array<f32>;              // [rows, width]
@group(0) @binding(10) var<storage, read_write> dresidual: array<f32>;      // [rows, width]
@group(0) @binding(11) var<storage, read_write> dgamma_partials: array<f32>; // [blocks, width]
@group(0) @binding(12) var<storage, read_write> dbeta_partials: array<f32>; // [blocks, width]

const BLOCK_ROWS = 64u;

struct Moments {
    mean: f32,
    rstd: f32,
}

// Means over a row of g = dy gamma and of g xhat.
struct Means {
    g: f32,
    gx: f32,
}

fn live_rows() -> u32 {
    return live(constants.rows, constants.rows_count, constants.rows_start);
}

fn factor(element: u32) -> f32 {
    return dropout_factor(element, constants.op, constants.threshold, constants.keep_scale);
}

// Mean and rstd of a row of s, also written to stats; total: what the thread's elements add up to.
fn statistics(row: u32, thread: u32, total: f32) -> Moments {
    let width = constants.width;
    let mean = workgroup_sum(thread, total) / f32(width);
    var squares = 0.0;
    for (var column = thread; column < width; column += THREADS) {
        let centred = s[row * width + column] - mean;
        squares += centred * centred;
    }
    let variance = workgroup_sum(thread, squares) / f32(width);
    let rstd = 1.0 / sqrt(variance + constants.epsilon);
    if thread == 0u {
        stats[2u * row] = mean;
        stats[2u * row + 1u] = rstd;
    }
    return Moments(mean, rstd);
}

// LN of an element.
fn normalised(element: u32, column: u32, moments: Moments) -> f32 {
    return fma((s[element] - moments.mean) * moments.rstd, gamma[column], beta[column]);
}

// y = dropout(LN(s))
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
        total += s[first + column];
    }
    let moments = statistics(row, thread, total);
    for (var column = thread; column < width; column += THREADS) {
        let element = first + column;
        y[element] = normalised(element, column, moments) * factor(element);
    }
}

// s = residual + dropout(s), y = LN(s). Each thread reads in the later passes only what it wrote itself.
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
        let sum = residual[element] + s[element] * factor(element);
        s[element] = sum;
        total += sum;
    }
    let moments = statistics(row, thread, total);
    for (var column = thread; column < width; column += THREADS) {
        let element = first + column;
        y[element] = normalised(element, column, moments);
    }
}

fn moments_of(row: u32) -> Moments {
    return Moments(stats[2u * row], stats[2u * row + 1u]);
}

// An element of dy as it reaches the LayerNorm: with the forward's dropout where y was dropped.
fn upstream(element: u32, dropped: bool) -> f32 {
    if dropped {
        return dy[element] * factor(element);
    }
    return dy[element];
}

fn row_means(row: u32, thread: u32, dropped: bool) -> Means {
    let width = constants.width;
    let moments = moments_of(row);
    var means = Means(0.0, 0.0);
    for (var column = thread; column < width; column += THREADS) {
        let element = row * width + column;
        let g = upstream(element, dropped) * gamma[column];
        means.g += g;
        means.gx += g * (s[element] - moments.mean) * moments.rstd;
    }
    let g = workgroup_sum(thread, means.g) / f32(width);
    let gx = workgroup_sum(thread, means.gx) / f32(width);
    return Means(g, gx);
}

// The gradient of an element of s.
fn ds(row: u32, column: u32, means: Means, dropped: bool) -> f32 {
    let element = row * constants.width + column;
    let moments = moments_of(row);
    let xhat = (s[element] - moments.mean) * moments.rstd;
    return moments.rstd * (upstream(element, dropped) * gamma[column] - means.g - xhat * means.gx);
}

// Column sums of the rows of a block.
fn column_sums(block: u32, end_row: u32, thread: u32, dropped: bool) {
    let width = constants.width;
    for (var column = thread; column < width; column += THREADS) {
        var dgamma = 0.0;
        var dbeta = 0.0;
        for (var row = block * BLOCK_ROWS; row < end_row; row += 1u) {
            let element = row * width + column;
            let moments = moments_of(row);
            let d = upstream(element, dropped);
            dgamma += d * (s[element] - moments.mean) * moments.rstd;
            dbeta += d;
        }
        dgamma_partials[block * width + column] = dgamma;
        dbeta_partials[block * width + column] = dbeta;
    }
}

// dx (+)= LN'(dropout'(dy)) and the block's column sums
@compute @workgroup_size(256)
fn layer_norm_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let width = constants.width;
    let end_row = min((group.x + 1u) * BLOCK_ROWS, live_rows());
    for (var row = group.x * BLOCK_ROWS; row < end_row; row += 1u) {
        let means = row_means(row, thread, true);
        for (var column = thread; column < width; column += THREADS) {
            let element = row * width + column;
            let d = ds(row, column, means, true);
            if constants.accumulate_dx != 0u {
                dx[element] += d;
            } else {
                dx[element] = d;
            }
        }
    }
    column_sums(group.x, end_row, thread, true);
}

// dresidual (+)= ds, dx = dropout'(ds) and the block's column sums
@compute @workgroup_size(256)
fn layer_norm_residual_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let width = constants.width;
    let end_row = min((group.x + 1u) * BLOCK_ROWS, live_rows());
    for (var row = group.x * BLOCK_ROWS; row < end_row; row += 1u) {
        let means = row_means(row, thread, false);
        for (var column = thread; column < width; column += THREADS) {
            let element = row * width + column;
            let d = ds(row, column, means, false);
            if constants.accumulate_dresidual != 0u {
                dresidual[element] += d;
            } else {
                dresidual[element] = d;
            }
            dx[element] = d * factor(element);
        }
    }
    column_sums(group.x, end_row, thread, false);
}
