//! One repeat of the method: stage 1, stage 2, test, with checkpoints.
//!
//! ```text
//! initialise(seed) -> stage 1: E E ... I, joint loss -> head anew, moments zero -> stage 2: task alone -> best dev -> test
//! ```
//!
//! [`Progress`] is what a checkpoint knows beside the weights. Data order, masks, dropout and initial values follow from
//! (seed, stage, step), so a repeat that is killed anywhere and resumed ends with the same bits.
//!
//! `stages` says what each step of a stage does, `training` runs the steps.

mod progress;
mod stages;
mod training;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::TlmError;
use super::config::Config;
use super::directory::RunDirectory;
use super::observer::{Observer, Unit};
use super::outcome::{RepeatReport, Stage2Report, TestReport};
use super::sizes::OptimizerSet;
use crate::bert::initial_values;
use crate::data::{Masking, Sequences};
use crate::train::checkpoint::{self, State};
use crate::train::classifier::{mean_loss, predictions};
use crate::train::metrics::Confusion;
use crate::train::trainer::Trainer;

pub use progress::{Finished, Progress, checkpoint_name, finished_name};

/// Prefix of the task head's parameters.
const TASK_HEAD: &str = "classifier.";

/// The encoded texts of a run.
pub struct Texts {
    /// Selected passages; empty where the method takes none.
    pub external: Arc<Sequences>,
    /// Training texts with labels.
    pub train: Arc<Sequences>,
    /// Development texts with labels.
    pub dev: Arc<Sequences>,
    /// Test texts with labels.
    pub test: Arc<Sequences>,
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
    pub masking: Masking,
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

impl Repeat<'_> {
    /// Starts from the initial values of a seed, or goes on from its checkpoint if there is one.
    ///
    /// # Errors
    /// A checkpoint that cannot be used; device failures.
    pub fn start(&mut self, seed: u64, encoder: Option<&[f32]>) -> Result<(), TlmError> {
        let path = self.directory.file(&checkpoint_name(seed));
        if path.is_file() {
            let (state, progress): (State, Progress) = checkpoint::read(&path, self.trainer.params().words())?;
            self.trainer.upload(&state.params, &state.moments)?;
            self.trainer.set_loss_scale(progress.loss_scale.clone());
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
            |name| all || name.starts_with(TASK_HEAD),
        );
        self.trainer.upload(&params, &[vec![0.0; words], vec![0.0; words]])?;
        self.trainer.set_loss_scale(None);
        let stage = if all && self.config.stage1.steps > 0 { 1 } else { 2 };
        self.progress = Progress {
            seed,
            stage,
            ..Progress::default()
        };
        self.best = None;
        Ok(())
    }

    /// From stage 1's weights to the start of stage 2: the task head anew, the moments zero.
    ///
    /// # Errors
    /// Writing and device failures.
    pub fn begin_stage2(&mut self) -> Result<(), TlmError> {
        let mut params = self.trainer.download_params()?;
        // The head's second initial values come from another seed than its first.
        let seed = self.progress.seed ^ (2 << 32);
        let head = |name: &str| name.starts_with(TASK_HEAD);
        initial_values(self.trainer.config(), self.trainer.params(), seed, &mut params, head);
        let words = params.len();
        self.trainer.upload(&params, &[vec![0.0; words], vec![0.0; words]])?;
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

    /// Scores of the best parameters on the test set.
    ///
    /// # Errors
    /// Device failures.
    pub fn test(&mut self) -> Result<TestReport, TlmError> {
        if let Some(best) = &self.best {
            self.trainer.upload_params(best)?;
        }
        let texts = Arc::clone(&self.texts.test);
        let work = format!("testing{}", self.of_seed());
        self.observer.begin(&work, texts.len() as u64, 0, Unit::Texts);
        let observer = &mut *self.observer;
        let logits = self
            .trainer
            .logits(&texts, &mut |done| observer.advance(done as u64, ""))?;
        self.observer.end();
        Ok(TestReport::of(
            &self.confusion(&texts, &logits)?,
            self.config.task.metric,
        ))
    }

    /// The report of the repeat.
    pub fn report(&self, test: TestReport) -> RepeatReport {
        let in_stage2 = self.progress.stage == 2;
        RepeatReport {
            seed: self.progress.seed,
            stage1: self.progress.stage1.clone(),
            stage2: Stage2Report {
                steps: if in_stage2 { self.progress.step } else { 0 },
                best_dev: self.progress.best.map(|(score, _)| score),
                best_step: self.progress.best.map(|(_, step)| step),
                seconds: if in_stage2 { self.progress.seconds } else { 0.0 },
            },
            test,
        }
    }

    /// Score in the task's metric and mean loss on the development set.
    fn evaluate_dev(&mut self) -> Result<(f64, f64), TlmError> {
        let texts = Arc::clone(&self.texts.dev);
        let logits = self.trainer.logits(&texts, &mut |_| ())?;
        let score = self.confusion(&texts, &logits)?.scores().get(self.config.task.metric);
        Ok((
            score,
            mean_loss(&logits, texts.labels(), self.trainer.config().labels.len()),
        ))
    }

    fn confusion(&self, texts: &Sequences, logits: &[f32]) -> Result<Confusion, TlmError> {
        let classes = self.trainer.config().labels.len();
        Confusion::count(texts.labels(), &predictions(logits, classes), classes)
            .map_err(|error| TlmError::Refused(error.to_string()))
    }

    /// `, seed 43` where there are several.
    fn of_seed(&self) -> String {
        match self.config.run.seeds {
            1 => String::new(),
            _ => format!(", seed {}", self.progress.seed),
        }
    }
}
