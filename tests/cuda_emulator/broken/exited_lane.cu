// The mask of the shuffle names lanes that have left.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    if (threadIdx.x % 32 >= n) {
        return;
    }
    float sum = x[threadIdx.x];
    sum += __shfl_down_sync(0xffffffffu, sum, 1); // BUG
    y[threadIdx.x] = sum;
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    float sum = threadIdx.x % 32 < n ? x[threadIdx.x] : 0.0f;
    sum += __shfl_down_sync(0xffffffffu, sum, 1);
    y[threadIdx.x] = sum;
}
