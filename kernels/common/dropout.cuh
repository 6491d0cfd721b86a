// Dropout: the mask is a function of seed, step, op and element, never stored (src/ops/dropout.rs, src/rng.rs).
#pragma once

#include "common/stored.cuh"

constexpr u32 PHILOX_M0 = 0xD2511F53u;
constexpr u32 PHILOX_M1 = 0xCD9E8D57u;
constexpr u32 PHILOX_W0 = 0x9E3779B9u;
constexpr u32 PHILOX_W1 = 0xBB67AE85u;

// Philox4x32 with ten rounds: four random words for a counter under a key.
__device__ __forceinline__ uint4 philox4x32_10(uint4 counter, uint2 key) {
    uint4 c = counter;
    uint2 k = key;
#pragma unroll
    for (u32 round = 0; round < 10; round += 1) {
        const u32 high0 = __umulhi(PHILOX_M0, c.x);
        const u32 high1 = __umulhi(PHILOX_M1, c.z);
        c = make_uint4(high1 ^ c.y ^ k.x, PHILOX_M1 * c.z, high0 ^ c.w ^ k.y, PHILOX_M0 * c.x);
        k = make_uint2(k.x + PHILOX_W0, k.y + PHILOX_W1);
    }
    return c;
}

// A launch's dropout. A threshold of 0 drops nothing.
struct Dropout {
    u32 op;
    u32 threshold;
    float keep_scale;
    u32 step;
    uint2 seed;

    __device__ __forceinline__ Dropout(const StepParams* step_params, u32 op, u32 threshold, float keep_scale)
        : op(op), threshold(threshold), keep_scale(keep_scale), step(step_params->step),
          seed(make_uint2(step_params->seed[0], step_params->seed[1])) {}

    // Which of elements 4 block .. 4 block + 3 are kept: a bit each, the first the lowest.
    __device__ __forceinline__ u32 kept(u32 block) const {
        const uint4 words = philox4x32_10(make_uint4(block, op, step, 0), seed);
        return (words.x >= threshold ? 1u : 0u) | (words.y >= threshold ? 2u : 0u) | (words.z >= threshold ? 4u : 0u)
            | (words.w >= threshold ? 8u : 0u);
    }

    // What dropout multiplies an element with, given the bits of its block: 0, or keep_scale = 1 / (1 - p).
    __device__ __forceinline__ float factor_of(u32 kept, u32 element) const {
        return (kept >> (element % 4) & 1u) != 0 ? keep_scale : 0.0f;
    }

    // Multiplies neighbouring elements of a tensor, the first of them number `element`, with what dropout says; ALIGNED:
    // it is known to be a multiple of 4.
    template <bool ALIGNED, u32 N>
    __device__ __forceinline__ void apply(u32 element, Run<N>& x) const {
        if (threshold == 0) {
            return;
        }
        if constexpr (ALIGNED) {
#pragma unroll
            for (u32 quad = 0; quad < N; quad += 4) {
                const u32 bits = kept((element + quad) / 4);
#pragma unroll
                for (u32 i = 0; i < 4; i += 1) {
                    x.at[quad + i] *= factor_of(bits, i);
                }
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < N; i += 1) {
                x.at[i] *= factor_of(kept((element + i) / 4), element + i);
            }
        }
    }
};
