// Reads the element after a row's last.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        y[i] = x[i + 1] - x[i]; // BUG
    }
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        y[i] = x[min(i + 1, n - 1)] - x[i];
    }
}
