// Linear layers in f32 (src/ops/gemm): c[m, n] = sum over depth of a b, plus what happens to c on its way out.
//
// One block computes a tile of TILE_ROWS x TILE_COLUMNS of c, one thread PART_ROWS x PART_COLUMNS of it in registers, as
// quads of rows by quads of columns that lie a tile's width apart, so that neighbouring threads read and write
// neighbouring quads. The block walks the depth in steps of 16; the steps of a and b lie in shared memory as
// [depth][rows or columns], twice: while one is multiplied the next is being copied, with one barrier a step. Per step a
// thread reads PART_ROWS + PART_COLUMNS words of shared memory for PART_ROWS x PART_COLUMNS multiply-adds (at 8 x 8 a
// quarter of a word each), and the block reads each operand's words once.
//
// Where an operand's rows run along the depth, copies of single words turn it: a warp copies 8 depths of 4 rows, and a
// line has 4 words more than the tile, so that neither global nor shared memory sees a conflict. Elements beyond the
// matrices (and rows beyond the live count) enter as zero and are never written. Every element of c is one chain of fused
// multiply-adds in the order of the depth: the same bits for all tiles.

#include "common/async.cuh"
#include "common/math.cuh"
#include "common/stored.cuh"

static_assert(sizeof(Stored) == 4, "elements of two bytes have gemm_half.cu");
constexpr u32 ROW_LINE = TILE_ROWS + 4; // floats from a depth to the next
constexpr u32 COLUMN_LINE = TILE_COLUMNS + 4;
constexpr u32 THREADS_DOWN = TILE_ROWS / PART_ROWS;
constexpr u32 THREADS_ACROSS = TILE_COLUMNS / PART_COLUMNS;
static_assert(THREADS == THREADS_DOWN * THREADS_ACROSS, "a thread for each part");

// The elements of c that a thread holds.
struct Part {
    float at[PART_ROWS][PART_COLUMNS];
};

// An operand as it lies in memory, row by row; its parts outside are taken as zero and never read.
struct Matrix {
    const float* data;
    u32 rows;
    u32 columns;
};

// The steps of a and b that a block works on.
struct Tiles {
    float4 a[DEPTH * ROW_LINE / 4];    // [DEPTH][ROW_LINE]
    float4 b[DEPTH * COLUMN_LINE / 4]; // [DEPTH][COLUMN_LINE]
};

__shared__ Tiles steps[2];

// First row and column of the block's tile.
__device__ __forceinline__ u32 tile_row() {
    return blockIdx.y * TILE_ROWS;
}

__device__ __forceinline__ u32 tile_column() {
    return blockIdx.x * TILE_COLUMNS;
}

// Copies SIZE rows by DEPTH columns of an operand whose rows run along the depth, turned: [DEPTH][SIZE].
template <u32 SIZE>
__device__ __forceinline__ void copy_turned(float4* tile, const Matrix& matrix, u32 row, u32 depth) {
    static_assert(THREADS % (4 * DEPTH) == 0, "a thread's words are of one depth");
    const u32 across = threadIdx.x % 8 + threadIdx.x / 32 % (DEPTH / 8) * 8;
    const u32 high = threadIdx.x / 8 % 4 + threadIdx.x / (4 * DEPTH) * 4;
    const bool inside = depth + across < matrix.columns;
    const float* from = matrix.data + static_cast<size_t>(row + high) * matrix.columns + depth + across;
    float* to = reinterpret_cast<float*>(tile) + across * (SIZE + 4) + high;
#pragma unroll 2
    for (u32 i = 0; i < SIZE; i += THREADS / DEPTH) {
        copy_async<4>(to + i, from, inside && row + high + i < matrix.rows);
        from += static_cast<size_t>(THREADS / DEPTH) * matrix.columns;
    }
}

// Copies DEPTH rows by SIZE columns of an operand whose rows run across the depth.
template <u32 SIZE>
__device__ __forceinline__ void copy_straight(float4* tile, const Matrix& matrix, u32 depth, u32 column) {
    if (matrix.columns % 4 == 0) {
#pragma unroll
        for (u32 i = threadIdx.x; i < DEPTH * SIZE / 4; i += THREADS) {
            const u32 row = depth + i / (SIZE / 4);
            const u32 at = column + i % (SIZE / 4) * 4;
            const float* from = matrix.data + static_cast<size_t>(row) * matrix.columns + at;
            copy_async<16>(tile + i / (SIZE / 4) * (SIZE / 4 + 1) + i % (SIZE / 4), from, row < matrix.rows && at < matrix.columns);
        }
    } else {
        float* to = reinterpret_cast<float*>(tile);
#pragma unroll 1
        for (u32 i = threadIdx.x; i < DEPTH * SIZE; i += THREADS) {
            const u32 row = depth + i / SIZE;
            const u32 at = column + i % SIZE;
            const float* from = matrix.data + static_cast<size_t>(row) * matrix.columns + at;
            copy_async<4>(to + i / SIZE * (SIZE + 4) + i % SIZE, from, row < matrix.rows && at < matrix.columns);
        }
    }
}

// c += one step of the product.
__device__ __forceinline__ void multiply(Part& c, const Tiles& tiles) {
    const u32 down = threadIdx.x / THREADS_ACROSS;
    const u32 across = threadIdx.x % THREADS_ACROSS;
#pragma unroll
    for (u32 depth = 0; depth < DEPTH; depth += 1) {
        Run<4> left[PART_ROWS / 4];
        Run<4> right[PART_COLUMNS / 4];
#pragma unroll
        for (u32 i = 0; i < PART_ROWS / 4; i += 1) {
            left[i] = load<4>(reinterpret_cast<const float*>(tiles.a + depth * (ROW_LINE / 4) + i * THREADS_DOWN + down));
        }
#pragma unroll
        for (u32 j = 0; j < PART_COLUMNS / 4; j += 1) {
            right[j] = load<4>(reinterpret_cast<const float*>(tiles.b + depth * (COLUMN_LINE / 4) + j * THREADS_ACROSS + across));
        }
#pragma unroll
        for (u32 i = 0; i < PART_ROWS; i += 1) {
#pragma unroll
            for (u32 j = 0; j < PART_COLUMNS; j += 1) {
                c.at[i][j] = fmaf(left[i / 4].at[i % 4], right[j / 4].at[j % 4], c.at[i][j]);
            }
        }
    }
}

// The block's tile of a product; copy(tiles, depth) begins to bring one step.
template <typename Copy>
__device__ __forceinline__ Part product(u32 depths, Copy copy) {
    Part c = {};
    // Copies run a step ahead of products.
#pragma unroll 1
    for (u32 ahead = 0; ahead < blocks_of(depths, DEPTH) + 1; ahead += 1) {
        wait_copies<0>();
        __syncthreads(); // the next step has arrived, and the one before has been multiplied by all
        if (ahead * DEPTH < depths) {
            copy(steps[ahead % 2], ahead * DEPTH);
        }
        commit_copies();
        if (ahead > 0) {
            multiply(c, steps[(ahead + 1) % 2]);
        }
    }
    return c;
}

// x W^T
__device__ __forceinline__ Part x_times_w(const Matrix& x, const Matrix& w) {
    return product(x.columns, [&](Tiles& tiles, u32 depth) {
        copy_turned<TILE_ROWS>(tiles.a, x, tile_row(), depth);
        copy_turned<TILE_COLUMNS>(tiles.b, w, tile_column(), depth);
    });
}

// dy W
__device__ __forceinline__ Part dy_times_w(const Matrix& dy, const Matrix& w) {
    return product(dy.columns, [&](Tiles& tiles, u32 depth) {
        copy_turned<TILE_ROWS>(tiles.a, dy, tile_row(), depth);
        copy_straight<TILE_COLUMNS>(tiles.b, w, depth, tile_column());
    });
}

// dy^T x
__device__ __forceinline__ Part dy_times_x(const Matrix& dy, const Matrix& x) {
    return product(dy.rows, [&](Tiles& tiles, u32 depth) {
        copy_straight<TILE_ROWS>(tiles.a, dy, depth, tile_row());
        copy_straight<TILE_COLUMNS>(tiles.b, x, depth, tile_column());
    });
}

// Hands out the block's tile: write(row, column, four neighbouring sums) for every quad of it, a row's quads to neighbouring
// threads. It goes through shared memory, four rows of every thread at a time.
template <typename Write>
__device__ __forceinline__ void finish(const Part& c, Write write) {
    float4* lines = reinterpret_cast<float4*>(steps); // [4 THREADS_DOWN][COLUMN_LINE]
    static_assert(4 * THREADS_DOWN * COLUMN_LINE * 4 <= sizeof(steps), "the rows leave through the steps");
    const u32 down = threadIdx.x / THREADS_ACROSS;
    const u32 across = threadIdx.x % THREADS_ACROSS;
#pragma unroll
    for (u32 first = 0; first < PART_ROWS; first += 4) {
        __syncthreads(); // what was there has been read
#pragma unroll
        for (u32 i = 0; i < 4; i += 1) {
#pragma unroll
            for (u32 j = 0; j < PART_COLUMNS; j += 4) {
                const float* sums = c.at[first + i] + j;
                lines[(4 * down + i) * (COLUMN_LINE / 4) + j / 4 * THREADS_ACROSS + across] =
                    make_float4(sums[0], sums[1], sums[2], sums[3]);
            }
        }
        __syncthreads();
#pragma unroll 1
        for (u32 quad = threadIdx.x; quad < THREADS_DOWN * TILE_COLUMNS; quad += THREADS) {
            const u32 row = quad / (TILE_COLUMNS / 4);
            const u32 column = quad % (TILE_COLUMNS / 4);
            const float4* sums = lines + row * (COLUMN_LINE / 4) + column;
            write(tile_row() + first * THREADS_DOWN + row, tile_column() + 4 * column, load<4>(reinterpret_cast<const float*>(sums)));
        }
    }
}

// y = x W^T + b
extern "C" __global__ void __launch_bounds__(THREADS) gemm_forward(
    const Stored* __restrict__ x, // [rows, k]
    const Stored* __restrict__ w, // [n, k]
    const float* __restrict__ b,  // [1, n]
    Stored* __restrict__ y,       // [rows, n]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    if (tile_row() >= live_rows) {
        return;
    }
    const Part c = x_times_w({x, live_rows, k}, {w, n, k});
    finish(c, [&](u32 row, u32 column, Run<4> sums) {
        if (row < live_rows) {
            const Run<4> bias = load_row<4>(b, column, n);
#pragma unroll
            for (u32 i = 0; i < 4; i += 1) {
                sums.at[i] += bias.at[i];
            }
            store_row(y + row * n, column, n, sums);
        }
    });
}

// z = x W^T + b, a = gelu(z)
extern "C" __global__ void __launch_bounds__(THREADS) gemm_forward_gelu(
    const Stored* __restrict__ x, // [rows, k]
    const Stored* __restrict__ w, // [n, k]
    const float* __restrict__ b,  // [1, n]
    Stored* __restrict__ z,       // [rows, n]
    Stored* __restrict__ a,       // [rows, n]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    if (tile_row() >= live_rows) {
        return;
    }
    const Part c = x_times_w({x, live_rows, k}, {w, n, k});
    finish(c, [&](u32 row, u32 column, Run<4> sums) {
        if (row < live_rows) {
            const Run<4> bias = load_row<4>(b, column, n);
            Run<4> activated;
#pragma unroll
            for (u32 i = 0; i < 4; i += 1) {
                sums.at[i] += bias.at[i];
                activated.at[i] = gelu(sums.at[i]);
            }
            store_row(z + row * n, column, n, sums);
            store_row(a + row * n, column, n, activated);
        }
    });
}

// dx (+)= dy W
extern "C" __global__ void __launch_bounds__(THREADS) gemm_backward_input(
    const Stored* __restrict__ dy, // [rows, n]
    const Stored* __restrict__ w,  // [n, k]
    Stored* __restrict__ dx,       // [rows, k]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k,
    u32 accumulate_dx) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    if (tile_row() >= live_rows) {
        return;
    }
    const Part c = dy_times_w({dy, live_rows, n}, {w, n, k});
    finish(c, [&](u32 row, u32 column, Run<4> sums) {
        if (row < live_rows) {
            if (accumulate_dx != 0) {
                const Run<4> old = load_row<4>(static_cast<const Stored*>(dx) + row * k, column, k);
#pragma unroll
                for (u32 i = 0; i < 4; i += 1) {
                    sums.at[i] += old.at[i];
                }
            }
            store_row(dx + row * k, column, k, sums);
        }
    });
}

// dz = (dy W) gelu'(z)
extern "C" __global__ void __launch_bounds__(THREADS) gemm_backward_gelu(
    const Stored* __restrict__ dy, // [rows, n]
    const Stored* __restrict__ w,  // [n, k]
    const Stored* __restrict__ z,  // [rows, k]
    Stored* __restrict__ dz,       // [rows, k]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    if (tile_row() >= live_rows) {
        return;
    }
    const Part c = dy_times_w({dy, live_rows, n}, {w, n, k});
    finish(c, [&](u32 row, u32 column, Run<4> sums) {
        if (row < live_rows) {
            const Run<4> at = load_row<4>(z + row * k, column, k);
#pragma unroll
            for (u32 i = 0; i < 4; i += 1) {
                sums.at[i] *= gelu_derivative(at.at[i]);
            }
            store_row(dz + row * k, column, k, sums);
        }
    });
}

// dW (+)= dy^T x
extern "C" __global__ void __launch_bounds__(THREADS) gemm_backward_weight(
    const Stored* __restrict__ dy, // [rows, n]
    const Stored* __restrict__ x,  // [rows, k]
    float* __restrict__ dw,        // [n, k]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 n,
    u32 k,
    u32 accumulate_dw) {
    const u32 live_rows = live(step_params, rows, rows_count, rows_start);
    const Part c = dy_times_x({dy, live_rows, n}, {x, live_rows, k});
    finish(c, [&](u32 row, u32 column, Run<4> sums) {
        if (row < n) {
            float* to = dw + static_cast<size_t>(row) * k;
            if (accumulate_dw != 0) {
                const Run<4> old = load_row<4>(static_cast<const float*>(to), column, k);
#pragma unroll
                for (u32 i = 0; i < 4; i += 1) {
                    sums.at[i] += old.at[i];
                }
            }
            store_row(to, column, k, sums);
        }
    });
}
