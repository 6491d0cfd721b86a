//! The main job: from texts to a tested classifier.
//!
//! ```text
//! task texts --BM25--> selected passages --+--> tokenizer --> stage 1 (joint) --> stage 2 (task) --> test --> model/
//!      +-----------------------------------+
//! ```
//!
//! `prepare` makes the texts ready, [`Repeat`] trains on them, once for each seed, `outcome` sums up. Every step leaves
//! its result in the [`RunDirectory`]; a run that was stopped or killed goes on from the last of them.

mod outcome;
mod prepare;
mod profile;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::TlmError;
use super::config::Config;
use super::directory::{METRICS_LOG, MODEL, RunDirectory, TOKENIZER};
use super::model;
use super::objective::{HeadOnExternal, head_gain};
use super::observer::Observer;
use super::outcome::{Report, StageSeconds, TestReport};
use super::repeat::{Finished, Progress, Repeat, checkpoint_name, finished_name};
use super::sizes;
use crate::cost::Ceilings;
use crate::data::{Fields, Masking, Task, TaskFiles};
use crate::device::choice::DeviceChoice;
use crate::device::open::Target;
use crate::hub::{self, ModelDirectory};
use crate::train::checkpoint;
use crate::train::trainer::Trainer;
use outcome::Sums;
use prepare::Prepared;
pub use profile::{ProfileReport, ProfileRequest, profile};

/// Runs of which the best counts as a ceiling.
const CEILING_ROUNDS: usize = 3;

/// How a run is to be carried out.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Run directory.
    pub directory: PathBuf,
    /// Go on with the run in the directory.
    pub resume: bool,
    /// Device.
    pub device: DeviceChoice,
    /// Set by a signal: save and stop.
    pub stop: Arc<AtomicBool>,
}

/// Which stages a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stages {
    /// Both, and the test.
    All,
    /// Selection and stage 1.
    First,
}

/// The whole job.
///
/// # Errors
/// [`TlmError`]; its kind says whether the input was at fault or the run was interrupted and saved.
pub fn run(config: &Config, options: &RunOptions, observer: &mut dyn Observer) -> Result<Report, TlmError> {
    Job::begin(config, None, options, observer)?.carry_out(Stages::All)
}

/// Selection and stage 1 alone; `model/` is stage 1's model of the first seed. [`run`] and [`finetune`] can go on from
/// there.
///
/// # Errors
/// As [`run`]; [`TlmError::Refused`] for a configuration without stage 1.
pub fn train(config: &Config, options: &RunOptions, observer: &mut dyn Observer) -> Result<Report, TlmError> {
    if config.stage1.steps == 0 {
        let message = "stage1.steps = 0: there is nothing to train; `tlm run` and `tlm finetune` do stage 2";
        return Err(TlmError::Refused(message.to_owned()));
    }
    Job::begin(config, None, options, observer)?.carry_out(Stages::First)
}

/// Stage 2 and the test: from the encoder of the model directory `model`, in a run directory of its own; or without one,
/// in the directory of a run whose stage 1 is done, where it goes on as [`run`] would.
///
/// # Errors
/// As [`run`]; [`TlmError::Refused`] for a model that does not fit the configuration, or a directory in which stage 1 is
/// not done.
pub fn finetune(
    config: &Config,
    model: Option<&Path>,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Report, TlmError> {
    if config.stage2.steps == 0 {
        let message = "stage2.steps = 0: there is nothing to fine-tune; give stage 2 some steps";
        return Err(TlmError::Refused(message.to_owned()));
    }
    if model.is_some() {
        return Job::begin(config, model, options, observer)?.carry_out(Stages::All);
    }
    let options = RunOptions {
        resume: true,
        ..options.clone()
    };
    let at = options.directory.display();
    if !options.directory.is_dir() {
        return Err(TlmError::Refused(format!(
            "there is no run in {at}: do stage 1 there with `tlm train`, or name a model with --model"
        )));
    }
    let job = Job::begin(config, None, &options, observer)?;
    if let Some(seed) = job.seed_in_stage1()? {
        return Err(TlmError::Refused(format!(
            "stage 1 of seed {seed} is not done in {at}: go on with `tlm train --resume`, or name a model with --model"
        )));
    }
    job.carry_out(Stages::All)
}

/// A run under way.
struct Job<'a> {
    config: &'a Config,
    options: &'a RunOptions,
    observer: &'a mut dyn Observer,
    directory: RunDirectory,
    target: Target,
    /// What stage 2 alone starts from.
    model: Option<(&'a Path, ModelDirectory)>,
    task: Task,
    begun: Instant,
    seconds: Vec<StageSeconds>,
    /// Seconds that earlier processes spent on what is used again.
    earlier: f64,
    notes: Vec<String>,
}

impl<'a> Job<'a> {
    /// Reads the input and looks at the directory; nothing is written.
    fn begin(
        config: &'a Config,
        model: Option<&'a Path>,
        options: &'a RunOptions,
        observer: &'a mut dyn Observer,
    ) -> Result<Job<'a>, TlmError> {
        let begun = Instant::now();
        // What is asked for and not there is found before the work.
        sizes::batches(config)?;
        let target = Target::of(options.device)?;
        target.precision(config.model.precision)?;
        let files = TaskFiles {
            train: config.task.train.clone(),
            dev: config.task.dev.clone(),
            test: config.task.test.clone(),
        };
        let fields = Fields {
            text: config.task.text_column.clone(),
            label: config.task.label_column.clone(),
            ..Fields::default()
        };
        let task = Task::read(&files, &fields)?;
        let opened = model.map(hub::open).transpose()?;
        if let (Some(path), Some(opened)) = (model, &opened) {
            let (length, most) = (config.model.max_length, opened.config.max_position_embeddings);
            if length > most {
                return Err(TlmError::Refused(format!(
                    "{} has {most} positions: set model.max_length = {length} to at most that",
                    path.display()
                )));
            }
        }
        let directory = RunDirectory::claim(&options.directory, config, model, options.resume)?;
        let mut job = Job {
            config,
            options,
            observer,
            directory,
            target,
            model: model.zip(opened),
            task,
            begun,
            seconds: Vec::new(),
            earlier: 0.0,
            notes: Vec::new(),
        };
        let [train, dev, test] = job.task.empty;
        if train + dev + test > 0 {
            job.note(format!(
                "empty texts left out with their labels: train {train}, dev {dev}, test {test}"
            ));
        }
        if !job.task.test_in_train.is_empty() {
            let count = job.task.test_in_train.len();
            job.note(format!(
                "{count} of {} test texts also stand in train",
                job.task.test.len()
            ));
        }
        Ok(job)
    }

    fn carry_out(mut self, stages: Stages) -> Result<Report, TlmError> {
        let (stage1, rho1) = (&self.config.stage1, self.config.rho1());
        if self.model.is_none() && stage1.steps > rho1 && rho1 > 0 && stage1.head_on_external == HeadOnExternal::Zero {
            let gain = head_gain(rho1, stage1.optimizer.beta2);
            self.note(format!(
                "stage1.head_on_external = \"zero\": with rho1 = {rho1} an internal step moves the task head by up to \
                 {gain:.1} times the learning rate"
            ));
        }
        let places = self.places()?;
        let prepared = self.prepare()?;
        let log = self.directory.file(METRICS_LOG);
        let places = self.options.resume.then_some(places.as_slice());
        self.observer
            .log_to(&log, places)
            .map_err(TlmError::io("cannot begin the log"))?;
        self.repeats(prepared, stages)
    }

    /// Where each repeat stands that an earlier process began: (seed, stage, steps done).
    fn places(&self) -> Result<Vec<(u64, u8, u64)>, TlmError> {
        let mut places = Vec::new();
        for seed in self.config.seeds().filter(|_| !self.directory.is_new()) {
            let path = self.directory.file(&checkpoint_name(seed));
            if self.directory.file(&finished_name(seed)).is_file() {
                places.push((seed, 2, u64::MAX));
            } else if path.is_file() {
                let progress: Progress = checkpoint::read_progress(&path)?;
                places.push((seed, progress.stage, progress.step));
            }
        }
        Ok(places)
    }

    /// The first seed whose stage 1 is not done.
    fn seed_in_stage1(&self) -> Result<Option<u64>, TlmError> {
        let (places, steps) = (self.places()?, self.config.stage1.steps);
        let done = |seed: u64| {
            let place = places.iter().find(|place| place.0 == seed);
            steps == 0 || place.is_some_and(|&(_, stage, step)| stage == 2 || step >= steps)
        };
        Ok(self.config.seeds().find(|&seed| !done(seed)))
    }

    fn note(&mut self, text: String) {
        self.observer.note(&text);
        self.notes.push(text);
    }

    fn timed(&mut self, name: &str, since: Instant) {
        self.seconds.push(StageSeconds {
            name: name.to_string(),
            seconds: since.elapsed().as_secs_f64(),
        });
    }

    /// What the device can do at most, for the shares in the log.
    fn ceilings(&mut self) -> Option<Ceilings> {
        if self.target.is_null() {
            return None;
        }
        let measured = Ceilings::measure(&self.target, self.config.model.precision, CEILING_ROUNDS);
        if let Err(error) = &measured {
            self.note(format!("no shares of what the device can do: {error}"));
        }
        measured.ok()
    }

    /// All repeats, then the report.
    fn repeats(mut self, prepared: Prepared, stages: Stages) -> Result<Report, TlmError> {
        let config = self.config;
        let plans = match self.model {
            Some(_) => sizes::finetune_batches(config)?,
            None => sizes::batches(config)?,
        };
        let plans: Vec<_> = plans
            .into_iter()
            .map(|plan| (plan.kind, plan.capacity, plan.form))
            .collect();
        let ceilings = self.ceilings();
        let (optimizers, set) = sizes::optimizers(config);
        let precision = config.model.precision;
        let mut trainer = Trainer::on(&self.target, &prepared.bert, &plans, &optimizers, precision)?;
        self.note(format!("device: {}", trainer.decision));
        trainer.set_ceilings(ceilings);
        let encoder = self
            .model
            .as_ref()
            .map(|(_, model)| model::encoder_values(model, trainer.params()));
        let encoder = encoder.transpose()?;
        let special = prepared.tokenizer.special();
        let masking = Masking::new(config.stage1.mask_rate, special, prepared.tokenizer.vocab_size())?;
        let mut finished = Vec::new();
        let mut tested = 0.0;
        for seed in config.seeds() {
            if let Some(done) = self.directory.read_json::<Finished>(&finished_name(seed))? {
                self.earlier += done.report.stage1.seconds + done.report.stage2.seconds;
                finished.push(done);
                continue;
            }
            let mut repeat = Repeat {
                config,
                trainer: &mut trainer,
                texts: &prepared.texts,
                directory: &self.directory,
                masking,
                optimizers: set,
                stop: &self.options.stop,
                observer: self.observer,
                progress: Progress::default(),
                best: None,
            };
            repeat.start(seed, encoder.as_deref())?;
            self.earlier += repeat.progress.stage1.seconds + repeat.progress.seconds;
            if repeat.progress.stage == 1 {
                repeat.stage1()?;
            }
            let mut scores = TestReport::default();
            if stages == Stages::All {
                // Without stage 2 the head that stage 1 trained is the one to be tested.
                if config.stage2.steps > 0 {
                    if repeat.progress.stage == 1 {
                        repeat.begin_stage2()?;
                    }
                    repeat.stage2()?;
                }
                let since = Instant::now();
                scores = repeat.test()?;
                tested += since.elapsed().as_secs_f64();
            }
            let done = Finished {
                report: repeat.report(scores),
                flops: repeat.progress.flops,
                profile: repeat.progress.profile.clone(),
            };
            if finished.is_empty() {
                let tokenizer = self.directory.file(TOKENIZER);
                model::save(&self.directory.file(MODEL), &mut trainer, &tokenizer)?;
            }
            if stages == Stages::All {
                self.directory.write_json(&finished_name(seed), &done)?;
            }
            finished.push(done);
        }
        let sums = Sums {
            bert: &prepared.bert,
            select: prepared.select,
            parameters: trainer.params().parameters(),
            device: trainer.decision.clone(),
            planned_bytes: trainer.planned_bytes,
            tested,
        };
        Ok(self.report(finished, sums))
    }
}
