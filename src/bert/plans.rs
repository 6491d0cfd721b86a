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
use crate::kernel::Extent;
use crate::ops::{adamw, fill, grad_norm, sum};
use crate::plan::{ParamTable, Plan, PlanError, Recorder, Space, Value};

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

/// Records the plan of a kind. `accumulate`: gradients are added to those of the plan run before (micro-batches).
///
/// # Errors
/// Sizes that the ops do not support, with the scope.
pub fn batch(
    kind: Kind,
    config: &BertConfig,
    params: &ParamTable,
    capacity: &Capacity,
    accumulate: bool,
) -> Result<Plan, PlanError> {
    let mut r = Recorder::new(kind.name(), params);
    if accumulate {
        r.accumulate_gradients();
    }
    let inputs = Inputs::record(&mut r, capacity);
    let dropout = if kind == Kind::Evaluate { Dropout::OFF } else { Dropout::of(config) };
    let hidden = encoder(&mut r, config, capacity, dropout, &inputs)?;
    if matches!(kind, Kind::External | Kind::Joint) {
        let losses = mlm_head(&mut r, config, capacity, hidden, true)?;
        total(&mut r, losses, "mlm_loss")?;
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
            total(r, losses, "task_loss")
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
            if !accumulate {
                zero_gradients(&mut r, params, prefix)?;
            }
        }
        r.differentiate()?;
    }
    Ok(r.finish())
}

fn total(r: &mut Recorder, losses: Value, name: &'static str) -> Result<(), PlanError> {
    let output = r.output(name, Extent::fixed(1), 1);
    sum::record(r, losses, output)
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
        let gradients = r.range("zero", Space::Grads, range);
        fill::zero(r, gradients)?;
    }
    Ok(())
}

/// Settings of the optimiser that are fixed for a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// AdamW.
    pub adamw: adamw::Settings,
    /// Whether the task head is updated by this plan.
    pub head: bool,
}

/// Records the update of the parameters from their gradients.
///
/// # Errors
/// None on a table laid out by [`super::parameters`].
pub fn update(params: &ParamTable, optimizer: &Optimizer) -> Result<Plan, PlanError> {
    let name = if optimizer.head { "update" } else { "update without head" };
    let mut r = Recorder::new(name, params);
    let whole = 0..params.words();
    let gradients = r.range("gradients", Space::Grads, whole.clone());
    let norm = r.output("grad_norm", Extent::fixed(1), 1);
    grad_norm::record(&mut r, gradients, norm)?;
    let ranges = if optimizer.head { vec![whole] } else { vec![0..params.head().start, params.head().end..whole.end] };
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        let decay = params.decay_words().clamp(range.start, range.end) - range.start;
        let mut part = |name, space| r.range(name, space, range.clone());
        let state = adamw::State {
            params: part("params", Space::Params),
            grads: part("grads", Space::Grads),
            moment1: part("moment1", Space::Moment1),
            moment2: part("moment2", Space::Moment2),
            norm,
        };
        adamw::record(&mut r, &state, &optimizer.adamw, decay as u32)?;
    }
    Ok(r.finish())
}
