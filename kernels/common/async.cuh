// Copies from global to shared memory that run beside the computation: cp.async from sm_80 on; before, plain loads and
// stores, which are over when the function returns.
#pragma once

#include "common/step.cuh"

__device__ __forceinline__ u32 shared_address(const void* p) {
    return static_cast<u32>(__cvta_generic_to_shared(p));
}

// BYTES (4 or 16, and both addresses a multiple of it) to shared memory; zeros where not valid: then nothing is read.
template <u32 BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
    static_assert(BYTES == 4 || BYTES == 16, "sizes of cp.async");
#if __CUDA_ARCH__ >= 800
    const u32 read = valid ? BYTES : 0;
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :
                     : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(read)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                     :
                     : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(read)
                     : "memory");
    }
#else
    if constexpr (BYTES == 16) {
        *static_cast<uint4*>(to) = valid ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
    } else {
        *static_cast<u32*>(to) = valid ? *static_cast<const u32*>(from) : 0;
    }
#endif
}

// Closes a group of the thread's copies; an empty group counts as one.
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// Waits until at most the PENDING youngest of the thread's groups are under way. A barrier must follow before other threads
// read what was copied.
template <u32 PENDING>
__device__ __forceinline__ void wait_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" : : "n"(PENDING) : "memory");
#endif
}
