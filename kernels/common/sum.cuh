// Sums over a block of 256 threads, as trees in shared memory: the same order, and bits, every time.
#pragma once

#include "common/step.cuh"

// The sum of x over the block, known to every thread. All threads must call it.
__device__ __forceinline__ float workgroup_sum(u32 thread, float x) {
    __shared__ float sum_terms[THREADS];
    sum_terms[thread] = x;
    for (u32 half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) {
            sum_terms[thread] += sum_terms[thread + half];
        }
    }
    __syncthreads();
    const float sum = sum_terms[0];
    __syncthreads(); // the next sum may overwrite it
    return sum;
}

// Column sums: 64 columns by 4 groups, thread = group * 64 + column. The sum of x over the groups, known to every thread
// of the column. All threads must call it.
__device__ __forceinline__ float group_sum(u32 thread, float x) {
    __shared__ float sum_terms[THREADS];
    sum_terms[thread] = x;
    for (u32 half = 128; half >= 64; half /= 2) {
        __syncthreads();
        if (thread < half) {
            sum_terms[thread] += sum_terms[thread + half];
        }
    }
    __syncthreads();
    const float sum = sum_terms[thread % 64];
    __syncthreads(); // the next sum may overwrite it
    return sum;
}
