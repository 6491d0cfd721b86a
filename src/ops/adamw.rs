//! AdamW (Loshchilov and Hutter 2019) over the flat parameter buffer, in one launch.
//!
//! ```text
//! g  = g min(1, clip_norm / norm) / loss_scale        clip_norm infinite: untouched
//! m  = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//! p -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)
//! p -= lr weight_decay p                              the first decay_words words only
//! ```
//!
//! The form of Hugging Face's `AdamW`, which made the published numbers: eps is not rescaled by the bias correction, decay
//! follows the update. Learning rate, bias correction and clip norm are step parameters. Parameters and both moments are
//! left as they are when the norm is not finite: the host reads the norm after the update, and an overflow that has by then
//! reached the weights could not be undone.

use rayon::prelude::*;

use crate::device::cpu::vectorised;
use crate::kernel::{Arg, Call, Cost, Extent, File, Kernel, Source, StepParams, cover};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Role, Tensor};
use crate::ops::copy::copy;
use crate::plan::{PlanError, Recorder, Value};

/// Words of one task on the CPU.
const CHUNK: usize = 16_384;

const WGSL: File = File {
    name: "shaders/adamw.wgsl",
    text: include_str!("../../shaders/adamw.wgsl"),
};

const CUDA: File = File {
    name: "kernels/adamw.cu",
    text: include_str!("../../kernels/adamw.cu"),
};

/// One step of the optimiser.
pub static UPDATE: Kernel = Kernel {
    name: "adamw",
    args: &[
        Arg::inout("params", ["1", "width"]).f32(),
        Arg::input("grads", ["1", "width"]).f32(),
        Arg::inout("moment1", ["1", "width"]).f32(),
        Arg::inout("moment2", ["1", "width"]).f32(),
        Arg::input("norm", ["1", "1"]).f32(),
    ],
    constants: &[
        "width",
        "decay_words",
        "beta1",
        "beta2",
        "epsilon",
        "weight_decay",
        "head",
    ],
    cuda: Some(Source::new(CUDA, &["adamw"]).with_grid(|dims, _| cover(dims.size("width").div_ceil(4)))),
    wgsl: Some(Source::new(WGSL, &["adamw"])),
    cpu: |call| update(call, call.f32_mut(0)),
    reserve: None,
    grid: |dims, _| cover(dims.size("width")),
    cost: |sizes| {
        let words = sizes.get("width");
        Cost {
            flops: 15 * words + 2,
            read: 16 * words,
            written: 12 * words,
        }
    },
};

/// The same, and the parameters' copy in the plan's precision.
pub static UPDATE_WITH_SHADOW: Kernel = Kernel {
    name: "adamw.with_shadow",
    args: &[
        Arg::inout("params", ["1", "width"]).f32(),
        Arg::input("grads", ["1", "width"]).f32(),
        Arg::inout("moment1", ["1", "width"]).f32(),
        Arg::inout("moment2", ["1", "width"]).f32(),
        Arg::input("norm", ["1", "1"]).f32(),
        Arg::output("shadow", ["1", "width"]),
    ],
    constants: UPDATE.constants,
    cuda: Some(Source::new(CUDA, &["adamw_with_shadow"]).with_grid(|dims, _| cover(dims.size("width").div_ceil(4)))),
    wgsl: Some(Source::new(WGSL, &["adamw_with_shadow"])),
    cpu: |call| {
        let params = call.f32_mut(0);
        update(call, params);
        call.f32_mut(5).copy_from_slice(params);
    },
    reserve: None,
    grid: UPDATE.grid,
    cost: |sizes| {
        let copied = Cost {
            written: sizes.stored_bytes() * sizes.get("width"),
            ..Cost::default()
        };
        (UPDATE.cost)(sizes) + copied
    },
};

/// All kernels of the room.
pub static KERNELS: &[&Kernel] = &[&UPDATE, &UPDATE_WITH_SHADOW];

/// What the optimiser reads and writes: ranges of the flat buffers `[1, words]`, all of one size.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Parameters.
    pub params: Value,
    /// Gradients.
    pub grads: Value,
    /// First moment.
    pub moment1: Value,
    /// Second moment.
    pub moment2: Value,
    /// The parameters' copy, where the plan's precision has one.
    pub shadow: Option<Value>,
    /// Global norm of the gradients, `[1, 1]`, from [`grad_norm`](super::grad_norm).
    pub norm: Value,
}

/// What does not change during a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Whether the range has the task head's bias correction.
    pub head: bool,
}

impl Settings {
    /// BERT's, with which the published models were trained, TLM's among them.
    pub const BERT: Settings = Settings {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-6,
        weight_decay: 0.01,
        head: false,
    };
}

/// Records one update; the first `decay_words` words of the range decay.
///
/// # Errors
/// Shape mismatches; [`PlanError::ReadOnly`] in a plan that computes gradients.
pub fn record(r: &mut Recorder, state: &State, settings: &Settings, decay_words: u32) -> Result<(), PlanError> {
    let mut values = vec![state.params, state.grads, state.moment1, state.moment2, state.norm];
    let constants = [
        ("decay_words", decay_words),
        ("beta1", settings.beta1.to_bits()),
        ("beta2", settings.beta2.to_bits()),
        ("epsilon", settings.epsilon.to_bits()),
        ("weight_decay", settings.weight_decay.to_bits()),
        ("head", u32::from(settings.head)),
    ];
    values.extend(state.shadow);
    let kernel = match state.shadow {
        Some(_) => &UPDATE_WITH_SHADOW,
        None => &UPDATE,
    };
    r.launch(kernel, &values, &constants)
}

fn update(call: &Call, params: &mut [f32]) {
    let (dims, step, norm) = (call.dims(), call.step(), call.f32(4)[0]);
    if !norm.is_finite() {
        return;
    }
    let decay_words = dims.word("decay_words") as usize;
    let correction = if dims.flag("head") {
        step.head_bias_correction
    } else {
        step.bias_correction
    };
    let update = Update {
        clip: (step.clip_norm / norm).min(1.0) * step.inverse_loss_scale,
        beta1: dims.float("beta1"),
        beta2: dims.float("beta2"),
        epsilon: dims.float("epsilon"),
        rate: step.learning_rate * correction,
        decay: step.learning_rate * dims.float("weight_decay"),
    };
    let chunks = params
        .par_chunks_mut(CHUNK)
        .zip(call.f32(1).par_chunks(CHUNK))
        .zip(call.f32_mut(2).par_chunks_mut(CHUNK))
        .zip(call.f32_mut(3).par_chunks_mut(CHUNK));
    chunks.enumerate().for_each(|(chunk, (((p, g), m), v))| {
        vectorised(
            #[inline(always)]
            || {
                let decayed = decay_words.saturating_sub(chunk * CHUNK).min(p.len());
                let ((p, plain_p), (g, plain_g)) = (p.split_at_mut(decayed), g.split_at(decayed));
                let ((m, plain_m), (v, plain_v)) = (m.split_at_mut(decayed), v.split_at_mut(decayed));
                update.apply(p, g, m, v);
                Update { decay: 0.0, ..update }.apply(plain_p, plain_g, plain_m, plain_v);
            },
        );
    });
}

/// The scalars of one step.
#[derive(Clone, Copy)]
struct Update {
    clip: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    rate: f32,
    decay: f32,
}

impl Update {
    #[inline(always)]
    fn apply(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * self.clip;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * (g * g);
            *p -= self.rate * *m / (v.sqrt() + self.epsilon);
            *p -= self.decay * *p;
        }
    }
}

const SETTINGS: Settings = Settings::BERT;

/// Tensors: params, grads, moment1, moment2, norm.
fn reference<R: Real>(decay_words: usize, shadow: bool) -> Reference<R> {
    Box::new(move |given: &Given<R>, _: &[Vec<R>]| {
        let (t, step) = (given.tensors, &given.step);
        let (real, one) = (|x: f32| R::from_f64(f64::from(x)), R::from_f64(1.0));
        let (beta1, beta2) = (real(SETTINGS.beta1), real(SETTINGS.beta2));
        let ratio = real(step.clip_norm) / t[4][0];
        let clip = if ratio < one { ratio } else { one };
        let clip = clip * real(step.inverse_loss_scale);
        let rest = |beta: f32| R::from_f64(f64::from(1.0 - beta));
        let rates = [
            step.learning_rate * step.bias_correction,
            step.learning_rate * SETTINGS.weight_decay,
        ];
        let [rate, decay] = rates.map(real);
        let clipped: Vec<R> = t[1].iter().map(|&g| g * clip).collect();
        let first: Vec<R> = t[2]
            .iter()
            .zip(&clipped)
            .map(|(&m, &g)| beta1 * m + rest(SETTINGS.beta1) * g)
            .collect();
        let second: Vec<R> = t[3]
            .iter()
            .zip(&clipped)
            .map(|(&v, &g)| beta2 * v + rest(SETTINGS.beta2) * (g * g))
            .collect();
        let updated = |(index, &p): (usize, &R)| {
            let slope = first[index] / (second[index].sqrt() + real(SETTINGS.epsilon));
            let p = p - rate * slope;
            let decay = if index < decay_words { decay } else { real(0.0) };
            p - decay * p
        };
        let params: Vec<R> = t[0].iter().enumerate().map(updated).collect();
        let mut outputs = vec![params.clone(), first, second];
        outputs.extend(shadow.then_some(params));
        Expected {
            outputs,
            gradients: Vec::new(),
        }
    })
}

/// No decay, decay up to the middle of a chunk of the CPU, decay everywhere; clipped, not clipped, a bound that is not
/// reached; one word, chunks minus and plus one; with a copy of the parameters and without.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (words, decay_words, clip_norm, shadow) in [
        (1, 0, f32::INFINITY, false),
        (1, 1, 0.5, true),
        (37, 20, 1.0, true),
        (16_383, 16_383, 1e9, false),
        (40_000, 16_385, 0.25, true),
        (32_769, 0, f32::INFINITY, false),
    ] {
        let mut tensors: Vec<Tensor> = ["params", "grads", "moment1", "moment2", "norm"]
            .iter()
            .map(|name| Tensor::random(name, Role::Constant, Extent::fixed(1), words))
            .collect();
        for x in &mut tensors[3].data {
            *x = f64::from((*x * *x + 0.25) as f32);
        }
        (tensors[4].width, tensors[4].data) = (1, vec![3.5]);
        cases.push(Case {
            name: format!("adamw {words} words, {decay_words} decayed, clipped to {clip_norm}, shadow {shadow}"),
            tensors,
            step: StepParams {
                learning_rate: 0.125,
                bias_correction: 0.75,
                clip_norm,
                inverse_loss_scale: if words > 32_768 { 0.5 } else { 1.0 },
                ..StepParams::default()
            },
            record: Box::new(move |r, v| {
                let state = State {
                    params: copy(r, v[0])?,
                    grads: v[1],
                    moment1: copy(r, v[2])?,
                    moment2: copy(r, v[3])?,
                    shadow: shadow.then(|| r.value("shadow", Extent::fixed(1), words)),
                    norm: v[4],
                };
                record(r, &state, &SETTINGS, decay_words)?;
                let outputs = [state.params, state.moment1, state.moment2];
                Ok(outputs.into_iter().chain(state.shadow).collect())
            }),
            upstream: vec![false; 3 + usize::from(shadow)],
            truth: reference(decay_words as usize, shadow),
            naive: reference(decay_words as usize, shadow),
            naive_f16: reference(decay_words as usize, shadow),
            naive_bf16: reference(decay_words as usize, shadow),
        });
    }
    cases
}
