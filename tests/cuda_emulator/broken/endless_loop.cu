// Waits for a flag that nobody sets, the lanes of a warp on different ways.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    volatile float* flag = y;
    // One line, because the loop may be stopped anywhere in it.
    while (*flag != 1.0f) { if (threadIdx.x % 2 == 0) { __nanosleep(20); } } // BUG
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    y[threadIdx.x] = 1.0f;
}
