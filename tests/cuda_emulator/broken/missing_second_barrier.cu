// The next round overwrites what other warps still read.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    float sum = 0.0f;
    for (unsigned round = 0; round < n; round += 1) {
        tile[threadIdx.x] = x[threadIdx.x] + static_cast<float>(round); // BUG
        __syncthreads();
        sum += tile[63 - threadIdx.x];
    }
    y[threadIdx.x] = sum;
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    __shared__ float tile[64];
    float sum = 0.0f;
    for (unsigned round = 0; round < n; round += 1) {
        tile[threadIdx.x] = x[threadIdx.x] + static_cast<float>(round);
        __syncthreads();
        sum += tile[63 - threadIdx.x];
        __syncthreads();
    }
    y[threadIdx.x] = sum;
}
