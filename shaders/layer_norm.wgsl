// LayerNorm, alone and fused with dropout and the residual sum (src/ops/layer_norm).
//
// A team of 32 threads has a row of s, what is normalised, and each of them every 32nd quad of its columns; a quad is one
// counter of dropout where the width is a multiple of 4. Nothing is kept between the passes over a row (mean, variance,
// result), which stays in cache; a thread reads in the later ones only what it read or wrote itself.
//
// Forward: eight rows a workgroup. Bytes moved: the row once in, once out, per tensor.
// Backward: a workgroup per block of 64 rows, eight of them for each team. For each row two sums and ds; then the block's
// column sums for dgamma and dbeta, from dy and s that are still in L2: each team adds up its rows, then the teams
// are added. bias_grad.finish adds the blocks.

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

@group(0) @binding(2) var<storage, read_write> s: array<Stored>;             // [rows, width]
@group(0) @binding(3) var<storage, read_write> residual: array<Stored>;      // [rows, width]
@group(0) @binding(4) var<storage, read_write> gamma: array<f32>;            // [1, width]
@group(0) @binding(5) var<storage, read_write> beta: array<f32>;             // [1, width]
@group(0) @binding(6) var<storage, read_write> y: array<Stored>;             // [rows, width]
@group(0) @binding(7) var<storage, read_write> stats: array<f32>;            // [rows, 2]: mean, rstd
@group(0) @binding(8) var<storage, read_write> dy: array<Stored>;            // [rows, width]
@group(0) @binding(9) var<storage, read_write> dx: array<Stored>;            // [rows, width]
@group(0) @binding(10) var<storage, read_write> dresidual: array<Stored>;    // [rows, width]
@group(0) @binding(11) var<storage, read_write> dgamma_partials: array<f32>; // [blocks, width]
@group(0) @binding(12) var<storage, read_write> dbeta_partials: array<f32>;  // [blocks, width]

const BLOCK_ROWS = 64u;
const TEAM = 32u; // threads that share a row
const LANES = min(SUBGROUP, TEAM); // of them exchange values without workgroup memory
const_assert THREADS == ROWS * TEAM;

var<workgroup> team_terms: array<vec2<f32>, 256>;
var<workgroup> dgamma_terms: array<vec4<f32>, THREADS>; // [ROWS teams][TEAM]
var<workgroup> dbeta_terms: array<vec4<f32>, THREADS>;

struct Moments {
    mean: f32,
    rstd: f32,
}

// Means over a row of g = dy gamma and of g xhat.
struct Means {
    g: f32,
    gx: f32,
}

// The sum of x over the thread's team, known to every thread of it. All threads of the workgroup must call it.
fn team_sum(thread: u32, x: vec2<f32>) -> vec2<f32> {
    var sum = x;
    if LANES < TEAM {
        team_terms[thread] = x;
        for (var half = TEAM / 2u; half >= LANES; half /= 2u) {
            workgroupBarrier();
            if thread % TEAM < half {
                team_terms[thread] += team_terms[thread + half];
            }
        }
        workgroupBarrier();
        sum = team_terms[thread - thread % TEAM + thread % LANES];
        workgroupBarrier(); // the next sum may overwrite it
    }
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        sum += vec2<f32>(lane_xor(sum.x, half), lane_xor(sum.y, half));
    }
    return sum;
}

fn live_rows() -> u32 {
    return live(constants.rows, constants.rows_count, constants.rows_start);
}

// What dropout multiplies four neighbouring elements with.
fn factors(element: u32) -> vec4<f32> {
    if constants.width % 4u == 0u {
        return dropout_factors(element / 4u, constants.op, constants.threshold, constants.keep_scale);
    }
    return vec4<f32>(factor(element), factor(element + 1u), factor(element + 2u), factor(element + 3u));
}

fn factor(element: u32) -> f32 {
    return dropout_factor(element, constants.op, constants.threshold, constants.keep_scale);
}

// Four columns of a row of a tensor, zero beyond the width.

fn s_quad(row: u32, column: u32) -> vec4<f32> {
    let word = row * constants.width + column;
    if column + 3u < constants.width {
        return vec4<f32>(vec4<Stored>(s[word], s[word + 1u], s[word + 2u], s[word + 3u]));
    }
    var quad = vec4<f32>();
    for (var i = 0u; column + i < constants.width; i += 1u) {
        quad[i] = f32(s[word + i]);
    }
    return quad;
}

fn residual_quad(row: u32, column: u32) -> vec4<f32> {
    let word = row * constants.width + column;
    if column + 3u < constants.width {
        return vec4<f32>(vec4<Stored>(residual[word], residual[word + 1u], residual[word + 2u], residual[word + 3u]));
    }
    var quad = vec4<f32>();
    for (var i = 0u; column + i < constants.width; i += 1u) {
        quad[i] = f32(residual[word + i]);
    }
    return quad;
}

fn dy_quad(row: u32, column: u32) -> vec4<f32> {
    let word = row * constants.width + column;
    if column + 3u < constants.width {
        return vec4<f32>(vec4<Stored>(dy[word], dy[word + 1u], dy[word + 2u], dy[word + 3u]));
    }
    var quad = vec4<f32>();
    for (var i = 0u; column + i < constants.width; i += 1u) {
        quad[i] = f32(dy[word + i]);
    }
    return quad;
}

fn gamma_quad(column: u32) -> vec4<f32> {
    let word = column;
    if column + 3u < constants.width {
        return vec4<f32>(gamma[word], gamma[word + 1u], gamma[word + 2u], gamma[word + 3u]);
    }
    var quad = vec4<f32>();
    for (var i = 0u; column + i < constants.width; i += 1u) {
        quad[i] = gamma[word + i];
    }
    return quad;
}

fn beta_quad(column: u32) -> vec4<f32> {
    let word = column;
    if column + 3u < constants.width {
        return vec4<f32>(beta[word], beta[word + 1u], beta[word + 2u], beta[word + 3u]);
    }
    var quad = vec4<f32>();
    for (var i = 0u; column + i < constants.width; i += 1u) {
        quad[i] = beta[word + i];
    }
    return quad;
}

// A quad of a row with zeros where no column is, so that it adds nothing to a sum.
fn inside(column: u32, x: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), x, vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(constants.width));
}

fn total(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

// Mean and rstd of a row of s, also written to stats; sum: what the thread's elements add up to.
fn statistics(row: u32, rows: u32, thread: u32, sum: f32) -> Moments {
    let width = constants.width;
    let mean = team_sum(thread, vec2<f32>(sum, 0.0)).x / f32(width);
    var squares = 0.0;
    if row < rows {
        for (var column = 4u * (thread % TEAM); column < width; column += 4u * TEAM) {
            let centred = inside(column, s_quad(row, column) - mean);
            squares += total(centred * centred);
        }
    }
    let variance = team_sum(thread, vec2<f32>(squares, 0.0)).x / f32(width);
    let rstd = 1.0 / sqrt(variance + constants.epsilon);
    if thread % TEAM == 0u && row < rows {
        stats[2u * row] = mean;
        stats[2u * row + 1u] = rstd;
    }
    return Moments(mean, rstd);
}

// LN of a quad.
fn normalised(row: u32, column: u32, moments: Moments) -> vec4<f32> {
    let xhat = (s_quad(row, column) - moments.mean) * moments.rstd;
    return fma(xhat, gamma_quad(column), beta_quad(column));
}

// y = dropout(LN(s))
@compute @workgroup_size(THREADS)
fn layer_norm_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let rows = live_rows();
    let row = workgroup_number(group, groups) * ROWS + thread / TEAM;
    let width = constants.width;
    var sum = 0.0;
    if row < rows {
        for (var column = 4u * (thread % TEAM); column < width; column += 4u * TEAM) {
            sum += total(s_quad(row, column));
        }
    }
    let moments = statistics(row, rows, thread, sum);
    if row >= rows {
        return;
    }
    for (var column = 4u * (thread % TEAM); column < width; column += 4u * TEAM) {
        let element = row * width + column;
        let result = normalised(row, column, moments) * factors(element);
        for (var i = 0u; i < min(4u, width - column); i += 1u) {
            y[element + i] = Stored(result[i]);
        }
    }
}

// s = residual + dropout(s), y = LN(s)
@compute @workgroup_size(THREADS)
fn layer_norm_residual_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let rows = live_rows();
    let row = workgroup_number(group, groups) * ROWS + thread / TEAM;
    let width = constants.width;
    var sum = 0.0;
    if row < rows {
        for (var column = 4u * (thread % TEAM); column < width; column += 4u * TEAM) {
            let element = row * width + column;
            let sums = vec4<Stored>(residual_quad(row, column) + s_quad(row, column) * factors(element));
            for (var i = 0u; i < min(4u, width - column); i += 1u) {
                s[element + i] = sums[i];
            }
            sum += total(inside(column, vec4<f32>(sums)));
        }
    }
    let moments = statistics(row, rows, thread, sum);
    if row >= rows {
        return;
    }
    for (var column = 4u * (thread % TEAM); column < width; column += 4u * TEAM) {
        let result = normalised(row, column, moments);
        for (var i = 0u; i < min(4u, width - column); i += 1u) {
            y[row * width + column + i] = Stored(result[i]);
        }
    }
}

fn moments_of(row: u32) -> Moments {
    return Moments(stats[2u * row], stats[2u * row + 1u]);
}

// A quad of dy as it reaches the LayerNorm: with the forward's dropout where y was dropped.
fn upstream(row: u32, column: u32, dropped: bool) -> vec4<f32> {
    if dropped {
        return dy_quad(row, column) * factors(row * constants.width + column);
    }
    return dy_quad(row, column);
}

fn row_means(row: u32, end_row: u32, thread: u32, dropped: bool) -> Means {
    let width = constants.width;
    var sums = vec2<f32>();
    if row < end_row {
        let moments = moments_of(row);
        for (var column = 4u * (thread % TEAM); column < width; column += 4u * TEAM) {
            let g = upstream(row, column, dropped) * gamma_quad(column);
            let xhat = (s_quad(row, column) - moments.mean) * moments.rstd;
            sums += vec2<f32>(total(g), total(g * xhat));
        }
    }
    let means = team_sum(thread, sums) / f32(width);
    return Means(means.x, means.y);
}

// The gradients of a quad of s.
fn ds(row: u32, column: u32, means: Means, dropped: bool) -> vec4<f32> {
    let moments = moments_of(row);
    let xhat = (s_quad(row, column) - moments.mean) * moments.rstd;
    return moments.rstd * (upstream(row, column, dropped) * gamma_quad(column) - means.g - xhat * means.gx);
}

// Column sums of the rows of a block.
fn column_sums(block: u32, end_row: u32, thread: u32, dropped: bool) {
    let width = constants.width;
    for (var first = 0u; first < width; first += 4u * TEAM) {
        let column = first + 4u * (thread % TEAM);
        var dgamma = vec4<f32>();
        var dbeta = vec4<f32>();
        if column < width {
            for (var row = block * BLOCK_ROWS + thread / TEAM; row < end_row; row += ROWS) {
                let moments = moments_of(row);
                let d = upstream(row, column, dropped);
                dgamma += d * (s_quad(row, column) - moments.mean) * moments.rstd;
                dbeta += d;
            }
        }
        dgamma_terms[thread] = dgamma;
        dbeta_terms[thread] = dbeta;
        workgroupBarrier();
        if thread < TEAM && column < width {
            for (var team = 1u; team < ROWS; team += 1u) {
                dgamma += dgamma_terms[team * TEAM + thread];
                dbeta += dbeta_terms[team * TEAM + thread];
            }
            for (var i = 0u; i < min(4u, width - column); i += 1u) {
                dgamma_partials[block * width + column + i] = dgamma[i];
                dbeta_partials[block * width + column + i] = dbeta[i];
            }
        }
        workgroupBarrier(); // the next columns overwrite the terms
    }
}

// dx (+)= LN'(dropout'(dy)) and the block's column sums
@compute @workgroup_size(THREADS)
fn layer_norm_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let width = constants.width;
    let end_row = min((group.x + 1u) * BLOCK_ROWS, live_rows());
    for (var first = group.x * BLOCK_ROWS; first < end_row; first += ROWS) {
        let row = first + thread / TEAM;
        let means = row_means(row, end_row, thread, true);
        if row < end_row {
            for (var column = 4u * (thread % TEAM); column < width; column += 4u * TEAM) {
                let d = ds(row, column, means, true);
                for (var i = 0u; i < min(4u, width - column); i += 1u) {
                    let element = row * width + column + i;
                    if constants.accumulate_dx != 0u {
                        dx[element] = Stored(f32(dx[element]) + d[i]);
                    } else {
                        dx[element] = Stored(d[i]);
                    }
                }
            }
        }
    }
    column_sums(group.x, end_row, thread, true);
}

// dresidual (+)= ds, dx = dropout'(ds) and the block's column sums
@compute @workgroup_size(THREADS)
fn layer_norm_residual_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let width = constants.width;
    let end_row = min((group.x + 1u) * BLOCK_ROWS, live_rows());
    for (var first = group.x * BLOCK_ROWS; first < end_row; first += ROWS) {
        let row = first + thread / TEAM;
        let means = row_means(row, end_row, thread, false);
        if row < end_row {
            for (var column = 4u * (thread % TEAM); column < width; column += 4u * TEAM) {
                let d = ds(row, column, means, false);
                let dropped = d * factors(row * width + column);
                for (var i = 0u; i < min(4u, width - column); i += 1u) {
                    let element = row * width + column + i;
                    if constants.accumulate_dresidual != 0u {
                        dresidual[element] = Stored(f32(dresidual[element]) + d[i]);
                    } else {
                        dresidual[element] = Stored(d[i]);
                    }
                    dx[element] = Stored(dropped[i]);
                }
            }
        }
    }
    column_sums(group.x, end_row, thread, false);
}
