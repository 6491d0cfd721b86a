// Linear layers (src/ops/gemm): c[m, n] = sum over depth of a b, plus what happens to c on its way out.
//
// One workgroup computes a 64 x 64 tile of c. It walks the depth in steps of 16: the steps of a and b lie in workgroup
// memory as [16][64], in quads of 4, so that every product of the inner loop is two vec4 loads and four vec4 fused
// multiply-adds into the 4 x 4 elements of c that a thread holds in registers. Each operand is read 1/64 as often as a
// product needs it. A line of 16 quads is padded by one, which spreads columns of lines over the memory's banks.
//
// Elements beyond the matrices (and rows beyond the live count) enter as zero and are never written.

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

@group(0) @binding(2) var<storage, read_write> x: array<f32>;  // [rows, k]
@group(0) @binding(3) var<storage, read_write> w: array<f32>;  // [n, k]
@group(0) @binding(4) var<storage, read_write> b: array<f32>;  // [1, n]
@group(0) @binding(5) var<storage, read_write> y: array<f32>;  // [rows, n]
@group(0) @binding(6) var<storage, read_write> z: array<f32>;  // [rows, n]; in backward_gelu [rows, k]
@group(0) @binding(7) var<storage, read_write> a: array<f32>;  // [rows, n]
@group(0) @binding(8) var<storage, read_write> dy: array<f32>; // [rows, n]
@group(0) @binding(9) var<storage, read_write> dx: array<f32>; // [rows, k]
@group(0) @binding(10) var<storage, read_write> dz: array<f32>; // [rows, k]
@group(0) @binding(11) var<storage, read_write> dw: array<f32>; // [n, k]

const TILE = 64u;
const DEPTH = 16u;
const LINE = 17u; // quads of a line of 64 elements, and one of padding

var<workgroup> a_tile: array<vec4<f32>, 272>; // [DEPTH][LINE]
var<workgroup> b_tile: array<vec4<f32>, 272>;

// The 4 x 4 elements of c that a thread holds, a row a vector.
alias Part = array<vec4<f32>, 4>;

// Row and column of c.
struct Place {
    row: u32,
    column: u32,
}

// Where an element of a thread's part lies.
fn place(group: vec3<u32>, thread: u32, element: u32) -> Place {
    return Place(
        group.y * TILE + 4u * (thread / 16u) + element / 4u,
        group.x * TILE + 4u * (thread % 16u) + element % 4u,
    );
}

fn live_rows() -> u32 {
    return live(constants.rows, constants.rows_count, constants.rows_start);
}

// Elements of the operands, zero outside.

fn x_at(row: u32, column: u32) -> f32 {
    if row < live_rows() && column < constants.k {
        return x[row * constants.k + column];
    }
    return 0.0;
}

fn w_at(row: u32, column: u32) -> f32 {
    if row < constants.n && column < constants.k {
        return w[row * constants.k + column];
    }
    return 0.0;
}

fn dy_at(row: u32, column: u32) -> f32 {
    if row < live_rows() && column < constants.n {
        return dy[row * constants.n + column];
    }
    return 0.0;
}

// Quads of the operands: four rows of one column, four columns of one row.

fn x_down(row: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(x_at(row, column), x_at(row + 1u, column), x_at(row + 2u, column), x_at(row + 3u, column));
}

fn x_along(row: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(x_at(row, column), x_at(row, column + 1u), x_at(row, column + 2u), x_at(row, column + 3u));
}

fn w_down(row: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(w_at(row, column), w_at(row + 1u, column), w_at(row + 2u, column), w_at(row + 3u, column));
}

fn w_along(row: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(w_at(row, column), w_at(row, column + 1u), w_at(row, column + 2u), w_at(row, column + 3u));
}

fn dy_down(row: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(dy_at(row, column), dy_at(row + 1u, column), dy_at(row + 2u, column), dy_at(row + 3u, column));
}

fn dy_along(row: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(dy_at(row, column), dy_at(row, column + 1u), dy_at(row, column + 2u), dy_at(row, column + 3u));
}

// c += one step of the product.
fn multiply(c: ptr<function, Part>, thread: u32) {
    workgroupBarrier();
    for (var depth = 0u; depth < DEPTH; depth += 1u) {
        let left = a_tile[depth * LINE + thread / 16u];
        let right = b_tile[depth * LINE + thread % 16u];
        (*c)[0] = fma(left.xxxx, right, (*c)[0]);
        (*c)[1] = fma(left.yyyy, right, (*c)[1]);
        (*c)[2] = fma(left.zzzz, right, (*c)[2]);
        (*c)[3] = fma(left.wwww, right, (*c)[3]);
    }
    workgroupBarrier();
}

// The products, for the tile that begins at row and column. Each thread loads one quad of each operand a step;
// neighbouring threads load neighbouring words: along the depth where an operand's rows run along the depth (high,
// then across), else along the result.

// x W^T
fn x_times_w(c: ptr<function, Part>, row: u32, column: u32, thread: u32) {
    let across = thread % 16u;
    let high = thread / 16u;
    for (var depth = 0u; depth < constants.k; depth += DEPTH) {
        a_tile[across * LINE + high] = x_down(row + 4u * high, depth + across);
        b_tile[across * LINE + high] = w_down(column + 4u * high, depth + across);
        multiply(c, thread);
    }
}

// dy W
fn dy_times_w(c: ptr<function, Part>, row: u32, column: u32, thread: u32) {
    let across = thread % 16u;
    let high = thread / 16u;
    for (var depth = 0u; depth < constants.n; depth += DEPTH) {
        a_tile[across * LINE + high] = dy_down(row + 4u * high, depth + across);
        b_tile[high * LINE + across] = w_along(depth + high, column + 4u * across);
        multiply(c, thread);
    }
}

// dy^T x
fn dy_times_x(c: ptr<function, Part>, row: u32, column: u32, thread: u32) {
    let across = thread % 16u;
    let high = thread / 16u;
    let rows = live_rows();
    for (var depth = 0u; depth < rows; depth += DEPTH) {
        a_tile[high * LINE + across] = dy_along(depth + high, row + 4u * across);
        b_tile[high * LINE + across] = x_along(depth + high, column + 4u * across);
        multiply(c, thread);
    }
}

// y = x W^T + b
@compute @workgroup_size(256)
fn gemm_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live_rows();
    if group.y * TILE >= rows {
        return;
    }
    var c: Part;
    x_times_w(&c, group.y * TILE, group.x * TILE, thread);
    for (var element = 0u; element < 16u; element += 1u) {
        let at = place(group, thread, element);
        let sum = c[element / 4u][element % 4u];
        if at.row < rows && at.column < constants.n {
            y[at.row * constants.n + at.column] = sum + b[at.column];
        }
    }
}

// z = x W^T + b, a = gelu(z)
@compute @workgroup_size(256)
fn gemm_forward_gelu(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live_rows();
    if group.y * TILE >= rows {
        return;
    }
    var c: Part;
    x_times_w(&c, group.y * TILE, group.x * TILE, thread);
    for (var element = 0u; element < 16u; element += 1u) {
        let at = place(group, thread, element);
        let sum = c[element / 4u][element % 4u];
        if at.row < rows && at.column < constants.n {
            let word = at.row * constants.n + at.column;
            z[word] = sum + b[at.column];
            a[word] = gelu(sum + b[at.column]);
        }
    }
}

// dx (+)= dy W
@compute @workgroup_size(256)
fn gemm_backward_input(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live_rows();
    if group.y * TILE >= rows {
        return;
    }
    var c: Part;
    dy_times_w(&c, group.y * TILE, group.x * TILE, thread);
    for (var element = 0u; element < 16u; element += 1u) {
        let at = place(group, thread, element);
        let sum = c[element / 4u][element % 4u];
        if at.row < rows && at.column < constants.k {
            let word = at.row * constants.k + at.column;
            if constants.accumulate_dx != 0u {
                dx[word] += sum;
            } else {
                dx[word] = sum;
            }
        }
    }
}

// dz = (dy W) gelu'(z)
@compute @workgroup_size(256)
fn gemm_backward_gelu(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let rows = live_rows();
    if group.y * TILE >= rows {
        return;
    }
    var c: Part;
    dy_times_w(&c, group.y * TILE, group.x * TILE, thread);
    for (var element = 0u; element < 16u; element += 1u) {
        let at = place(group, thread, element);
        let sum = c[element / 4u][element % 4u];
        if at.row < rows && at.column < constants.k {
            let word = at.row * constants.k + at.column;
            dz[word] = sum * gelu_derivative(z[word]);
        }
    }
}

// dW (+)= dy^T x
@compute @workgroup_size(256)
fn gemm_backward_weight(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var c: Part;
    dy_times_x(&c, group.y * TILE, group.x * TILE, thread);
    for (var element = 0u; element < 16u; element += 1u) {
        let at = place(group, thread, element);
        let sum = c[element / 4u][element % 4u];
        if at.row < constants.n && at.column < constants.k {
            let word = at.row * constants.k + at.column;
            if constants.accumulate_dw != 0u {
                dw[word] += sum;
            } else {
                dw[word] = sum;
            }
        }
    }
}
