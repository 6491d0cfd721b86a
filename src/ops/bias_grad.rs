//! Column sums: the gradient of everything that is added to all rows (biases, LayerNorm's parameters).
//!
//! ```text
//! partial  p [blocks, width] = sums over ROWS rows of dy [rows, width]; blocks without live rows are zero
//! finish   d [1, width]    (+)= sum over blocks
//! ```
//!
//! Two passes in place of atomics: the same bits every time, on every backend.

use rayon::prelude::*;

use crate::device::cpu::vectorised;
use crate::kernel::{Arg, Call, Cost, Count, Extent, File, Kernel, Sizes, Source, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};
use crate::plan::{PlanError, Recorder, Value};

/// Rows of one partial sum.
pub const ROWS: usize = 64;

const WGSL: File = File {
    name: "shaders/bias_grad.wgsl",
    text: include_str!("../../shaders/bias_grad.wgsl"),
};

const CUDA: File = File {
    name: "kernels/bias_grad.cu",
    text: include_str!("../../kernels/bias_grad.cu"),
};

/// Sums over blocks of rows.
pub static PARTIAL: Kernel = Kernel {
    name: "bias_grad.partial",
    args: &[
        Arg::input("dy", ["rows", "width"]),
        Arg::output("partials", ["blocks", "width"]).f32(),
    ],
    constants: &["rows", "rows.count", "rows.start", "width"],
    cuda: Some(Source::new(CUDA, &["bias_grad_partial"])),
    wgsl: Some(Source::new(WGSL, &["bias_grad_partial"])),
    cpu: partial,
    reserve: None,
    grid: |dims, _| [dims.size("width").div_ceil(64) as u32, dims.size("blocks") as u32, 1],
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: elements,
            read: sizes.stored_bytes() * elements,
            written: 4 * sizes.get("blocks") * sizes.get("width"),
        }
    },
};

/// Sums the partial sums.
pub static FINISH: Kernel = Kernel {
    name: "bias_grad.finish",
    args: &[
        Arg::input("partials", ["blocks", "width"]).f32(),
        Arg::inout("d", ["1", "width"]).f32(),
    ],
    constants: &["blocks", "width", "accumulate_d"],
    cuda: Some(Source::new(CUDA, &["bias_grad_finish"])),
    wgsl: Some(Source::new(WGSL, &["bias_grad_finish"])),
    cpu: finish,
    reserve: None,
    grid: |dims, _| [dims.size("width").div_ceil(64) as u32, 1, 1],
    cost: |sizes: &Sizes| {
        let elements = sizes.get("blocks") * sizes.get("width");
        Cost {
            flops: elements,
            read: 4 * elements,
            written: 4 * sizes.get("width"),
        }
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&PARTIAL, &FINISH];

/// Number of partial sums for a number of rows.
pub fn blocks(rows: Extent) -> Extent {
    Extent::fixed(rows.capacity.div_ceil(ROWS as u32).max(1))
}

/// Records the gradient of a vector that was added to every row of the value whose gradient is `dy`.
///
/// # Errors
/// Shape mismatches.
pub fn record(r: &mut Recorder, dy: Value, vector: Value) -> Result<(), PlanError> {
    if !r.needs_gradient(vector) {
        return Ok(());
    }
    let info = r.info(dy).clone();
    let partials = r.exact("partials", blocks(info.rows), info.width);
    r.launch(&PARTIAL, &[dy, partials], &[])?;
    record_finish(r, partials, vector)
}

/// Records the second pass for partial sums that another kernel made.
///
/// # Errors
/// Shape mismatches.
pub fn record_finish(r: &mut Recorder, partials: Value, vector: Value) -> Result<(), PlanError> {
    let Some(d) = r.outgoing(vector)? else { return Ok(()) };
    r.launch(&FINISH, &[partials, d.value], &[("accumulate_d", d.flag())])
}

fn partial(call: &Call) {
    let width = call.dims().size("width");
    let dy = &call.f32(0)[..call.live("rows") * width];
    call.f32_mut(1)
        .par_chunks_mut(width)
        .enumerate()
        .for_each(|(block, sums)| {
            let start = (block * ROWS * width).min(dy.len());
            let rows = &dy[start..dy.len().min(start + ROWS * width)];
            vectorised(
                #[inline(always)]
                || {
                    sums.fill(0.0);
                    for row in rows.chunks_exact(width) {
                        for (sum, dy) in sums.iter_mut().zip(row) {
                            *sum += dy;
                        }
                    }
                },
            );
        });
}

fn finish(call: &Call) {
    let width = call.dims().size("width");
    let (partials, d) = (call.f32(0), call.f32_mut(1));
    if !call.dims().flag("accumulate_d") {
        d.fill(0.0);
    }
    vectorised(
        #[inline(always)]
        || {
            for row in partials.chunks_exact(width) {
                for (d, partial) in d.iter_mut().zip(row) {
                    *d += partial;
                }
            }
        },
    );
}

/// The vector is the second tensor; `times` gradients of the same rows arrive at it.
fn reference<R: Real>(rows: usize, width: usize, times: usize) -> Reference<R> {
    Box::new(move |given: &Given<R>, _: &[Vec<R>]| {
        let (dy, vector) = (&given.tensors[0], &given.tensors[1]);
        let column = |column: usize| -> R {
            let rows = (0..times * rows).map(|row| row % rows);
            rows.map(|row| dy[row * width + column]).sum()
        };
        let d: Vec<R> = (0..width).map(column).collect();
        let term = |(d, x): (&R, &R)| R::from_f64(d.to_f64() * x.to_f64());
        Expected {
            outputs: vec![d.iter().zip(vector).map(term).collect()],
            gradients: vec![Vec::new(), d],
        }
    })
}

/// No live row, a block minus and plus one, a block without live rows, a first and a second contribution.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, capacity, width) in [(0, 3, 5), (1, 1, 1), (63, 64, 33), (64, 64, 16), (65, 200, 7)] {
        for times in [1, 2] {
            let mut step = StepParams::default();
            let rows = counted(Count::Sequences, live, capacity, &mut step);
            let sizes = (live as usize, width as usize);
            cases.push(Case {
                name: format!("bias_grad {live} of {capacity} rows, width {width}, {times} times"),
                tensors: vec![
                    Tensor::random("dy", Role::Stored, rows, width),
                    Tensor::random("vector", Role::Param, Extent::fixed(1), width),
                ],
                step,
                record: Box::new(move |r, v| {
                    for _ in 0..times {
                        record(r, v[0], v[1])?;
                    }
                    Ok(Vec::new())
                }),
                upstream: Vec::new(),
                truth: reference(sizes.0, sizes.1, times),
                naive: reference(sizes.0, sizes.1, times),
                naive_f16: reference(sizes.0, sizes.1, times),
                naive_bf16: reference(sizes.0, sizes.1, times),
            });
        }
    }
    cases
}
