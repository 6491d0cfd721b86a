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
use crate::kernel::{Arg, Call, Cost, Extent, File, Kernel, PLAIN, Sizes, Source};
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
        Arg::output("partials", ["blocks", "width"]),
    ],
    constants: &["rows", "rows.count", "rows.start", "width"],
    cuda: Some(Source::new(CUDA, "bias_grad_partial")),
    wgsl: Some(Source::new(WGSL, "bias_grad_partial")),
    cpu: partial,
    grid: |dims, _| [dims.size("width").div_ceil(64) as u32, dims.size("blocks") as u32, 1],
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: elements,
            read: 4 * elements,
            written: 4 * sizes.get("blocks") * sizes.get("width"),
        }
    },
    variants: PLAIN,
};

/// Sums the partial sums.
pub static FINISH: Kernel = Kernel {
    name: "bias_grad.finish",
    args: &[
        Arg::input("partials", ["blocks", "width"]),
        Arg::inout("d", ["1", "width"]),
    ],
    constants: &["blocks", "width", "accumulate_d"],
    cuda: Some(Source::new(CUDA, "bias_grad_finish")),
    wgsl: Some(Source::new(WGSL, "bias_grad_finish")),
    cpu: finish,
    grid: |dims, _| [dims.size("width").div_ceil(64) as u32, 1, 1],
    cost: |sizes: &Sizes| {
        let elements = sizes.get("blocks") * sizes.get("width");
        Cost {
            flops: elements,
            read: 4 * elements,
            written: 4 * sizes.get("width"),
        }
    },
    variants: PLAIN,
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
    let partials = r.value("partials", blocks(info.rows), info.width);
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
