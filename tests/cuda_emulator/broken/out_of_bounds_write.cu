// The bounds check is missing in the last block.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = 2.0f * x[i % n]; // BUG
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        y[i] = 2.0f * x[i % n];
    }
}
