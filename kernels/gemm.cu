// Linear layers (src/ops/gemm): c[m, n] = sum over depth of a b, plus what happens to c on its way out.
//
// One block computes a 64 x 64 tile of c. It walks the depth in steps of 16: the steps of a and b lie in shared memory
// as [16][64], in quads of 4, so that every product of the inner loop is two float4 loads and sixteen fused multiply-adds
// into the 4 x 4 elements of c that a thread holds in registers. Each operand is read 1/64 as often as a product needs
// it. A line of 16 quads is padded by one, which spreads columns of lines over the memory's banks.
//
// Elements beyond the matrices (and rows beyond the live count) enter as zero and are never written.

#include "common/math.cuh"
#include "common/step.cuh"

static_assert(TILE_ROWS == 64 && TILE_COLUMNS == 64 && THREADS == 256, "a thread holds 4 x 4 of the tile");
constexpr u32 TILE = TILE_ROWS;
constexpr u32 DEPTH = 16;
constexpr u32 LINE = 17; // quads of a line of 64 elements, and one of padding

// The 4 x 4 elements of c that a thread holds.
struct Part {
    float at[16];
};

// Row and column of c.
struct Place {
    u32 row;
    u32 column;
};

// Where an element of a thread's part lies.
__device__ __forceinline__ Place place(u32 element) {
    const u32 thread = threadIdx.x;
    return {blockIdx.y * TILE + 4 * (thread / 16) + element / 4, blockIdx.x * TILE + 4 * (thread % 16) + element % 4};
}

// An operand as it lies in memory, row by row.
struct Matrix {
    const float* data;
    u32 rows;
    u32 columns;

    // An element, zero outside.
    __device__ __forceinline__ float at(u32 row, u32 column) const {
        return row < rows && column < columns ? data[row * columns + column] : 0.0f;
    }

    // Four rows of one column.
    __device__ __forceinline__ float4 down(u32 row, u32 column) const {
        return make_float4(at(row, column), at(row + 1, column), at(row + 2, column), at(row + 3, column));
    }

    // Four columns of one row.
    __device__ __forceinline__ float4 along(u32 row, u32 column) const {
        return make_float4(at(row, column), at(row, column + 1), at(row, column + 2), at(row, column + 3));
    }
};

// The steps of a and b that a block works on.
struct Tiles {
    float4 a[DEPTH * LINE];
    float4 b[DEPTH * LINE];
};

// c += one step of the product.
__device__ __forceinline__ void multiply(Part& c, const Tiles& tiles) {
    const u32 thread = threadIdx.x;
    __syncthreads();
#pragma unroll
    for (u32 depth = 0; depth < DEPTH; depth += 1) {
        const float4 left = tiles.a[depth * LINE + thread / 16];
        const float4 right = tiles.b[depth * LINE + thread % 16];
        const float rows[4] = {left.x, left.y, left.z, left.w};
        const float columns[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
        for (u32 i = 0; i < 4; i += 1) {
#pragma unroll
            for (u32 j = 0; j < 4; j += 1) {
                c.at[4 * i + j] = fmaf(rows[i], columns[j], c.at[4 * i + j]);
            }
        }
    }
    __syncthreads();
}

// The block's tile of a product. load(tiles, row, column, depth, high, across) brings a thread's quads of one step.
template <typename Load>
__device__ __forceinline__ Part product(u32 depths, Load load) {
    __shared__ Tiles tiles;
    Part c = {};
    const u32 thread = threadIdx.x;
    for (u32 depth = 0; depth < depths; depth += DEPTH) {
        load(tiles, blockIdx.y * TILE, blockIdx.x * TILE, depth, thread / 16, thread % 16);
        multiply(c, tiles);
    }
    return c;
}

// The products. Each thread loads one quad of each operand a step; neighbouring threads load neighbouring words: along
// the depth where an operand's rows run along the depth (high, then across), else along the result.

// x W^T
__device__ __forceinline__ Part x_times_w(const Matrix& x, const Matrix& w) {
    return product(x.columns, [&](Tiles& tiles, u32 row, u32 column, u32 depth, u32 high, u32 across) {
        tiles.a[across * LINE + high] = x.down(row + 4 * high, depth + across);
        tiles.b[across * LINE + high] = w.down(column + 4 * high, depth + across);
    });
}

// dy W
__device__ __forceinline__ Part dy_times_w(const Matrix& dy, const Matrix& w) {
    return product(dy.columns, [&](Tiles& tiles, u32 row, u32 column, u32 depth, u32 high, u32 across) {
        tiles.a[across * LINE + high] = dy.down(row + 4 * high, depth + across);
        tiles.b[high * LINE + across] = w.along(depth + high, column + 4 * across);
    });
}

// dy^T x
__device__ __forceinline__ Part dy_times_x(const Matrix& dy, const Matrix& x) {
    return product(dy.rows, [&](Tiles& tiles, u32 row, u32 column, u32 depth, u32 high, u32 across) {
        tiles.a[high * LINE + across] = dy.along(depth + high, row + 4 * across);
        tiles.b[high * LINE + across] = x.along(depth + high, column + 4 * across);
    });
}

// y = x W^T + b
extern "C" __global__ void __launch_bounds__(THREADS) gemm_forward(
    const float* __restrict__ x, // [rows, k]
    const float* __restrict__ w, // [n, k]
    const float* __restrict__ b, // [1, n]
    float* __restrict__ y,       // [rows, n]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    if (blockIdx.y * TILE >= live_rows) {
        return;
    }
    const Part c = x_times_w({x, live_rows, k}, {w, n, k});
#pragma unroll
    for (u32 element = 0; element < 16; element += 1) {
        const Place at = place(element);
        const float sum = c.at[element];
        if (at.row < live_rows && at.column < n) {
            y[at.row * n + at.column] = sum + b[at.column];
        }
    }
}

// z = x W^T + b, a = gelu(z)
extern "C" __global__ void __launch_bounds__(THREADS) gemm_forward_gelu(
    const float* __restrict__ x, // [rows, k]
    const float* __restrict__ w, // [n, k]
    const float* __restrict__ b, // [1, n]
    float* __restrict__ z,       // [rows, n]
    float* __restrict__ a,       // [rows, n]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    if (blockIdx.y * TILE >= live_rows) {
        return;
    }
    const Part c = x_times_w({x, live_rows, k}, {w, n, k});
#pragma unroll
    for (u32 element = 0; element < 16; element += 1) {
        const Place at = place(element);
        const float sum = c.at[element];
        if (at.row < live_rows && at.column < n) {
            const u32 word = at.row * n + at.column;
            z[word] = sum + b[at.column];
            a[word] = gelu(sum + b[at.column]);
        }
    }
}

// dx (+)= dy W
extern "C" __global__ void __launch_bounds__(THREADS) gemm_backward_input(
    const float* __restrict__ dy, // [rows, n]
    const float* __restrict__ w,  // [n, k]
    float* __restrict__ dx,       // [rows, k]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k,
    u32 accumulate_dx) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    if (blockIdx.y * TILE >= live_rows) {
        return;
    }
    const Part c = dy_times_w({dy, live_rows, n}, {w, n, k});
#pragma unroll
    for (u32 element = 0; element < 16; element += 1) {
        const Place at = place(element);
        const float sum = c.at[element];
        if (at.row < live_rows && at.column < k) {
            const u32 word = at.row * k + at.column;
            dx[word] = accumulate_dx != 0 ? dx[word] + sum : sum;
        }
    }
}

// dz = (dy W) gelu'(z)
extern "C" __global__ void __launch_bounds__(THREADS) gemm_backward_gelu(
    const float* __restrict__ dy, // [rows, n]
    const float* __restrict__ w,  // [n, k]
    const float* __restrict__ z,  // [rows, k]
    float* __restrict__ dz,       // [rows, k]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    if (blockIdx.y * TILE >= live_rows) {
        return;
    }
    const Part c = dy_times_w({dy, live_rows, n}, {w, n, k});
#pragma unroll
    for (u32 element = 0; element < 16; element += 1) {
        const Place at = place(element);
        const float sum = c.at[element];
        if (at.row < live_rows && at.column < k) {
            const u32 word = at.row * k + at.column;
            dz[word] = sum * gelu_derivative(z[word]);
        }
    }
}

// dW (+)= dy^T x
extern "C" __global__ void __launch_bounds__(THREADS) gemm_backward_weight(
    const float* __restrict__ dy, // [rows, n]
    const float* __restrict__ x,  // [rows, k]
    float* __restrict__ dw,       // [n, k]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k,
    u32 accumulate_dw) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    const Part c = dy_times_x({dy, live_rows, n}, {x, live_rows, k});
#pragma unroll
    for (u32 element = 0; element < 16; element += 1) {
        const Place at = place(element);
        const float sum = c.at[element];
        if (at.row < n && at.column < k) {
            const u32 word = at.row * k + at.column;
            dw[word] = accumulate_dw != 0 ? dw[word] + sum : sum;
        }
    }
}
