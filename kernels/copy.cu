// Copies (src/ops/copy.rs). Bytes moved: every element once in and out; a thread has 16 bytes of the wider tensor.

#include "common/stored.cuh"

// y (+)= x
extern "C" __global__ void __launch_bounds__(THREADS) copy(
    const Stored* __restrict__ x, // [rows, width]
    Stored* __restrict__ y,       // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width,
    u32 accumulate_y) {
    const u32 element = covered_element(VECTOR);
    const u32 end = live(step_params, rows, rows_count, rows_start) * width;
    if (element >= end) {
        return;
    }
    Run<VECTOR> copied = load_range<VECTOR>(x, element, end);
    if (accumulate_y != 0) {
        const Run<VECTOR> old = load_range<VECTOR>(y, element, end);
#pragma unroll
        for (u32 i = 0; i < VECTOR; i += 1) {
            copied.at[i] += old.at[i];
        }
    }
    store_range(y, element, end, copied);
}

// wide = x
extern "C" __global__ void __launch_bounds__(THREADS) copy_widen(
    const Stored* __restrict__ x, // [rows, width]
    float* __restrict__ wide,     // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width) {
    const u32 element = covered_element(4);
    const u32 end = live(step_params, rows, rows_count, rows_start) * width;
    if (element < end) {
        store_range(wide, element, end, load_range<4>(x, element, end));
    }
}
