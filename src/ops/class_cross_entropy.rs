//! The classifier's loss: softmax and cross entropy over a few classes.
//!
//! ```text
//! losses  [rows, 1]       = log sum_j exp(z_j) - z_label            logits z [rows, C], every row, unweighted
//! dlogits [rows, C]     (+)= weight (softmax(z) - onehot(label))     of sum_i weight_i loss_i
//! ```
//!
//! The gradient is emitted at once, because the loss is where a backward begins. The logits stay as they are: predictions are
//! read from them.

use rayon::prelude::*;

use crate::device::cpu::vectorised;
use crate::kernel::{Arg, Call, Cost, Count, File, Kernel, Source, StepParams, THREADS};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};
use crate::ops::copy::copy;
use crate::ops::masked_cross_entropy::cross_entropy;
use crate::ops::math::{exp, max_of, sum_of};
use crate::plan::{PlanError, Recorder, Value};

/// Rows of one task on the CPU.
const BLOCK_ROWS: usize = 64;

const WGSL: File = File {
    name: "shaders/class_cross_entropy.wgsl",
    text: include_str!("../../shaders/class_cross_entropy.wgsl"),
};

const CUDA: File = File {
    name: "kernels/class_cross_entropy.cu",
    text: include_str!("../../kernels/class_cross_entropy.cu"),
};

/// `losses = log sum exp(logits) - logits[label]`.
pub static LOSS: Kernel = Kernel {
    name: "class_cross_entropy.loss",
    args: &[
        Arg::input("logits", ["rows", "classes"]),
        Arg::index("labels", ["rows", "1"]),
        Arg::output("losses", ["rows", "1"]).f32(),
    ],
    constants: &["rows", "rows.count", "rows.start", "classes"],
    cuda: Some(Source::new(CUDA, &["class_cross_entropy_loss"])),
    wgsl: Some(Source::new(WGSL, &["class_cross_entropy_loss"])),
    cpu: loss,
    reserve: None,
    grid: |dims, _| [dims.size("rows").div_ceil(THREADS as usize) as u32, 1, 1],
    cost: |sizes| {
        let (rows, elements) = (sizes.get("rows"), sizes.get("rows") * sizes.get("classes"));
        Cost {
            flops: 3 * elements + 3 * rows,
            read: sizes.stored_bytes() * elements + 4 * rows,
            written: 4 * rows,
        }
    },
};

/// `dlogits (+)= weight (softmax(logits) - onehot(label))`.
pub static GRADIENT: Kernel = Kernel {
    name: "class_cross_entropy.gradient",
    args: &[
        Arg::input("logits", ["rows", "classes"]),
        Arg::index("labels", ["rows", "1"]),
        Arg::input("weights", ["rows", "1"]).f32(),
        Arg::inout("dlogits", ["rows", "classes"]),
    ],
    constants: &["rows", "rows.count", "rows.start", "classes", "accumulate_dlogits"],
    cuda: Some(Source::new(CUDA, &["class_cross_entropy_gradient"])),
    wgsl: Some(Source::new(WGSL, &["class_cross_entropy_gradient"])),
    cpu: gradient,
    reserve: None,
    grid: |dims, _| [dims.size("rows").div_ceil(THREADS as usize) as u32, 1, 1],
    cost: |sizes| {
        let (rows, elements) = (sizes.get("rows"), sizes.get("rows") * sizes.get("classes"));
        Cost {
            flops: 6 * elements + rows,
            read: sizes.stored_bytes() * elements + 8 * rows,
            written: sizes.stored_bytes() * elements,
        }
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&LOSS, &GRADIENT];

/// Unweighted losses `[rows, 1]` of logits `[rows, C]` with labels `[rows, 1]` (u32, below C); with `train`, also the
/// gradient of the sum of losses times weights `[rows, 1]`.
///
/// # Errors
/// Shape and type mismatches, with the scope.
pub fn class_cross_entropy(
    r: &mut Recorder,
    logits: Value,
    labels: Value,
    weights: Value,
    train: bool,
) -> Result<Value, PlanError> {
    let losses = r.exact("losses", r.info(logits).rows, 1);
    r.launch(&LOSS, &[logits, labels, losses], &[])?;
    let gradient = if train { r.outgoing(logits)? } else { None };
    if let Some(d) = gradient {
        let constants = [("accumulate_dlogits", d.flag())];
        r.launch(&GRADIENT, &[logits, labels, weights, d.value], &constants)?;
    }
    Ok(losses)
}

fn loss(call: &Call) {
    let (rows, classes) = (call.live("rows"), call.dims().size("classes"));
    let (logits, labels) = (&call.f32(0)[..rows * classes], &call.u32(1)[..rows]);
    let losses = &mut call.f32_mut(2)[..rows];
    let lines = losses.par_iter_mut().zip(logits.par_chunks_exact(classes)).zip(labels);
    lines.with_min_len(BLOCK_ROWS).for_each(|((loss, logits), &label)| {
        vectorised(
            #[inline(always)]
            || {
                let most = max_of(logits);
                let sum = sum_of(logits, |z| exp(z - most));
                *loss = libm::logf(sum) - (logits[label as usize] - most);
            },
        );
    });
}

fn gradient(call: &Call) {
    let (rows, classes) = (call.live("rows"), call.dims().size("classes"));
    let accumulate = call.dims().flag("accumulate_dlogits");
    let logits = &call.f32(0)[..rows * classes];
    let (labels, weights) = (&call.u32(1)[..rows], &call.f32(2)[..rows]);
    let dlogits = &mut call.f32_mut(3)[..rows * classes];
    let loss_scale = call.step().loss_scale;
    let lines = dlogits
        .par_chunks_exact_mut(classes)
        .zip(logits.par_chunks_exact(classes));
    let lines = lines.zip(labels).zip(weights).with_min_len(BLOCK_ROWS);
    lines.for_each(|(((dlogits, logits), &label), &weight)| {
        vectorised(
            #[inline(always)]
            || {
                let weight = weight * loss_scale;
                let most = max_of(logits);
                let scale = weight / sum_of(logits, |z| exp(z - most));
                if !accumulate {
                    dlogits.fill(0.0);
                }
                for (d, z) in dlogits.iter_mut().zip(logits) {
                    *d += exp(z - most) * scale;
                }
                dlogits[label as usize] -= weight;
            },
        );
    });
}

/// Tensors: logits, labels, weights. The loss is recorded `times` times; the logits come out unchanged.
fn reference<R: Real>(rows: usize, classes: usize, times: usize, train: bool) -> Reference<R> {
    Box::new(move |given: &Given<R>, _: &[Vec<R>]| {
        let (t, factor) = (given.tensors, times as f64);
        let logits = &t[0][..rows * classes];
        let (losses, d) = cross_entropy(
            logits,
            classes,
            |row| given.index(1, row),
            &t[2],
            given.step.loss_scale,
            train,
        );
        let scaled = factor * f64::from(given.step.loss_scale);
        let term = |(loss, weight): (&R, &R)| R::from_f64(scaled * weight.to_f64() * loss.to_f64());
        let objective = losses.iter().zip(&t[2]).map(term);
        let mut outputs = vec![logits.to_vec()];
        outputs.extend(vec![losses.clone(); times]);
        outputs.push(objective.collect());
        let d = d.iter().map(|&d| R::from_f64(factor * d.stored().to_f64())).collect();
        Expected {
            outputs,
            gradients: if train { vec![d] } else { Vec::new() },
        }
    })
}

/// No live row, one class, more classes than lanes, blocks of the CPU plus one, a second contribution, evaluation.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, capacity, classes, times, train) in [
        (0, 2, 3, 1, true),
        (1, 1, 1, 1, true),
        (2, 4, 2, 2, true),
        (65, 70, 13, 1, true),
        (129, 129, 37, 2, true),
        (9, 12, 5, 1, false),
    ] {
        let mut step = StepParams::default();
        let rows = counted(Count::Sequences, live, capacity, &mut step);
        let role = if train { Role::Input } else { Role::Stored };
        step.loss_scale = if times > 1 { 0.25 } else { 1.0 };
        let labels: Vec<u32> = (0..live).map(|row| row * 7 % classes).collect();
        let sizes = (live as usize, classes as usize);
        cases.push(Case {
            name: format!(
                "class_cross_entropy {live} of {capacity} rows, {classes} classes, {times} times, train {train}"
            ),
            tensors: vec![
                Tensor::random("logits", role, rows, classes),
                Tensor::index("labels", rows, 1, &labels),
                Tensor::random("weights", Role::Constant, rows, 1),
            ],
            step,
            record: Box::new(move |r, v| {
                let logits = copy(r, v[0])?;
                let mut outputs = vec![logits];
                for _ in 0..times {
                    outputs.push(class_cross_entropy(r, logits, v[1], v[2], train)?);
                }
                Ok(outputs)
            }),
            upstream: vec![false; 1 + times],
            truth: reference(sizes.0, sizes.1, times, train),
            naive: reference(sizes.0, sizes.1, times, train),
            naive_f16: reference(sizes.0, sizes.1, times, train),
            naive_bf16: reference(sizes.0, sizes.1, times, train),
        });
    }
    cases
}
