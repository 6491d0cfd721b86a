//! The steps of a stage with everything around them: log, evaluation, checkpoints, stopping.
//!
//! An evaluation comes before the checkpoint of the same step, so that a resumed run does not repeat it.

use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Progress, Repeat, checkpoint_name};
use crate::bert::plans::Kind;
use crate::tlm::TlmError;
use crate::tlm::objective::StepKind;
use crate::tlm::observer::Unit;
use crate::tlm::outcome::MetricsRow;
use crate::train::StepResult;
use crate::train::checkpoint;
use crate::train::feed::Stage;

/// Losses of this many steps at either end of stage 1 are averaged for the report.
const ENDS: usize = 50;
/// Share of a stage's time spent waiting for data that is worth a note.
const WAITED: f64 = 0.02;
/// What fails when the log cannot be written.
const LOGGING: &str = "the step cannot be logged";

impl Repeat<'_> {
    /// Runs the rest of a stage: steps, log, evaluations every `eval_every` steps (0: none) and at the end, checkpoints.
    ///
    /// # Errors
    /// [`TlmError::Interrupted`] after saving; training and device failures.
    pub(super) fn train(&mut self, stage: Stage, eval_every: u64) -> Result<(), TlmError> {
        let run = &self.config.run;
        let (steps, number) = (stage.steps, stage.number);
        let every = |period: u64, done: u64| period > 0 && done.is_multiple_of(period);
        let work = format!("stage {number}{}", self.of_seed());
        self.observer.begin(&work, steps, self.progress.step, Unit::Steps);
        let before = self.progress.seconds;
        let mut feed = self.trainer.feed(stage, self.progress.step)?;
        let begun = Instant::now();
        // Since when and which token the logged rate counts; evaluations and checkpoints are left out.
        let mut counted = (Instant::now(), self.progress.tokens);
        let mut message = String::new();
        let stopping = self.stop;
        // Behind these steps parameters are read, or nothing comes any more.
        let pauses = |done: u64| {
            let asked = stopping.load(Ordering::Relaxed);
            asked || every(eval_every, done) || every(run.save_every, done) || done == steps
        };
        while let Some(result) = self.trainer.step(&mut feed, pauses)? {
            let done = result.step + 1;
            self.progress.count(&result);
            self.progress.seconds = before + begun.elapsed().as_secs_f64();
            let last = done == steps;
            if every(run.log_every, done) || last {
                let rate = (self.progress.tokens - counted.1) as f64 / counted.0.elapsed().as_secs_f64().max(1e-9);
                message = describe(&result, rate);
                self.log(&result, number, rate)?;
                counted = (Instant::now(), self.progress.tokens);
            }
            self.observer.advance(done, &message);
            let paused = Instant::now();
            if every(eval_every, done) || last {
                self.observer.advance(done, "evaluating on dev");
                self.evaluate(number, done)?;
                self.observer.advance(done, &message);
            }
            let stop = stopping.load(Ordering::Relaxed) && self.trainer.idle();
            if stop || every(run.save_every, done) || last {
                self.progress.seconds = before + begun.elapsed().as_secs_f64();
                self.save()?;
            }
            if stop {
                self.observer.end();
                return Err(TlmError::Interrupted(self.directory.root().to_path_buf()));
            }
            counted.0 += paused.elapsed();
        }
        self.observer.end();
        let (waited, spent) = (feed.waited().as_secs_f64(), begun.elapsed().as_secs_f64());
        if waited > WAITED * spent && spent > 1.0 {
            self.observer
                .note(&format!("{work} waited {waited:.1} s of {spent:.1} s for data"));
        }
        Ok(())
    }

    /// Scores the parameters on the development set; stage 2 keeps the best.
    fn evaluate(&mut self, stage: u8, done: u64) -> Result<(), TlmError> {
        let (score, loss) = self.evaluate_dev()?;
        self.log_dev(stage, done, score, loss)?;
        if stage == 1 {
            self.progress.stage1.dev = Some(score);
        } else if self.progress.best.is_none_or(|(best, _)| score > best) {
            self.progress.best = Some((score, done));
            self.best = Some(self.trainer.download_params()?);
        }
        Ok(())
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
            time: unix_time(),
            ..MetricsRow::default()
        };
        self.observer.row(&row).map_err(TlmError::io(LOGGING))
    }

    fn log_dev(&mut self, stage: u8, step: u64, score: f64, loss: f64) -> Result<(), TlmError> {
        let row = MetricsRow {
            seed: self.progress.seed,
            stage,
            step,
            dev_score: Some(score),
            dev_loss: Some(loss),
            seconds: self.progress.seconds,
            time: unix_time(),
            ..MetricsRow::default()
        };
        self.observer.row(&row).map_err(TlmError::io(LOGGING))
    }

    /// Writes the checkpoint.
    ///
    /// # Errors
    /// Writing and device failures.
    pub(super) fn save(&mut self) -> Result<(), TlmError> {
        self.progress.loss_scale = self.trainer.loss_scale().cloned();
        let step = self.progress.step;
        let moments = self.trainer.download_moments()?;
        // Where this step is the best so far, its parameters are here already.
        let here = self.progress.best.is_some_and(|(_, best)| best == step);
        let now = match (here, &self.best) {
            (true, Some(_)) => None,
            _ => Some(self.trainer.download_params()?),
        };
        let params = now.as_deref().or(self.best.as_deref()).unwrap_or_default();
        let path = self.directory.file(&checkpoint_name(self.progress.seed));
        checkpoint::write(&path, params, &moments, self.best.as_deref(), &self.progress).map_err(TlmError::Unsaved)
    }
}

impl Progress {
    /// Takes a step into account.
    fn count(&mut self, result: &StepResult) {
        self.step = result.step + 1;
        self.tokens += result.tokens;
        self.flops[0] += result.needed as f64;
        self.flops[1] += result.executed as f64;
        if let Some(loss) = result.mlm_loss {
            if self.first.len() < ENDS {
                self.first.push(loss);
            }
            if self.last.len() == ENDS {
                self.last.remove(0);
            }
            self.last.push(loss);
        }
    }
}

/// Seconds since 1970.
fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
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
    match result.gradient_norm.is_finite() {
        true => parts.push(format!("norm {:.2}", result.gradient_norm)),
        false => parts.push("skipped (the scaled gradients overflowed)".to_owned()),
    }
    parts.push(format!("{rate:.0} tokens/s"));
    parts.join(", ")
}
