//! What a run leaves behind, as data: the lines of `metrics.jsonl` and the document `report.json`.
//!
//! The training loops produce these values; writing, plotting and printing them is the report's business. All times are
//! in seconds of wall clock, all scores in 0..=1. A figure that a run does not have (no stage 1, one seed only) is
//! null.

use serde::{Deserialize, Serialize};

use super::objective::StepKind;
use crate::cost::profile::Profile;
use crate::cost::table::ByConvention;
use crate::train::metrics::{ClassScores, Confusion, MeanStd, Metric, Scores};

/// One line of `metrics.jsonl`: a logged training step, or an evaluation after a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsRow {
    /// Seed of the repeat.
    pub seed: u64,
    /// 1: joint training; 2: fine-tuning.
    pub stage: u8,
    /// Optimiser steps done in this stage.
    pub step: u64,
    /// Whose batch it was; absent in stage 2 and on evaluations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<StepKind>,
    /// Mean loss of the masked tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mlm_loss: Option<f64>,
    /// Mean loss of the classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_loss: Option<f64>,
    /// Learning rate of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Global norm of the gradient before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Tokens trained on in this stage so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Tokens per second since the line before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Needed FLOPs per second since the line before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_flops_per_second: Option<f64>,
    /// Their share of the device's measured peak (MFU).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Share of the time that no kernel could do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_of_light: Option<f64>,
    /// Tokens by those of batches padded to their longest sequence: what packing saves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_efficiency: Option<f64>,
    /// Tokens by those that the plans hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing_efficiency: Option<f64>,
    /// Score on the development set in the task's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev_score: Option<f64>,
    /// Mean loss on the development set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev_loss: Option<f64>,
    /// Seconds since the stage began, earlier parts of a resumed run included.
    pub seconds: f64,
    /// When the line was written: seconds since 1970.
    #[serde(default)]
    pub time: f64,
}

impl MetricsRow {
    /// Place of the line in a run: repeats in order of their seeds, stages, steps.
    pub fn place(&self) -> (u64, u8, u64) {
        (self.seed, self.stage, self.step)
    }
}

/// The document `report.json`. With several seeds, `seed`, `stage1`, `stage2` and `test` are those of the first repeat,
/// `repeats` has all of them and `over_seeds` their mean and standard deviation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the task.
    pub task: String,
    /// The device and why it was chosen.
    pub device: String,
    /// Seed of the first repeat.
    pub seed: u64,
    /// The classes by index.
    pub labels: Vec<String>,
    /// Stage 0.
    pub select: SelectReport,
    /// Joint training.
    pub stage1: Stage1Report,
    /// Fine-tuning.
    pub stage2: Stage2Report,
    /// Scores on the test set.
    pub test: TestReport,
    /// What the training cost.
    pub flops: FlopsReport,
    /// A few steps of the first repeat's stage 1, kernel by kernel; null where a device cannot time its launches.
    #[serde(default)]
    pub profile: Option<Profile>,
    /// What it held.
    pub memory: MemoryReport,
    /// Wall clock of the whole run; of earlier processes of a resumed run, what is in `stages`.
    pub seconds: f64,
    /// Where the time went, in order: the training of all repeats, also by earlier processes.
    pub stages: Vec<StageSeconds>,
    /// Test score over the repeats.
    pub over_seeds: MeanStdReport,
    /// Every repeat.
    pub repeats: Vec<RepeatReport>,
    /// The model's size.
    pub model: ModelReport,
    /// What was decided on the way and what a reader should know (empty texts, queries without terms).
    pub notes: Vec<String>,
    /// The complete configuration as TOML.
    pub config: String,
    /// Version of the program.
    pub version: String,
}

/// Stage 0: the selection of external data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SelectReport {
    /// bm25, random or none.
    pub method: String,
    /// Passages of the corpus.
    pub documents: u64,
    /// Training texts that were queries.
    pub queries: u64,
    /// Queries without any term of the index.
    pub queries_without_terms: u64,
    /// Passages selected, each counted once.
    pub selected: u64,
    /// Selected passages by source, most first.
    pub by_source: Vec<SourceCount>,
    /// The first few selected passages.
    pub examples: Vec<SelectedPassage>,
    /// Wall clock of indexing and selecting.
    pub seconds: f64,
}

/// Selected passages of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceCount {
    /// The corpus' own name for it.
    pub source: String,
    /// Number of passages.
    pub count: u64,
}

/// A selected passage: a line of `selected.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SelectedPassage {
    /// Identifier in the corpus.
    pub id: String,
    /// Source in the corpus.
    pub source: String,
    /// The text.
    pub text: String,
    /// Smallest 0-based rank over all queries.
    pub rank: u32,
    /// Score at that rank; none for a random selection.
    pub score: Option<f64>,
}

/// Stage 1 of one repeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage1Report {
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Language-model loss, mean of the first 50 steps.
    pub mlm_loss_first: Option<f64>,
    /// Language-model loss, mean of the last 50 steps.
    pub mlm_loss_last: Option<f64>,
    /// Development score of the joint model at the end.
    pub dev: Option<f64>,
    /// Wall clock.
    pub seconds: f64,
    /// tokens / seconds.
    pub tokens_per_second: f64,
}

/// Stage 2 of one repeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage2Report {
    /// Optimiser steps.
    pub steps: u64,
    /// Best development score in the task's metric.
    pub best_dev: Option<f64>,
    /// Step of the best development score, the model that was tested.
    pub best_step: Option<u64>,
    /// Wall clock.
    pub seconds: f64,
}

/// Scores on the test set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TestReport {
    /// Name of the task's metric.
    pub metric: String,
    /// Score in that metric.
    pub value: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean F1 over the classes.
    pub macro_f1: f64,
    /// F1 over all decisions.
    pub micro_f1: f64,
    /// Number of test examples.
    pub examples: u64,
    /// `confusion[truth][predicted]`.
    pub confusion: Vec<Vec<u64>>,
    /// Precision, recall, F1 and support of each class.
    pub classes: Vec<ClassScores>,
}

/// Cost of all training of one repeat, in floating-point operations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlopsReport {
    /// 6 x parameters x tokens of stage 1, as the paper counts: every sequence at its greatest length.
    pub paper: f64,
    /// What the mathematics needs: matrix products of real tokens, MLM head on masked rows only.
    pub needed: f64,
    /// What the launched kernels did.
    pub executed: f64,
    /// Every convention, as if all texts had their greatest length.
    #[serde(default)]
    pub conventions: ByConvention,
}

/// Memory of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// What the plans ask of the device.
    pub planned_bytes: u64,
    /// Largest resident size of the process; null where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}

/// Wall clock of one part of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSeconds {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}

/// One repeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RepeatReport {
    /// Its seed.
    pub seed: u64,
    /// Its joint training.
    pub stage1: Stage1Report,
    /// Its fine-tuning.
    pub stage2: Stage2Report,
    /// Its scores.
    pub test: TestReport,
}

/// Mean and sample standard deviation over the repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanStdReport {
    /// Test score in the task's metric.
    pub test: MeanStd,
    /// Best development score.
    pub dev: MeanStd,
}

/// Size of the trained model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// Transformer layers.
    pub layers: usize,
    /// Width.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Trained numbers, all heads included.
    pub parameters: u64,
}

impl Default for MeanStdReport {
    fn default() -> MeanStdReport {
        MeanStdReport {
            test: MeanStd::of(&[]),
            dev: MeanStd::of(&[]),
        }
    }
}

impl TestReport {
    /// Scores of a confusion matrix, judged by `metric`.
    pub fn of(confusion: &Confusion, metric: Metric) -> TestReport {
        let scores: Scores = confusion.scores();
        TestReport {
            metric: metric.name().to_owned(),
            value: scores.get(metric),
            accuracy: scores.accuracy,
            macro_f1: scores.macro_f1,
            micro_f1: scores.micro_f1,
            examples: scores.examples,
            confusion: confusion.rows.clone(),
            classes: (0..confusion.rows.len()).map(|class| confusion.class(class)).collect(),
        }
    }
}

impl Report {
    /// Takes over the repeats: the first one's figures at the top, all in `repeats`, mean and deviation over them.
    pub fn set_repeats(&mut self, repeats: Vec<RepeatReport>) {
        if let Some(first) = repeats.first() {
            self.seed = first.seed;
            self.stage1 = first.stage1.clone();
            self.stage2 = first.stage2.clone();
            self.test = first.test.clone();
        }
        let tests: Vec<f64> = repeats.iter().map(|repeat| repeat.test.value).collect();
        let devs: Vec<f64> = repeats.iter().filter_map(|repeat| repeat.stage2.best_dev).collect();
        self.over_seeds = MeanStdReport {
            test: MeanStd::of(&tests),
            dev: MeanStd::of(&devs),
        };
        self.repeats = repeats;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_every_field_of_the_contract() {
        let value = serde_json::to_value(Report::default()).unwrap();
        let contract = [
            (
                "",
                "task device seed labels select stage1 stage2 test flops memory seconds",
            ),
            ("select", "documents queries selected"),
            (
                "stage1",
                "steps tokens mlm_loss_first mlm_loss_last seconds tokens_per_second",
            ),
            ("stage2", "steps best_dev best_step seconds"),
            ("test", "metric value accuracy macro_f1 micro_f1 examples"),
            ("flops", "paper needed executed"),
            ("memory", "planned_bytes peak_rss_bytes"),
        ];
        for (section, names) in contract {
            let object = if section.is_empty() { &value } else { &value[section] };
            for name in names.split(' ') {
                assert!(object.get(name).is_some(), "{section}.{name}");
            }
        }
    }

    #[test]
    fn the_first_repeat_stands_at_the_top_and_all_are_averaged() {
        let repeat = |seed, value| RepeatReport {
            seed,
            test: TestReport {
                value,
                ..TestReport::default()
            },
            ..RepeatReport::default()
        };
        let mut report = Report::default();
        report.set_repeats(vec![repeat(7, 0.5), repeat(8, 0.7)]);
        assert_eq!((report.seed, report.test.value), (7, 0.5));
        assert!((report.over_seeds.test.mean - 0.6).abs() < 1e-12);
        assert_eq!(report.over_seeds.dev.count, 0);
    }

    #[test]
    fn a_line_of_metrics_has_only_what_was_measured() {
        let row = MetricsRow {
            seed: 42,
            stage: 2,
            step: 100,
            dev_score: Some(0.5),
            ..MetricsRow::default()
        };
        let line = serde_json::to_string(&row).unwrap();
        assert_eq!(
            line,
            r#"{"seed":42,"stage":2,"step":100,"dev_score":0.5,"seconds":0.0,"time":0.0}"#
        );
        assert_eq!(serde_json::from_str::<MetricsRow>(&line).unwrap(), row);
    }
}
