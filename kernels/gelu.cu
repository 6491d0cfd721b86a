// dz = da gelu'(z) (src/ops/gelu.rs), a thread an element.

#include "common/math.cuh"
#include "common/step.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) gelu_backward(
    const float* __restrict__ da, // [rows, width]
    const float* __restrict__ z,  // [rows, width]
    float* __restrict__ dz,       // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 rows_count,
    u32 rows_start,
    u32 width) {
    const u32 element = covered_element();
    if (element < live(step_params, rows, rows_count, rows_start) * width) {
        dz[element] = da[element] * gelu_derivative(z[element]);
    }
}
