//! Copying a value: `y = x`, `dx (+)= dy`. For ops that work in place on an operand that must stay, and, to f32, for what
//! the host reads.

use rayon::prelude::*;

use crate::kernel::{Arg, Call, Cost, Count, File, Kernel, Source, StepParams, cover};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};
use crate::plan::{PlanError, Recorder, Value};

const WGSL: File = File {
    name: "shaders/copy.wgsl",
    text: include_str!("../../shaders/copy.wgsl"),
};

const CUDA: File = File {
    name: "kernels/copy.cu",
    text: include_str!("../../kernels/copy.cu"),
};

/// `y (+)= x`.
pub static COPY: Kernel = Kernel {
    name: "copy",
    args: &[Arg::input("x", ["rows", "width"]), Arg::inout("y", ["rows", "width"])],
    constants: &["rows", "rows.count", "rows.start", "width", "accumulate_y"],
    cuda: Some(
        Source::new(CUDA, &["copy"])
            .with_grid(|dims, _| cover((dims.size("rows") * dims.size("width")).div_ceil(dims.precision().vector()))),
    ),
    wgsl: Some(Source::new(WGSL, &["copy"])),
    cpu: run,
    reserve: None,
    grid: |dims, _| cover(dims.size("rows") * dims.size("width")),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        let added = sizes.word("accumulate_y") * elements;
        Cost {
            flops: added,
            read: sizes.stored_bytes() * (elements + added),
            written: sizes.stored_bytes() * elements,
        }
    },
};

/// `y = x` in f32.
pub static WIDEN: Kernel = Kernel {
    name: "copy.widen",
    args: &[
        Arg::input("x", ["rows", "width"]),
        Arg::output("wide", ["rows", "width"]).f32(),
    ],
    constants: &["rows", "rows.count", "rows.start", "width"],
    cuda: Some(
        Source::new(CUDA, &["copy_widen"])
            .with_grid(|dims, _| cover((dims.size("rows") * dims.size("width")).div_ceil(4))),
    ),
    wgsl: Some(Source::new(WGSL, &["copy_widen"])),
    cpu: widen,
    reserve: None,
    grid: |dims, _| cover(dims.size("rows") * dims.size("width")),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: 0,
            read: sizes.stored_bytes() * elements,
            written: 4 * elements,
        }
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&COPY, &WIDEN];

/// A copy of `x`.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn copy(r: &mut Recorder, x: Value) -> Result<Value, PlanError> {
    let y = r.like("copy", x);
    r.launch(&COPY, &[x, y], &[("accumulate_y", 0)])?;
    r.backward(&[y], move |r| {
        let Some(dy) = r.incoming(y) else { return Ok(()) };
        let Some(dx) = r.outgoing(x)? else { return Ok(()) };
        r.launch(&COPY, &[dy, dx.value], &[("accumulate_y", dx.flag())])
    });
    Ok(y)
}

/// Copies `x` to `wide`, an f32 output of the plan.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn into(r: &mut Recorder, x: Value, wide: Value) -> Result<(), PlanError> {
    r.launch(&WIDEN, &[x, wide], &[])
}

fn run(call: &Call) {
    let words = call.live("rows") * call.dims().size("width");
    let accumulate = call.dims().flag("accumulate_y");
    let (x, y) = (&call.f32(0)[..words], &mut call.f32_mut(1)[..words]);
    const CHUNK: usize = 16384;
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| {
        if accumulate {
            for (y, x) in y.iter_mut().zip(x) {
                *y += x;
            }
        } else {
            y.copy_from_slice(x);
        }
    });
}

fn widen(call: &Call) {
    let words = call.live("rows") * call.dims().size("width");
    call.f32_mut(1)[..words].copy_from_slice(&call.f32(0)[..words]);
}

/// Two copies of one tensor and one in f32: its gradient is the sum of theirs.
fn reference<R: Real>(words: usize) -> Reference<R> {
    Box::new(move |given: &Given<R>, upstream: &[Vec<R>]| {
        let x = given.tensors[0][..words].to_vec();
        let gradients = match upstream {
            [first, second] => vec![(0..words).map(|word| first[word] + second[word]).collect()],
            _ => Vec::new(),
        };
        Expected {
            outputs: vec![x.clone(), x.clone(), x],
            gradients,
        }
    })
}

/// No live row, one element, a chunk of the CPU plus one row.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, capacity, width) in [(0, 2, 3), (1, 1, 1), (9, 11, 5), (129, 140, 128)] {
        let mut step = StepParams::default();
        let rows = counted(Count::Tokens, live, capacity, &mut step);
        let words = (live * width) as usize;
        cases.push(Case {
            name: format!("copy {live} of {capacity} rows, width {width}"),
            tensors: vec![Tensor::random("x", Role::Input, rows, width)],
            step,
            record: Box::new(move |r, v| {
                let wide = r.exact("wide", rows, width);
                into(r, v[0], wide)?;
                Ok(vec![copy(r, v[0])?, copy(r, v[0])?, wide])
            }),
            upstream: vec![true, true, false],
            truth: reference(words),
            naive: reference(words),
            naive_f16: reference(words),
            naive_bf16: reference(words),
        });
    }
    cases
}
