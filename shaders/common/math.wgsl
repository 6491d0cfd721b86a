// Elementary functions to a few units in the last place, with the coefficients of src/ops/math.rs: WGSL's own exp may be
// off by 3 + 2 |x| units, and it has no error function.

// e^x; 0 below -87.336, never infinite.
fn exp_f32(x: f32) -> f32 {
    let above = select(x, -87.336, x < -87.336); // a NaN stays one
    let clamped = select(above, 88.3, above > 88.3);
    let n = round(clamped * 1.44269504); // x = n ln 2 + r; no adding and subtracting of 2^23: drivers may cancel it
    let high = fma(n, -0.6933594, clamped);
    let r = fma(n, 2.1219444e-4, high);
    var p = 1.9875691e-4;
    p = fma(p, r, 1.3981999e-3);
    p = fma(p, r, 8.333452e-3);
    p = fma(p, r, 4.1665796e-2);
    p = fma(p, r, 1.6666665e-1);
    p = fma(p, r, 0.5);
    let y = fma(p, r * r, r) + 1.0;
    let scale = bitcast<f32>(u32(i32(n) + 127) << 23u);
    return select(y * scale, 0.0, x < -87.336);
}

// ln x for normal x > 0: m 2^e with m in [sqrt 1/2, sqrt 2), polynomial of Cephes logf in m - 1.
fn log_f32(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let half = bitcast<f32>((bits & 0x007fffffu) | 0x3f000000u); // in [1/2, 1)
    let small = half < 0.70710678;
    let e = f32(i32(bits >> 23u) - select(126, 127, small));
    let m = select(half, 2.0 * half, small) - 1.0;
    var p = 7.037683629e-2;
    p = fma(p, m, -1.151461031e-1);
    p = fma(p, m, 1.167699874e-1);
    p = fma(p, m, -1.242014085e-1);
    p = fma(p, m, 1.424932279e-1);
    p = fma(p, m, -1.666805767e-1);
    p = fma(p, m, 2.000071477e-1);
    p = fma(p, m, -2.499999399e-1);
    p = fma(p, m, 3.333333117e-1);
    let m2 = m * m;
    let low = fma(p, m * m2, fma(-0.5, m2, -2.1219444e-4 * e));
    return fma(0.6933594, e, m + low);
}

// The error function.
fn erf_f32(x: f32) -> f32 {
    let above = select(x, -4.0, x < -4.0); // a NaN stays one
    let clamped = select(above, 4.0, above > 4.0);
    let x2 = clamped * clamped;
    var p = -2.7261423e-10;
    p = fma(p, x2, 2.7706814e-8);
    p = fma(p, x2, -2.101024e-6);
    p = fma(p, x2, -5.6925066e-5);
    p = fma(p, x2, -7.3499064e-4);
    p = fma(p, x2, -2.9545998e-3);
    p = fma(p, x2, -1.6096033e-2);
    var q = -1.4566072e-5;
    q = fma(q, x2, -2.1337406e-4);
    q = fma(q, x2, -1.682827e-3);
    q = fma(q, x2, -7.373329e-3);
    q = fma(q, x2, -1.4264739e-2);
    return clamped * p / q;
}

// gelu(z) = z/2 (1 + erf_f32(z / sqrt 2)).
fn gelu(z: f32) -> f32 {
    return 0.5 * z * (1.0 + erf_f32(z * 0.70710678));
}

// gelu'(z) = Phi(z) + z phi(z).
fn gelu_derivative(z: f32) -> f32 {
    let phi = 0.3989423 * exp_f32(-0.5 * z * z);
    return fma(0.5, erf_f32(z * 0.70710678), 0.5) + z * phi;
}
