// Elementary functions to a few units in the last place, with the coefficients of src/ops/math.rs: the same error on
// every backend.
#pragma once

// e^x; 0 below -87.336, never infinite.
__device__ __forceinline__ float exp_f32(float x) {
    const float above = x < -87.336f ? -87.336f : x; // a NaN stays one
    const float clamped = above > 88.3f ? 88.3f : above;
    const float n = rintf(clamped * 1.44269504f); // x = n ln 2 + r
    const float high = fmaf(n, -0.6933594f, clamped);
    const float r = fmaf(n, 2.1219444e-4f, high);
    float p = 1.9875691e-4f;
    p = fmaf(p, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666665e-1f);
    p = fmaf(p, r, 0.5f);
    const float y = fmaf(p, r * r, r) + 1.0f;
    const float scale = __int_as_float((static_cast<int>(n) + 127) << 23);
    return x < -87.336f ? 0.0f : y * scale;
}

// The error function.
__device__ __forceinline__ float erf_f32(float x) {
    const float above = x < -4.0f ? -4.0f : x; // a NaN stays one
    const float clamped = above > 4.0f ? 4.0f : above;
    const float x2 = clamped * clamped;
    float p = -2.7261423e-10f;
    p = fmaf(p, x2, 2.7706814e-8f);
    p = fmaf(p, x2, -2.101024e-6f);
    p = fmaf(p, x2, -5.6925066e-5f);
    p = fmaf(p, x2, -7.3499064e-4f);
    p = fmaf(p, x2, -2.9545998e-3f);
    p = fmaf(p, x2, -1.6096033e-2f);
    float q = -1.4566072e-5f;
    q = fmaf(q, x2, -2.1337406e-4f);
    q = fmaf(q, x2, -1.682827e-3f);
    q = fmaf(q, x2, -7.373329e-3f);
    q = fmaf(q, x2, -1.4264739e-2f);
    return clamped * p / q;
}

// gelu(z) = z/2 (1 + erf(z / sqrt 2)).
__device__ __forceinline__ float gelu(float z) {
    return 0.5f * z * (1.0f + erf_f32(z * 0.70710678f));
}

// gelu'(z) = Phi(z) + z phi(z).
__device__ __forceinline__ float gelu_derivative(float z) {
    const float phi = 0.3989423f * exp_f32(-0.5f * z * z);
    return fmaf(0.5f, erf_f32(z * 0.70710678f), 0.5f) + z * phi;
}
