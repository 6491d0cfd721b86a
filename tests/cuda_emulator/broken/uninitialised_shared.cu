// Half of the tile is never written.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    if (threadIdx.x < 32) {
        tile[threadIdx.x] = x[threadIdx.x];
    }
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x]; // BUG
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
