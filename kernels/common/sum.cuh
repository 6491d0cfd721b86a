// Sums and maxima over warps and blocks, as fixed trees: the same order, and bits, every time. Within a warp lanes exchange
// their terms crosswise, so that all of them get the result.
#pragma once

#include "common/step.cuh"

constexpr u32 WARP = 32;
constexpr u32 ALL = 0xffffffffu; // lanes of a warp

// The sum over the lanes whose numbers differ in bits below `lanes`, a power of two. All lanes of the warp must call it.
template <u32 LANES = WARP>
__device__ __forceinline__ float lane_sum(float x) {
#pragma unroll
    for (u32 half = LANES / 2; half > 0; half /= 2) {
        x += __shfl_xor_sync(ALL, x, half);
    }
    return x;
}

template <u32 LANES = WARP>
__device__ __forceinline__ float lane_max(float x) {
#pragma unroll
    for (u32 half = LANES / 2; half > 0; half /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL, x, half));
    }
    return x;
}

// The sum of x over the block, known to every thread. All threads must call it.
__device__ __forceinline__ float workgroup_sum(float x) {
    __shared__ float sum_terms[THREADS / WARP];
    const float of_warp = lane_sum(x);
    if (threadIdx.x % WARP == 0) {
        sum_terms[threadIdx.x / WARP] = of_warp;
    }
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (u32 warp = 0; warp < THREADS / WARP; warp += 1) {
        sum += sum_terms[warp];
    }
    __syncthreads(); // the next sum may overwrite it
    return sum;
}

// The largest x of the block, known to every thread. All threads must call it.
__device__ __forceinline__ float workgroup_max(float x) {
    __shared__ float max_terms[THREADS / WARP];
    const float of_warp = lane_max(x);
    if (threadIdx.x % WARP == 0) {
        max_terms[threadIdx.x / WARP] = of_warp;
    }
    __syncthreads();
    float most = max_terms[0];
#pragma unroll
    for (u32 warp = 1; warp < THREADS / WARP; warp += 1) {
        most = fmaxf(most, max_terms[warp]);
    }
    __syncthreads(); // the next maximum may overwrite it
    return most;
}
