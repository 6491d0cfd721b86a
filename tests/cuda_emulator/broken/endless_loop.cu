// Waits for a flag that nobody sets.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    while (*static_cast<volatile float*>(y) != 1.0f) { // BUG
    }
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    y[threadIdx.x] = 1.0f;
}
