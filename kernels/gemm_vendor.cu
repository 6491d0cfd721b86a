// What a product of the vendor's library leaves to do (src/ops/gemm/vendor.rs): its bias has the type of the result, it
// knows no live rows, and its GELU is another function. 16 bytes a thread; every element in and out once.

#include "common/math.cuh"
#include "common/stored.cuh"

// rounded = bias
extern "C" __global__ void __launch_bounds__(THREADS) vendor_bias(
    const float* __restrict__ bias, // [1, width]
    Stored* __restrict__ rounded,   // [1, width]
    u32 width) {
    const u32 element = covered_element(4);
    if (element < width) {
        store_range(rounded, element, width, load_range<4>(bias, element, width));
    }
}

// x = 0 in the rows beyond the live ones, which a sum over all rows would otherwise take in.
extern "C" __global__ void __launch_bounds__(THREADS) vendor_clear(
    Stored* __restrict__ x, // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width) {
    const u32 element = covered_element(VECTOR);
    const u32 begin = live(step_params, rows, rows_count, rows_start) * width;
    const u32 end = rows * width;
    if (element + VECTOR > begin && element < end) {
        store_range(x, element, begin, end, Run<VECTOR>{});
    }
}

// a = gelu(z)
extern "C" __global__ void __launch_bounds__(THREADS) vendor_gelu(
    const Stored* __restrict__ z, // [rows, width]
    Stored* __restrict__ a,       // [rows, width]
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
    Run<VECTOR> run = load_range<VECTOR>(z, element, end);
#pragma unroll
    for (u32 i = 0; i < VECTOR; i += 1) {
        run.at[i] = gelu(run.at[i]);
    }
    store_range(a, element, end, run);
}

// dz *= gelu'(z)
extern "C" __global__ void __launch_bounds__(THREADS) vendor_gelu_derivative(
    const Stored* __restrict__ z, // [rows, width]
    Stored* __restrict__ dz,      // [rows, width]
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
    const Run<VECTOR> at = load_range<VECTOR>(z, element, end);
    Run<VECTOR> d = load_range<VECTOR>(dz, element, end);
#pragma unroll
    for (u32 i = 0; i < VECTOR; i += 1) {
        d.at[i] *= gelu_derivative(at.at[i]);
    }
    store_range(dz, element, end, d);
}
