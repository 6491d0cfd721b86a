// Column sums in two passes (src/ops/bias_grad.rs). A block sums 64 columns: 4 groups of threads take every fourth row, a
// tree adds the groups. Bytes moved: every element once.

#include "common/step.cuh"
#include "common/sum.cuh"

constexpr u32 COLUMNS = 64;
constexpr u32 GROUPS = 4;
constexpr u32 BLOCK_ROWS = 64;

// partials[block] = sums over 64 rows of dy; zero without live rows
extern "C" __global__ void __launch_bounds__(THREADS) bias_grad_partial(
    const float* __restrict__ dy,  // [rows, width]
    float* __restrict__ partials,  // [blocks, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width) {
    const u32 thread = threadIdx.x;
    const u32 column = blockIdx.x * COLUMNS + thread % COLUMNS;
    const u32 first = blockIdx.y * BLOCK_ROWS;
    const u32 end = min(first + BLOCK_ROWS, live(step_params, rows, rows_count, rows_start));
    float sum = 0.0f;
    if (column < width) {
        for (u32 row = first + thread / COLUMNS; row < end; row += GROUPS) {
            sum += dy[row * width + column];
        }
    }
    const float total = group_sum(thread, sum);
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
        for (u32 block = thread / COLUMNS; block < blocks; block += GROUPS) {
            sum += partials[block * width + column];
        }
    }
    const float total = group_sum(thread, sum);
    if (thread < COLUMNS && column < width) {
        d[column] = accumulate_d != 0 ? d[column] + total : total;
    }
}
