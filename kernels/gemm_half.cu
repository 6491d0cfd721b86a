// Linear layers on tensor cores (src/ops/gemm), elements of two bytes: c[m, n] = sum over depth of a b, f32 sums.
//
// One block computes a tile of TILE_ROWS x TILE_COLUMNS of c, one warp WARP_ROWS x WARP_COLUMNS of it in registers, as
// fragments of 16 x 8. The block walks the depth in steps of 32; STAGES steps of a and b lie in shared memory, of which
// all but one are being copied while one is multiplied, with one barrier a step. A tile lies in shared memory as its
// operand lies in global memory; where that is not along the depth, ldmatrix turns it. Per step a warp reads
// WARP_ROWS + WARP_COLUMNS lines of 64 bytes for 64 WARP_ROWS WARP_COLUMNS FLOPs; the block reads each operand once.
//
// On its way out a warp's part goes through shared memory, 16 rows at a time, so that a lane has four neighbouring
// elements of a row and a warp writes whole sectors. Elements beyond the matrices (and rows beyond the live count) enter
// as zero and are never written. Every element of c is one chain of products in the order of the depth: the same bits for
// all tiles.

#include "common/math.cuh"
#include "common/sum.cuh"
#include "common/tile.cuh"

constexpr u32 DEPTH = 32;
constexpr u32 WARPS_ACROSS = TILE_COLUMNS / WARP_COLUMNS;
constexpr u32 WARPS = TILE_ROWS / WARP_ROWS * WARPS_ACROSS;
constexpr u32 DOWN = WARP_ROWS / 16;     // fragments of a warp's part
constexpr u32 ACROSS = WARP_COLUMNS / 8;
constexpr u32 LINE = WARP_COLUMNS + 8;   // floats of a row on its way out; 8 more spread rows over banks
constexpr u32 STAGE = (TILE_ROWS + TILE_COLUMNS) * DEPTH / CHUNK; // chunks of a step
// Registers that a thread may take, and the blocks that then fit a multiprocessor with its 65,536: left to itself the compiler
// rather spills a few than takes one more than 64 or 128.
constexpr u32 REGISTERS = DOWN * ACROSS * 4 > 64 ? 256 : 128;
constexpr u32 BLOCKS = 65536 / (THREADS * REGISTERS);
static_assert(THREADS == WARPS * WARP, "a warp for each part");
static_assert(WARPS * 16 * LINE * 4 <= STAGES * STAGE * 16, "the parts leave through the stages");

extern __shared__ uint4 stages[]; // [STAGES][STAGE]: the steps of a, then of b

// The fragments of c that a warp holds.
struct Part {
    float at[DOWN][ACROSS][4];
};

// First row and column of the block's tile.
__device__ __forceinline__ u32 tile_row() {
    return blockIdx.y * TILE_ROWS;
}

__device__ __forceinline__ u32 tile_column() {
    return blockIdx.x * TILE_COLUMNS;
}

// First row and column of the warp's part in the tile.
__device__ __forceinline__ u32 part_row() {
    return threadIdx.x / WARP / WARPS_ACROSS * WARP_ROWS;
}

__device__ __forceinline__ u32 part_column() {
    return threadIdx.x / WARP % WARPS_ACROSS * WARP_COLUMNS;
}

// The block's tile of a product. An operand whose rows run along the depth is a [m, depth] or b [n, depth]; a TURNED one is
// a [depth, m] or b [depth, n].
template <bool A_TURNED, bool B_TURNED>
__device__ __forceinline__ Part product(const Matrix& a, const Matrix& b, u32 depth) {
    using ATile = Tile<A_TURNED ? DEPTH : TILE_ROWS, (A_TURNED ? TILE_ROWS : DEPTH) / CHUNK>;
    using BTile = Tile<B_TURNED ? DEPTH : TILE_COLUMNS, (B_TURNED ? TILE_COLUMNS : DEPTH) / CHUNK>;
    static_assert(ATile::SIZE + BTile::SIZE == STAGE, "no padding");
    const u32 steps = blocks_of(depth, DEPTH);
    const auto copy = [&](u32 step) {
        if (step < steps) {
            uint4* stage = stages + step % STAGES * STAGE;
            const ATile a_tile = {stage};
            const BTile b_tile = {stage + ATile::SIZE};
            const u32 at = step * DEPTH;
            a_tile.copy(a, A_TURNED ? at : tile_row(), A_TURNED ? tile_row() : at);
            b_tile.copy(b, B_TURNED ? at : tile_column(), B_TURNED ? tile_column() : at);
        }
        commit_copies();
    };
    Part c = {};
    // Copies run STAGES - 1 steps ahead of products.
#pragma unroll 1
    for (u32 ahead = 0; ahead < steps + STAGES - 1; ahead += 1) {
        wait_copies<STAGES - 2>();
        __syncthreads(); // the next step has arrived, and the one before has been multiplied by all
        copy(ahead);
        if (ahead < STAGES - 1) {
            continue;
        }
        const u32 step = ahead - (STAGES - 1);
        const ATile a_tile = {stages + step % STAGES * STAGE};
        const BTile b_tile = {a_tile.data + ATile::SIZE};
#pragma unroll
        for (u32 at = 0; at < DEPTH; at += 16) {
            u32 right[ACROSS / 2][4];
#pragma unroll
            for (u32 j = 0; j < ACROSS / 2; j += 1) {
                if constexpr (B_TURNED) {
                    b_tile.load_b_turned(right[j], at, part_column() / CHUNK + 2 * j);
                } else {
                    b_tile.load_b(right[j], part_column() + 16 * j, at / CHUNK);
                }
            }
#pragma unroll
            for (u32 i = 0; i < DOWN; i += 1) {
                u32 left[4];
                if constexpr (A_TURNED) {
                    a_tile.load_a_turned(left, at, part_row() / CHUNK + 2 * i);
                } else {
                    a_tile.load_a(left, part_row() + 16 * i, at / CHUNK);
                }
#pragma unroll
                for (u32 j = 0; j < ACROSS; j += 1) {
                    multiply_add<Stored>(c.at[i][j], left, right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
    }
    return c;
}

// Hands out the warp's part: write(row, column, four neighbouring sums) for every quad of it.
template <typename Write>
__device__ __forceinline__ void finish(const Part& c, Write write) {
    __syncthreads(); // the stages have been read
    const u32 lane = threadIdx.x % WARP;
    float* lines = reinterpret_cast<float*>(stages) + threadIdx.x / WARP * 16 * LINE; // [16][LINE]
#pragma unroll
    for (u32 i = 0; i < DOWN; i += 1) {
        float* line = lines + lane / 4 * LINE + lane % 4 * 2;
#pragma unroll
        for (u32 j = 0; j < ACROSS; j += 1) {
            *reinterpret_cast<float2*>(line + 8 * j) = make_float2(c.at[i][j][0], c.at[i][j][1]);
            *reinterpret_cast<float2*>(line + 8 * LINE + 8 * j) = make_float2(c.at[i][j][2], c.at[i][j][3]);
        }
        __syncwarp();
#pragma unroll 1
        for (u32 quad = lane; quad < 16 * WARP_COLUMNS / 4; quad += WARP) {
            const u32 row = quad / (WARP_COLUMNS / 4);
            const u32 column = quad % (WARP_COLUMNS / 4) * 4;
            const Run<4> sums = load<4>(static_cast<const float*>(lines + row * LINE + column));
            write(tile_row() + part_row() + 16 * i + row, tile_column() + part_column() + column, sums);
        }
        __syncwarp(); // the next rows overwrite these
    }
}

// y = x W^T + b
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) gemm_forward(
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
    const Part c = product<false, false>({x, live_rows, k, k}, {w, n, k, k}, k);
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
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) gemm_forward_gelu(
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
    const Part c = product<false, false>({x, live_rows, k, k}, {w, n, k, k}, k);
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
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) gemm_backward_input(
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
    const Part c = product<false, true>({dy, live_rows, n, n}, {w, n, k, k}, n);
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
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) gemm_backward_gelu(
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
    const Part c = product<false, true>({dy, live_rows, n, n}, {w, n, k, k}, n);
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
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) gemm_backward_weight(
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
    const Part c = product<true, true>({dy, live_rows, n, n}, {x, live_rows, k, k}, live_rows);
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
