// Some threads leave before the barrier that the others wait at.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    if (threadIdx.x >= n) {
        return;
    }
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads(); // BUG
    y[threadIdx.x] = tile[0];
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x >= n) {
        return;
    }
    y[threadIdx.x] = tile[0];
}
