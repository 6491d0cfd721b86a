//! What a device can do at most: multiply-adds that touch no memory.
//!
//! ```text
//! fma   y [rows, width] = f(f(...f(x))), `rounds` times;   f(x) = A x + B, A = 0.999, B = 0.001
//! ```
//!
//! No model has it. [`cost::ceilings`](crate::cost::ceilings) measures with it the rate that no kernel's arithmetic can
//! exceed: chains that do not depend on each other, enough of them to fill every unit, in registers.

use rayon::prelude::*;

use crate::device::cpu::{LANES, vectorised};
use crate::kernel::{Arg, Call, Cost, Extent, File, Kernel, Source, StepParams, cover};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor};
use crate::plan::{PlanError, Recorder, Value};

/// Elements whose chains run side by side in a thread on a GPU.
const CHAINS: usize = 16;
/// The same on the CPU: vectors of [`LANES`].
const VECTORS: usize = 12;

const A: f32 = 0.999;
const B: f32 = 0.001;

const WGSL: File = File {
    name: "shaders/probe.wgsl",
    text: include_str!("../../shaders/probe.wgsl"),
};

const CUDA: File = File {
    name: "kernels/probe.cu",
    text: include_str!("../../kernels/probe.cu"),
};

/// `rounds` multiply-adds an element.
pub static FMA: Kernel = Kernel {
    name: "probe.fma",
    args: &[
        Arg::input("x", ["rows", "width"]).f32(),
        Arg::output("y", ["rows", "width"]).f32(),
    ],
    constants: &["rows", "width", "rounds"],
    cuda: Some(Source::new(CUDA, &["probe_fma"])),
    wgsl: Some(Source::new(WGSL, &["probe_fma"])),
    cpu: fma,
    reserve: None,
    grid: |dims, _| cover((dims.size("rows") * dims.size("width")).div_ceil(CHAINS)),
    cost: |sizes| {
        let elements = sizes.get("rows") * sizes.get("width");
        Cost {
            flops: 2 * sizes.word("rounds") * elements,
            read: 4 * elements,
            written: 4 * elements,
        }
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&FMA];

/// Records `rounds` multiply-adds on each element of an f32 value of fixed size.
///
/// # Errors
/// Shape mismatches.
pub fn record(r: &mut Recorder, x: Value, rounds: u32) -> Result<Value, PlanError> {
    let info = r.info(x).clone();
    let y = r.exact("fma", info.rows, info.width);
    r.launch(&FMA, &[x, y], &[("rounds", rounds)])?;
    Ok(y)
}

fn fma(call: &Call) {
    const BLOCK: usize = VECTORS * LANES;
    let (x, rounds) = (call.f32(0), call.dims().word("rounds"));
    let blocks = call.f32_mut(1).par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK));
    blocks.for_each(|(y, x)| {
        vectorised(
            #[inline(always)]
            || {
                // Flat: loops over vectors and their lanes become scattered writes where the compiler has AVX-512.
                let mut chains = [0.0f32; BLOCK];
                chains[..x.len()].copy_from_slice(x);
                for _ in 0..rounds {
                    for lane in &mut chains {
                        *lane = lane.mul_add(A, B);
                    }
                }
                y.copy_from_slice(&chains[..y.len()]);
            },
        );
    });
}

fn reference<R: Real>(rounds: u32) -> Reference<R> {
    Box::new(move |given: &Given<R>, _: &[Vec<R>]| {
        let (a, b) = (R::from_f64(f64::from(A)), R::from_f64(f64::from(B)));
        let chain = |&x: &R| (0..rounds).fold(x, |x, _| x * a + b);
        Expected {
            outputs: vec![given.tensors[0].iter().map(chain).collect()],
            gradients: Vec::new(),
        }
    })
}

/// No round, one element, a block of the CPU and of a GPU's thread minus and plus one.
pub fn cases() -> Vec<Case> {
    let case = |(rows, width, rounds): (u32, u32, u32)| Case {
        name: format!("probe {rows} x {width}, {rounds} rounds"),
        tensors: vec![Tensor::random("x", Role::Constant, Extent::fixed(rows), width)],
        step: StepParams::default(),
        record: Box::new(move |r, v| Ok(vec![record(r, v[0], rounds)?])),
        upstream: vec![false],
        truth: reference(rounds),
        naive: reference(rounds),
        naive_f16: reference(rounds),
        naive_bf16: reference(rounds),
    };
    [(1, 1, 3), (3, 5, 0), (1, 191, 64), (1, 193, 17), (64, 67, 5)]
        .map(case)
        .into()
}
