// rounds times y = 0.999 y + 0.001, from x (src/ops/probe.rs): sixteen chains a thread, in registers.

#include "common/step.cuh"

constexpr u32 CHAINS = 16;

extern "C" __global__ void __launch_bounds__(THREADS) probe_fma(
    const float* __restrict__ x, // [rows, width]
    float* __restrict__ y,       // [rows, width]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 width,
    u32 rounds) {
    const u32 element = covered_element(CHAINS);
    const u32 end = rows * width;
    float chains[CHAINS];
#pragma unroll
    for (u32 i = 0; i < CHAINS; i += 1) {
        chains[i] = element + i < end ? x[element + i] : 0.0f;
    }
#pragma unroll 4
    for (u32 round = 0; round < rounds; round += 1) {
#pragma unroll
        for (u32 i = 0; i < CHAINS; i += 1) {
            chains[i] = fmaf(chains[i], 0.999f, 0.001f);
        }
    }
#pragma unroll
    for (u32 i = 0; i < CHAINS; i += 1) {
        if (element + i < end) {
            y[element + i] = chains[i];
        }
    }
}
