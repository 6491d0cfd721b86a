//! The plans of a run, all over the same parameters and one arena.
//!
//! | plan | forward | gradients |
//! |---|---|---|
//! | `external` | encoder, MLM head | all but the task head's, which are zero |
//! | `joint` | encoder on the masked text, MLM head, task head | all |
//! | `finetune` | encoder on the clean text, task head | all but the MLM head's, which are zero |
//! | `evaluate` | encoder without dropout, task head | none |
//! | `update` | | norm, clipping, AdamW over the flat buffer |
//!
//! Outputs: `mlm_loss` and `task_loss` (sums over rows, unweighted), `class_logits`, `grad_norm`.

use super::{Capacity, Dropout, Inputs, encoder, mlm_head, task_head, task_loss};
use crate::hub::BertConfig;
use crate::kernel::{Extent, Precision};
use crate::ops::{adamw, fill, grad_norm, sum};
use crate::plan::{ALIGN, Limits, ParamTable, Plan, PlanError, Recorder, Space, Value};

/// A plan over a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Masked tokens of external text.
    External,
    /// Masked tokens and labels of task text.
    Joint,
    /// Labels of clean task text.
    Finetune,
    /// Logits.
    Evaluate,
}

impl Kind {
    /// Whether the plan predicts masked tokens.
    pub fn is_masked(self) -> bool {
        matches!(self, Kind::External | Kind::Joint)
    }

    /// Name in messages, profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::External => "external",
            Kind::Joint => "joint",
            Kind::Finetune => "finetune",
            Kind::Evaluate => "evaluate",
        }
    }
}

/// How a plan computes its gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// They are added to those of the plan run before (micro-batches).
    pub accumulate: bool,
    /// What the layers compute is dropped after the forward and computed again in the backward: less memory for more
    /// work, the same bits.
    pub recompute: bool,
    /// Those of the device.
    pub limits: Limits,
    /// How activations are stored.
    pub precision: Precision,
}

/// Records the plan of a kind.
///
/// # Errors
/// Sizes that the ops do not support, with the scope.
pub fn batch(
    kind: Kind,
    config: &BertConfig,
    params: &ParamTable,
    capacity: &Capacity,
    form: Form,
) -> Result<Plan, PlanError> {
    let mut r = Recorder::new(kind.name(), params)
        .within(form.limits)
        .storing(form.precision);
    if form.accumulate {
        r.accumulate_gradients();
    }
    let inputs = Inputs::record(&mut r, capacity);
    let [mlm_loss, task_loss_sum] = loss_outputs(&mut r);
    let dropout = if kind == Kind::Evaluate {
        Dropout::OFF
    } else {
        Dropout::of(config)
    };
    let hidden = encoder(&mut r, config, capacity, dropout, &inputs, form.recompute)?;
    if kind.is_masked() {
        let losses = mlm_head(&mut r, config, capacity, hidden, true)?;
        sum::record(&mut r, losses, mlm_loss)?;
    }
    if kind != Kind::External {
        r.scope("task_head", |r| {
            let logits = task_head(r, &inputs, hidden)?;
            if kind == Kind::Evaluate {
                let (rows, width) = (r.info(logits).rows, r.info(logits).width);
                let output = r.output("class_logits", rows, width);
                return crate::ops::copy::into(r, logits, output);
            }
            let losses = task_loss(r, capacity, logits)?;
            sum::record(r, losses, task_loss_sum)
        })?;
    }
    let frozen = match kind {
        Kind::External => Some("classifier."),
        Kind::Finetune => Some("cls."),
        Kind::Joint | Kind::Evaluate => None,
    };
    if kind != Kind::Evaluate {
        if let Some(prefix) = frozen {
            r.freeze(prefix);
            if !form.accumulate {
                zero_gradients(&mut r, params, prefix)?;
            }
        }
        r.differentiate()?;
    }
    Ok(r.finish())
}

/// Frozen parameters' gradients are zero, not absent: AdamW runs over the whole buffer.
fn zero_gradients(r: &mut Recorder, params: &ParamTable, prefix: &str) -> Result<(), PlanError> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for (spec, offset) in params.iter().filter(|(spec, _)| spec.name.starts_with(prefix)) {
        let end = offset + crate::plan::aligned(spec.len());
        match ranges.last_mut().filter(|range| range.end == offset) {
            Some(range) => range.end = end,
            None => ranges.push(offset..end),
        }
    }
    for range in ranges {
        for (_, gradients) in r.ranges("zero", Space::Grads, range, ALIGN) {
            fill::zero(r, gradients)?;
        }
    }
    Ok(())
}

/// What an update does to the task head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadUpdate {
    /// The same as to everything else.
    Joined,
    /// Updated with a bias correction of its own, because it was left alone before.
    Apart,
    /// Left alone: weights and moments stay.
    Frozen,
}

/// Settings of the optimiser that are fixed for a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// AdamW.
    pub adamw: adamw::Settings,
    /// What happens to the task head.
    pub head: HeadUpdate,
}

impl Optimizer {
    /// [`adamw::Settings::BERT`] for all parameters alike.
    pub const BERT: Optimizer = Optimizer {
        adamw: adamw::Settings::BERT,
        head: HeadUpdate::Joined,
    };
}

/// Records the update of the parameters from their gradients, for a device with these limits and plans of this precision.
///
/// # Errors
/// None on a table laid out by [`super::parameters`].
pub fn update(
    params: &ParamTable,
    optimizer: &Optimizer,
    limits: Limits,
    precision: Precision,
) -> Result<Plan, PlanError> {
    let mut r = Recorder::new("update", params).within(limits).storing(precision);
    loss_outputs(&mut r);
    let whole = 0..params.words();
    let gradients = r.ranges("gradients", Space::Grads, whole.clone(), grad_norm::UNIT);
    let gradients: Vec<Value> = gradients.into_iter().map(|(_, value)| value).collect();
    let norm = r.output("grad_norm", Extent::fixed(1), 1);
    grad_norm::record(&mut r, &gradients, norm)?;
    let (before, head, after) = (0..params.head().start, params.head(), params.head().end..whole.end);
    let ranges = match optimizer.head {
        HeadUpdate::Joined => vec![(whole, false)],
        HeadUpdate::Apart => vec![(before, false), (head, true), (after, false)],
        HeadUpdate::Frozen => vec![(before, false), (after, false)],
    };
    for (range, head) in ranges {
        for (piece, weights) in r.ranges("params", Space::Params, range, 2 * ALIGN) {
            let decay = params.decay_words().clamp(piece.start, piece.end) - piece.start;
            let mut part = |name, space| r.range(name, space, piece.clone());
            let state = adamw::State {
                params: weights,
                grads: part("grads", Space::Grads),
                moment1: part("moment1", Space::Moment1),
                moment2: part("moment2", Space::Moment2),
                // Products read matrices alone, and those decay.
                shadow: (decay > 0).then(|| r.shadow(piece.clone())).flatten(),
                norm,
            };
            let settings = adamw::Settings {
                head,
                ..optimizer.adamw
            };
            adamw::record(&mut r, &state, &settings, decay as u32)?;
        }
    }
    Ok(r.finish())
}

/// The losses' places in the readback buffer, the same in every plan, so that an update's norm does not overwrite them.
fn loss_outputs(r: &mut Recorder) -> [Value; 2] {
    ["mlm_loss", "task_loss"].map(|name| r.output(name, Extent::fixed(1), 1))
}
