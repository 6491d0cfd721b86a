//! Rows of logits on the CPU: a row per task; it stays in the core's L2 over all its passes.

use rayon::prelude::*;

use crate::device::cpu::{LANES, vectorised};
use crate::kernel::Call;
use crate::ops::math::{exp, max_of, sum_of, tree};

pub(super) fn rows(call: &Call) {
    let (rows, classes) = (call.live("rows"), call.dims().size("classes"));
    let train = call.dims().flag("train");
    let (labels, weights) = (&call.u32(1)[..rows], &call.f32(2)[..rows]);
    let logits = &mut call.f32_mut(0)[..rows * classes];
    let loss_scale = call.step().loss_scale;
    let losses = &mut call.f32_mut(3)[..rows];
    let lines = logits.par_chunks_mut(classes).zip(losses).zip(labels).zip(weights);
    lines.for_each(|(((logits, loss), &label), &weight)| {
        vectorised(
            #[inline(always)]
            || {
                let label = label as usize;
                let most = max_of(logits);
                let at_label = logits[label] - most;
                let sum = if train {
                    exponentials(logits, most)
                } else {
                    sum_of(logits, |z| exp(z - most))
                };
                *loss = libm::logf(sum) - at_label;
                if train {
                    let weight = weight * loss_scale;
                    let scale = weight / sum;
                    for z in logits.iter_mut() {
                        *z *= scale;
                    }
                    logits[label] -= weight;
                }
            },
        );
    });
}

/// Replaces a row by `exp(z - most)` and returns the sum, in the order of [`sum_of`].
#[inline(always)]
fn exponentials(row: &mut [f32], most: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (groups, rest) = row.as_chunks_mut::<LANES>();
    for group in groups {
        for (lane, z) in lanes.iter_mut().zip(group) {
            *z = exp(*z - most);
            *lane += *z;
        }
    }
    for (lane, z) in lanes.iter_mut().zip(rest) {
        *z = exp(*z - most);
        *lane += *z;
    }
    tree(lanes, |a, b| a + b)
}
