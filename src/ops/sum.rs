//! The sum of a column, for the host to read: a batch's loss.
//!
//! ```text
//! total [1, 1] = sum over the live rows of x [rows, 1]        in a fixed order; 0 without live rows
//! ```
//!
//! A batch has at most some thousand rows, so one workgroup (one CPU thread) does it.

use crate::device::cpu::vectorised;
use crate::kernel::{Arg, Call, Cost, Count, Extent, File, Kernel, REDUCING, Source, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor, counted};
use crate::ops::math::sum_of;
use crate::plan::{PlanError, Recorder, Value};

const WGSL: File = File {
    name: "shaders/sum.wgsl",
    text: include_str!("../../shaders/sum.wgsl"),
};

const CUDA: File = File {
    name: "kernels/sum.cu",
    text: include_str!("../../kernels/sum.cu"),
};

/// `total = sum of x`.
pub static SUM: Kernel = Kernel {
    name: "sum",
    args: &[
        Arg::input("x", ["rows", "1"]).f32(),
        Arg::output("total", ["1", "1"]).f32(),
    ],
    constants: &["rows", "rows.count", "rows.start"],
    cuda: Some(Source::new(CUDA, &["sum"])),
    wgsl: Some(Source::new(WGSL, &["sum"]).with_variants(REDUCING)),
    cpu: run,
    reserve: None,
    grid: |_, _| [1, 1, 1],
    cost: |sizes| Cost {
        flops: sizes.get("rows"),
        read: 4 * sizes.get("rows"),
        written: 4,
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&SUM];

/// Writes the sum of the live rows of `x` `[rows, 1]` to `total` `[1, 1]`, usually an output of the plan.
///
/// # Errors
/// Shape mismatches, with the scope.
pub fn record(r: &mut Recorder, x: Value, total: Value) -> Result<(), PlanError> {
    r.launch(&SUM, &[x, total], &[])
}

fn run(call: &Call) {
    let x = &call.f32(0)[..call.live("rows")];
    let total = call.f32_mut(1);
    total[0] = vectorised(
        #[inline(always)]
        || sum_of(x, |x| x),
    );
}

fn reference<R: Real>(rows: usize) -> Reference<R> {
    Box::new(move |given: &Given<R>, _: &[Vec<R>]| Expected {
        outputs: vec![vec![given.tensors[0][..rows].iter().copied().sum()]],
        gradients: Vec::new(),
    })
}

/// No live row, one, lanes minus and plus one, thousands.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (live, capacity) in [(0, 3), (1, 1), (15, 16), (17, 40), (4001, 4096)] {
        let mut step = StepParams::default();
        let rows = counted(Count::Masked, live, capacity, &mut step);
        cases.push(Case {
            name: format!("sum of {live} of {capacity} rows"),
            tensors: vec![Tensor::random("x", Role::Constant, rows, 1)],
            step,
            record: Box::new(|r, v| {
                let total = r.output("total", Extent::fixed(1), 1);
                record(r, v[0], total)?;
                Ok(vec![total])
            }),
            upstream: vec![false],
            truth: reference(live as usize),
            naive: reference(live as usize),
            naive_f16: reference(live as usize),
            naive_bf16: reference(live as usize),
        });
    }
    cases
}
