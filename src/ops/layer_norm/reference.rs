//! LayerNorm's reference and test cases.

use super::{Norm, layer_norm, residual_layer_norm};
use crate::kernel::{Count, Extent, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted, keeps};

const EPSILON: f32 = 1e-12;
/// The first op of a plan.
const OP: u32 = 1;

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    width: usize,
    residual: bool,
    probability: f32,
}

fn square<R: Real>(x: R) -> R {
    x * x
}

/// Tensors: x, gamma, beta, and with a residual sum the residual.
fn reference<R: Real>(shape: Shape) -> Reference<R> {
    Box::new(move |given: &Given<R>, upstream: &[Vec<R>]| {
        let Shape {
            rows,
            width,
            residual,
            probability,
        } = shape;
        let t = given.tensors;
        let threshold = crate::rng::threshold(f64::from(probability));
        let scale = R::from_f64(f64::from(1.0 / (1.0 - probability)));
        let zero = R::from_f64(0.0);
        let factor = |element| {
            if keeps(&given.step, OP, threshold, element) {
                scale
            } else {
                zero
            }
        };
        let dropped = |x: R, element: usize| match probability == 0.0 {
            true => x,
            false => x * factor(element),
        };
        let count = R::from_f64(width as f64);
        let mut output = Vec::new();
        let (mut dx, mut dresidual) = (Vec::new(), Vec::new());
        let (mut dgamma, mut dbeta) = (vec![zero; width], vec![zero; width]);
        for row in 0..rows {
            let at = |column: usize| row * width + column;
            let s: Vec<R> = (0..width)
                .map(|column| {
                    let x = t[0][at(column)];
                    match residual {
                        true => (t[3][at(column)] + dropped(x, at(column))).stored(),
                        false => x,
                    }
                })
                .collect();
            let mean = s.iter().copied().sum::<R>() / count;
            let variance = s.iter().map(|&s| square(s - mean)).sum::<R>() / count;
            let rstd = R::from_f64(1.0) / (variance + R::from_f64(f64::from(EPSILON))).sqrt();
            let xhat: Vec<R> = s.iter().map(|&s| (s - mean) * rstd).collect();
            for column in 0..width {
                let y = xhat[column] * t[1][column] + t[2][column];
                output.push(if residual { y } else { dropped(y, at(column)) });
            }
            if let Some(upstream) = upstream.first() {
                let dy: Vec<R> = (0..width)
                    .map(|column| match residual {
                        true => upstream[at(column)],
                        false => dropped(upstream[at(column)], at(column)),
                    })
                    .collect();
                let g: Vec<R> = (0..width).map(|column| dy[column] * t[1][column]).collect();
                let mean_g = g.iter().copied().sum::<R>() / count;
                let mean_gx = g.iter().zip(&xhat).map(|(&g, &x)| g * x).sum::<R>() / count;
                for column in 0..width {
                    let ds = rstd * (g[column] - mean_g - xhat[column] * mean_gx);
                    dx.push(if residual { dropped(ds, at(column)) } else { ds });
                    dresidual.push(ds);
                    dgamma[column] = dgamma[column] + dy[column] * xhat[column];
                    dbeta[column] = dbeta[column] + dy[column];
                }
            }
        }
        let mut gradients = vec![dx, dgamma, dbeta];
        if residual {
            gradients.push(dresidual);
        }
        Expected {
            outputs: vec![output],
            gradients,
        }
    })
}

/// Narrow and wide rows, rows that a CUDA warp has and one that takes a block, one row, a block minus and plus one, no live row, with and without dropout.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, capacity, width) in [
        (0, 2, 8),
        (1, 1, 3),
        (5, 9, 64),
        (63, 70, 20),
        (64, 64, 48),
        (65, 130, 130),
        (10, 12, 768),
        (2, 3, 1100),
    ] {
        for (residual, probability) in [(false, 0.0), (false, 0.1), (true, 0.0), (true, 0.25)] {
            let mut step = StepParams {
                step: 3,
                seed: [11, 12],
                ..StepParams::default()
            };
            let rows = counted(Count::Tokens, live, capacity, &mut step);
            let mut tensors = vec![
                Tensor::random("x", Role::Input, rows, width),
                Tensor::random("gamma", Role::Param, Extent::fixed(1), width),
                Tensor::random("beta", Role::Param, Extent::fixed(1), width),
            ];
            if residual {
                tensors.push(Tensor::random("residual", Role::Input, rows, width));
            }
            let shape = Shape {
                rows: live as usize,
                width: width as usize,
                residual,
                probability,
            };
            cases.push(Case {
                name: format!(
                    "layer_norm {live} of {capacity} rows, width {width}, residual {residual}, dropout {probability}"
                ),
                tensors,
                step,
                record: Box::new(move |r, v| {
                    let norm = Norm {
                        gamma: v[1],
                        beta: v[2],
                        epsilon: EPSILON,
                    };
                    if !residual {
                        return Ok(vec![layer_norm(r, v[0], norm, probability)?]);
                    }
                    let x = super::reference::copied(r, v[0])?;
                    Ok(vec![residual_layer_norm(r, x, v[3], norm, probability)?])
                }),
                upstream: vec![true],
                truth: reference(shape),
                naive: reference(shape),
                naive_f16: reference(shape),
                naive_bf16: reference(shape),
            });
        }
    }
    cases
}

/// The fused kernel works in place on an op's output; a case's input is read-only, so the case copies it first.
fn copied(r: &mut crate::plan::Recorder, x: crate::plan::Value) -> Result<crate::plan::Value, crate::plan::PlanError> {
    crate::ops::copy::copy(r, x)
}
