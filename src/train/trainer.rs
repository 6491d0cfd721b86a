//! The trainer: a device with all plans of a run, driven step by step.
//!
//! ```text
//! feed              schedule(step) -> batches -> input blocks      on a thread of its own, ahead of the device
//! begin             for each micro-batch: upload one block, run its plan      (`=`, then `+=` into the gradients)
//!                   run the update plan
//! collect           losses and norm, when they have come back: at once on the CPU, a few steps late on a device with a
//!                   queue, which is never waited for while there is work
//! ```
//!
//! What a step does (which plan, whose batch, which loss weights, learning rate) is a `StepPlan`, a function of the step
//! number that the method above supplies. The trainer knows no method.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::classifier::logits;
use super::feed::{Feed, Stage};
use super::in_flight::InFlight;
use super::inputs::batch_capacity;
use super::loss_scale::LossScale;
use super::{StepResult, TrainError};
use crate::bert::plans::{self, Form, Kind, Optimizer};
use crate::bert::{self, Capacity};
use crate::cost::timeline::{HostWork, Shows, Timeline, Track};
use crate::cost::{Ceilings, needed_flops};
use crate::data::{BatchCapacity, Sequences};
use crate::device::choice::{DeviceChoice, PrecisionChoice};
use crate::device::open::Target;
use crate::device::{Device, DeviceError, Program, Sizes, write_params};
use crate::hub::BertConfig;
use crate::kernel::Precision;
use crate::plan::{ParamTable, Plan, Space};

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
    precision: Precision,
    /// Where gradients are stored as binary16.
    loss_scale: Option<LossScale>,
    params: ParamTable,
    capacities: HashMap<Kind, BatchCapacity>,
    batches: HashMap<(Kind, bool), Loaded>,
    updates: Vec<Loaded>,
    readback: Vec<u32>,
    /// Steps begun whose results have not been taken, the oldest first.
    in_flight: VecDeque<InFlight>,
    /// What the device can do at most.
    ceilings: Option<Ceilings>,
    /// Where steps are written down launch by launch.
    timeline: Option<Timeline>,
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
        precision: PrecisionChoice,
    ) -> Result<Trainer, TrainError> {
        Trainer::on(&Target::of(device)?, config, batches, optimizers, precision)
    }

    /// The same on a device that is chosen already.
    ///
    /// # Errors
    /// As [`new`](Trainer::new).
    pub fn on(
        target: &Target,
        config: &BertConfig,
        batches: &[(Kind, Capacity, Form)],
        optimizers: &[Optimizer],
        precision: PrecisionChoice,
    ) -> Result<Trainer, TrainError> {
        let params = bert::parameters(config);
        let (limits, precision) = (target.limits(), target.precision(precision)?);
        let mut recorded = Vec::new();
        for &(kind, capacity, form) in batches {
            let form = Form {
                limits,
                precision,
                ..form
            };
            recorded.push((
                (kind, form.accumulate),
                plans::batch(kind, config, &params, &capacity, form)?,
            ));
        }
        let mut updates = Vec::new();
        for optimizer in optimizers {
            updates.push(plans::update(&params, optimizer, limits, precision)?);
        }
        let all: Vec<&Plan> = recorded.iter().map(|(_, plan)| plan).chain(&updates).collect();
        let sizes = Sizes::of(params.words(), !optimizers.is_empty(), &all);
        let mut opened = target.open(sizes)?;
        let mut load = |plan: Plan| -> Result<Loaded, TrainError> {
            let program = opened.device.load(&plan)?;
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
            decision: opened.decision(precision),
            device: opened.device,
            planned_bytes: sizes.bytes(),
            config: config.clone(),
            precision,
            loss_scale: (precision == Precision::F16).then(LossScale::default),
            params,
            capacities,
            batches: loaded,
            updates,
            readback: vec![0; sizes.readback],
            in_flight: VecDeque::new(),
            ceilings: None,
            timeline: None,
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

    /// Launches of a step of a kind, its update among them; 0 for a kind that was not loaded.
    pub fn launches(&self, kind: Kind) -> usize {
        let of = |loaded: &Loaded| loaded.plan.launches.len();
        let batch = self.batches.get(&(kind, false));
        batch.map_or(0, |batch| of(batch) + self.updates.first().map_or(0, of))
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

    /// The result of the next step of a feed; `None` after the last. A device with a queue has by then begun the steps that
    /// follow, up to the first for whose number of steps done `pauses` holds: behind that result, and where
    /// [`idle`](Trainer::idle) says so, parameters and moments are those after the step.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] with step and place. The step itself changed no weight; steps begun behind it may have.
    pub fn step(&mut self, feed: &mut Feed, pauses: impl Fn(u64) -> bool) -> Result<Option<StepResult>, TrainError> {
        let rests = |last: Option<&InFlight>| last.is_some_and(|last| pauses(last.step + 1));
        while self.in_flight.len() < self.ring() && !rests(self.in_flight.back()) {
            if !self.begin(feed)? {
                break;
            }
        }
        while self.in_flight.front().is_some_and(InFlight::waits) {
            self.collect()?;
        }
        let Some(done) = self.in_flight.pop_front() else {
            return Ok(None);
        };
        if let Some((what, value)) = done.not_finite() {
            return Err(self.not_finite(feed.stage(), &done, what, value));
        }
        let finite = done.gradient_norm.is_finite();
        let another = |scale: &mut LossScale| scale.result(done.exponent, finite);
        if !self.loss_scale.as_mut().map_or(finite, another) {
            return Err(self.not_finite(feed.stage(), &done, "gradient norm", done.gradient_norm));
        }
        Ok(Some(done.result()))
    }

    /// Holds steps against what the device can do at most.
    pub fn set_ceilings(&mut self, ceilings: Option<Ceilings>) {
        self.ceilings = ceilings;
    }

    /// What the device can do at most, where that was measured.
    pub fn ceilings(&self) -> Option<Ceilings> {
        self.ceilings
    }

    /// From now on steps are written down launch by launch, until [`end_timeline`](Trainer::end_timeline): one at a time, the
    /// host waiting for each. Their bits are the same.
    ///
    /// # Panics
    /// If the device is not at rest.
    pub fn begin_timeline(&mut self) {
        assert!(self.idle(), "a timeline begins between steps");
        self.timeline = Some(Timeline::new());
    }

    /// What was written down.
    pub fn end_timeline(&mut self) -> Option<Timeline> {
        self.timeline.take()
    }

    /// Submissions that may be on their way.
    fn ring(&self) -> usize {
        match self.timeline {
            None => self.device.ring(),
            Some(_) => 1,
        }
    }

    /// How activations are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The scale of the losses, where gradients are stored as binary16.
    pub fn loss_scale(&self) -> Option<&LossScale> {
        self.loss_scale.as_ref()
    }

    /// Goes on with the scale of an earlier run, or begins anew.
    pub fn set_loss_scale(&mut self, scale: Option<LossScale>) {
        let scaled = self.precision == Precision::F16;
        self.loss_scale = scaled.then(|| scale.unwrap_or_default());
    }

    /// Whether the device is at rest: no step was begun whose result has not been taken.
    pub fn idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Submits the next step of a feed; false after the last.
    fn begin(&mut self, feed: &mut Feed) -> Result<bool, TrainError> {
        let start = Instant::now();
        let Some((step, prepared)) = feed.next_step()? else {
            return Ok(false);
        };
        if let Some(timeline) = &mut self.timeline {
            timeline.add(Track::Host, start, Shows::Host(HostWork::Wait));
            let (begun, length) = prepared.filled;
            timeline.span(Track::Prepare, begun, length, Shows::Batch(step));
        }
        let plan = prepared.plan.expect("a filled buffer has its plan");
        let ring = self.ring();
        let on_their_way = self.in_flight.len();
        let exponent = self.loss_scale.as_mut().map_or(0, |scale| scale.next(on_their_way));
        self.in_flight
            .push_back(InFlight::new(step, plan, prepared.blocks.len(), exponent));
        let blocks = prepared.blocks.len();
        for (micro, block) in prepared.blocks.iter_mut().enumerate() {
            block.scale_loss(exponent);
            if self.in_flight.iter().map(InFlight::submissions).sum::<usize>() == ring {
                self.collect()?;
            }
            let (batch, update) = (&self.batches[&(plan.kind, micro > 0)], &self.updates[plan.optimizer]);
            let count = 1 + usize::from(micro + 1 == blocks);
            let (params, ahead) = (&prepared.params[micro], ring > 1);
            match &mut self.timeline {
                None => self
                    .device
                    .submit(block.words(), &[batch.program, update.program][..count])?,
                Some(timeline) => {
                    let programs = [batch, update].map(|loaded| (loaded.program, &loaded.plan));
                    timeline.submit(self.device.as_mut(), block.words(), &programs[..count], params)?;
                }
            }
            let begun = self.in_flight.back_mut().expect("pushed above");
            begun.submitted(params, ahead.then(|| block.words().to_vec()));
            let capacity = self.capacities[&plan.kind];
            begun.capacity += capacity.tokens as u64;
            if micro == 0 {
                begun.padded = prepared.padded;
            }
            for loaded in &[batch, update][..count] {
                for launch in &loaded.plan.launches {
                    let cost = launch.cost(Some(params));
                    begun.executed += cost.flops;
                    begun.floor += self
                        .ceilings
                        .map_or(0.0, |ceilings| ceilings.floor(launch.kernel, &cost));
                }
            }
            begun.needed += needed_flops(&self.config, plan.kind, params);
        }
        Ok(true)
    }

    /// Takes what the oldest submission on its way left.
    fn collect(&mut self) -> Result<(), TrainError> {
        let waiting = self.in_flight.iter_mut().find(|step| step.submissions() > 0);
        let step = waiting.expect("called with a submission on its way");
        let kind = step.plan.kind;
        let batch = &self.batches[&(kind, step.collected > 0)].plan;
        let update = &self.updates[step.plan.optimizer].plan;
        match &mut self.timeline {
            None => self.device.collect(&mut self.readback)?,
            Some(timeline) => timeline.collect(self.device.as_mut(), &mut self.readback)?,
        }
        let value = |plan: &Plan, name| plan.output(name).map(|port| f32::from_bits(self.readback[port.offset]));
        step.mlm += value(batch, "mlm_loss").map_or(0.0, f64::from);
        step.task += value(batch, "task_loss").map_or(0.0, f64::from);
        step.gradient_norm = value(update, "grad_norm").unwrap_or(f32::NAN);
        step.collected += 1;
        Ok(())
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
        Ok(write_params(self.device.as_mut(), self.precision, params)?)
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
    fn not_finite(&mut self, stage: u8, broken: &InFlight, what: &'static str, value: f32) -> TrainError {
        let gradients = self.again(broken).and_then(|()| self.download(Space::Grads));
        let gradients = match gradients {
            Ok(gradients) => gradients,
            Err(error) => return error.into(),
        };
        TrainError::NotFinite {
            stage,
            step: broken.step,
            what,
            value,
            place: place(&self.params, &gradients),
        }
    }

    /// Makes a step's gradients once more where steps begun behind it have overwritten them.
    fn again(&mut self, step: &InFlight) -> Result<(), DeviceError> {
        if self.idle() {
            return Ok(());
        }
        for _ in 0..self.in_flight.drain(..).map(|later| later.submissions()).sum() {
            self.device.collect(&mut self.readback)?;
        }
        for (micro, block) in step.blocks.iter().enumerate() {
            self.device.write(Space::Inputs, 0, block)?;
            self.device.run(self.batches[&(step.plan.kind, micro > 0)].program)?;
        }
        Ok(())
    }
}

/// The first gradient that is not a number, else the largest one.
fn place(params: &ParamTable, gradients: &[f32]) -> String {
    let broken = gradients.iter().position(|x| !x.is_finite());
    let largest = (0..gradients.len()).max_by(|&a, &b| gradients[a].abs().total_cmp(&gradients[b].abs()));
    let word = broken.or(largest).unwrap_or(0);
    let which = if broken.is_some() {
        "the first broken"
    } else {
        "the largest"
    };
    match params.at(word) {
        Some((spec, element)) => format!(
            "{which} gradient is {} at {}[{}, {}]",
            gradients[word],
            spec.name,
            element / spec.width as usize,
            element % spec.width as usize
        ),
        None => format!("gradient word {word} lies between tensors"),
    }
}
