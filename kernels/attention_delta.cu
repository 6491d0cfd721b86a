// delta = sum of dout out over a head's row (src/ops/attention), eight threads a row. Bytes moved: both tensors once in.

#include "common/stored.cuh"
#include "common/sum.cuh"

constexpr u32 TEAM = 8;

extern "C" __global__ void __launch_bounds__(THREADS) attention_delta(
    const Stored* __restrict__ out,  // [tokens, h]
    const Stored* __restrict__ dout, // [tokens, h]
    float* __restrict__ delta,       // [tokens, heads]
    const StepParams* __restrict__ step_params,
    u32 tokens,
    u32 tokens_count,
    u32 tokens_start,
    u32 h,
    u32 heads) {
    const u32 row = block_number() * (THREADS / TEAM) + threadIdx.x / TEAM; // of a head, [tokens, heads]
    const bool exists = row < live(step_params, tokens, tokens_count, tokens_start) * heads;
    float sum = 0.0f;
    if (exists) {
        for (u32 column = VECTOR * (threadIdx.x % TEAM); column < HEAD_SIZE; column += VECTOR * TEAM) {
            const Run<VECTOR> x = load_row<VECTOR>(out + row * HEAD_SIZE, column, HEAD_SIZE);
            const Run<VECTOR> d = load_row<VECTOR>(dout + row * HEAD_SIZE, column, HEAD_SIZE);
#pragma unroll
            for (u32 i = 0; i < VECTOR; i += 1) {
                sum = fmaf(x.at[i], d.at[i], sum);
            }
        }
    }
    const float total = lane_sum<TEAM>(sum);
    if (exists && threadIdx.x % TEAM == 0) {
        delta[row] = total;
    }
}
