// Half of the warp waits for lanes that wait at a barrier.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    float value = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) {
        value += __shfl_xor_sync(0xffffffffu, value, 16); // BUG
    } else {
        __syncthreads();
        y[threadIdx.x] = value;
    }
    y[threadIdx.x] = value;
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    float value = x[threadIdx.x];
    const float other = __shfl_xor_sync(0xffffffffu, value, 16);
    if (threadIdx.x % 32 < 16) {
        value += other;
    }
    __syncthreads();
    y[threadIdx.x] = value;
}
