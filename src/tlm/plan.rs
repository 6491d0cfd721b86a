//! What a run would launch, hold and compute, before it runs: every plan of a configuration, recorded at capacity.
//!
//! ```text
//! memory    parameters + their 16-bit copies + gradients + two moments + the largest arena, inputs and readback of the plans
//! work      sum over the steps of the plans' FLOPs, as if every text had its greatest length
//! ```
//!
//! Texts are packed without padding, so a real step holds fewer tokens and costs less; the memory is what a run
//! allocates, to the byte. Nothing is allocated here but the plans themselves.

mod text;
mod verdict;

use serde::Serialize;

use super::TlmError;
use super::config::Config;
use super::objective::step_counts;
use super::sizes::{self, PlannedBatch};
use crate::bert::plans::{Form, HeadUpdate, Kind, batch, update};
use crate::bert::{self, Capacity};
use crate::data::{DataError, Fields, Task, TaskFiles, Tokenizer, expand};
use crate::device::Sizes;
use crate::device::choice::DeviceChoice;
use crate::device::cuda;
use crate::kernel::Precision;
use crate::plan::{Limits, Plan, Space};
use verdict::verdict;

/// The plans of a configuration with what they need.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// What the chosen device says.
    pub device: Verdict,
    /// What could not be known before the run, and was assumed.
    pub assumptions: Vec<String>,
    /// The model.
    pub model: ModelSize,
    /// The plans in the order of their first use.
    pub plans: Vec<PlanSize>,
    /// All buffers.
    pub memory: Memory,
    /// FLOPs of all steps at capacity.
    pub flops: u64,
    /// Those among them that `model.recompute` repeats.
    pub recomputed_flops: u64,
}

/// What a device says to a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The device asked for.
    pub asked: String,
    /// Whether it would run.
    pub runs: bool,
    /// Why, or why not.
    pub message: String,
}

/// The model's sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelSize {
    /// Parameters, MLM and task head included.
    pub parameters: usize,
    /// Layers.
    pub layers: usize,
    /// Width.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Classes.
    pub labels: usize,
}

/// One plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanSize {
    /// Name; `+` marks the form that adds to the gradients of the forward pass before it.
    pub name: String,
    /// Tokens, sequences, masked rows and longest sequence at capacity; none for the optimiser.
    pub capacity: Option<[u32; 4]>,
    /// Replays in the whole run; none for evaluation, which depends on the data.
    pub replays: Option<u64>,
    /// Kernel launches of one replay.
    pub launches: usize,
    /// Floating-point operations of one replay.
    pub flops: u64,
    /// Those among them that `model.recompute` repeats.
    pub recomputed_flops: u64,
    /// Bytes read by one replay, every tensor of a launch once.
    pub read_bytes: u64,
    /// Bytes written by one replay.
    pub written_bytes: u64,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Bytes below which no arena can be.
    pub lower_bound_bytes: u64,
    /// Bytes of the values that are dropped after the forward and computed again.
    pub recomputed_bytes: u64,
    /// Bytes uploaded per replay.
    pub input_bytes: u64,
    /// The ten largest values in the arena: label and bytes.
    pub largest: Vec<(String, u64)>,
    /// Every launch, a line each.
    #[serde(skip)]
    listing: String,
}

/// Bytes of every buffer of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Parameters.
    pub params: u64,
    /// Their copies, where activations are stored in 16 bits.
    pub copies: u64,
    /// Gradients.
    pub grads: u64,
    /// AdamW's two moments.
    pub moments: u64,
    /// The largest arena.
    pub arena: u64,
    /// The largest upload.
    pub inputs: u64,
    /// The largest readback.
    pub readback: u64,
    /// All of them.
    pub total: u64,
}

/// Records the plans of a configuration and asks the device.
///
/// # Errors
/// Sizes that an op does not support, a tokenizer or training file that exists but cannot be read. A device that would
/// not run the plans is no error but a [`Verdict`].
pub fn plan(config: &Config, choice: DeviceChoice) -> Result<PlanReport, TlmError> {
    let mut assumptions = Vec::new();
    let vocab_size = vocab_size(config, &mut assumptions)?;
    let labels = labels(config, &mut assumptions)?;
    let bert = sizes::bert_config(config, vocab_size, labels);
    let params = bert::parameters(&bert);

    let precision = config.model.precision.or(fastest(choice));
    let mut plans: Vec<(Plan, Option<PlannedBatch>, Option<u64>)> = Vec::new();
    for planned in sizes::batches(config)? {
        let form = Form {
            precision,
            ..planned.form
        };
        let recorded = batch(planned.kind, &bert, &params, &planned.capacity, form)?;
        plans.push((recorded, Some(planned), replays(config, &planned)));
    }
    for (optimizer, updates) in optimizers(config) {
        plans.push((
            update(&params, &optimizer, Limits::default(), precision)?,
            None,
            Some(updates),
        ));
    }

    let recorded: Vec<&Plan> = plans.iter().map(|(plan, ..)| plan).collect();
    let sizes = Sizes::of(params.words(), config.stage1.steps + config.stage2.steps > 0, &recorded);
    let device = verdict(choice, &recorded, &sizes, &params);
    let plans: Vec<PlanSize> = plans
        .iter()
        .map(|(plan, planned, replays)| size(plan, *planned, *replays))
        .collect();
    Ok(PlanReport {
        device,
        assumptions,
        model: ModelSize {
            parameters: params.parameters(),
            layers: bert.num_hidden_layers,
            hidden: bert.hidden_size,
            heads: bert.num_attention_heads,
            vocab_size,
            labels: bert.labels.len(),
        },
        flops: in_all(&plans, |plan| plan.flops),
        recomputed_flops: in_all(&plans, |plan| plan.recomputed_flops),
        plans,
        memory: memory(&sizes),
    })
}

/// The sum over all replays that are known.
fn in_all(plans: &[PlanSize], of_one: impl Fn(&PlanSize) -> u64) -> u64 {
    plans.iter().map(|plan| of_one(plan) * plan.replays.unwrap_or(0)).sum()
}

fn vocab_size(config: &Config, assumptions: &mut Vec<String>) -> Result<usize, TlmError> {
    match &config.tokenizer.file {
        Some(file) => Ok(Tokenizer::load(file)?.vocab_size()),
        None => {
            let size = config.tokenizer.vocab_size;
            assumptions.push(format!("the trained vocabulary reaches tokenizer.vocab_size = {size}"));
            Ok(size)
        }
    }
}

fn labels(config: &Config, assumptions: &mut Vec<String>) -> Result<Vec<String>, TlmError> {
    match expand(&config.task.train) {
        Ok(_) => {
            let files = TaskFiles {
                train: config.task.train.clone(),
                ..TaskFiles::default()
            };
            let (text, label) = (config.task.text_column.clone(), config.task.label_column.clone());
            Ok(Task::read(
                &files,
                &Fields {
                    text,
                    label,
                    ..Fields::default()
                },
            )?
            .labels)
        }
        Err(DataError::NoMatch { pattern }) => {
            assumptions.push(format!("two classes, because there is no training file {pattern} yet"));
            Ok(vec!["0".to_owned(), "1".to_owned()])
        }
        Err(error) => Err(error.into()),
    }
}

/// How often a run replays a plan over batches.
fn replays(config: &Config, planned: &PlannedBatch) -> Option<u64> {
    let (external, internal) = step_counts(config.stage1.steps, config.rho1());
    let (steps, parts) = match planned.kind {
        Kind::External => (external, config.stage1.accumulate),
        Kind::Joint => (internal, config.stage1.accumulate),
        Kind::Finetune => (config.stage2.steps, config.stage2.accumulate),
        Kind::Evaluate => return None,
    };
    Some(steps * if planned.form.accumulate { parts as u64 - 1 } else { 1 })
}

/// The optimisers with their numbers of steps.
fn optimizers(config: &Config) -> Vec<(bert::plans::Optimizer, u64)> {
    let (external, internal) = step_counts(config.stage1.steps, config.rho1());
    let (list, set) = sizes::optimizers(config);
    let updates = |place: usize| match list[place].head {
        _ if config.stage2.steps > 0 && place == set.stage2 => config.stage2.steps,
        HeadUpdate::Joined => external + internal,
        HeadUpdate::Apart => internal,
        HeadUpdate::Frozen => external,
    };
    list.iter()
        .enumerate()
        .map(|(place, optimizer)| (*optimizer, updates(place)))
        .collect()
}

fn size(plan: &Plan, planned: Option<PlannedBatch>, replays: Option<u64>) -> PlanSize {
    let (cost, memory) = (plan.cost(None), plan.memory());
    let adds = planned.is_some_and(|planned| planned.form.accumulate);
    PlanSize {
        name: format!("{}{}", plan.name, if adds { " +" } else { "" }),
        capacity: planned.map(|planned| {
            let Capacity {
                tokens,
                sequences,
                masked,
                max_length,
            } = planned.capacity;
            [tokens, sequences, masked, max_length]
        }),
        replays,
        launches: plan.launches.len(),
        flops: cost.flops,
        recomputed_flops: plan.recomputed_cost(None).flops,
        read_bytes: cost.read,
        written_bytes: cost.written,
        arena_bytes: memory.arena_bytes,
        lower_bound_bytes: memory.lower_bound_bytes,
        recomputed_bytes: memory.recomputed_bytes,
        input_bytes: memory.input_bytes,
        largest: memory.largest,
        listing: plan.explain(),
    }
}

fn memory(sizes: &Sizes) -> Memory {
    let bytes = |space: Space| 4 * sizes.words(space) as u64;
    Memory {
        params: bytes(Space::Params),
        copies: bytes(Space::Shadow),
        grads: bytes(Space::Grads),
        moments: bytes(Space::Moment1) + bytes(Space::Moment2),
        arena: bytes(Space::Arena),
        inputs: bytes(Space::Inputs),
        readback: bytes(Space::Readback),
        total: sizes.bytes(),
    }
}

/// Mebibytes with one decimal.
fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests;

/// What `model.precision = "auto"` is on a device.
fn fastest(choice: DeviceChoice) -> Precision {
    let gpu = match choice {
        DeviceChoice::Cuda(number) => cuda::list().unwrap_or_default().into_iter().nth(number.unwrap_or(0)),
        _ => None,
    };
    gpu.map_or(Precision::F32, |gpu| gpu.fastest())
}
