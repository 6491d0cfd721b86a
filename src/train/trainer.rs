//! The trainer: a device with all plans of a run, driven step by step.
//!
//! ```text
//! prefetch thread   schedule(step) -> batches -> input blocks      ahead of the device
//! step              for each micro-batch: upload one block, run its plan      (`=`, then `+=` into the gradients)
//!                   run the update plan, read losses and norm
//! ```
//!
//! What a step does (which plan, whose batch, which loss weights, learning rate) is a [`StepPlan`], a function of the step
//! number that the method above supplies. The trainer knows no method.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::TrainError;
use super::checkpoint::State;
use super::inputs::{InputBlock, counted};
use crate::bert::plans::{self, Form, Kind, Optimizer};
use crate::bert::{self, Capacity};
use crate::data::{Batch, BatchCapacity, BatchStream, DataError, Prefetch, Sequences};
use crate::device::choice::DeviceChoice;
use crate::device::open::open;
use crate::device::{Device, DeviceError, Program, Sizes};
use crate::hub::BertConfig;
use crate::kernel::StepParams;
use crate::plan::{ParamTable, Plan, Space};

/// What one optimiser step does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPlan {
    /// Which plan.
    pub kind: Kind,
    /// Which of the stage's streams the batch comes from.
    pub stream: usize,
    /// Number of the batch in its stream.
    pub batch: u64,
    /// Factor of the mean MLM loss.
    pub mlm_weight: f64,
    /// Factor of the mean task loss.
    pub task_weight: f64,
    /// Which of the trainer's optimisers.
    pub optimizer: usize,
    /// Learning rate.
    pub learning_rate: f64,
    /// AdamW's bias correction.
    pub bias_correction: f64,
    /// The same for the task head, which may have seen fewer updates.
    pub head_bias_correction: f64,
}

/// What came out of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// 0-based step.
    pub step: u64,
    /// Which plan.
    pub kind: Kind,
    /// Mean loss of the masked tokens; none without any.
    pub mlm_loss: Option<f64>,
    /// Mean loss of the task.
    pub task_loss: Option<f64>,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Tokens of the batch.
    pub tokens: u64,
    /// FLOPs of the launched kernels.
    pub executed: u64,
    /// FLOPs that the mathematics needs: [`needed_flops`].
    pub needed: u64,
}

/// Everything about a stage that does not change from step to step.
pub struct Stage {
    /// 1 or 2, for messages and to keep the stages' random numbers apart.
    pub number: u8,
    /// Seed of the repeat.
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// Micro-batches per step.
    pub accumulate: usize,
    /// Largest gradient norm; infinite: not clipped.
    pub clip_norm: f32,
    /// Sources of batches, each of `batch / accumulate` sequences.
    pub streams: Vec<BatchStream>,
    /// What step `s` does.
    pub schedule: Box<dyn Fn(u64) -> StepPlan + Send>,
}

/// A loaded plan.
#[derive(Clone)]
struct Loaded {
    plan: Arc<Plan>,
    program: Program,
}

/// A device with the plans of a run.
pub struct Trainer {
    device: Box<dyn Device>,
    /// What was chosen and why.
    pub decision: String,
    /// Bytes of all buffers.
    pub planned_bytes: u64,
    config: BertConfig,
    params: ParamTable,
    capacities: HashMap<Kind, BatchCapacity>,
    batches: HashMap<(Kind, bool), Loaded>,
    updates: Vec<Loaded>,
    readback: Vec<u32>,
}

/// Input blocks of one step, filled ahead.
struct Prepared {
    plan: Option<StepPlan>,
    batches: Vec<Batch>,
    blocks: Vec<InputBlock>,
    steps: Vec<StepParams>,
}

/// The stage's steps, prepared ahead.
pub struct Feed {
    stage: u8,
    prefetch: Prefetch<Prepared, DataError>,
}

impl Feed {
    /// How long the device waited for data.
    pub fn waited(&self) -> Duration {
        self.prefetch.waited()
    }
}

impl Trainer {
    /// Records and loads these plans, each kind in one capacity, and the update plans of `optimizers`.
    ///
    /// # Errors
    /// [`TrainError::Device`], [`TrainError::Plan`].
    pub fn new(
        config: &BertConfig,
        batches: &[(Kind, Capacity, Form)],
        optimizers: &[Optimizer],
        device: DeviceChoice,
    ) -> Result<Trainer, TrainError> {
        let params = bert::parameters(config);
        let mut recorded = Vec::new();
        for &(kind, capacity, form) in batches {
            recorded.push((
                (kind, form.accumulate),
                plans::batch(kind, config, &params, &capacity, form)?,
            ));
        }
        let mut updates = Vec::new();
        for optimizer in optimizers {
            updates.push(plans::update(&params, optimizer)?);
        }
        let all: Vec<&Plan> = recorded.iter().map(|(_, plan)| plan).chain(&updates).collect();
        let sizes = Sizes::of(params.words(), !optimizers.is_empty(), &all);
        let opened = open(device, sizes)?;
        let mut device = opened.device;
        let mut load = |plan: Plan| -> Result<Loaded, TrainError> {
            let program = device.load(&plan)?;
            Ok(Loaded {
                plan: Arc::new(plan),
                program,
            })
        };
        let mut loaded = HashMap::new();
        for (key, plan) in recorded {
            loaded.insert(key, load(plan)?);
        }
        let updates = updates.into_iter().map(load).collect::<Result<_, TrainError>>()?;
        let capacities = batches
            .iter()
            .map(|&(kind, capacity, _)| (kind, batch_capacity(&capacity)))
            .collect();
        Ok(Trainer {
            device,
            decision: opened.decision,
            planned_bytes: sizes.bytes(),
            config: config.clone(),
            params,
            capacities,
            batches: loaded,
            updates,
            readback: vec![0; sizes.readback],
        })
    }

    /// The parameter table.
    pub fn params(&self) -> &ParamTable {
        &self.params
    }

    /// The model.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The most that a batch of a kind holds; `None` for a kind that was not loaded.
    pub fn capacity(&self, kind: Kind) -> Option<BatchCapacity> {
        self.capacities.get(&kind).copied()
    }

    /// Starts to prepare the steps `from ..` of a stage.
    ///
    /// # Errors
    /// [`TrainError::Thread`].
    pub fn feed(&self, stage: Stage, from: u64) -> Result<Feed, TrainError> {
        let loaded: HashMap<(Kind, bool), Arc<Plan>> = self
            .batches
            .iter()
            .map(|(key, loaded)| (*key, Arc::clone(&loaded.plan)))
            .collect();
        let accumulate = stage.accumulate;
        let most = self
            .batches
            .values()
            .map(|loaded| loaded.plan.input_words())
            .max()
            .unwrap_or(0);
        let largest = self.capacities.values().fold(
            BatchCapacity {
                tokens: 0,
                sequences: 0,
                masked: 0,
            },
            |a, b| BatchCapacity {
                tokens: a.tokens.max(b.tokens),
                sequences: a.sequences.max(b.sequences),
                masked: a.masked.max(b.masked),
            },
        );
        let prepared = || Prepared {
            plan: None,
            batches: (0..accumulate).map(|_| Batch::new(largest)).collect(),
            blocks: (0..accumulate).map(|_| InputBlock::new(most)).collect(),
            steps: vec![StepParams::default(); accumulate],
        };
        let (number, steps) = (stage.number, stage.steps);
        let mut cursors: Vec<_> = stage.streams.iter().map(BatchStream::cursor).collect();
        let prefetch = Prefetch::start(
            vec![prepared(), prepared(), prepared()],
            from..steps,
            move |step, buffer| {
                let plan = (stage.schedule)(step);
                for (micro, batch) in buffer.batches.iter_mut().enumerate() {
                    cursors[plan.stream].fill(plan.batch * accumulate as u64 + micro as u64, batch)?;
                }
                let masked: usize = buffer.batches.iter().map(Batch::masked).sum();
                let sequences: usize = buffer.batches.iter().map(Batch::sequences).sum();
                let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
                for (micro, batch) in buffer.batches.iter().enumerate() {
                    let [low, high] = crate::rng::key(stage.seed);
                    let step_params = StepParams {
                        step: (step * accumulate as u64) as u32 + micro as u32,
                        seed: [low, high ^ (u32::from(number) << 30)],
                        learning_rate: plan.learning_rate as f32,
                        bias_correction: plan.bias_correction as f32,
                        head_bias_correction: plan.head_bias_correction as f32,
                        clip_norm: stage.clip_norm,
                        ..StepParams::default()
                    };
                    let mlm = plan.mlm_weight * share(batch.masked(), masked);
                    let task = plan.task_weight * share(batch.sequences(), sequences);
                    let recorded = &loaded[&(plan.kind, micro > 0)];
                    buffer.blocks[micro].fill(recorded, batch, &step_params, mlm, task);
                    buffer.steps[micro] = counted(&step_params, batch);
                }
                buffer.plan = Some(plan);
                Ok(())
            },
        );
        Ok(Feed {
            stage: number,
            prefetch: prefetch.map_err(TrainError::Thread)?,
        })
    }

    /// Runs the next step of a feed; `None` after the last.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] with step and place; the weights are then those before the step.
    pub fn step(&mut self, feed: &mut Feed) -> Result<Option<StepResult>, TrainError> {
        let Some((step, prepared)) = feed.prefetch.next()? else {
            return Ok(None);
        };
        let plan = prepared.plan.expect("a filled buffer has its plan");
        let (mut mlm, mut task, mut tokens, mut masked, mut sequences) = (0.0f64, 0.0f64, 0u64, 0u64, 0u64);
        let (mut executed, mut needed) = (0, 0);
        for (micro, block) in prepared.blocks.iter().enumerate() {
            let loaded = &self.batches[&(plan.kind, micro > 0)];
            self.device.write(Space::Inputs, 0, block.words())?;
            self.device.run(loaded.program)?;
            let params = &prepared.steps[micro];
            executed += loaded.plan.cost(Some(params)).flops;
            needed += needed_flops(&self.config, plan.kind, params);
            tokens += u64::from(params.tokens);
            masked += u64::from(params.masked);
            sequences += u64::from(params.sequences);
            let outputs = loaded.plan.readback_words();
            self.device.read(Space::Readback, 0, &mut self.readback[..outputs])?;
            mlm += output(&loaded.plan, &self.readback, "mlm_loss").map_or(0.0, f64::from);
            task += output(&loaded.plan, &self.readback, "task_loss").map_or(0.0, f64::from);
        }
        let (has_mlm, has_task) = (plan.kind != Kind::Finetune, plan.kind != Kind::External);
        let mlm_loss = (has_mlm && masked > 0).then(|| mlm / masked as f64);
        let task_loss = (has_task && sequences > 0).then(|| task / sequences as f64);
        let update = &self.updates[plan.optimizer];
        self.device.run(update.program)?;
        let outputs = update.plan.readback_words();
        self.device.read(Space::Readback, 0, &mut self.readback[..outputs])?;
        let norm = output(&update.plan, &self.readback, "grad_norm").unwrap_or(f32::NAN);
        for (what, value) in [
            ("masked-token loss", mlm_loss.map(|loss| loss as f32)),
            ("task loss", task_loss.map(|loss| loss as f32)),
            ("gradient norm", Some(norm)),
        ] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                return Err(self.not_finite(feed.stage, step, what, value));
            }
        }
        Ok(Some(StepResult {
            step,
            kind: plan.kind,
            mlm_loss,
            task_loss,
            gradient_norm: f64::from(norm),
            learning_rate: plan.learning_rate,
            tokens,
            executed,
            needed,
        }))
    }

    /// Logits `[examples, classes]` of the `evaluate` plan.
    ///
    /// # Errors
    /// Device and data failures.
    pub fn logits(&mut self, sequences: &Arc<Sequences>) -> Result<Vec<f32>, TrainError> {
        let loaded = self.batches[&(Kind::Evaluate, false)].clone();
        let capacity = self.capacities[&Kind::Evaluate];
        let device = self.device.as_mut();
        super::classifier::logits(
            device,
            loaded.program,
            &loaded.plan,
            sequences,
            capacity.sequences,
            capacity,
        )
    }

    /// Writes the flat buffers to the device.
    ///
    /// # Errors
    /// Device failures.
    pub fn upload(&mut self, state: &State) -> Result<(), TrainError> {
        self.upload_params(&state.params)?;
        self.device
            .write(Space::Moment1, 0, bytemuck::cast_slice(&state.moment1))?;
        self.device
            .write(Space::Moment2, 0, bytemuck::cast_slice(&state.moment2))?;
        Ok(())
    }

    /// Writes the parameters alone.
    ///
    /// # Errors
    /// Device failures.
    pub fn upload_params(&mut self, params: &[f32]) -> Result<(), TrainError> {
        Ok(self.device.write(Space::Params, 0, bytemuck::cast_slice(params))?)
    }

    /// Reads the parameters.
    ///
    /// # Errors
    /// Device failures.
    pub fn download_params(&mut self) -> Result<Vec<f32>, TrainError> {
        Ok(self.download(Space::Params)?)
    }

    /// Reads the flat buffers; `best` is the caller's.
    ///
    /// # Errors
    /// Device failures.
    pub fn download_state(&mut self, best: Option<Vec<f32>>) -> Result<State, TrainError> {
        Ok(State {
            params: self.download(Space::Params)?,
            moment1: self.download(Space::Moment1)?,
            moment2: self.download(Space::Moment2)?,
            best,
        })
    }

    fn download(&mut self, space: Space) -> Result<Vec<f32>, DeviceError> {
        let mut words = vec![0.0f32; self.params.words()];
        self.device.read(space, 0, bytemuck::cast_slice_mut(&mut words))?;
        Ok(words)
    }

    /// Names the first gradient that is not a number, else the largest one.
    fn not_finite(&mut self, stage: u8, step: u64, what: &'static str, value: f32) -> TrainError {
        let gradients = match self.download(Space::Grads) {
            Ok(gradients) => gradients,
            Err(error) => return error.into(),
        };
        let broken = gradients.iter().position(|x| !x.is_finite());
        let largest = (0..gradients.len()).max_by(|&a, &b| gradients[a].abs().total_cmp(&gradients[b].abs()));
        let word = broken.or(largest).unwrap_or(0);
        let place = match self.params.at(word) {
            Some((spec, element)) => format!(
                "{} gradient is {} at {}[{}, {}]",
                if broken.is_some() {
                    "the first broken"
                } else {
                    "the largest"
                },
                gradients[word],
                spec.name,
                element / spec.width as usize,
                element % spec.width as usize
            ),
            None => format!("gradient word {word} lies between tensors"),
        };
        TrainError::NotFinite {
            stage,
            step,
            what,
            value,
            place,
        }
    }
}

fn batch_capacity(capacity: &Capacity) -> BatchCapacity {
    BatchCapacity {
        tokens: capacity.tokens as usize,
        sequences: capacity.sequences as usize,
        masked: capacity.masked as usize,
    }
}

fn output(plan: &Plan, readback: &[u32], name: &str) -> Option<f32> {
    plan.output(name).map(|port| f32::from_bits(readback[port.offset]))
}

/// FLOPs that the mathematics of one forward and backward pass needs (a multiply-add is two, the backward costs twice the
/// forward): the matrix products of the real tokens, the MLM head on masked rows only, attention's two products.
///
/// ```text
/// 3 [tokens L (8 H^2 + 4 H F) + 4 L H sum(len^2) + masked (2 H^2 + 2 H V) + sequences (2 H^2 + 2 H C)]
/// ```
pub fn needed_flops(config: &BertConfig, kind: Kind, step: &StepParams) -> u64 {
    let size = |x: usize| x as u64;
    let (h, f) = (size(config.hidden_size), size(config.intermediate_size));
    let (layers, v, c) = (
        size(config.num_hidden_layers),
        size(config.vocab_size),
        size(config.labels.len()),
    );
    let encoder = u64::from(step.tokens) * layers * (8 * h * h + 4 * h * f) + 4 * layers * h * step.squared_lengths();
    let mlm = u64::from(step.masked) * (2 * h * h + 2 * h * v);
    let task = u64::from(step.sequences) * (2 * h * h + 2 * h * c);
    match kind {
        Kind::External => 3 * (encoder + mlm),
        Kind::Joint => 3 * (encoder + mlm + task),
        Kind::Finetune => 3 * (encoder + task),
        Kind::Evaluate => encoder + task,
    }
}
