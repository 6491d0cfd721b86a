// The lanes of a warp are not ordered by themselves either.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = tile[threadIdx.x ^ 1]; // BUG
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    y[threadIdx.x] = tile[threadIdx.x ^ 1];
}
