// LayerNorm, alone and fused with dropout and the residual sum (src/ops/layer_norm).
//
// The width is compiled in, and a row stays in registers from its one reading to its one writing: a team of TEAM threads, a
// warp up to 1,024 columns and a block beyond, shares it, and each thread has RUNS runs of 16 bytes, so that a warp's
// accesses are 512 neighbouring bytes. Means are trees over the team; the variance is that of the centred registers.
//
// Forward: a team a row. Bytes moved: the row once in, once out, per tensor; the time is that.
// Backward: a block per 64 rows, dealt to its teams in turn. A thread keeps its columns' sums for dgamma and dbeta in
// registers over all its rows; at the end shared memory [teams][columns] adds the teams in their order. dy and s are
// read once. bias_grad.finish adds the blocks.

#include "common/dropout.cuh"
#include "common/sum.cuh"

constexpr u32 BLOCK_ROWS = 64;
constexpr u32 BLOCKS = 1; // of a multiprocessor that the backward must leave room for: a row's registers come first
constexpr u32 TEAM = WIDTH <= 1024 ? WARP : THREADS;    // threads that share a row
constexpr u32 TEAMS = THREADS / TEAM;                   // rows that a block has at a time
constexpr u32 STRIDE = TEAM * VECTOR;                   // columns that a team reads at once
constexpr u32 RUNS = blocks_of(WIDTH, STRIDE);          // runs of a thread
constexpr bool FULL = WIDTH % STRIDE == 0;              // no thread has a run beyond the row
constexpr bool QUADS = WIDTH % 4 == 0;                  // rows begin at a counter of dropout

// A thread's columns of a row.
struct Part {
    Run<VECTOR> run[RUNS];
};

struct Moments {
    float mean;
    float rstd;
};

__device__ __forceinline__ u32 column_of(u32 run) {
    return run * STRIDE + VECTOR * (threadIdx.x % TEAM);
}

// A row of a tensor as the team reads it, zero beyond the width.
template <typename T>
__device__ __forceinline__ Part load_part(const T* row) {
    Part part;
#pragma unroll
    for (u32 run = 0; run < RUNS; run += 1) {
        part.run[run] = load_row<VECTOR>(row, column_of(run), WIDTH);
    }
    return part;
}

template <typename T>
__device__ __forceinline__ void store_part(T* row, const Part& part) {
#pragma unroll
    for (u32 run = 0; run < RUNS; run += 1) {
        store_row(row, column_of(run), WIDTH, part.run[run]);
    }
}

// For each element of the thread: f(run, i, column); none beyond the width.
template <typename F>
__device__ __forceinline__ void each(F f) {
#pragma unroll
    for (u32 run = 0; run < RUNS; run += 1) {
#pragma unroll
        for (u32 i = 0; i < VECTOR; i += 1) {
            if (FULL || column_of(run) + i < WIDTH) {
                f(run, i);
            }
        }
    }
}

// Applies dropout to a row.
__device__ __forceinline__ void drop(const Dropout& dropout, u32 row, Part& part) {
#pragma unroll
    for (u32 run = 0; run < RUNS; run += 1) {
        dropout.apply<QUADS>(row * WIDTH + column_of(run), part.run[run]);
    }
}

// The sum of x over the thread's team, known to every thread of it.
__device__ __forceinline__ float team_sum(float x) {
    if constexpr (TEAM == WARP) {
        return lane_sum(x);
    } else {
        return workgroup_sum(x);
    }
}

// Mean and rstd of a row of s, also written to stats.
__device__ __forceinline__ Moments statistics(const Part& s, float* stats, u32 row, float epsilon) {
    float total = 0.0f;
    each([&](u32 run, u32 i) { total += s.run[run].at[i]; });
    const float mean = team_sum(total) / static_cast<float>(WIDTH);
    float squares = 0.0f;
    each([&](u32 run, u32 i) {
        const float centred = s.run[run].at[i] - mean;
        squares = fmaf(centred, centred, squares);
    });
    const float variance = team_sum(squares) / static_cast<float>(WIDTH);
    const float rstd = 1.0f / sqrtf(variance + epsilon);
    if (threadIdx.x % TEAM == 0) {
        *reinterpret_cast<float2*>(stats + 2 * row) = make_float2(mean, rstd);
    }
    return {mean, rstd};
}

// s becomes LN(s).
__device__ __forceinline__ void normalise(Part& s, const Moments& moments, const float* gamma, const float* beta) {
#pragma unroll
    for (u32 run = 0; run < RUNS; run += 1) {
        const Run<VECTOR> scale = load_row<VECTOR>(gamma, column_of(run), WIDTH);
        const Run<VECTOR> shift = load_row<VECTOR>(beta, column_of(run), WIDTH);
#pragma unroll
        for (u32 i = 0; i < VECTOR; i += 1) {
            const float xhat = (s.run[run].at[i] - moments.mean) * moments.rstd;
            s.run[run].at[i] = fmaf(xhat, scale.at[i], shift.at[i]);
        }
    }
}

// y = dropout(LN(s))
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_forward(
    const Stored* __restrict__ s,    // [rows, width]
    const float* __restrict__ gamma, // [1, width]
    const float* __restrict__ beta,  // [1, width]
    Stored* __restrict__ y,          // [rows, width]
    float* __restrict__ stats,       // [rows, 2]: mean, rstd
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    float epsilon,
    u32 threshold,
    float keep_scale,
    u32 op) {
    const u32 row = block_number() * TEAMS + threadIdx.x / TEAM;
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    Part part = load_part(s + row * WIDTH);
    const Moments moments = statistics(part, stats, row, epsilon);
    normalise(part, moments, gamma, beta);
    drop(Dropout(step_params, op, threshold, keep_scale), row, part);
    store_part(y + row * WIDTH, part);
}

// s = residual + dropout(s), y = LN(s)
extern "C" __global__ void __launch_bounds__(THREADS) layer_norm_residual_forward(
    Stored* __restrict__ s,              // [rows, width]
    const Stored* __restrict__ residual, // [rows, width]
    const float* __restrict__ gamma,     // [1, width]
    const float* __restrict__ beta,      // [1, width]
    Stored* __restrict__ y,              // [rows, width]
    float* __restrict__ stats,           // [rows, 2]: mean, rstd
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    float epsilon,
    u32 threshold,
    float keep_scale,
    u32 op) {
    const u32 row = block_number() * TEAMS + threadIdx.x / TEAM;
    if (row >= live(step_params, rows, rows_count, rows_start)) {
        return;
    }
    Part part = load_part(static_cast<const Stored*>(s) + row * WIDTH);
    const Part added = load_part(residual + row * WIDTH);
    drop(Dropout(step_params, op, threshold, keep_scale), row, part);
    each([&](u32 run, u32 i) { part.run[run].at[i] = rounded(added.run[run].at[i] + part.run[run].at[i]); });
    store_part(s + row * WIDTH, part);
    const Moments moments = statistics(part, stats, row, epsilon);
    normalise(part, moments, gamma, beta);
    store_part(y + row * WIDTH, part);
}

__device__ __forceinline__ float4 quad_of(const Run<VECTOR>& run, u32 quad) {
    return make_float4(run.at[4 * quad], run.at[4 * quad + 1], run.at[4 * quad + 2], run.at[4 * quad + 3]);
}

__device__ __forceinline__ void add_quad(Run<4>& sum, const float4& quad) {
    sum = {sum.at[0] + quad.x, sum.at[1] + quad.y, sum.at[2] + quad.z, sum.at[3] + quad.w};
}

// The thread's column sums for dgamma and dbeta.
struct Sums {
    Part dgamma = {};
    Part dbeta = {};

    // One row: d = dy as it reaches the LayerNorm becomes ds, s becomes xhat.
    __device__ __forceinline__ void row(Part& d, Part& s, const float* stats, const float* gamma, u32 row) {
        const float2 moments = *reinterpret_cast<const float2*>(stats + 2 * row); // mean, rstd
        each([&](u32 run, u32 i) {
            s.run[run].at[i] = (s.run[run].at[i] - moments.x) * moments.y;
            dgamma.run[run].at[i] = fmaf(d.run[run].at[i], s.run[run].at[i], dgamma.run[run].at[i]);
            dbeta.run[run].at[i] += d.run[run].at[i];
        });
        const Part scale = load_part(gamma);
        float g = 0.0f;
        float gx = 0.0f;
        each([&](u32 run, u32 i) {
            d.run[run].at[i] *= scale.run[run].at[i];
            g += d.run[run].at[i];
            gx = fmaf(d.run[run].at[i], s.run[run].at[i], gx);
        });
        const float mean_g = team_sum(g) / static_cast<float>(WIDTH);
        const float mean_gx = team_sum(gx) / static_cast<float>(WIDTH);
        each([&](u32 run, u32 i) {
            d.run[run].at[i] = moments.y * (d.run[run].at[i] - mean_g - s.run[run].at[i] * mean_gx);
        });
    }

    // Adds the teams' sums and writes the block's.
    __device__ __forceinline__ void finish(float* dgamma_partials, float* dbeta_partials) const {
        float* to_dgamma = dgamma_partials + blockIdx.x * WIDTH;
        float* to_dbeta = dbeta_partials + blockIdx.x * WIDTH;
        if constexpr (TEAMS == 1) {
            store_part(to_dgamma, dgamma);
            store_part(to_dbeta, dbeta);
        } else {
            // Quads of columns; four more spread a thread's quads over the banks.
            __shared__ float4 dgamma_terms[TEAMS][VECTOR / 4][TEAM + 4];
            __shared__ float4 dbeta_terms[TEAMS][VECTOR / 4][TEAM + 4];
            const u32 team = threadIdx.x / TEAM;
            const u32 member = threadIdx.x % TEAM;
#pragma unroll
            for (u32 run = 0; run < RUNS; run += 1) {
#pragma unroll
                for (u32 quad = 0; quad < VECTOR / 4; quad += 1) {
                    dgamma_terms[team][quad][member] = quad_of(dgamma.run[run], quad);
                    dbeta_terms[team][quad][member] = quad_of(dbeta.run[run], quad);
                }
                __syncthreads();
                if (threadIdx.x < STRIDE / 4) {
                    const u32 column = run * STRIDE + 4 * threadIdx.x;
                    const u32 quad = threadIdx.x % (VECTOR / 4);
                    const u32 owner = threadIdx.x / (VECTOR / 4);
                    Run<4> sum_dgamma = {};
                    Run<4> sum_dbeta = {};
#pragma unroll
                    for (u32 other = 0; other < TEAMS; other += 1) {
                        add_quad(sum_dgamma, dgamma_terms[other][quad][owner]);
                        add_quad(sum_dbeta, dbeta_terms[other][quad][owner]);
                    }
                    store_row(to_dgamma, column, WIDTH, sum_dgamma);
                    store_row(to_dbeta, column, WIDTH, sum_dbeta);
                }
                __syncthreads(); // the next run overwrites the terms
            }
        }
    }
};

// to (+)= part
__device__ __forceinline__ void add_part(Stored* to, const Part& part, bool accumulate) {
    Part sum = part;
    if (accumulate) {
        const Part old = load_part(static_cast<const Stored*>(to));
        each([&](u32 run, u32 i) { sum.run[run].at[i] += old.run[run].at[i]; });
    }
    store_part(to, sum);
}

// dx (+)= LN'(dropout'(dy)) and the block's column sums
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) layer_norm_backward(
    const Stored* __restrict__ dy,       // [rows, width]
    const Stored* __restrict__ s,        // [rows, width]
    const float* __restrict__ stats,     // [rows, 2]
    const float* __restrict__ gamma,     // [1, width]
    Stored* __restrict__ dx,             // [rows, width]
    float* __restrict__ dgamma_partials, // [blocks, width]
    float* __restrict__ dbeta_partials,  // [blocks, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    u32 threshold,
    float keep_scale,
    u32 op,
    u32 accumulate_dx) {
    const Dropout dropout(step_params, op, threshold, keep_scale);
    const u32 first = blockIdx.x * BLOCK_ROWS;
    const u32 end_row = min(first + BLOCK_ROWS, live(step_params, rows, rows_count, rows_start));
    Sums sums;
    for (u32 row = first + threadIdx.x / TEAM; row < end_row; row += TEAMS) {
        Part d = load_part(dy + row * WIDTH);
        Part x = load_part(s + row * WIDTH);
        drop(dropout, row, d);
        sums.row(d, x, stats, gamma, row);
        add_part(dx + row * WIDTH, d, accumulate_dx != 0);
    }
    sums.finish(dgamma_partials, dbeta_partials);
}

// dresidual (+)= ds, dx = dropout'(ds) and the block's column sums
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) layer_norm_residual_backward(
    const Stored* __restrict__ dy,       // [rows, width]
    const Stored* __restrict__ s,        // [rows, width]
    const float* __restrict__ stats,     // [rows, 2]
    const float* __restrict__ gamma,     // [1, width]
    Stored* __restrict__ dresidual,      // [rows, width]
    Stored* __restrict__ dx,             // [rows, width]
    float* __restrict__ dgamma_partials, // [blocks, width]
    float* __restrict__ dbeta_partials,  // [blocks, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    u32 threshold,
    float keep_scale,
    u32 op,
    u32 accumulate_dresidual) {
    const Dropout dropout(step_params, op, threshold, keep_scale);
    const u32 first = blockIdx.x * BLOCK_ROWS;
    const u32 end_row = min(first + BLOCK_ROWS, live(step_params, rows, rows_count, rows_start));
    Sums sums;
    for (u32 row = first + threadIdx.x / TEAM; row < end_row; row += TEAMS) {
        Part d = load_part(dy + row * WIDTH);
        Part x = load_part(s + row * WIDTH);
        sums.row(d, x, stats, gamma, row);
        add_part(dresidual + row * WIDTH, d, accumulate_dresidual != 0);
        drop(dropout, row, d);
        store_part(dx + row * WIDTH, d);
    }
    sums.finish(dgamma_partials, dbeta_partials);
}
