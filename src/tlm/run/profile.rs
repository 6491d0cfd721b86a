//! Real steps of a configuration, three times: as a run makes them, launch by launch, and as a run makes them.
//!
//! Selection, tokenizer and texts are those of a run, in a directory that is removed again. All passes start from the same
//! weights and see the same batches, so that their results must be equal to the bit; the profiled one is held against the mean
//! wall clock of those before and after it, in which a machine that slows down or speeds up cancels. Ceilings are measured
//! before and after all, and the better ones count.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Job, RunOptions};
use crate::cost::Ceilings;
use crate::cost::profile::{Profile, Steps};
use crate::cost::timeline::{Shows, Timeline, Track};
use crate::data::Masking;
use crate::device::choice::DeviceChoice;
use crate::tlm::TlmError;
use crate::tlm::config::Config;
use crate::tlm::observer::Observer;
use crate::tlm::repeat::{Progress, Repeat};
use crate::tlm::sizes;
use crate::train::StepResult;
use crate::train::trainer::Trainer;

/// Runs of which the best counts as a ceiling.
const CEILING_ROUNDS: usize = 7;

/// What is to be profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileRequest {
    /// Stage, 1 or 2.
    pub stage: u8,
    /// Steps that are profiled.
    pub steps: u64,
    /// Steps before them.
    pub warmup: u64,
    /// Device.
    pub device: DeviceChoice,
}

/// A profile, and the same steps without one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileReport {
    /// The profile.
    #[serde(flatten)]
    pub profile: Profile,
    /// Wall clock of the same steps without profiling, seconds: the mean of before and after.
    pub plain_wall: f64,
    /// Whether losses, norms and weights have the same bits with and without.
    pub same_bits: bool,
    /// Why there are no ceilings, if there are none.
    pub no_ceilings: Option<String>,
}

/// Profiles a configuration.
///
/// # Errors
/// As [`run`](super::run); [`TlmError::Refused`] for a stage without steps.
pub fn profile(
    config: &Config,
    request: &ProfileRequest,
    observer: &mut dyn Observer,
) -> Result<(ProfileReport, Timeline), TlmError> {
    let steps = [config.stage1.steps, config.stage2.steps][usize::from(request.stage == 2)];
    if steps == 0 {
        let stage = request.stage;
        return Err(TlmError::Refused(format!(
            "stage{stage}.steps = 0: there is no step to profile"
        )));
    }
    let directory = tempfile::tempdir().map_err(TlmError::io("cannot make a directory to profile in"))?;
    let options = RunOptions {
        directory: directory.path().join("profile"),
        resume: false,
        device: request.device,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let mut job = Job::begin(config, None, &options, observer)?;
    let prepared = job.prepare()?;
    let batches = match request.stage {
        1 => sizes::batches(config)?,
        _ => sizes::finetune_batches(config)?,
    };
    let batches: Vec<_> = batches
        .into_iter()
        .map(|plan| (plan.kind, plan.capacity, plan.form))
        .collect();
    let (optimizers, set) = sizes::optimizers(config);
    let (target, precision) = (job.target.clone(), config.model.precision);
    let before = Ceilings::measure(&target, precision, CEILING_ROUNDS);
    let mut trainer = Trainer::on(&target, &prepared.bert, &batches, &optimizers, precision)?;
    job.note(format!("device: {}", trainer.decision));
    let special = prepared.tokenizer.special();
    let mut repeat = Repeat {
        config,
        masking: Masking::new(config.stage1.mask_rate, special, prepared.tokenizer.vocab_size())?,
        trainer: &mut trainer,
        texts: &prepared.texts,
        directory: &job.directory,
        optimizers: set,
        stop: &options.stop,
        observer: job.observer,
        progress: Progress::default(),
        best: None,
    };
    let first = repeat.steps(request, false)?;
    let profiled = repeat.steps(request, true)?;
    let plain = [first, repeat.steps(request, false)?];
    let bits = |pass: &Pass| -> Vec<u32> { pass.weights.iter().map(|weight| weight.to_bits()).collect() };
    let device = trainer.decision.clone();
    drop(trainer);
    let measured = before.and_then(|before| {
        let after = Ceilings::measure(&target, precision, CEILING_ROUNDS)?;
        Ok(before.or_better(&after))
    });
    let (ceilings, no_ceilings) = match measured {
        Ok(ceilings) => (Some(ceilings), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let sum = |of: fn(&StepResult) -> u64| profiled.results.iter().map(of).sum();
    let steps = Steps {
        steps: profiled.results.len() as u64,
        tokens: sum(|result| result.tokens),
        needed: sum(|result| result.needed),
    };
    let report = ProfileReport {
        profile: Profile::of(&profiled.timeline, &device, steps, profiled.wall, ceilings),
        plain_wall: plain.iter().map(|pass| pass.wall.as_secs_f64()).sum::<f64>() / plain.len() as f64,
        same_bits: plain
            .iter()
            .all(|pass| pass.results == profiled.results && bits(pass) == bits(&profiled)),
        no_ceilings,
    };
    Ok((report, profiled.timeline))
}

/// What a pass over the steps left.
struct Pass {
    results: Vec<StepResult>,
    weights: Vec<f32>,
    wall: Duration,
    timeline: Timeline,
}

impl Repeat<'_> {
    /// Warm-up and steps from the initial weights.
    fn steps(&mut self, request: &ProfileRequest, profiled: bool) -> Result<Pass, TlmError> {
        self.start(self.config.run.seed, None)?;
        let mut stage = match request.stage {
            1 => self.joint_stage()?,
            _ => self.finetune_stage()?,
        };
        let (warmup, all) = (request.warmup, request.warmup + request.steps);
        stage.steps = all;
        let mut feed = self.trainer.feed(stage, 0)?;
        let pauses = |done| done == warmup || done == all;
        for _ in 0..warmup {
            self.trainer.step(&mut feed, pauses)?;
        }
        if profiled {
            self.trainer.begin_timeline();
        }
        let mut results = Vec::new();
        let mut spans = Vec::new();
        let begun = Instant::now();
        loop {
            let start = Instant::now();
            let Some(result) = self.trainer.step(&mut feed, pauses)? else {
                break;
            };
            spans.push((start, start.elapsed(), result.step));
            results.push(result);
            if results.len() as u64 == request.steps {
                break;
            }
        }
        let wall = begun.elapsed();
        let mut timeline = self.trainer.end_timeline().unwrap_or_default();
        for (start, length, step) in spans.into_iter().filter(|_| profiled) {
            timeline.span(Track::Steps, start, length, Shows::Step(step));
        }
        Ok(Pass {
            results,
            weights: self.trainer.download_params()?,
            wall,
            timeline,
        })
    }
}
