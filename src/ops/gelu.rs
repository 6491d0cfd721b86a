//! GELU in its exact form, `gelu(z) = z Phi(z) = z/2 (1 + erf(z / sqrt 2))` (Hendrycks and Gimpel 2016, as in BERT's
//! Hugging Face implementation).
//!
//! ```text
//! gelu'(z) = Phi(z) + z phi(z)        Phi, phi: distribution function and density of N(0, 1)
//! ```
//!
//! The forward and, inside a feed-forward block, the backward are epilogues of [`gemm`](super::gemm). What remains
//! here are the scalar functions that all of them share and the backward alone, for heads that go on with something
//! else than a matrix product.

use rayon::prelude::*;

use super::math::{erf, exp};
use crate::device::cpu::vectorised;
use crate::kernel::{Arg, Call, Cost, Count, File, Kernel, Source, StepParams, cover};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};
use crate::plan::{PlanError, Recorder, Value};

/// `gelu(z)`.
#[inline(always)]
#[must_use]
pub fn gelu(z: f32) -> f32 {
    0.5 * z * (1.0 + erf(z * std::f32::consts::FRAC_1_SQRT_2))
}

/// `gelu'(z)`.
#[inline(always)]
#[must_use]
pub fn gelu_derivative(z: f32) -> f32 {
    const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
    let phi = DENSITY * exp(-0.5 * z * z);
    (0.5f32).mul_add(erf(z * std::f32::consts::FRAC_1_SQRT_2), 0.5) + z * phi
}

/// FLOPs of `gelu(z)`, an elementary function counted as one.
pub const FLOPS: u64 = 5;
/// The same of `gelu'(z)`.
pub const DERIVATIVE_FLOPS: u64 = 10;

/// `gelu(z)` for references.
pub fn reference<R: Real>(z: R) -> R {
    let half = R::from_f64(0.5);
    half * z * (R::from_f64(1.0) + (z * R::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

/// `gelu'(z)` for references.
pub fn reference_derivative<R: Real>(z: R) -> R {
    let half = R::from_f64(0.5);
    let phi = R::from_f64(0.398_942_280_401_432_7) * (-half * z * z).exp();
    half + half * (z * R::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf() + z * phi
}

const WGSL: File = File {
    name: "shaders/gelu.wgsl",
    text: include_str!("../../shaders/gelu.wgsl"),
};

const CUDA: File = File {
    name: "kernels/gelu.cu",
    text: include_str!("../../kernels/gelu.cu"),
};

/// `dz = da gelu'(z)`.
pub static BACKWARD: Kernel = Kernel {
    name: "gelu.backward",
    args: &[
        Arg::input("da", ["rows", "width"]),
        Arg::input("z", ["rows", "width"]),
        Arg::output("dz", ["rows", "width"]),
    ],
    constants: &["rows", "rows.count", "rows.start", "width"],
    cuda: Some(
        Source::new(CUDA, &["gelu_backward"])
            .with_grid(|dims, _| cover((dims.size("rows") * dims.size("width")).div_ceil(dims.precision().vector()))),
    ),
    wgsl: Some(Source::new(WGSL, &["gelu_backward"])),
    cpu: backward,
    reserve: None,
    grid: |dims, _| cover(dims.size("rows") * dims.size("width")),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: (1 + DERIVATIVE_FLOPS) * elements,
            read: 2 * sizes.stored_bytes() * elements,
            written: sizes.stored_bytes() * elements,
        }
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&BACKWARD];

/// Records `dz = da gelu'(z)`; to be called from another op's backward.
///
/// # Errors
/// Shape mismatches.
pub fn record_backward(r: &mut Recorder, da: Value, z: Value) -> Result<Value, PlanError> {
    let info = r.info(z).clone();
    let dz = r.value("dz", info.rows, info.width);
    r.launch(&BACKWARD, &[da, z, dz], &[])?;
    Ok(dz)
}

fn backward(call: &Call) {
    let words = call.live("rows") * call.dims().size("width");
    let (da, z, dz) = (
        &call.f32(0)[..words],
        &call.f32(1)[..words],
        &mut call.f32_mut(2)[..words],
    );
    const CHUNK: usize = 8192;
    dz.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, dz)| {
        let range = chunk * CHUNK..chunk * CHUNK + dz.len();
        let (da, z) = (&da[range.clone()], &z[range]);
        vectorised(
            #[inline(always)]
            || {
                for ((dz, da), z) in dz.iter_mut().zip(da).zip(z) {
                    *dz = da * gelu_derivative(*z);
                }
            },
        );
    });
}

fn backward_reference<R: Real>(words: usize) -> Reference<R> {
    Box::new(move |given: &Given<R>, _: &[Vec<R>]| {
        let pairs = given.tensors[0].iter().zip(&given.tensors[1]).take(words);
        Expected {
            outputs: vec![pairs.map(|(&da, &z)| da * reference_derivative(z)).collect()],
            gradients: Vec::new(),
        }
    })
}

/// The backward alone: no live row, one element, a chunk of the CPU plus one.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, capacity, width) in [(0, 2, 3), (1, 1, 1), (5, 7, 17), (129, 130, 64)] {
        let mut step = StepParams::default();
        let rows = counted(Count::Tokens, live, capacity, &mut step);
        let words = (live * width) as usize;
        cases.push(Case {
            name: format!("gelu backward {live} of {capacity} rows, width {width}"),
            tensors: vec![
                Tensor::random("da", Role::Stored, rows, width),
                Tensor::random("z", Role::Stored, rows, width),
            ],
            step,
            record: Box::new(|r, v| Ok(vec![record_backward(r, v[0], v[1])?])),
            upstream: vec![false],
            truth: backward_reference(words),
            naive: backward_reference(words),
            naive_f16: backward_reference(words),
            naive_bf16: backward_reference(words),
        });
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_and_its_derivative_agree_with_f64() {
        // Error of the f32 formula itself: 1 + erf cancels for negative z, so the bound is absolute, in units of |z|.
        for step in -8_000..8_000 {
            let z = step as f32 * 1e-3;
            let scale = f64::from(f32::EPSILON) * f64::from(z.abs()).max(1.0);
            assert!(
                (f64::from(gelu(z)) - reference(f64::from(z))).abs() <= 2.0 * scale,
                "gelu({z})"
            );
            let slope = reference_derivative(f64::from(z));
            assert!(
                (f64::from(gelu_derivative(z)) - slope).abs() <= 4.0 * scale,
                "gelu'({z})"
            );
        }
    }
}
