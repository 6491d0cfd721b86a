//! One repeat of the method: stage 1, stage 2, test, with checkpoints.
//!
//! ```text
//! initialise(seed) -> stage 1: E E ... I, joint loss -> head anew, moments zero -> stage 2: task alone -> best dev -> test
//! ```
//!
//! [`Progress`] is what a checkpoint knows beside the weights. Data order, masks, dropout and initial values follow from
//! (seed, stage, step), so a repeat that is killed anywhere and resumed ends with the same bits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::TlmError;
use super::config::Config;
use super::directory::RunDirectory;
use super::objective::{HeadOnExternal, StepKind, batch_index, head_updates, loss_weights, step_kind};
use super::observer::{Observer, Unit};
use super::outcome::{MetricsRow, RepeatReport, Stage1Report, Stage2Report, TestReport};
use super::sizes::OptimizerSet;
use crate::bert::initial_values;
use crate::bert::plans::Kind;
use crate::data::{BatchSettings, BatchStream, Masking, Sequences};
use crate::train::checkpoint::{self, State};
use crate::train::classifier::predictions;
use crate::train::metrics::Confusion;
use crate::train::schedule::adamw_bias_correction;
use crate::train::trainer::{Feed, Stage, StepPlan, StepResult, Trainer};

/// Losses of this many steps at either end of stage 1 are averaged for the report.
const ENDS: usize = 50;

/// Streams of batches: their random numbers are apart.
const EXTERNAL: u32 = 0;
const INTERNAL: u32 = 1;
const FINETUNE: u32 = 2;

/// The encoded texts of a run.
pub struct Texts {
    /// Selected passages; none where the method takes none.
    pub external: Option<Arc<Sequences>>,
    /// Training texts with labels.
    pub train: Arc<Sequences>,
    /// Development texts with labels.
    pub dev: Arc<Sequences>,
    /// Test texts with labels.
    pub test: Arc<Sequences>,
}

/// What a checkpoint knows beside the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Seed of the repeat.
    pub seed: u64,
    /// Stage under way, 1 or 2.
    pub stage: u8,
    /// Steps done in it.
    pub step: u64,
    /// Tokens trained on in it.
    pub tokens: u64,
    /// Seconds spent in it.
    pub seconds: f64,
    /// FLOPs of both stages: needed, executed.
    pub flops: [f64; 2],
    /// MLM losses of the first steps of stage 1.
    pub first: Vec<f64>,
    /// MLM losses of the last steps.
    pub last: Vec<f64>,
    /// Stage 1's report once it is done.
    pub stage1: Stage1Report,
    /// Best development score and its step.
    pub best: Option<(f64, u64)>,
}

/// A finished repeat, as it is kept in the run directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Scores and times.
    pub report: RepeatReport,
    /// FLOPs: needed, executed.
    pub flops: [f64; 2],
}

/// A repeat at work.
pub struct Repeat<'a> {
    /// Configuration.
    pub config: &'a Config,
    /// Device and plans.
    pub trainer: &'a mut Trainer,
    /// Texts.
    pub texts: &'a Texts,
    /// Where checkpoints go.
    pub directory: &'a RunDirectory,
    /// Masking of stage 1.
    pub masking: Option<Masking>,
    /// Indices of the trainer's optimisers.
    pub optimizers: OptimizerSet,
    /// Set by a signal: save and stop.
    pub stop: &'a AtomicBool,
    /// Who follows.
    pub observer: &'a mut dyn Observer,
    /// Where the repeat is.
    pub progress: Progress,
    /// Parameters of the best development score.
    pub best: Option<Vec<f32>>,
}

/// The name of a seed's checkpoint.
pub fn checkpoint_name(seed: u64) -> String {
    format!("checkpoints/seed-{seed}.safetensors")
}

/// The name of a finished repeat's document.
pub fn finished_name(seed: u64) -> String {
    format!("checkpoints/seed-{seed}.json")
}

impl Repeat<'_> {
    /// Starts from the initial values of a seed, or goes on from its checkpoint if there is one.
    ///
    /// # Errors
    /// A checkpoint that cannot be used; device failures.
    pub fn start(&mut self, seed: u64, encoder: Option<&[f32]>) -> Result<(), TlmError> {
        let path = self.directory.file(&checkpoint_name(seed));
        if path.is_file() {
            let (state, progress): (State, Progress) = checkpoint::read(&path, self.trainer.params().words())?;
            self.trainer.upload(&state)?;
            (self.progress, self.best) = (progress, state.best);
            return Ok(());
        }
        let words = self.trainer.params().words();
        let mut params = encoder.map_or_else(|| vec![0.0; words], <[f32]>::to_vec);
        let all = encoder.is_none();
        initial_values(
            self.trainer.config(),
            self.trainer.params(),
            seed,
            &mut params,
            |name| all || name.starts_with("classifier."),
        );
        let state = State {
            params,
            moment1: vec![0.0; words],
            moment2: vec![0.0; words],
            best: None,
        };
        self.trainer.upload(&state)?;
        let stage = if all && self.config.stage1.steps > 0 { 1 } else { 2 };
        self.progress = Progress {
            seed,
            stage,
            ..Progress::default()
        };
        self.best = None;
        Ok(())
    }

    /// Stage 1 to its end.
    ///
    /// # Errors
    /// [`TlmError::Interrupted`] after saving; training and device failures.
    pub fn stage1(&mut self) -> Result<(), TlmError> {
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
                masking: self.masking,
                capacity,
            };
            BatchStream::new(Arc::clone(sequences), settings)
        };
        let mut streams = Vec::new();
        if let Some(external) = self
            .texts
            .external
            .as_ref()
            .filter(|_| self.trainer.capacity(Kind::External).is_some())
        {
            streams.push(stream(EXTERNAL, external, Kind::External)?);
        }
        if self.trainer.capacity(Kind::Joint).is_some() {
            streams.push(stream(INTERNAL, &self.texts.train, Kind::Joint)?);
        }
        let internal = streams.len() - 1;
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
        let stage = Stage {
            number: 1,
            seed: self.progress.seed,
            steps: stage1.steps,
            accumulate: stage1.accumulate,
            clip_norm: clip(stage1.optimizer.clip),
            streams,
            schedule: Box::new(plan),
        };
        self.train(stage, stage1.eval_every, "stage 1", |repeat, result| {
            if let Some(loss) = result.mlm_loss {
                if repeat.progress.first.len() < ENDS {
                    repeat.progress.first.push(loss);
                }
                if repeat.progress.last.len() == ENDS {
                    repeat.progress.last.remove(0);
                }
                repeat.progress.last.push(loss);
            }
        })?;
        let dev = self.evaluate_dev()?.0;
        let progress = &mut self.progress;
        let mean = |losses: &[f64]| (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64);
        progress.stage1 = Stage1Report {
            steps: progress.step,
            tokens: progress.tokens,
            mlm_loss_first: mean(&progress.first),
            mlm_loss_last: mean(&progress.last),
            dev: Some(dev),
            seconds: progress.seconds,
            tokens_per_second: progress.tokens as f64 / progress.seconds.max(1e-9),
        };
        Ok(())
    }

    /// From stage 1's weights to the start of stage 2: the task head anew, the moments zero.
    ///
    /// # Errors
    /// Writing and device failures.
    pub fn begin_stage2(&mut self) -> Result<(), TlmError> {
        let mut state = self.trainer.download_state(None)?;
        // The head's second initial values come from another seed than its first.
        let seed = self.progress.seed ^ (2 << 32);
        let head = |name: &str| name.starts_with("classifier.");
        initial_values(
            self.trainer.config(),
            self.trainer.params(),
            seed,
            &mut state.params,
            head,
        );
        state.moment1.fill(0.0);
        state.moment2.fill(0.0);
        self.trainer.upload(&state)?;
        self.progress = Progress {
            stage: 2,
            step: 0,
            tokens: 0,
            seconds: 0.0,
            best: None,
            ..self.progress.clone()
        };
        self.best = None;
        self.save()
    }

    /// Stage 2 to its end, then the test with the best parameters.
    ///
    /// # Errors
    /// As [`Repeat::stage1`].
    pub fn stage2(&mut self) -> Result<(), TlmError> {
        let (config, stage2) = (self.config, &self.config.stage2);
        if stage2.steps == 0 {
            return Ok(());
        }
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
        let stage = Stage {
            number: 2,
            seed: self.progress.seed,
            steps: stage2.steps,
            accumulate: stage2.accumulate,
            clip_norm: clip(stage2.optimizer.clip),
            streams,
            schedule: Box::new(plan),
        };
        self.train(stage, stage2.eval_every, "stage 2", |_, _| ())
    }

    /// Scores of the best parameters on the test set.
    ///
    /// # Errors
    /// Device failures.
    pub fn test(&mut self) -> Result<TestReport, TlmError> {
        if let Some(best) = &self.best {
            self.trainer.upload_params(best)?;
        }
        let confusion = self.confusion(&Arc::clone(&self.texts.test))?.0;
        Ok(TestReport::of(&confusion, self.config.task.metric))
    }

    /// The report of the repeat.
    pub fn report(&self, test: TestReport) -> RepeatReport {
        RepeatReport {
            seed: self.progress.seed,
            stage1: self.progress.stage1.clone(),
            stage2: Stage2Report {
                steps: if self.config.stage2.steps > 0 {
                    self.progress.step
                } else {
                    0
                },
                best_dev: self.progress.best.map(|(score, _)| score),
                best_step: self.progress.best.map(|(_, step)| step),
                seconds: if self.config.stage2.steps > 0 {
                    self.progress.seconds
                } else {
                    0.0
                },
            },
            test,
        }
    }

    /// Runs the rest of a stage.
    fn train(
        &mut self,
        stage: Stage,
        eval_every: u64,
        name: &str,
        mut after: impl FnMut(&mut Self, &StepResult),
    ) -> Result<(), TlmError> {
        let run = &self.config.run;
        let (steps, number) = (stage.steps, stage.number);
        let (log_every, save_every) = (run.log_every.max(1), run.save_every);
        let seeds = if run.seeds > 1 {
            format!(", seed {}", stage.seed)
        } else {
            String::new()
        };
        self.observer
            .begin(&format!("{name}{seeds}"), steps, self.progress.step, Unit::Steps);
        let before = self.progress.seconds;
        let mut feed: Feed = self.trainer.feed(stage, self.progress.step)?;
        let begun = Instant::now();
        let mut shown = (Instant::now(), self.progress.tokens);
        let mut loss = String::new();
        while let Some(result) = self.trainer.step(&mut feed)? {
            let done = result.step + 1;
            self.progress.step = done;
            self.progress.tokens += result.tokens;
            self.progress.seconds = before + begun.elapsed().as_secs_f64();
            self.progress.flops[0] += result.needed as f64;
            self.progress.flops[1] += result.executed as f64;
            after(self, &result);
            let rate = (self.progress.tokens - shown.1) as f64 / shown.0.elapsed().as_secs_f64().max(1e-9);
            if done.is_multiple_of(log_every) || done == steps {
                loss = describe(&result, rate);
                self.log(&result, number, rate)?;
                shown = (Instant::now(), self.progress.tokens);
            }
            self.observer.advance(done, &loss);
            if number == 2 && (done.is_multiple_of(eval_every.max(1)) || done == steps) {
                self.evaluate_and_keep(done)?;
            } else if number == 1 && eval_every > 0 && done.is_multiple_of(eval_every) {
                let (score, loss) = self.evaluate_dev()?;
                self.log_dev(number, done, score, loss)?;
            }
            let stop = self.stop.load(Ordering::Relaxed);
            if stop || (save_every > 0 && done.is_multiple_of(save_every)) || done == steps {
                self.save()?;
            }
            if stop {
                self.observer.end();
                return Err(TlmError::Interrupted(self.directory.root().to_path_buf()));
            }
        }
        self.observer.end();
        let waited = feed.waited().as_secs_f64();
        let spent = begun.elapsed().as_secs_f64();
        if waited > 0.02 * spent && spent > 1.0 {
            self.observer
                .note(&format!("{name} waited {waited:.1} s of {spent:.1} s for data"));
        }
        Ok(())
    }

    fn evaluate_and_keep(&mut self, done: u64) -> Result<(), TlmError> {
        let (score, loss) = self.evaluate_dev()?;
        self.log_dev(2, done, score, loss)?;
        if self.progress.best.is_none_or(|(best, _)| score > best) {
            self.progress.best = Some((score, done));
            self.best = Some(self.trainer.download_params()?);
        }
        Ok(())
    }

    /// Score in the task's metric and mean loss on the development set.
    fn evaluate_dev(&mut self) -> Result<(f64, f64), TlmError> {
        let (confusion, loss) = self.confusion(&Arc::clone(&self.texts.dev))?;
        Ok((confusion.scores().get(self.config.task.metric), loss))
    }

    fn confusion(&mut self, texts: &Arc<Sequences>) -> Result<(Confusion, f64), TlmError> {
        let classes = self.trainer.config().labels.len();
        let logits = self.trainer.logits(texts)?;
        let predicted = predictions(&logits, classes);
        let confusion = Confusion::count(texts.labels(), &predicted, classes)
            .map_err(|error| TlmError::Refused(error.to_string()))?;
        let losses = logits
            .chunks_exact(classes.max(1))
            .zip(texts.labels())
            .map(|(row, &label)| {
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = row.iter().map(|&x| libm::exp(f64::from(x - most))).sum();
                libm::log(sum) - f64::from(row[label as usize] - most)
            });
        let loss = losses.sum::<f64>() / texts.len().max(1) as f64;
        Ok((confusion, loss))
    }

    fn log(&mut self, result: &StepResult, stage: u8, rate: f64) -> Result<(), TlmError> {
        let kind = match result.kind {
            Kind::External => Some(StepKind::External),
            Kind::Joint => Some(StepKind::Internal),
            Kind::Finetune | Kind::Evaluate => None,
        };
        let row = MetricsRow {
            seed: self.progress.seed,
            stage,
            step: self.progress.step,
            kind,
            mlm_loss: result.mlm_loss,
            task_loss: result.task_loss,
            learning_rate: Some(result.learning_rate),
            gradient_norm: Some(result.gradient_norm),
            tokens: Some(self.progress.tokens),
            tokens_per_second: Some(rate),
            seconds: self.progress.seconds,
            ..MetricsRow::default()
        };
        self.observer
            .row(&row)
            .map_err(TlmError::io("cannot write metrics.jsonl"))
    }

    fn log_dev(&mut self, stage: u8, step: u64, score: f64, loss: f64) -> Result<(), TlmError> {
        let row = MetricsRow {
            seed: self.progress.seed,
            stage,
            step,
            dev_score: Some(score),
            dev_loss: Some(loss),
            seconds: self.progress.seconds,
            ..MetricsRow::default()
        };
        self.observer
            .row(&row)
            .map_err(TlmError::io("cannot write metrics.jsonl"))
    }

    fn save(&mut self) -> Result<(), TlmError> {
        let state = self.trainer.download_state(self.best.clone())?;
        let path = self.directory.file(&checkpoint_name(self.progress.seed));
        Ok(checkpoint::write(&path, &state, &self.progress)?)
    }
}

/// A configured clipping norm as the device has it.
fn clip(norm: f64) -> f32 {
    if norm > 0.0 { norm as f32 } else { f32::INFINITY }
}

/// The step in a few words.
fn describe(result: &StepResult, rate: f64) -> String {
    let mut parts = Vec::new();
    if let Some(loss) = result.mlm_loss {
        parts.push(format!("mlm {loss:.3}"));
    }
    if let Some(loss) = result.task_loss {
        parts.push(format!("task {loss:.3}"));
    }
    parts.push(format!("norm {:.2}, {rate:.0} tokens/s", result.gradient_norm));
    parts.join(", ")
}
