// The data of cp.async is read before it is waited for.

__device__ __forceinline__ void copy_async(float* to, const float* from) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(from) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
}

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    copy_async(&tile[threadIdx.x], &x[threadIdx.x]);
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x]; // BUG
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    copy_async(&tile[threadIdx.x], &x[threadIdx.x]);
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
