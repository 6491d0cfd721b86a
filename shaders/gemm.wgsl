// Linear layers (src/ops/gemm): c[m, n] = sum over depth of a b, plus what happens to c on its way out.
//
// One workgroup computes a tile of TILE_ROWS x TILE_COLUMNS of c, one thread PART_ROWS x PART_COLUMNS of it in registers,
// as quads of rows by quads of columns that lie a tile's width apart, so that neighbouring threads read and write
// neighbouring quads. The workgroup walks the depth in steps of DEPTH: the steps of a and b lie in workgroup memory as
// [DEPTH][rows or columns]; each product of the inner loop is one vec4 fused multiply-add on quads loaded once for a
// whole row of parts. Per step a thread reads PART_ROWS + PART_COLUMNS words of workgroup memory for
// PART_ROWS x PART_COLUMNS multiply-adds, and the workgroup reads each operand's words once.
//
// Operands are read as quads along their rows, where a row's width is a multiple of 4; where the depth runs along the
// row, a thread turns a block of 4 x 4. Elements beyond the matrices (and rows beyond the live count) enter as zero and
// are never written. Every element of c is one chain of fused multiply-adds in the order of the depth: the same bits
// for all tiles.

struct Constants {
    rows: u32,
    rows_count: u32,
    rows_start: u32,
    n: u32,
    k: u32,
    accumulate_dx: u32,
    accumulate_dw: u32,
}

@group(0) @binding(1) var<uniform> constants: Constants;

@group(0) @binding(2) var<storage, read_write> x: array<vec4<Stored>>;  // [rows, k]
@group(0) @binding(3) var<storage, read_write> w: array<vec4<Stored>>;  // [n, k]
@group(0) @binding(4) var<storage, read_write> b: array<f32>;           // [1, n]
@group(0) @binding(5) var<storage, read_write> y: array<Stored>;        // [rows, n]
@group(0) @binding(6) var<storage, read_write> z: array<Stored>;        // [rows, n]; in backward_gelu [rows, k]
@group(0) @binding(7) var<storage, read_write> a: array<Stored>;        // [rows, n]
@group(0) @binding(8) var<storage, read_write> dy: array<vec4<Stored>>; // [rows, n]
@group(0) @binding(9) var<storage, read_write> dx: array<Stored>;       // [rows, k]
@group(0) @binding(10) var<storage, read_write> dz: array<Stored>;      // [rows, k]
@group(0) @binding(11) var<storage, read_write> dw: array<f32>;         // [n, k]

const ROW_QUADS = TILE_ROWS / 4u;
const COLUMN_QUADS = TILE_COLUMNS / 4u;
const PART_ROW_QUADS = PART_ROWS / 4u;
const PART_COLUMN_QUADS = PART_COLUMNS / 4u;
const QUADS = PART_ROWS * PART_COLUMN_QUADS;
const THREADS_DOWN = TILE_ROWS / PART_ROWS;
const THREADS_ACROSS = TILE_COLUMNS / PART_COLUMNS;
const_assert THREADS == THREADS_DOWN * THREADS_ACROSS;

var<workgroup> a_tile: array<vec4<f32>, DEPTH * ROW_QUADS>;    // [DEPTH][TILE_ROWS]
var<workgroup> b_tile: array<vec4<f32>, DEPTH * COLUMN_QUADS>; // [DEPTH][TILE_COLUMNS]

// The elements of c that a thread holds: a row of its part after the other.
alias Part = array<vec4<f32>, QUADS>;

fn live_rows() -> u32 {
    return live(constants.rows, constants.rows_count, constants.rows_start);
}

// Row and first column of c where a quad of a thread's part lies.

fn quad_row(group: vec3<u32>, thread: u32, quad: u32) -> u32 {
    let row = quad / PART_COLUMN_QUADS;
    return group.y * TILE_ROWS + 4u * (row / 4u * THREADS_DOWN + thread / THREADS_ACROSS) + row % 4u;
}

fn quad_column(group: vec3<u32>, thread: u32, quad: u32) -> u32 {
    return group.x * TILE_COLUMNS + 4u * (quad % PART_COLUMN_QUADS * THREADS_ACROSS + thread % THREADS_ACROSS);
}

// Four elements of a row of x from a column on that is a multiple of 4; zero outside.
fn x_quad(row: u32, column: u32) -> vec4<f32> {
    if row >= live_rows() || column >= constants.k {
        return vec4<f32>();
    }
    let word = row * constants.k + column;
    if constants.k % 4u == 0u {
        return vec4<f32>(x[word / 4u]);
    }
    var quad = vec4<f32>();
    for (var i = 0u; i < min(4u, constants.k - column); i += 1u) {
        quad[i] = f32(x[(word + i) / 4u][(word + i) % 4u]);
    }
    return quad;
}

// Four elements of a row of w from a column on that is a multiple of 4; zero outside.
fn w_quad(row: u32, column: u32) -> vec4<f32> {
    if row >= constants.n || column >= constants.k {
        return vec4<f32>();
    }
    let word = row * constants.k + column;
    if constants.k % 4u == 0u {
        return vec4<f32>(w[word / 4u]);
    }
    var quad = vec4<f32>();
    for (var i = 0u; i < min(4u, constants.k - column); i += 1u) {
        quad[i] = f32(w[(word + i) / 4u][(word + i) % 4u]);
    }
    return quad;
}

// Four elements of a row of dy from a column on that is a multiple of 4; zero outside.
fn dy_quad(row: u32, column: u32) -> vec4<f32> {
    if row >= live_rows() || column >= constants.n {
        return vec4<f32>();
    }
    let word = row * constants.n + column;
    if constants.n % 4u == 0u {
        return vec4<f32>(dy[word / 4u]);
    }
    var quad = vec4<f32>();
    for (var i = 0u; i < min(4u, constants.n - column); i += 1u) {
        quad[i] = f32(dy[(word + i) / 4u][(word + i) % 4u]);
    }
    return quad;
}

// Blocks of four rows and four columns of an operand whose rows run along the depth: column i holds the rows' elements
// at depth i.

fn x_turned(row: u32, column: u32) -> mat4x4<f32> {
    let block = mat4x4<f32>(
        x_quad(row, column),
        x_quad(row + 1u, column),
        x_quad(row + 2u, column),
        x_quad(row + 3u, column),
    );
    return transpose(block);
}

fn w_turned(row: u32, column: u32) -> mat4x4<f32> {
    let block = mat4x4<f32>(
        w_quad(row, column),
        w_quad(row + 1u, column),
        w_quad(row + 2u, column),
        w_quad(row + 3u, column),
    );
    return transpose(block);
}

fn dy_turned(row: u32, column: u32) -> mat4x4<f32> {
    let block = mat4x4<f32>(
        dy_quad(row, column),
        dy_quad(row + 1u, column),
        dy_quad(row + 2u, column),
        dy_quad(row + 3u, column),
    );
    return transpose(block);
}

// Four depths of four rows of a's step.
fn fill_a(depth: u32, row_quad: u32, turned: mat4x4<f32>) {
    a_tile[depth * ROW_QUADS + row_quad] = turned[0];
    a_tile[(depth + 1u) * ROW_QUADS + row_quad] = turned[1];
    a_tile[(depth + 2u) * ROW_QUADS + row_quad] = turned[2];
    a_tile[(depth + 3u) * ROW_QUADS + row_quad] = turned[3];
}

// c += one step of the product.
fn multiply(c: ptr<function, Part>, thread: u32) {
    workgroupBarrier();
    for (var depth = 0u; depth < DEPTH; depth += 1u) {
        var right: array<vec4<f32>, PART_COLUMN_QUADS>;
        for (var j = 0u; j < PART_COLUMN_QUADS; j += 1u) {
            right[j] = b_tile[depth * COLUMN_QUADS + j * THREADS_ACROSS + thread % THREADS_ACROSS];
        }
        for (var i = 0u; i < PART_ROW_QUADS; i += 1u) {
            let left = a_tile[depth * ROW_QUADS + i * THREADS_DOWN + thread / THREADS_ACROSS];
            for (var j = 0u; j < PART_COLUMN_QUADS; j += 1u) {
                let at = 4u * i * PART_COLUMN_QUADS + j;
                (*c)[at] = fma(left.xxxx, right[j], (*c)[at]);
                (*c)[at + PART_COLUMN_QUADS] = fma(left.yyyy, right[j], (*c)[at + PART_COLUMN_QUADS]);
                (*c)[at + 2u * PART_COLUMN_QUADS] = fma(left.zzzz, right[j], (*c)[at + 2u * PART_COLUMN_QUADS]);
                (*c)[at + 3u * PART_COLUMN_QUADS] = fma(left.wwww, right[j], (*c)[at + 3u * PART_COLUMN_QUADS]);
            }
        }
    }
    workgroupBarrier();
}

// The products, for the tile that begins at row and column.

// x W^T
fn x_times_w(c: ptr<function, Part>, row: u32, column: u32, thread: u32) {
    for (var depth = 0u; depth < constants.k; depth += DEPTH) {
        for (var block = thread; block < DEPTH / 4u * ROW_QUADS; block += THREADS) {
            let across = 4u * (block % (DEPTH / 4u));
            let high = block / (DEPTH / 4u);
            fill_a(across, high, x_turned(row + 4u * high, depth + across));
        }
        for (var block = thread; block < DEPTH / 4u * COLUMN_QUADS; block += THREADS) {
            let across = 4u * (block % (DEPTH / 4u));
            let high = block / (DEPTH / 4u);
            let turned = w_turned(column + 4u * high, depth + across);
            b_tile[across * COLUMN_QUADS + high] = turned[0];
            b_tile[(across + 1u) * COLUMN_QUADS + high] = turned[1];
            b_tile[(across + 2u) * COLUMN_QUADS + high] = turned[2];
            b_tile[(across + 3u) * COLUMN_QUADS + high] = turned[3];
        }
        multiply(c, thread);
    }
}

// dy W
fn dy_times_w(c: ptr<function, Part>, row: u32, column: u32, thread: u32) {
    for (var depth = 0u; depth < constants.n; depth += DEPTH) {
        for (var block = thread; block < DEPTH / 4u * ROW_QUADS; block += THREADS) {
            let across = 4u * (block % (DEPTH / 4u));
            let high = block / (DEPTH / 4u);
            fill_a(across, high, dy_turned(row + 4u * high, depth + across));
        }
        for (var quad = thread; quad < DEPTH * COLUMN_QUADS; quad += THREADS) {
            b_tile[quad] = w_quad(depth + quad / COLUMN_QUADS, column + 4u * (quad % COLUMN_QUADS));
        }
        multiply(c, thread);
    }
}

// dy^T x
fn dy_times_x(c: ptr<function, Part>, row: u32, column: u32, thread: u32) {
    let rows = live_rows();
    for (var depth = 0u; depth < rows; depth += DEPTH) {
        for (var quad = thread; quad < DEPTH * ROW_QUADS; quad += THREADS) {
            a_tile[quad] = dy_quad(depth + quad / ROW_QUADS, row + 4u * (quad % ROW_QUADS));
        }
        for (var quad = thread; quad < DEPTH * COLUMN_QUADS; quad += THREADS) {
            b_tile[quad] = x_quad(depth + quad / COLUMN_QUADS, column + 4u * (quad % COLUMN_QUADS));
        }
        multiply(c, thread);
    }
}

// A quad of a thread's part where the index is not known to the compiler. Everything else names the elements of c by
// constants of unrolled loops, which keeps them in registers.
fn pick(c: ptr<function, Part>, index: u32) -> vec4<f32> {
    var quad = (*c)[0];
    for (var i = 1u; i < QUADS; i += 1u) {
        quad = select(quad, (*c)[i], i == index);
    }
    return quad;
}

// y = x W^T + b
@compute @workgroup_size(THREADS)
fn gemm_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live_rows();
    if group.y * TILE_ROWS >= rows {
        return;
    }
    var c: Part;
    x_times_w(&c, group.y * TILE_ROWS, group.x * TILE_COLUMNS, thread);
    for (var quad = 0u; quad < QUADS; quad += 1u) {
        let row = quad_row(group, thread, quad);
        let column = quad_column(group, thread, quad);
        if row < rows {
            let word = row * constants.n + column;
            for (var i = 0u; i < 4u; i += 1u) {
                if column + i < constants.n {
                    y[word + i] = Stored(c[quad][i] + b[column + i]);
                }
            }
        }
    }
}

// z = x W^T + b, a = gelu(z)
@compute @workgroup_size(THREADS)
fn gemm_forward_gelu(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live_rows();
    if group.y * TILE_ROWS >= rows {
        return;
    }
    var c: Part;
    x_times_w(&c, group.y * TILE_ROWS, group.x * TILE_COLUMNS, thread);
    for (var quad = 0u; quad < QUADS; quad += 1u) {
        let row = quad_row(group, thread, quad);
        let column = quad_column(group, thread, quad);
        let sums = pick(&c, quad);
        for (var i = 0u; i < 4u; i += 1u) {
            if row < rows && column + i < constants.n {
                let word = row * constants.n + column + i;
                let sum = sums[i] + b[column + i];
                z[word] = Stored(sum);
                a[word] = Stored(gelu(sum));
            }
        }
    }
}

// dx (+)= dy W
@compute @workgroup_size(THREADS)
fn gemm_backward_input(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live_rows();
    if group.y * TILE_ROWS >= rows {
        return;
    }
    var c: Part;
    dy_times_w(&c, group.y * TILE_ROWS, group.x * TILE_COLUMNS, thread);
    for (var quad = 0u; quad < QUADS; quad += 1u) {
        let row = quad_row(group, thread, quad);
        let column = quad_column(group, thread, quad);
        if row < rows {
            let word = row * constants.k + column;
            for (var i = 0u; i < 4u; i += 1u) {
                if column + i < constants.k {
                    if constants.accumulate_dx != 0u {
                        dx[word + i] = Stored(f32(dx[word + i]) + c[quad][i]);
                    } else {
                        dx[word + i] = Stored(c[quad][i]);
                    }
                }
            }
        }
    }
}

// dz = (dy W) gelu'(z)
@compute @workgroup_size(THREADS)
fn gemm_backward_gelu(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live_rows();
    if group.y * TILE_ROWS >= rows {
        return;
    }
    var c: Part;
    dy_times_w(&c, group.y * TILE_ROWS, group.x * TILE_COLUMNS, thread);
    for (var quad = 0u; quad < QUADS; quad += 1u) {
        let row = quad_row(group, thread, quad);
        let column = quad_column(group, thread, quad);
        let sums = pick(&c, quad);
        for (var i = 0u; i < 4u; i += 1u) {
            if row < rows && column + i < constants.k {
                let word = row * constants.k + column + i;
                dz[word] = Stored(sums[i] * gelu_derivative(f32(z[word])));
            }
        }
    }
}

// dW (+)= dy^T x
@compute @workgroup_size(THREADS)
fn gemm_backward_weight(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var c: Part;
    dy_times_x(&c, group.y * TILE_ROWS, group.x * TILE_COLUMNS, thread);
    for (var quad = 0u; quad < QUADS; quad += 1u) {
        let row = quad_row(group, thread, quad);
        let column = quad_column(group, thread, quad);
        if row < constants.n {
            let word = row * constants.k + column;
            for (var i = 0u; i < 4u; i += 1u) {
                if column + i < constants.k {
                    if constants.accumulate_dw != 0u {
                        dw[word + i] += c[quad][i];
                    } else {
                        dw[word + i] = c[quad][i];
                    }
                }
            }
        }
    }
}
