//! The main job: from texts to a tested classifier.
//!
//! ```text
//! task texts --BM25--> selected passages --+--> tokenizer --> stage 1 (joint) --> stage 2 (task) --> test --> model/
//!      +-----------------------------------+
//! ```
//!
//! Every step leaves its result in the [`RunDirectory`]; a run that was stopped or killed goes on from the last of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::TlmError;
use super::config::Config;
use super::directory::RunDirectory;
use super::observer::{Observer, Unit};
use super::outcome::{
    FlopsReport, MemoryReport, ModelReport, Report, SelectReport, SelectedPassage, Stage1Report, StageSeconds,
    TestReport,
};
use super::repeat::{Finished, Progress, Repeat, Texts, checkpoint_name, finished_name};
use super::select::{External, read_selected, select_external, write_selected};
use super::sizes;
use crate::data::{Fields, LongTexts, Masking, Sequences, Task, TaskFiles, Tokenizer, VocabularySettings, WordCounts};
use crate::device::choice::DeviceChoice;
use crate::hub::{self, BertConfig};
use crate::train::checkpoint;
use crate::train::trainer::Trainer;

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

/// Name of the log in a run directory.
const LOG: &str = "metrics.jsonl";
const SELECTED: &str = "selected.jsonl";
const SELECT_REPORT: &str = "checkpoints/select.json";
const TOKENIZER: &str = "checkpoints/tokenizer.json";

/// The whole job.
///
/// # Errors
/// [`TlmError`]; its kind says whether the input was at fault or the run was interrupted and saved.
pub fn run(config: &Config, options: &RunOptions, observer: &mut dyn Observer) -> Result<Report, TlmError> {
    let mut job = Job::begin(config, options, observer)?;
    let prepared = job.prepare(None)?;
    job.repeats(prepared, None, false)
}

/// Selection and stage 1 alone; `model/` is stage 1's model of the first seed.
///
/// # Errors
/// As [`run`].
pub fn train(config: &Config, options: &RunOptions, observer: &mut dyn Observer) -> Result<Stage1Report, TlmError> {
    let mut job = Job::begin(config, options, observer)?;
    let prepared = job.prepare(None)?;
    Ok(job.repeats(prepared, None, true)?.stage1)
}

/// Stage 2 alone, from the encoder of a model directory.
///
/// # Errors
/// As [`run`]; a model that does not fit the configuration.
pub fn finetune(
    config: &Config,
    model: &Path,
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Report, TlmError> {
    let model = hub::open(model)?;
    let mut job = Job::begin(config, options, observer)?;
    let prepared = job.prepare(Some(&model))?;
    job.repeats(prepared, Some(&model), false)
}

struct Job<'a> {
    config: &'a Config,
    options: &'a RunOptions,
    observer: &'a mut dyn Observer,
    directory: RunDirectory,
    task: Task,
    begun: Instant,
    seconds: Vec<StageSeconds>,
    notes: Vec<String>,
}

/// Texts in tokens, and what they were made with.
struct Prepared {
    texts: Texts,
    tokenizer: Tokenizer,
    select: SelectReport,
    bert: BertConfig,
}

impl<'a> Job<'a> {
    /// Reads the task before anything is written.
    fn begin(config: &'a Config, options: &'a RunOptions, observer: &'a mut dyn Observer) -> Result<Job<'a>, TlmError> {
        let begun = Instant::now();
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
        let directory = RunDirectory::open(&options.directory, config, options.resume)?;
        let mut job = Job {
            config,
            options,
            observer,
            directory,
            task,
            begun,
            seconds: Vec::new(),
            notes: Vec::new(),
        };
        job.open_log()?;
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

    /// The log goes on where the run goes on.
    fn open_log(&mut self) -> Result<(), TlmError> {
        let mut place = None;
        if self.options.resume {
            place = Some((self.config.run.seed, 1, 0));
            for seed in self.config.seeds() {
                if self.directory.file(&finished_name(seed)).is_file() {
                    place = Some((seed, 2, u64::MAX));
                    continue;
                }
                let path = self.directory.file(&checkpoint_name(seed));
                if path.is_file() {
                    let progress: Progress = checkpoint::read_progress(&path)?;
                    place = Some((seed, progress.stage, progress.step));
                }
                break;
            }
        }
        let path = self.directory.file(LOG);
        self.observer
            .log_to(&path, place)
            .map_err(TlmError::io(format!("cannot write {}", path.display())))
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

    /// Selection, tokenizer, encoding.
    fn prepare(&mut self, model: Option<&hub::ModelDirectory>) -> Result<Prepared, TlmError> {
        let config = self.config;
        let since = Instant::now();
        let external = if model.is_none() && config.stage1.steps > 0 {
            self.external()?
        } else {
            External {
                passages: Vec::new(),
                report: SelectReport {
                    method: "none".into(),
                    ..SelectReport::default()
                },
            }
        };
        self.timed("index and select", since);
        let since = Instant::now();
        let passages: Vec<&str> = external.passages.iter().map(|passage| passage.text.as_str()).collect();
        let tokenizer = self.tokenizer(model, &passages)?;
        self.timed("tokenizer", since);
        let since = Instant::now();
        let limit = config.model.max_length;
        let total = (passages.len() + self.task.train.len() + self.task.dev.len() + self.task.test.len()) as u64;
        self.observer.begin("tokenising", total, 0, Unit::Texts);
        let mut encoded = None;
        if !passages.is_empty() {
            let (sequences, _) = tokenizer.encode(&passages, config.external_length(), LongTexts::Cut)?;
            let (passages, pieces, tokens) = (passages.len(), sequences.len(), sequences.tokens());
            self.note(format!(
                "external data: {passages} passages, {pieces} sequences of at most {} tokens, {tokens} tokens",
                config.external_length()
            ));
            encoded = Some(Arc::new(sequences));
        }
        let examples = |examples: &[crate::data::Example]| -> Result<Arc<Sequences>, TlmError> {
            Ok(Arc::new(tokenizer.encode_examples(examples, limit)?.0))
        };
        let (train, dev, test) = (
            examples(&self.task.train)?,
            examples(&self.task.dev)?,
            examples(&self.task.test)?,
        );
        self.observer.end();
        self.timed("tokenising", since);
        let labels = self.task.labels.clone();
        let bert = match model {
            Some(model) => {
                let length = limit.min(model.config.max_position_embeddings);
                BertConfig {
                    labels,
                    max_length: length,
                    ..model.config.clone()
                }
            }
            None => sizes::bert_config(config, tokenizer.vocab_size(), labels),
        };
        let texts = Texts {
            external: encoded,
            train,
            dev,
            test,
        };
        Ok(Prepared {
            texts,
            tokenizer,
            select: external.report,
            bert,
        })
    }

    fn external(&mut self) -> Result<External, TlmError> {
        let path = self.directory.file(SELECTED);
        if let Some(report) = self
            .directory
            .read_json::<SelectReport>(SELECT_REPORT)?
            .filter(|_| path.is_file())
        {
            let passages: Vec<SelectedPassage> = read_selected(&path)?;
            self.note("the selection of the earlier process is used again".to_string());
            return Ok(External { passages, report });
        }
        let texts: Vec<String> = self.task.train.iter().map(|example| example.text.clone()).collect();
        let external = select_external(self.config, &texts, self.config.run.seed, self.observer)?;
        write_selected(&path, &external.passages)?;
        self.directory.write_json(SELECT_REPORT, &external.report)?;
        Ok(external)
    }

    fn tokenizer(&mut self, model: Option<&hub::ModelDirectory>, passages: &[&str]) -> Result<Tokenizer, TlmError> {
        let path = self.directory.file(TOKENIZER);
        if path.is_file() {
            return Ok(Tokenizer::load(&path)?);
        }
        let load = |file: &Path| {
            let vocabulary = file.extension().is_some_and(|extension| extension == "txt");
            if vocabulary {
                Tokenizer::load_vocabulary(file, true)
            } else {
                Tokenizer::load(file)
            }
        };
        let tokenizer = if let Some(model) = model {
            load(&model.tokenizer)?
        } else if let Some(file) = &self.config.tokenizer.file {
            load(file)?
        } else {
            let task: Vec<&str> = self.task.train.iter().map(|example| example.text.as_str()).collect();
            self.observer.begin(
                "training the tokenizer",
                (task.len() + passages.len()) as u64,
                0,
                Unit::Texts,
            );
            let mut words = WordCounts::default();
            words.add(&task);
            words.add(passages);
            let settings = VocabularySettings {
                vocab_size: self.config.tokenizer.vocab_size,
                ..Default::default()
            };
            let tokenizer = Tokenizer::train(&words, &settings)?;
            self.observer.end();
            tokenizer
        };
        tokenizer.save(&path)?;
        Ok(tokenizer)
    }

    /// All repeats, then the report.
    fn repeats(
        &mut self,
        prepared: Prepared,
        model: Option<&hub::ModelDirectory>,
        only_stage1: bool,
    ) -> Result<Report, TlmError> {
        let config = self.config;
        let plans: Vec<_> = sizes::batches(config)?
            .into_iter()
            .filter(|plan| model.is_none() || !plan.kind.is_masked())
            .map(|plan| (plan.kind, plan.capacity, plan.form))
            .collect();
        let (optimizers, set) = sizes::optimizers(config);
        let mut trainer = Trainer::new(&prepared.bert, &plans, &optimizers, self.options.device)?;
        self.note(format!("device: {}", trainer.decision));
        let parameters = trainer.params().parameters();
        let encoder = model.map(|model| encoder_values(model, &trainer)).transpose()?;
        let special = prepared.tokenizer.special();
        let masking = Masking::new(config.stage1.mask_rate, special, prepared.tokenizer.vocab_size())?;
        let mut finished = Vec::new();
        let (mut stage1, mut stage2, mut test) = (0.0, 0.0, 0.0);
        for seed in config.seeds() {
            if let Some(done) = self.directory.read_json::<Finished>(&finished_name(seed))? {
                finished.push(done);
                continue;
            }
            let mut repeat = Repeat {
                config,
                trainer: &mut trainer,
                texts: &prepared.texts,
                directory: &self.directory,
                masking: Some(masking),
                optimizers: set,
                stop: &self.options.stop,
                observer: self.observer,
                progress: Progress::default(),
                best: None,
            };
            repeat.start(seed, encoder.as_deref())?;
            if repeat.progress.stage == 1 {
                repeat.stage1()?;
                if !only_stage1 {
                    repeat.begin_stage2()?;
                }
            }
            if !only_stage1 {
                repeat.stage2()?;
            }
            let since = Instant::now();
            let scores = if only_stage1 {
                TestReport::default()
            } else {
                repeat.test()?
            };
            test += since.elapsed().as_secs_f64();
            let done = Finished {
                report: repeat.report(scores),
                flops: repeat.progress.flops,
            };
            stage1 += done.report.stage1.seconds;
            stage2 += done.report.stage2.seconds;
            if finished.is_empty() {
                save_model(
                    &self.directory.file("model"),
                    &mut trainer,
                    &self.directory.file(TOKENIZER),
                )?;
            }
            if !only_stage1 {
                self.directory.write_json(&finished_name(seed), &done)?;
            }
            finished.push(done);
        }
        for (name, seconds) in [("stage 1", stage1), ("stage 2", stage2), ("test", test)] {
            self.seconds.push(StageSeconds {
                name: name.to_string(),
                seconds,
            });
        }
        let first = finished.first().cloned().unwrap_or_default();
        let padded = config.stage1.steps as f64 * config.stage1.batch as f64 * config.model.max_length as f64;
        let mut report = Report {
            task: config.task.name.clone(),
            device: trainer.decision.clone(),
            labels: prepared.bert.labels.clone(),
            select: prepared.select,
            flops: FlopsReport {
                paper: 6.0 * parameters as f64 * if model.is_some() { 0.0 } else { padded },
                needed: first.flops[0],
                executed: first.flops[1],
            },
            memory: MemoryReport {
                planned_bytes: trainer.planned_bytes,
                peak_rss_bytes: None,
            },
            seconds: self.begun.elapsed().as_secs_f64(),
            stages: std::mem::take(&mut self.seconds),
            model: ModelReport {
                layers: prepared.bert.num_hidden_layers,
                hidden: prepared.bert.hidden_size,
                heads: prepared.bert.num_attention_heads,
                vocab_size: prepared.bert.vocab_size,
                parameters: parameters as u64,
            },
            notes: self.notes.clone(),
            config: config.to_toml(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            ..Report::default()
        };
        report.set_repeats(finished.into_iter().map(|done| done.report).collect());
        Ok(report)
    }
}

/// The parameters of a model directory in the trainer's layout; the task head stays zero.
fn encoder_values(model: &hub::ModelDirectory, trainer: &Trainer) -> Result<Vec<f32>, TlmError> {
    let table = trainer.params();
    let mut flat = vec![0.0f32; table.words()];
    for (spec, offset) in table.iter().filter(|(spec, _)| !spec.head) {
        // A bare encoder has no MLM head; fine-tuning does not use it.
        if spec.name.starts_with("cls.") && !model.weights.contains(&spec.name) {
            continue;
        }
        flat[offset..offset + spec.len()].copy_from_slice(&model.weights.read(&spec.name, &spec.shape())?);
    }
    Ok(flat)
}

/// Writes the model on the device as a model directory.
fn save_model(path: &Path, trainer: &mut Trainer, tokenizer: &Path) -> Result<(), TlmError> {
    let what = format!("cannot read {}", tokenizer.display());
    let tokenizer = std::fs::read_to_string(tokenizer).map_err(TlmError::io(what))?;
    let params = trainer.download_params()?;
    let table = trainer.params();
    let shapes: Vec<Vec<usize>> = table.iter().map(|(spec, _)| spec.shape()).collect();
    let tensors: Vec<hub::Tensor> = table
        .iter()
        .zip(&shapes)
        .map(|((spec, offset), shape)| hub::Tensor {
            name: &spec.name,
            shape,
            data: &params[offset..offset + spec.len()],
        })
        .collect();
    Ok(hub::save(path, trainer.config(), &tensors, &tokenizer)?)
}
