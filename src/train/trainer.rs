//! The trainer: a device with all plans of a run, driven step by step.
//!
//! ```text
//! feed              schedule(step) -> batches -> input blocks      on a thread of its own, ahead of the device
//! step              for each micro-batch: upload one block, run its plan      (`=`, then `+=` into the gradients)
//!                   run the update plan, read losses and norm
//! ```
//!
//! What a step does (which plan, whose batch, which loss weights, learning rate) is a `StepPlan`, a function of the step
//! number that the method above supplies. The trainer knows no method.

use std::collections::HashMap;
use std::sync::Arc;

use super::TrainError;
use super::classifier::logits;
use super::feed::{Feed, Stage};
use super::flops::needed_flops;
use super::inputs::batch_capacity;
use crate::bert::plans::{self, Form, Kind, Optimizer};
use crate::bert::{self, Capacity};
use crate::data::{BatchCapacity, Sequences};
use crate::device::choice::DeviceChoice;
use crate::device::open::open;
use crate::device::{Device, DeviceError, Program, Sizes};
use crate::hub::BertConfig;
use crate::plan::{ParamTable, Plan, Space};

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
        let plans = self
            .batches
            .iter()
            .map(|(key, loaded)| (*key, Arc::clone(&loaded.plan)))
            .collect();
        let largest = |a: BatchCapacity, b: &BatchCapacity| BatchCapacity {
            tokens: a.tokens.max(b.tokens),
            sequences: a.sequences.max(b.sequences),
            masked: a.masked.max(b.masked),
        };
        let none = BatchCapacity {
            tokens: 0,
            sequences: 0,
            masked: 0,
        };
        Feed::start(stage, from, plans, self.capacities.values().fold(none, largest))
    }

    /// Runs the next step of a feed; `None` after the last.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] with step and place; the weights are then those before the step.
    pub fn step(&mut self, feed: &mut Feed) -> Result<Option<StepResult>, TrainError> {
        let stage = feed.stage();
        let Some((step, prepared)) = feed.next_step()? else {
            return Ok(None);
        };
        let plan = prepared.plan.expect("a filled buffer has its plan");
        let (mut mlm, mut task, mut tokens, mut masked, mut sequences) = (0.0f64, 0.0f64, 0u64, 0u64, 0u64);
        let (mut executed, mut needed) = (0, 0);
        for (micro, block) in prepared.blocks.iter().enumerate() {
            let loaded = &self.batches[&(plan.kind, micro > 0)];
            self.device.write(Space::Inputs, 0, block.words())?;
            self.device.run(loaded.program)?;
            let params = &prepared.params[micro];
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
                return Err(self.not_finite(stage, step, what, value));
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

    /// Logits `[examples, classes]` of the `evaluate` plan; `progress` is told how many sequences are done.
    ///
    /// # Errors
    /// Device and data failures.
    pub fn logits(
        &mut self,
        sequences: &Arc<Sequences>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f32>, TrainError> {
        let loaded = self.batches[&(Kind::Evaluate, false)].clone();
        let capacity = self.capacities[&Kind::Evaluate];
        let device = self.device.as_mut();
        logits(device, loaded.program, &loaded.plan, sequences, capacity, progress)
    }

    /// Writes parameters and moments to the device.
    ///
    /// # Errors
    /// Device failures.
    pub fn upload(&mut self, params: &[f32], moments: &[Vec<f32>; 2]) -> Result<(), TrainError> {
        self.upload_params(params)?;
        self.device
            .write(Space::Moment1, 0, bytemuck::cast_slice(&moments[0]))?;
        self.device
            .write(Space::Moment2, 0, bytemuck::cast_slice(&moments[1]))?;
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

    /// Reads AdamW's two moments.
    ///
    /// # Errors
    /// Device failures.
    pub fn download_moments(&mut self) -> Result<[Vec<f32>; 2], TrainError> {
        Ok([self.download(Space::Moment1)?, self.download(Space::Moment2)?])
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

fn output(plan: &Plan, readback: &[u32], name: &str) -> Option<f32> {
    plan.output(name).map(|port| f32::from_bits(readback[port.offset]))
}
