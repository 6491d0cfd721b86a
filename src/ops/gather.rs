//! Gathering rows: the masked tokens for the language model's head, the `[CLS]` rows for the classifier.
//!
//! ```text
//! forward    y [picked, width]  = x[index[i]]            index [picked, 1] strictly ascending, below x's live rows
//! backward   dx[index[i]]      += dy[i]                  dx is zeroed first if nothing has contributed to it yet
//! ```
//!
//! Strictly ascending row numbers make the backward a scatter without conflicts. On the CPU a task owns a block of rows of
//! `dx` and finds its part of the index by bisection.

use rayon::prelude::*;

use super::fill;
use crate::device::cpu::vectorised;
use crate::kernel::{Arg, Call, Cost, Count, File, Kernel, Sizes, Source, StepParams, workgroups};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};
use crate::plan::{PlanError, Recorder, Value};

/// Rows of one task on the CPU.
const BLOCK_ROWS: usize = 64;

const CONSTANTS: &[&str] = &["picked", "picked.count", "picked.start", "width"];

fn cost(sizes: &Sizes, flops: u64, passes_read: u64) -> Cost {
    let elements = sizes.get("picked") * sizes.get("width");
    Cost {
        flops: flops * elements,
        read: sizes.stored_bytes() * passes_read * elements + 4 * sizes.get("picked"),
        written: sizes.stored_bytes() * elements,
    }
}

const WGSL: File = File {
    name: "shaders/gather.wgsl",
    text: include_str!("../../shaders/gather.wgsl"),
};

const CUDA: File = File {
    name: "kernels/gather.cu",
    text: include_str!("../../kernels/gather.cu"),
};

/// A warp has a picked row on CUDA.
const CUDA_ROWS: usize = 8;

const fn cuda(entry: &'static [&'static str; 1]) -> Option<Source> {
    Some(Source::new(CUDA, entry).with_grid(|dims, _| workgroups(dims.size("picked").div_ceil(CUDA_ROWS))))
}

/// `y = x[index]`.
pub static FORWARD: Kernel = Kernel {
    name: "gather.forward",
    args: &[
        Arg::input("x", ["rows", "width"]),
        Arg::index("index", ["picked", "1"]),
        Arg::output("y", ["picked", "width"]),
    ],
    constants: CONSTANTS,
    cuda: cuda(&["gather_forward"]),
    wgsl: Some(Source::new(WGSL, &["gather_forward"])),
    cpu: forward,
    reserve: None,
    grid: |dims, _| workgroups(dims.size("picked")),
    cost: |sizes| cost(sizes, 0, 1),
};

/// `dx[index] += dy`.
pub static BACKWARD: Kernel = Kernel {
    name: "gather.backward",
    args: &[
        Arg::input("dy", ["picked", "width"]),
        Arg::index("index", ["picked", "1"]),
        Arg::inout("dx", ["rows", "width"]),
    ],
    constants: CONSTANTS,
    cuda: cuda(&["gather_backward"]),
    wgsl: Some(Source::new(WGSL, &["gather_backward"])),
    cpu: backward,
    reserve: None,
    grid: |dims, _| workgroups(dims.size("picked")),
    cost: |sizes| cost(sizes, 1, 2),
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&FORWARD, &BACKWARD];

/// Rows `index` `[picked, 1]` of `x` `[rows, width]`: `[picked, width]`. The row numbers ascend strictly.
///
/// # Errors
/// Shape and type mismatches, with the scope.
pub fn gather(r: &mut Recorder, x: Value, index: Value) -> Result<Value, PlanError> {
    let (rows, width) = (r.info(index).rows, r.info(x).width);
    let y = r.value("gather", rows, width);
    r.launch(&FORWARD, &[x, index, y], &[])?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        let Some(dx) = r.outgoing(x)? else { return Ok(()) };
        if !dx.accumulate {
            fill::zero(r, dx.value)?;
        }
        r.launch(&BACKWARD, &[dy, index, dx.value], &[])
    });
    Ok(y)
}

fn forward(call: &Call) {
    let (picked, width) = (call.live("picked"), call.dims().size("width"));
    let (x, index) = (call.f32(0), &call.u32(1)[..picked]);
    let y = &mut call.f32_mut(2)[..picked * width];
    y.par_chunks_mut(BLOCK_ROWS * width)
        .zip(index.par_chunks(BLOCK_ROWS))
        .for_each(|(y, index)| {
            for (y, &row) in y.chunks_exact_mut(width).zip(index) {
                y.copy_from_slice(&x[row as usize * width..][..width]);
            }
        });
}

fn backward(call: &Call) {
    let (rows, picked, width) = (call.live("rows"), call.live("picked"), call.dims().size("width"));
    let (dy, index) = (call.f32(0), &call.u32(1)[..picked]);
    let dx = &mut call.f32_mut(2)[..rows * width];
    dx.par_chunks_mut(BLOCK_ROWS * width)
        .enumerate()
        .for_each(|(block, dx)| {
            let first = block * BLOCK_ROWS;
            let from = index.partition_point(|&row| (row as usize) < first);
            let to = index.partition_point(|&row| (row as usize) < first + BLOCK_ROWS);
            vectorised(
                #[inline(always)]
                || {
                    for picked in from..to {
                        let dx = &mut dx[(index[picked] as usize - first) * width..][..width];
                        for (dx, dy) in dx.iter_mut().zip(&dy[picked * width..][..width]) {
                            *dx += dy;
                        }
                    }
                },
            );
        });
}

/// Sizes of a case: live rows and picked rows.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    picked: usize,
    width: usize,
    twice: bool,
}

/// Tensors: x, index, and when the same tensor is gathered twice a second index.
fn reference<R: Real>(shape: Shape) -> Reference<R> {
    Box::new(move |given: &Given<R>, upstream: &[Vec<R>]| {
        let Shape {
            rows, picked, width, ..
        } = shape;
        let mut outputs = Vec::new();
        let mut dx = vec![R::from_f64(0.0); rows * width];
        for pass in 0..1 + usize::from(shape.twice) {
            let mut y = Vec::new();
            for element in 0..picked * width {
                let from = given.index(1 + pass, element / width) * width + element % width;
                y.push(given.tensors[0][from]);
                dx[from] = upstream.get(pass).map_or(dx[from], |dy| dx[from] + dy[element]);
            }
            outputs.push(y);
        }
        Expected {
            outputs,
            gradients: vec![dx],
        }
    })
}

/// Nothing picked, nothing live, every row, the first and the last row, blocks of the CPU plus one, more rows than a grid has
/// workgroups in one direction, two uses of one tensor.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, capacity, picked, picked_capacity, width) in [
        (0, 4, 0, 2, 3),
        (1, 1, 1, 1, 1),
        (9, 12, 0, 5, 8),
        (9, 12, 9, 9, 5),
        (65, 70, 2, 8, 33),
        (200, 210, 70, 90, 17),
        (65_700, 65_700, 65_600, 65_600, 1),
    ] {
        for (count, twice) in [(Count::Masked, false), (Count::Sequences, true)] {
            if twice && picked > 65_535 {
                continue; // the grid does not depend on it
            }
            let mut step = StepParams::default();
            let x = counted(Count::Tokens, rows, capacity, &mut step);
            let n = counted(count, picked, picked_capacity, &mut step);
            // Spread over all rows; the first and the last are among them.
            let (last, steps) = (u64::from(rows).saturating_sub(1), u64::from(picked).max(2) - 1);
            let place = |index: u32| (u64::from(index) * last / steps) as u32;
            let spread: Vec<u32> = (0..picked).map(place).collect();
            let front: Vec<u32> = (0..picked).collect();
            let mut tensors = vec![
                Tensor::random("x", Role::Input, x, width),
                Tensor::index("index", n, 1, &spread),
            ];
            if twice {
                tensors.push(Tensor::index("second index", n, 1, &front));
            }
            let shape = Shape {
                rows: rows as usize,
                picked: picked as usize,
                width: width as usize,
                twice,
            };
            cases.push(Case {
                name: format!("gather {picked} of {rows} rows ({count:?}), width {width}, twice {twice}"),
                tensors,
                step,
                record: Box::new(move |r, v| v[1..].iter().map(|&index| gather(r, v[0], index)).collect()),
                upstream: vec![true; 1 + usize::from(twice)],
                truth: reference(shape),
                naive: reference(shape),
                naive_f16: reference(shape),
                naive_bf16: reference(shape),
            });
        }
    }
    cases
}
