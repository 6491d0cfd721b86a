//! What each step of the two stages does: which plan, whose batch, which weights, learning rate and optimiser.

use std::sync::Arc;

use super::Repeat;
use crate::bert::plans::Kind;
use crate::data::{BatchSettings, BatchStream, Sequences};
use crate::tlm::TlmError;
use crate::tlm::objective::{HeadOnExternal, StepKind, batch_index, head_updates, loss_weights, step_kind};
use crate::tlm::outcome::Stage1Report;
use crate::train::feed::{Stage, StepPlan};
use crate::train::schedule::adamw_bias_correction;

/// Streams of batches: their random numbers are apart.
const EXTERNAL: u32 = 0;
const INTERNAL: u32 = 1;
const FINETUNE: u32 = 2;

impl Repeat<'_> {
    /// Stage 1 to its end.
    ///
    /// # Errors
    /// [`TlmError::Interrupted`] after saving; training and device failures.
    pub fn stage1(&mut self) -> Result<(), TlmError> {
        let stage = self.joint_stage()?;
        self.train(stage, self.config.stage1.eval_every)?;
        let progress = &mut self.progress;
        let mean = |losses: &[f64]| (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64);
        progress.stage1 = Stage1Report {
            steps: progress.step,
            tokens: progress.tokens,
            mlm_loss_first: mean(&progress.first),
            mlm_loss_last: mean(&progress.last),
            dev: progress.stage1.dev,
            seconds: progress.seconds,
            tokens_per_second: progress.tokens as f64 / progress.seconds.max(1e-9),
        };
        Ok(())
    }

    /// What each step of stage 1 does.
    ///
    /// # Errors
    /// [`TlmError::Data`] for texts of which no batch can be made.
    pub fn joint_stage(&self) -> Result<Stage, TlmError> {
        let config = self.config;
        let (rho1, stage1) = (config.rho1(), &config.stage1);
        let size = stage1.batch / stage1.accumulate;
        let stream = |number, sequences: &Arc<Sequences>, kind| {
            let capacity = self
                .trainer
                .capacity(kind)
                .expect("plans of the steps that come are loaded");
            let settings = BatchSettings {
                seed: self.progress.seed,
                stream: number,
                batch: size,
                masking: Some(self.masking),
                capacity,
            };
            BatchStream::new(Arc::clone(sequences), settings)
        };
        let mut streams = Vec::new();
        if self.trainer.capacity(Kind::External).is_some() {
            streams.push(stream(EXTERNAL, &self.texts.external, Kind::External)?);
        }
        // The external stream is the first; without one, internal steps are all there are.
        let internal = streams.len();
        if self.trainer.capacity(Kind::Joint).is_some() {
            streams.push(stream(INTERNAL, &self.texts.train, Kind::Joint)?);
        }
        let (schedule, optimizer) = (config.stage1_schedule(), stage1.optimizer.clone());
        let (loss, rho2, head, optimizers) = (stage1.loss, stage1.rho2, stage1.head_on_external, self.optimizers);
        let plan = move |step: u64| {
            let kind = step_kind(step, rho1);
            let weights = loss_weights(kind, loss, rho2);
            let external = kind == StepKind::External;
            let correction = |t| adamw_bias_correction(optimizer.beta1, optimizer.beta2, t);
            StepPlan {
                kind: if external { Kind::External } else { Kind::Joint },
                stream: if external { 0 } else { internal },
                batch: batch_index(step, rho1),
                mlm_weight: weights.mlm,
                task_weight: weights.task,
                optimizer: match (head, external) {
                    (HeadOnExternal::Skip, true) => optimizers.frozen,
                    (HeadOnExternal::Skip, false) => optimizers.apart,
                    (HeadOnExternal::Zero, _) => optimizers.joined,
                },
                learning_rate: schedule.learning_rate(step),
                bias_correction: correction(step + 1),
                head_bias_correction: correction(head_updates(step, rho1, head).max(1)),
            }
        };
        Ok(Stage {
            number: 1,
            seed: self.progress.seed,
            steps: stage1.steps,
            accumulate: stage1.accumulate,
            clip_norm: clip(stage1.optimizer.clip),
            streams,
            schedule: Box::new(plan),
        })
    }

    /// Stage 2 to its end.
    ///
    /// # Errors
    /// As [`Repeat::stage1`].
    pub fn stage2(&mut self) -> Result<(), TlmError> {
        let stage = self.finetune_stage()?;
        self.train(stage, self.config.stage2.eval_every)
    }

    /// What each step of stage 2 does.
    ///
    /// # Errors
    /// As [`Repeat::joint_stage`].
    pub fn finetune_stage(&self) -> Result<Stage, TlmError> {
        let (config, stage2) = (self.config, &self.config.stage2);
        let settings = BatchSettings {
            seed: self.progress.seed,
            stream: FINETUNE,
            batch: stage2.batch / stage2.accumulate,
            masking: None,
            capacity: self
                .trainer
                .capacity(Kind::Finetune)
                .expect("the plan of stage 2 is loaded"),
        };
        let streams = vec![BatchStream::new(Arc::clone(&self.texts.train), settings)?];
        let (schedule, optimizer) = (config.stage2_schedule(), stage2.optimizer.clone());
        let index = self.optimizers.stage2;
        let plan = move |step: u64| {
            let correction = adamw_bias_correction(optimizer.beta1, optimizer.beta2, step + 1);
            StepPlan {
                kind: Kind::Finetune,
                stream: 0,
                batch: step,
                mlm_weight: 0.0,
                task_weight: 1.0,
                optimizer: index,
                learning_rate: schedule.learning_rate(step),
                bias_correction: correction,
                head_bias_correction: correction,
            }
        };
        Ok(Stage {
            number: 2,
            seed: self.progress.seed,
            steps: stage2.steps,
            accumulate: stage2.accumulate,
            clip_norm: clip(stage2.optimizer.clip),
            streams,
            schedule: Box::new(plan),
        })
    }
}

/// A configured clipping norm as the device has it.
fn clip(norm: f64) -> f32 {
    if norm > 0.0 { norm as f32 } else { f32::INFINITY }
}
