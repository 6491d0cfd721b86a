// Elementary functions to a few units in the last place, with the coefficients of src/ops/math.rs: the same error on
// every backend.
#pragma once

#define INFINITY_F32 __int_as_float(0x7f800000)

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

// 2^x to 2 units in the last place, one instruction: where the result is about to be rounded to two bytes.
__device__ __forceinline__ float exp2_short(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ln x for normal x > 0: m 2^e with m in [sqrt 1/2, sqrt 2), polynomial of Cephes logf in m - 1. A NaN stays one.
__device__ __forceinline__ float log_f32(float x) {
    const int bits = __float_as_int(x);
    const float half = __int_as_float((bits & 0x007fffff) | 0x3f000000); // in [1/2, 1)
    const bool small = half < 0.70710678f;
    const float e = static_cast<float>((bits >> 23) - (small ? 127 : 126));
    const float m = (small ? 2.0f * half : half) - 1.0f;
    float p = 7.037683629e-2f;
    p = fmaf(p, m, -1.151461031e-1f);
    p = fmaf(p, m, 1.167699874e-1f);
    p = fmaf(p, m, -1.242014085e-1f);
    p = fmaf(p, m, 1.424932279e-1f);
    p = fmaf(p, m, -1.666805767e-1f);
    p = fmaf(p, m, 2.000071477e-1f);
    p = fmaf(p, m, -2.499999399e-1f);
    p = fmaf(p, m, 3.333333117e-1f);
    const float m2 = m * m;
    const float low = fmaf(p, m * m2, fmaf(-0.5f, m2, -2.1219444e-4f * e));
    return x < INFINITY_F32 ? fmaf(0.6933594f, e, m + low) : x;
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
