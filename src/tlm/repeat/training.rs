//! The steps of a stage with everything around them: log, evaluation, checkpoints, stopping.
//!
//! An evaluation comes before the checkpoint of the same step, so that a resumed run does not repeat it.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Progress, Repeat, checkpoint_name};
use crate::bert::plans::Kind;
use crate::cost::profile::{Profile, Steps};
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
/// Steps of stage 1 that are profiled for the report.
const PROFILED: u64 = 3;
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
        // What the logged rates are means of; evaluations and checkpoints are left out.
        let mut rates = Rates::new();
        let mut profiling = self.profiling(number, steps);
        let profiled = profiling.steps.clone();
        let mut message = String::new();
        let stopping = self.stop;
        // Behind these steps parameters are read, or nothing comes any more.
        let pauses = |done: u64| {
            let asked = stopping.load(Ordering::Relaxed);
            let profiled = !profiled.is_empty() && (profiled.start..=profiled.end).contains(&done);
            asked || profiled || every(eval_every, done) || every(run.save_every, done) || done == steps
        };
        loop {
            let start = Instant::now();
            let Some(result) = self.trainer.step(&mut feed, pauses)? else {
                break;
            };
            let done = result.step + 1;
            self.profile(&mut profiling, &result, start.elapsed());
            self.progress.count(&result);
            rates.count(&result);
            self.progress.seconds = before + begun.elapsed().as_secs_f64();
            let last = done == steps;
            if every(run.log_every, done) || last {
                let row = self.row(&result, number, &rates);
                message = describe(&row);
                self.observer.row(&row).map_err(TlmError::io(LOGGING))?;
                rates = Rates::new();
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
            rates.since += paused.elapsed();
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

    /// The steps of a stage that are profiled: three, once the first are over, of the first repeat.
    fn profiling(&self, stage: u8, steps: u64) -> Profiling {
        let first = (steps / 4).clamp(1, 20);
        let wanted = stage == 1 && self.progress.seed == self.config.run.seed && steps >= 2 * PROFILED;
        let can = self.trainer.ceilings().is_some() && self.progress.profile.is_none() && self.progress.step < first;
        Profiling {
            steps: if wanted && can { first..first + PROFILED } else { 0..0 },
            counts: Steps::default(),
            wall: Duration::ZERO,
        }
    }

    /// Begins a profile, takes a step of it into account, ends it. The bits of a step are the same with and without.
    fn profile(&mut self, profiling: &mut Profiling, result: &StepResult, took: Duration) {
        let done = result.step + 1;
        if profiling.steps.contains(&result.step) {
            profiling.counts.steps += 1;
            profiling.counts.tokens += result.tokens;
            profiling.counts.needed += result.needed;
            profiling.wall += took;
        }
        if profiling.steps.contains(&done) && done == profiling.steps.start && self.trainer.idle() {
            self.trainer.begin_timeline();
        }
        if done == profiling.steps.end
            && let Some(timeline) = self.trainer.end_timeline()
        {
            let (device, ceilings) = (&self.trainer.decision, self.trainer.ceilings());
            let profile = Profile::of(&timeline, device, profiling.counts, profiling.wall, ceilings);
            self.progress.profile = Some(profile);
        }
    }

    fn row(&self, result: &StepResult, stage: u8, rates: &Rates) -> MetricsRow {
        let kind = match result.kind {
            Kind::External => Some(StepKind::External),
            Kind::Joint => Some(StepKind::Internal),
            Kind::Finetune | Kind::Evaluate => None,
        };
        let seconds = rates.since.elapsed().as_secs_f64().max(1e-9);
        let ceilings = self.trainer.ceilings();
        let flops = rates.needed as f64 / seconds;
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        MetricsRow {
            seed: self.progress.seed,
            stage,
            step: self.progress.step,
            kind,
            mlm_loss: result.mlm_loss,
            task_loss: result.task_loss,
            learning_rate: Some(result.learning_rate),
            gradient_norm: Some(result.gradient_norm),
            tokens: Some(self.progress.tokens),
            tokens_per_second: Some(rates.tokens as f64 / seconds),
            model_flops_per_second: Some(flops),
            mfu: ceilings.map(|ceilings| flops / ceilings.peak()),
            speed_of_light: ceilings.map(|_| rates.floor / seconds),
            padding_efficiency: share(rates.tokens, rates.padded),
            packing_efficiency: share(rates.tokens, rates.capacity),
            seconds: self.progress.seconds,
            time: unix_time(),
            ..MetricsRow::default()
        }
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

/// The step in a few words; rates are means since the line before.
fn describe(row: &MetricsRow) -> String {
    let mut parts = Vec::new();
    if let Some(loss) = row.mlm_loss {
        parts.push(format!("mlm {loss:.3}"));
    }
    if let Some(loss) = row.task_loss {
        parts.push(format!("task {loss:.3}"));
    }
    match row.gradient_norm {
        Some(norm) if norm.is_finite() => parts.push(format!("norm {norm:.2}")),
        _ => parts.push("skipped (the scaled gradients overflowed)".to_owned()),
    }
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    parts.extend(row.learning_rate.map(|rate| format!("lr {rate:.2e}")));
    parts.extend(row.tokens_per_second.map(|rate| format!("{rate:.0} tokens/s")));
    parts.extend(
        row.model_flops_per_second
            .map(|rate| format!("{:.1} GFLOP/s", rate / 1e9)),
    );
    parts.extend(row.mfu.map(|share| format!("MFU {}", percent(share))));
    parts.extend(
        row.speed_of_light
            .map(|share| format!("speed of light {}", percent(share))),
    );
    if let (Some(padding), Some(packing)) = (row.padding_efficiency, row.packing_efficiency) {
        parts.push(format!("padding {}, packing {}", percent(padding), percent(packing)));
    }
    parts.join(", ")
}

/// Sums over the steps since a line of the log.
struct Rates {
    since: Instant,
    tokens: u64,
    needed: u64,
    padded: u64,
    capacity: u64,
    floor: f64,
}

impl Rates {
    fn new() -> Rates {
        Rates {
            since: Instant::now(),
            tokens: 0,
            needed: 0,
            padded: 0,
            capacity: 0,
            floor: 0.0,
        }
    }

    fn count(&mut self, result: &StepResult) {
        self.tokens += result.tokens;
        self.needed += result.needed;
        self.padded += result.padded;
        self.capacity += result.capacity;
        self.floor += result.floor;
    }
}

/// A profile under way: its steps, 0-based, and what is known of those that are done.
struct Profiling {
    steps: Range<u64>,
    counts: Steps,
    wall: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_step_has_every_figure_and_leaves_out_what_was_not_measured() {
        let row = MetricsRow {
            mlm_loss: Some(6.9154),
            task_loss: Some(0.6234),
            learning_rate: Some(1e-3),
            gradient_norm: Some(1.234),
            tokens_per_second: Some(15_560.4),
            model_flops_per_second: Some(7.54e10),
            mfu: Some(0.334),
            speed_of_light: Some(0.412),
            padding_efficiency: Some(0.82),
            packing_efficiency: Some(0.79),
            ..MetricsRow::default()
        };
        assert_eq!(
            describe(&row),
            "mlm 6.915, task 0.623, norm 1.23, lr 1.00e-3, 15560 tokens/s, 75.4 GFLOP/s, MFU 33 %, speed of light 41 %, \
             padding 82 %, packing 79 %"
        );
        let bare = describe(&MetricsRow::default());
        assert_eq!(bare, "skipped (the scaled gradients overflowed)");
    }
}
