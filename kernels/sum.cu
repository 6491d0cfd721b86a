// total = sum of x (src/ops/sum.rs), one block: a batch has some thousand rows at most.

#include "common/sum.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) sum(
    const float* __restrict__ x, // [rows, 1]
    float* __restrict__ total,   // [1, 1]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start) {
    const u32 end = live(step_params, rows, rows_count, rows_start);
    float terms = 0.0f;
    for (u32 row = threadIdx.x; row < end; row += THREADS) {
        terms += x[row];
    }
    const float all = workgroup_sum(terms);
    if (threadIdx.x == 0) {
        total[0] = all;
    }
}
