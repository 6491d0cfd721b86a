// Dropout: the mask is a function of seed, step, op and element, never stored (src/ops/dropout.rs, src/rng.rs).
#pragma once

#include "common/step.cuh"

constexpr u32 PHILOX_M0 = 0xD2511F53u;
constexpr u32 PHILOX_M1 = 0xCD9E8D57u;
constexpr u32 PHILOX_W0 = 0x9E3779B9u;
constexpr u32 PHILOX_W1 = 0xBB67AE85u;

// Philox4x32 with ten rounds: four random words for a counter under a key.
__device__ __forceinline__ uint4 philox4x32_10(uint4 counter, uint2 key) {
    uint4 c = counter;
    uint2 k = key;
    for (u32 round = 0; round < 10; round += 1) {
        const u32 high0 = __umulhi(PHILOX_M0, c.x);
        const u32 high1 = __umulhi(PHILOX_M1, c.z);
        c = make_uint4(high1 ^ c.y ^ k.x, PHILOX_M1 * c.z, high0 ^ c.w ^ k.y, PHILOX_M0 * c.x);
        k = make_uint2(k.x + PHILOX_W0, k.y + PHILOX_W1);
    }
    return c;
}

// A launch's dropout.
struct Dropout {
    const StepParams* step_params;
    u32 op;
    u32 threshold;
    float keep_scale;

    // What dropout multiplies an element with: 0, or keep_scale = 1 / (1 - p). A threshold of 0 drops nothing.
    __device__ __forceinline__ float factor(u32 element) const {
        if (threshold == 0) {
            return 1.0f;
        }
        const uint4 counter = make_uint4(element / 4, op, step_params->step, 0);
        const uint4 words = philox4x32_10(counter, make_uint2(step_params->seed[0], step_params->seed[1]));
        const u32 even = element % 4 < 2 ? words.x : words.z;
        const u32 odd = element % 4 < 2 ? words.y : words.w;
        return (element % 2 == 0 ? even : odd) >= threshold ? keep_scale : 0.0f;
    }
};
