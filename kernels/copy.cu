// y (+)= x (src/ops/copy.rs), a thread an element.

#include "common/step.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) copy(
    const float* __restrict__ x, // [rows, width]
    float* __restrict__ y,       // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    u32 accumulate_y) {
    const u32 element = covered_element();
    if (element < live(step_params, rows, rows_count, rows_start) * width) {
        y[element] = accumulate_y != 0 ? y[element] + x[element] : x[element];
    }
}
