// Nothing orders the writes of one warp before the reads of another.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    tile[threadIdx.x] = 0.0f;
    __syncthreads();
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = tile[threadIdx.x ^ 32]; // BUG
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    tile[threadIdx.x] = 0.0f;
    __syncthreads();
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x ^ 32];
}
