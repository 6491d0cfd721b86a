// dz = da gelu'(z) (src/ops/gelu.rs), 16 bytes a thread. Bytes moved: every element twice in and once out.

#include "common/math.cuh"
#include "common/stored.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) gelu_backward(
    const Stored* __restrict__ da, // [rows, width]
    const Stored* __restrict__ z,  // [rows, width]
    Stored* __restrict__ dz,       // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width) {
    const u32 element = covered_element(VECTOR);
    const u32 end = live(step_params, rows, rows_count, rows_start) * width;
    if (element >= end) {
        return;
    }
    Run<VECTOR> d = load_range<VECTOR>(da, element, end);
    const Run<VECTOR> at = load_range<VECTOR>(z, element, end);
#pragma unroll
    for (u32 i = 0; i < VECTOR; i += 1) {
        d.at[i] *= gelu_derivative(at.at[i]);
    }
    store_range(dz, element, end, d);
}
