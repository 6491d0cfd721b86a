//! Elementary functions in f32 that vectorise: no branches, no table look-ups, only `mul_add` and bit operations.
//!
//! Inside [`vectorised`](crate::device::cpu::vectorised) loops the compiler turns them into 16 lanes of AVX-512. Reductions
//! keep [`LANES`] partial results, so their order of operations is the same on every processor.

use crate::device::cpu::LANES;

/// `e^x` to within 2 units in the last place; 0 below -87.3, infinity never (saturates at `e^88.3`), NaN stays NaN.
/// Range reduction by ln 2 split in two, degree-5 polynomial of Cephes `expf`.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    let clamped = if x < -87.336 { -87.336 } else { x };
    let clamped = if clamped > 88.3 { 88.3 } else { clamped };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-0.693_359_4, clamped);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let result = y * scale;
    if x < -87.336 { 0.0 } else { result }
}

/// The error function to within 4 units in the last place: a rational minimax approximation on [-4, 4], +-1 beyond
/// (the coefficients of Eigen's `generic_fast_erf_float`).
#[inline(always)]
#[must_use]
pub fn erf(x: f32) -> f32 {
    let clamped = if x < -4.0 { -4.0 } else { x };
    let clamped = if clamped > 4.0 { 4.0 } else { clamped };
    let x2 = clamped * clamped;
    let p = -2.726_142_3e-10f32;
    let p = p.mul_add(x2, 2.770_681_4e-8);
    let p = p.mul_add(x2, -2.101_024e-6);
    let p = p.mul_add(x2, -5.692_506_6e-5);
    let p = p.mul_add(x2, -7.349_906_4e-4);
    let p = p.mul_add(x2, -2.954_6e-3);
    let p = p.mul_add(x2, -1.609_603_3e-2);
    let q = -1.456_607_2e-5f32;
    let q = q.mul_add(x2, -2.133_740_6e-4);
    let q = q.mul_add(x2, -1.682_827e-3);
    let q = q.mul_add(x2, -7.373_329e-3);
    let q = q.mul_add(x2, -1.426_473_9e-2);
    clamped * p / q
}

/// Sum of `term` over a row: element `i` goes to partial sum `i mod LANES`, the partial sums are added as a tree.
#[inline(always)]
#[must_use]
pub fn sum_of(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (groups, rest) = x.as_chunks::<LANES>();
    for group in groups {
        for (lane, x) in lanes.iter_mut().zip(group) {
            *lane += term(*x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += term(*x);
    }
    tree(lanes, |a, b| a + b)
}

/// The lanes joined as a tree: halves, quarters, ...
#[inline(always)]
#[must_use]
pub fn tree(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Largest element of a row; NaNs are passed over, an empty row has -infinity.
#[inline(always)]
#[must_use]
pub fn max_of(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (groups, rest) = x.as_chunks::<LANES>();
    for group in groups {
        for (lane, x) in lanes.iter_mut().zip(group) {
            *lane = larger(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *x);
    }
    tree(lanes, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for step in -87_000..88_000 {
            let x = step as f32 * 1e-3;
            let exact = libm::exp(f64::from(x));
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(
                error < 2.0 * f64::from(f32::EPSILON),
                "exp({x}): relative error {error}"
            );
        }
        assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY), exp(0.0)), (0.0, 0.0, 1.0));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_within_four_units_in_the_last_place() {
        for step in -5_000..5_000 {
            let x = step as f32 * 1e-3;
            let exact = libm::erf(f64::from(x));
            let error = (f64::from(erf(x)) - exact).abs();
            assert!(
                error <= 4.0 * f64::from(f32::EPSILON) * exact.abs(),
                "erf({x}): error {error}"
            );
        }
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_cover_every_element_of_rows_of_any_length() {
        for len in 0..70usize {
            let x: Vec<f32> = (0..len).map(|index| (index * 37 % 101) as f32 - 50.0).collect();
            let sum: f64 = x.iter().map(|&x| f64::from(x * x)).sum();
            assert_eq!(f64::from(sum_of(&x, |x| x * x)), sum, "{len} elements");
            let most = x.iter().copied().max_by(f32::total_cmp).unwrap_or(f32::NEG_INFINITY);
            assert_eq!(max_of(&x), most, "{len} elements");
        }
    }
}
