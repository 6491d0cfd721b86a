// Four floats at once from an address that is no multiple of 16.

extern "C" __global__ void broken(const float* x, float* y, unsigned n) {
    const float4 quad = *reinterpret_cast<const float4*>(x + 1); // BUG
    y[threadIdx.x] = quad.x + quad.w;
}

extern "C" __global__ void fixed(const float* x, float* y, unsigned n) {
    const float4 quad = *reinterpret_cast<const float4*>(x + 4);
    y[threadIdx.x] = quad.x + quad.w;
}
