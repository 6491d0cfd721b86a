// The global norm of the gradients in two passes (src/ops/grad_norm.rs): a block sums the squares of 16,384 words, 16 bytes
// a thread at a time, one block adds the sums. Bytes moved: every word once.

#include "common/stored.cuh"
#include "common/sum.cuh"

constexpr u32 BLOCK = 16384;

// partials[block] = sum of squares over 16,384 words
extern "C" __global__ void __launch_bounds__(THREADS) grad_norm_partial(
    const float* __restrict__ grads, // [rows, width]
    float* __restrict__ partials,    // [blocks, 1]
    const StepParams* __restrict__ step_params,
    u32 rows,
    u32 width) {
    const u32 first = blockIdx.x * BLOCK;
    const u32 end = min(first + BLOCK, rows * width);
    float squares = 0.0f;
#pragma unroll 4
    for (u32 word = first + 4 * threadIdx.x; word < end; word += 4 * THREADS) {
        const Run<4> g = load_range<4>(grads, word, end);
#pragma unroll
        for (u32 i = 0; i < 4; i += 1) {
            squares = fmaf(g.at[i], g.at[i], squares);
        }
    }
    const float total = workgroup_sum(squares);
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = total;
    }
}

// norm = sqrt(sum of partials) / loss_scale
extern "C" __global__ void __launch_bounds__(THREADS) grad_norm_finish(
    const float* __restrict__ partials, // [blocks, 1]
    float* __restrict__ norm,           // [1, 1]
    const StepParams* __restrict__ step_params,
    u32 blocks) {
    float squares = 0.0f;
    for (u32 block = threadIdx.x; block < blocks; block += THREADS) {
        squares += partials[block];
    }
    const float total = workgroup_sum(squares);
    if (threadIdx.x == 0) {
        norm[0] = sqrtf(total) * step_params->inverse_loss_scale;
    }
}
