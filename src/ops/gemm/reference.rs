//! The linear layers' reference and test cases.

use super::{Layer, feed_forward, linear, linear_gelu};
use crate::kernel::{Count, Extent, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};
use crate::ops::gelu;

/// `x W^T + b` over the live rows.
fn affine<R: Real>(x: &[R], w: &[R], b: &[R], rows: usize, n: usize, k: usize) -> Vec<R> {
    let element = |row: usize, column: usize| {
        let sum: R = (0..k).map(|index| x[row * k + index] * w[column * k + index]).sum();
        sum + b[column]
    };
    (0..rows * n).map(|index| element(index / n, index % n)).collect()
}

/// Gradients of `x`, `W`, `b`.
fn affine_backward<R: Real>(dy: &[R], x: &[R], w: &[R], rows: usize, n: usize, k: usize) -> [Vec<R>; 3] {
    let dx = |row: usize, column: usize| (0..n).map(|index| dy[row * n + index] * w[index * k + column]).sum();
    let dw = |row: usize, column: usize| (0..rows).map(|index| dy[index * n + row] * x[index * k + column]).sum();
    [
        (0..rows * k).map(|index| dx(index / k, index % k)).collect(),
        (0..n * k).map(|index| dw(index / k, index % k)).collect(),
        (0..n)
            .map(|column| (0..rows).map(|row| dy[row * n + column]).sum())
            .collect(),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Linear,
    LinearGelu,
    FeedForward,
}

/// Tensors: x, w, b, and for the feed-forward block w2, b2.
fn reference<R: Real>(form: Form, rows: usize, n: usize, k: usize) -> Reference<R> {
    Box::new(move |given: &Given<R>, upstream: &[Vec<R>]| {
        let t = given.tensors;
        let z = affine(&t[0], &t[1], &t[2], rows, n, k);
        let a: Vec<R> = match form {
            Form::Linear => Vec::new(),
            Form::LinearGelu | Form::FeedForward => z.iter().map(|&z| gelu::reference(z).stored()).collect(),
        };
        let slope = |da: Vec<R>| -> Vec<R> {
            da.iter()
                .zip(&z)
                .map(|(&da, &z)| (da * gelu::reference_derivative(z.stored())).stored())
                .collect()
        };
        let output = match form {
            Form::Linear => z.clone(),
            Form::LinearGelu => a.clone(),
            Form::FeedForward => affine(&a, &t[3], &t[4], rows, k, n),
        };
        let mut gradients = Vec::new();
        if let Some(dy) = upstream.first() {
            let mut outer = Vec::new();
            let dz = match form {
                Form::Linear => dy.clone(),
                Form::LinearGelu => slope(dy.clone()),
                Form::FeedForward => {
                    let [da, dw, db] = affine_backward(dy, &a, &t[3], rows, k, n);
                    outer = vec![dw, db];
                    slope(da)
                }
            };
            gradients.extend(affine_backward(&dz, &t[0], &t[1], rows, n, k));
            gradients.extend(outer);
        }
        Expected {
            outputs: vec![output],
            gradients,
        }
    })
}

fn case(form: Form, live: u32, capacity: u32, n: u32, k: u32) -> Case {
    let mut step = StepParams::default();
    let rows = counted(Count::Tokens, live, capacity, &mut step);
    let mut tensors = vec![
        Tensor::random("x", Role::Input, rows, k),
        Tensor::random("w", Role::Param, Extent::fixed(n), k),
        Tensor::random("b", Role::Param, Extent::fixed(1), n),
    ];
    if form == Form::FeedForward {
        tensors.push(Tensor::random("w2", Role::Param, Extent::fixed(k), n));
        tensors.push(Tensor::random("b2", Role::Param, Extent::fixed(1), k));
    }
    let name = match form {
        Form::Linear => "linear",
        Form::LinearGelu => "linear_gelu",
        Form::FeedForward => "feed_forward",
    };
    let sizes = (live as usize, n as usize, k as usize);
    Case {
        name: format!("gemm/{name} {live} of {capacity} rows, n {n}, k {k}"),
        tensors,
        step,
        record: Box::new(move |r, v| {
            let layer = Layer {
                weight: v[1],
                bias: v[2],
            };
            Ok(vec![match form {
                Form::Linear => linear(r, v[0], layer)?,
                Form::LinearGelu => linear_gelu(r, v[0], layer)?,
                Form::FeedForward => feed_forward(
                    r,
                    v[0],
                    layer,
                    Layer {
                        weight: v[3],
                        bias: v[4],
                    },
                )?,
            }])
        }),
        upstream: vec![true],
        truth: reference(form, sizes.0, sizes.1, sizes.2),
        naive: reference(form, sizes.0, sizes.1, sizes.2),
        naive_f16: reference(form, sizes.0, sizes.1, sizes.2),
        naive_bf16: reference(form, sizes.0, sizes.1, sizes.2),
    }
}

/// One row, tiles minus and plus one in every direction, an empty batch, more than one block of depth and rows; rows that are
/// aligned to 16 bytes of two-byte elements, and rows that are not.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, capacity, n, k) in [
        (0, 3, 5, 4),
        (1, 1, 1, 1),
        (1, 4, 33, 17),
        (11, 16, 31, 64),
        (12, 12, 32, 16),
        (13, 20, 65, 33),
        (63, 64, 63, 65),
        (65, 70, 64, 300),
        (129, 131, 132, 127),
        (129, 140, 136, 104),
        (257, 260, 40, 24),
    ] {
        for form in [Form::Linear, Form::LinearGelu, Form::FeedForward] {
            cases.push(case(form, live, capacity, n, k));
        }
    }
    cases
}
