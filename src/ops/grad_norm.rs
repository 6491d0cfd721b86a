//! The global norm of the gradients, in two passes over the flat buffer.
//!
//! ```text
//! partial  p [blocks, 1] = sums of squares over BLOCK words of g
//! finish   norm [1, 1]   = sqrt(sum of p) / loss_scale
//! ```
//!
//! A NaN or an infinity anywhere makes the norm NaN or infinite, and so does a gradient whose square does not fit f32 (above
//! 1.8e19): a finite norm proves every gradient finite. [`adamw`](super::adamw) does nothing when it is not.

use rayon::prelude::*;

use crate::device::cpu::vectorised;
use crate::kernel::{Arg, Call, Cost, Extent, File, Kernel, REDUCING, Source, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor};
use crate::ops::math::sum_of;
use crate::plan::{ALIGN, PlanError, Recorder, Value};

/// Words of one partial sum.
pub const BLOCK: usize = 16_384;
/// Words of which a piece of the gradients is a multiple: its partial sums begin where a device can bind them.
pub const UNIT: usize = ALIGN * BLOCK;

const WGSL: File = File {
    name: "shaders/grad_norm.wgsl",
    text: include_str!("../../shaders/grad_norm.wgsl"),
};

const CUDA: File = File {
    name: "kernels/grad_norm.cu",
    text: include_str!("../../kernels/grad_norm.cu"),
};

/// Sums of squares over blocks.
pub static PARTIAL: Kernel = Kernel {
    name: "grad_norm.partial",
    args: &[
        Arg::input("grads", ["rows", "width"]).f32(),
        Arg::output("partials", ["blocks", "1"]).f32(),
    ],
    constants: &["rows", "width"],
    cuda: Some(Source::new(CUDA, &["grad_norm_partial"])),
    wgsl: Some(Source::new(WGSL, &["grad_norm_partial"]).with_variants(REDUCING)),
    cpu: partial,
    reserve: None,
    grid: |dims, _| [dims.size("blocks") as u32, 1, 1],
    cost: |sizes| {
        let words = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: 2 * words,
            read: 4 * words,
            written: 4 * sizes.get("blocks"),
        }
    },
};

/// Square root of the sum of the partial sums.
pub static FINISH: Kernel = Kernel {
    name: "grad_norm.finish",
    args: &[
        Arg::input("partials", ["blocks", "1"]).f32(),
        Arg::output("norm", ["1", "1"]).f32(),
    ],
    constants: &["blocks"],
    cuda: Some(Source::new(CUDA, &["grad_norm_finish"])),
    wgsl: Some(Source::new(WGSL, &["grad_norm_finish"]).with_variants(REDUCING)),
    cpu: finish,
    reserve: None,
    grid: |_, _| [1, 1, 1],
    cost: |sizes| Cost {
        flops: sizes.get("blocks") + 2,
        read: 4 * sizes.get("blocks"),
        written: 4,
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&PARTIAL, &FINISH];

/// Writes the Euclidean norm of `grads` (pieces of the flat buffer, of a multiple of [`UNIT`] words each but the last, or
/// any tensor; fixed sizes) to `norm` `[1, 1]`. How the buffer is cut changes no bit.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn record(r: &mut Recorder, grads: &[Value], norm: Value) -> Result<(), PlanError> {
    let blocks: Vec<u32> = grads
        .iter()
        .map(|&piece| r.info(piece).words().div_ceil(BLOCK).max(1) as u32)
        .collect();
    let partials = r.exact("partials", Extent::fixed(blocks.iter().sum()), 1);
    let mut start = 0;
    for (&piece, &blocks) in grads.iter().zip(&blocks) {
        let of_piece = r.view(partials, start, blocks);
        r.launch(&PARTIAL, &[piece, of_piece], &[])?;
        start += blocks;
    }
    r.launch(&FINISH, &[partials, norm], &[])
}

fn partial(call: &Call) {
    let grads = call.f32(0);
    call.f32_mut(1).par_iter_mut().enumerate().for_each(|(block, sum)| {
        let start = block * BLOCK;
        let block = &grads[start..grads.len().min(start + BLOCK)];
        *sum = vectorised(
            #[inline(always)]
            || sum_of(block, |g| g * g),
        );
    });
}

fn finish(call: &Call) {
    let partials = call.f32(0);
    let norm = call.f32_mut(1);
    norm[0] = vectorised(
        #[inline(always)]
        || sum_of(partials, |sum| sum).sqrt(),
    ) * call.step().inverse_loss_scale;
}

fn reference<R: Real>() -> Reference<R> {
    Box::new(|given: &Given<R>, _: &[Vec<R>]| {
        let sum: R = given.tensors[0].iter().map(|&g| g * g).sum();
        Expected {
            outputs: vec![vec![sum.sqrt() * R::from_f64(f64::from(given.step.inverse_loss_scale))]],
            gradients: Vec::new(),
        }
    })
}

/// One word, a block minus and plus one, several blocks, a matrix.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, words) in [(1, 1), (1, 16_383), (1, 16_384), (1, 16_385), (1, 70_001), (37, 911)] {
        cases.push(Case {
            name: format!("grad_norm of {rows} x {words} words"),
            tensors: vec![Tensor::random("grads", Role::Constant, Extent::fixed(rows), words)],
            step: StepParams {
                inverse_loss_scale: if rows > 1 { 0.125 } else { 1.0 },
                ..StepParams::default()
            },
            record: Box::new(|r, v| {
                let norm = r.output("norm", Extent::fixed(1), 1);
                record(r, &[v[0]], norm)?;
                Ok(vec![norm])
            }),
            upstream: vec![false],
            truth: reference(),
            naive: reference(),
            naive_f16: reference(),
            naive_bf16: reference(),
        });
    }
    cases
}
