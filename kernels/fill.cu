// x = 0 (src/ops/fill.rs), 16 bytes a thread. Bytes moved: every element once out.

#include "common/stored.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) fill_zero(
    Stored* __restrict__ x, // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width) {
    const u32 element = covered_element(VECTOR);
    const u32 end = live(step_params, rows, rows_count, rows_start) * width;
    if (element < end) {
        store_range(x, element, end, Run<VECTOR>{});
    }
}
