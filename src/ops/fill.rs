//! Zeroing a value: gradients that a scattering kernel adds to, and gradients that a plan leaves at zero.

use rayon::prelude::*;

use crate::kernel::{Arg, Call, Cost, Count, Extent, File, Kernel, Source, StepParams, cover};
use crate::ops::case::{Case, Expected, Given, Real, Reference, counted};
use crate::plan::{PlanError, Recorder, Value};

const WGSL: File = File {
    name: "shaders/fill.wgsl",
    text: include_str!("../../shaders/fill.wgsl"),
};

const CUDA: File = File {
    name: "kernels/fill.cu",
    text: include_str!("../../kernels/fill.cu"),
};

/// `x = 0` in all live rows.
pub static ZERO: Kernel = Kernel {
    name: "fill.zero",
    args: &[Arg::output("x", ["rows", "width"])],
    constants: &["rows", "rows.count", "rows.start", "width"],
    cuda: Some(
        Source::new(CUDA, &["fill_zero"])
            .with_grid(|dims, _| cover((dims.size("rows") * dims.size("width")).div_ceil(dims.precision().vector()))),
    ),
    wgsl: Some(Source::new(WGSL, &["fill_zero"])),
    cpu: run,
    reserve: None,
    grid: |dims, _| cover(dims.size("rows") * dims.size("width")),
    cost: |sizes| Cost {
        flops: 0,
        read: 0,
        written: sizes.stored_bytes() * sizes.get("rows") * sizes.get("width"),
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&ZERO];

/// Writes zero to the live rows of `value`.
///
/// # Errors
/// [`PlanError::ReadOnly`] for an input.
pub fn zero(r: &mut Recorder, value: Value) -> Result<(), PlanError> {
    r.launch(&ZERO, &[value], &[])
}

fn run(call: &Call) {
    let words = call.live("rows") * call.dims().size("width");
    const CHUNK: usize = 1 << 16;
    call.f32_mut(0)[..words]
        .par_chunks_mut(CHUNK)
        .for_each(|chunk| chunk.fill(0.0));
}

fn reference<R: Real>(words: usize) -> Reference<R> {
    Box::new(move |_: &Given<R>, _: &[Vec<R>]| Expected {
        outputs: vec![vec![R::from_f64(0.0); words]],
        gradients: Vec::new(),
    })
}

/// Counted and fixed rows, no live row, a chunk of the CPU plus one.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (count, live, capacity, width) in [
        (Count::Tokens, 0, 3, 4),
        (Count::Tokens, 5, 9, 33),
        (Count::Fixed, 1, 1, 1),
        (Count::Fixed, 1, 1, 65_537),
    ] {
        let mut step = StepParams::default();
        let rows: Extent = counted(count, live, capacity, &mut step);
        let words = (live * width) as usize;
        cases.push(Case {
            name: format!("fill {live} of {capacity} rows, width {width}"),
            tensors: Vec::new(),
            step,
            record: Box::new(move |r, _| {
                let x = r.value("x", rows, width);
                zero(r, x)?;
                Ok(vec![x])
            }),
            upstream: vec![false],
            truth: reference(words),
            naive: reference(words),
            naive_f16: reference(words),
            naive_bf16: reference(words),
        });
    }
    cases
}
