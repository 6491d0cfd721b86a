// Column sums in two passes (src/ops/bias_grad.rs). A block sums 64 columns of 64 rows: a thread adds up 16 bytes' worth of
// neighbouring columns of every GROUPS-th row in registers, shared memory [GROUPS][64] turns the sums, so that a thread has
// one column of every fourth group, and a tree adds the four. Bytes moved: every element once.

#include "common/stored.cuh"

constexpr u32 COLUMNS = 64;
constexpr u32 BLOCK_ROWS = 64;
constexpr u32 RUNS = COLUMNS / VECTOR;  // threads of a row
constexpr u32 GROUPS = THREADS / RUNS;  // rows read at a time
constexpr u32 PARTS = THREADS / COLUMNS; // threads that add up a column

// The sum of x over the threads of a column, thread = part * COLUMNS + column, known to the first part. All threads must
// call it.
__device__ __forceinline__ float column_sum(float x) {
    __shared__ float sum_terms[THREADS];
    sum_terms[threadIdx.x] = x;
    __syncthreads();
    float sum = 0.0f;
    if (threadIdx.x < COLUMNS) {
#pragma unroll
        for (u32 part = 0; part < PARTS; part += 1) {
            sum += sum_terms[part * COLUMNS + threadIdx.x];
        }
    }
    return sum;
}

// partials[block] = sums over 64 rows of dy; zero without live rows
extern "C" __global__ void __launch_bounds__(THREADS) bias_grad_partial(
    const Stored* __restrict__ dy, // [rows, width]
    float* __restrict__ partials,  // [blocks, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width) {
    __shared__ float4 group_terms[GROUPS][COLUMNS / 4];
    const u32 thread = threadIdx.x;
    const u32 group = thread / RUNS;
    const u32 first = blockIdx.y * BLOCK_ROWS;
    const u32 end = min(first + BLOCK_ROWS, live(step_params, rows, rows_count, rows_start));
    Run<VECTOR> sums = {};
#pragma unroll 4
    for (u32 row = first + group; row < end; row += GROUPS) {
        const Run<VECTOR> d = load_row<VECTOR>(dy + row * width, blockIdx.x * COLUMNS + thread % RUNS * VECTOR, width);
#pragma unroll
        for (u32 i = 0; i < VECTOR; i += 1) {
            sums.at[i] += d.at[i];
        }
    }
    store(reinterpret_cast<float*>(group_terms[group]) + thread % RUNS * VECTOR, sums);
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (u32 group = thread / COLUMNS; group < GROUPS; group += PARTS) {
        sum += reinterpret_cast<const float*>(group_terms[group])[thread % COLUMNS];
    }
    const float total = column_sum(sum);
    const u32 column = blockIdx.x * COLUMNS + thread % COLUMNS;
    if (thread < COLUMNS && column < width) {
        partials[blockIdx.y * width + column] = total;
    }
}

// d (+)= sum over the blocks
extern "C" __global__ void __launch_bounds__(THREADS) bias_grad_finish(
    const float* __restrict__ partials, // [blocks, width]
    float* __restrict__ d,              // [1, width]
    const StepParams* __restrict__ step_params,
    u32 blocks,
    u32 width,
    u32 accumulate_d) {
    const u32 thread = threadIdx.x;
    const u32 column = blockIdx.x * COLUMNS + thread % COLUMNS;
    float sum = 0.0f;
    if (column < width) {
#pragma unroll 4
        for (u32 block = thread / COLUMNS; block < blocks; block += PARTS) {
            sum += partials[block * width + column];
        }
    }
    const float total = column_sum(sum);
    if (thread < COLUMNS && column < width) {
        d[column] = accumulate_d != 0 ? d[column] + total : total;
    }
}
