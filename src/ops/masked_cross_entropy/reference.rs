//! The reference of the masked language model's loss, which knows no chunks, and test cases.

use super::{Masked, masked_cross_entropy};
use crate::kernel::{Count, Extent, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};
use crate::ops::gemm::Layer;

/// Losses of rows of logits and, to train, the gradients `weight (softmax - onehot)` of their weighted sum, times the loss
/// scale.
pub(in crate::ops) fn cross_entropy<R: Real>(
    logits: &[R],
    classes: usize,
    label: impl Fn(usize) -> usize,
    weights: &[R],
    loss_scale: f32,
    train: bool,
) -> (Vec<R>, Vec<R>) {
    let loss_scale = R::from_f64(f64::from(loss_scale));
    let mut losses = Vec::new();
    let mut gradients = Vec::new();
    for (row, z) in logits.chunks_exact(classes).enumerate() {
        let most = z.iter().fold(z[0], |most, &z| if z > most { z } else { most });
        let exponentials: Vec<R> = z.iter().map(|&z| (z - most).exp()).collect();
        let sum: R = exponentials.iter().copied().sum();
        losses.push(sum.ln() - (z[label(row)] - most));
        if train {
            let weight = loss_scale * weights[row];
            for (class, &exponential) in exponentials.iter().enumerate() {
                let hit = R::from_f64(f64::from(u8::from(class == label(row))));
                gradients.push(weight * (exponential / sum - hit));
            }
        }
    }
    (losses, gradients)
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    classes: usize,
    width: usize,
    times: usize,
    train: bool,
}

/// Tensors: hidden, weight, bias, labels, weights. The loss is recorded `times` times, each adding to all gradients.
fn reference<R: Real>(shape: Shape) -> Reference<R> {
    Box::new(move |given: &Given<R>, _: &[Vec<R>]| {
        let Shape {
            rows, classes, width, ..
        } = shape;
        let t = given.tensors;
        let (x, w) = (&t[0], &t[1]);
        let logit = |index: usize| {
            let (row, class) = (index / classes, index % classes);
            let dot: R = (0..width).map(|k| x[row * width + k] * w[class * width + k]).sum();
            (dot + t[2][class]).stored()
        };
        let logits: Vec<R> = (0..rows * classes).map(logit).collect();
        let (losses, dz) = cross_entropy(
            &logits,
            classes,
            |row| given.index(3, row),
            &t[4],
            given.step.loss_scale,
            shape.train,
        );
        let dz: Vec<R> = dz.iter().map(|dz| dz.stored()).collect();
        let times = shape.times as f64;
        let scaled = |x: R| R::from_f64(times * x.to_f64());
        let factor = times * f64::from(given.step.loss_scale);
        let term = |(loss, weight): (&R, &R)| R::from_f64(factor * weight.to_f64() * loss.to_f64());
        let objective = losses.iter().zip(&t[4]).map(term);
        let mut outputs = vec![losses.clone(); shape.times];
        outputs.push(objective.collect());
        let dx = |row: usize, k: usize| -> R {
            let sum: R = (0..classes).map(|c| dz[row * classes + c] * w[c * width + k]).sum();
            sum.stored()
        };
        let dw = |class: usize, k: usize| -> R { (0..rows).map(|r| dz[r * classes + class] * x[r * width + k]).sum() };
        let db = |class: usize| -> R { (0..rows).map(|row| dz[row * classes + class]).sum() };
        let mut gradients = Vec::new();
        if shape.train {
            gradients = vec![
                (0..rows * width).map(|i| scaled(dx(i / width, i % width))).collect(),
                (0..classes * width).map(|i| scaled(dw(i / width, i % width))).collect(),
                (0..classes).map(|class| scaled(db(class))).collect(),
            ];
        }
        Expected { outputs, gradients }
    })
}

fn case(live: u32, capacity: u32, chunk: u32, classes: u32, width: u32, times: usize, train: bool) -> Case {
    let mut step = StepParams {
        loss_scale: if times > 1 { 64.0 } else { 1.0 },
        ..StepParams::default()
    };
    let rows = counted(Count::Masked, live, capacity, &mut step);
    let [weight, bias, hidden] = match train {
        true => [Role::Param, Role::Param, Role::Input],
        false => [Role::Stored, Role::Constant, Role::Stored],
    };
    let labels: Vec<u32> = (0..live).map(|row| row * 31 % classes).collect();
    // A mean over the rows, but for one row that does not count.
    let mut weights = Tensor::random("weights", Role::Constant, rows, 1);
    for (row, weight) in weights.data.iter_mut().enumerate() {
        *weight = if row == 1 { 0.0 } else { 1.0 / 16.0 };
    }
    let tensors = vec![
        Tensor::random("hidden", hidden, rows, width),
        Tensor::random("decoder.weight", weight, Extent::fixed(classes), width),
        Tensor::random("decoder.bias", bias, Extent::fixed(1), classes),
        Tensor::index("labels", rows, 1, &labels),
        weights,
    ];
    let shape = Shape {
        rows: live as usize,
        classes: classes as usize,
        width: width as usize,
        times,
        train,
    };
    Case {
        name: format!(
            "masked_cross_entropy {live} of {capacity} rows in chunks of {chunk}, {classes} classes, width {width}, \
             {times} times, train {train}"
        ),
        tensors,
        step,
        record: Box::new(move |r, v| {
            let masked = Masked {
                hidden: v[0],
                decoder: Layer {
                    weight: v[1],
                    bias: v[2],
                },
                labels: v[3],
                weights: v[4],
            };
            let chunk = match chunk.is_multiple_of(64) {
                true => chunk / 64 * r.view_unit(),
                false => chunk,
            };
            (0..times)
                .map(|_| masked_cross_entropy(r, &masked, chunk, train))
                .collect()
        }),
        upstream: vec![false; times],
        truth: reference(shape),
        naive: reference(shape),
        naive_f16: reference(shape),
        naive_bf16: reference(shape),
    }
}

/// No live row, one row, a chunk and one row, a last chunk that is shorter, chunks without live rows, one class, gradients
/// that get a second contribution, evaluation.
pub fn cases() -> Vec<Case> {
    vec![
        case(0, 130, 64, 7, 3, 1, true),
        case(1, 1, 1, 1, 1, 1, true),
        case(3, 3, 3, 15, 4, 1, true),
        case(65, 190, 64, 33, 8, 1, true),
        case(128, 192, 64, 48, 16, 1, true),
        case(130, 300, 128, 17, 5, 2, true),
        case(66, 70, 128, 301, 20, 1, true),
        case(0, 3, 3, 5, 2, 1, false),
        case(70, 140, 64, 130, 9, 1, false),
    ]
}
