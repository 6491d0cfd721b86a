//! The sections of a configuration as structures, with their defaults. Meaning, range and source of each key stand in
//! [`super::schema`], which also prints them; here they are named once more in brief.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::device::choice::PrecisionChoice;
pub use crate::retrieval::Query;
use crate::retrieval::{Analyzer, Bm25, DocumentLength, Variant};
use crate::tlm::objective::{HeadOnExternal, LossForm};
use crate::train::metrics::Metric;
use crate::train::schedule::LinearSchedule;

/// `[task]`: labelled texts and the score they are judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskConfig {
    /// Name of the task and of its default run directory.
    pub name: String,
    /// Training files or patterns, absolute.
    pub train: Vec<String>,
    /// Development files or patterns, absolute.
    pub dev: Vec<String>,
    /// Test files or patterns, absolute.
    pub test: Vec<String>,
    /// Score that chooses the best checkpoint and is reported.
    pub metric: Metric,
    /// Column or JSON field of the text.
    pub text_column: String,
    /// Column or JSON field of the label.
    pub label_column: String,
}

/// `[corpus]`: general texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorpusConfig {
    /// Files or patterns, absolute.
    pub inputs: Vec<String>,
    /// A built index instead of `inputs`.
    pub index: Option<PathBuf>,
    /// Column or JSON field of the text.
    pub text_column: String,
    /// How documents become passages.
    pub passage_words: PassageWords,
}

/// `[select]`: which passages become external data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectConfig {
    /// How.
    pub method: SelectMethod,
    /// Passages per query.
    pub top_k: u32,
    /// Keep passages below this rank; none: `top_k`.
    pub rank_cut: Option<u32>,
    /// An earlier selection to be used instead of making one.
    pub file: Option<PathBuf>,
    /// How a training text becomes a query.
    pub query: Query,
    /// How texts become terms.
    #[serde(with = "by_name")]
    pub analyzer: Analyzer,
    /// Form of the score.
    #[serde(with = "by_name")]
    pub variant: Variant,
    /// Saturation of term frequency.
    pub k1: f64,
    /// Strength of length normalisation.
    pub b: f64,
    /// Document length in the score.
    #[serde(with = "by_name")]
    pub length: DocumentLength,
}

/// `[tokenizer]`: a vocabulary to be trained, or a given one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizerConfig {
    /// Size of the WordPiece vocabulary to be trained.
    pub vocab_size: usize,
    /// `tokenizer.json` or `vocab.txt` instead.
    pub file: Option<PathBuf>,
}

/// `[model]`: the encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Layers and width in one word.
    pub preset: Preset,
    /// Longest task sequence in tokens, with \[CLS\] and \[SEP\].
    pub max_length: usize,
    /// Overrides the preset.
    pub layers: Option<usize>,
    /// Overrides the preset.
    pub hidden: Option<usize>,
    /// Overrides hidden / 64.
    pub heads: Option<usize>,
    /// Overrides 4 x hidden.
    pub intermediate: Option<usize>,
    /// Overrides 512 or the longest length.
    pub max_positions: Option<usize>,
    /// Dropout after embeddings and sublayers.
    pub dropout: f64,
    /// Dropout of attention probabilities.
    pub attention_dropout: f64,
    /// Whether the layers compute their values again in the backward instead of keeping them.
    pub recompute: bool,
    /// How activations and their gradients are stored.
    pub precision: PrecisionChoice,
}

/// AdamW and its schedule, in both stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Warm-up steps; none: a tenth of the steps.
    pub warmup: Option<u64>,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, not on biases and LayerNorm.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0: no clipping.
    pub clip: f64,
}

/// `[stage1]`: joint training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage1Config {
    /// Optimiser steps of both kinds together.
    pub steps: u64,
    /// Sequences per optimiser step.
    pub batch: usize,
    /// Forward passes that a batch is split into.
    pub accumulate: usize,
    /// External batches per internal batch.
    pub rho1: u64,
    /// Weight of the language-model loss on internal batches.
    pub rho2: f64,
    /// Form of the joint loss.
    pub loss: LossForm,
    /// What an external step does to the classification head.
    pub head_on_external: HeadOnExternal,
    /// Probability that a token is masked.
    pub mask_rate: f64,
    /// Longest external sequence; none: `model.max_length`.
    pub external_length: Option<usize>,
    /// Steps between evaluations on dev; 0: only at the end.
    pub eval_every: u64,
    /// Optimiser.
    #[serde(flatten)]
    pub optimizer: OptimizerConfig,
}

/// `[stage2]`: fine-tuning on the task alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage2Config {
    /// Optimiser steps; 0: stage 1's model is tested as it is.
    pub steps: u64,
    /// Sequences per optimiser step.
    pub batch: usize,
    /// Forward passes that a batch is split into.
    pub accumulate: usize,
    /// Steps between evaluations on dev; the last step is always evaluated.
    pub eval_every: u64,
    /// Optimiser.
    #[serde(flatten)]
    pub optimizer: OptimizerConfig,
}

/// `[run]`: everything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Seed of the first repeat.
    pub seed: u64,
    /// Number of repeats.
    pub seeds: u32,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Steps between checkpoints; 0: only at the end of a stage.
    pub save_every: u64,
}

/// How the documents of a corpus become passages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "toml::Value")]
pub enum PassageWords {
    /// Packed from whole sentences up to 3/4 of the external length in words, which fills a sequence of word pieces.
    #[default]
    Auto,
    /// Each document is one passage.
    AsGiven,
    /// Packed from whole sentences up to so many words.
    Words(usize),
}

/// Where external data comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelectMethod {
    /// The best passages for each training text.
    #[default]
    Bm25,
    /// As many passages as BM25 would select, at random.
    Random,
    /// No external data: every step of stage 1 is internal.
    None,
}

/// Layers and hidden width in one word; heads = hidden / 64, feed-forward = 4 x hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// 2 layers of 128.
    Tiny,
    /// 4 layers of 256.
    #[default]
    Mini,
    /// 4 layers of 512.
    Small,
    /// 8 layers of 512.
    Medium,
    /// 12 layers of 768.
    Base,
    /// 24 layers of 1024.
    Large,
}

impl Preset {
    /// Number of layers and hidden width.
    pub fn layers_and_hidden(self) -> (usize, usize) {
        match self {
            Preset::Tiny => (2, 128),
            Preset::Mini => (4, 256),
            Preset::Small => (4, 512),
            Preset::Medium => (8, 512),
            Preset::Base => (12, 768),
            Preset::Large => (24, 1024),
        }
    }
}

impl SelectConfig {
    /// The ranking function.
    pub fn bm25(&self) -> Bm25 {
        Bm25 {
            variant: self.variant,
            k1: self.k1,
            b: self.b,
            length: self.length,
        }
    }
}

impl OptimizerConfig {
    /// Warm-up steps of a stage of `steps` steps.
    pub fn warmup(&self, steps: u64) -> u64 {
        self.warmup.unwrap_or(steps / 10)
    }

    /// The learning rate over a stage of `steps` steps.
    pub fn schedule(&self, steps: u64) -> LinearSchedule {
        LinearSchedule {
            peak: self.learning_rate,
            warmup: self.warmup(steps),
            total: steps,
        }
    }
}

impl From<PassageWords> for toml::Value {
    fn from(passage_words: PassageWords) -> toml::Value {
        match passage_words {
            PassageWords::Auto => "auto".into(),
            PassageWords::AsGiven => "as_given".into(),
            PassageWords::Words(words) => toml::Value::Integer(i64::try_from(words).unwrap_or(i64::MAX)),
        }
    }
}

impl TryFrom<toml::Value> for PassageWords {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<PassageWords, String> {
        match value {
            toml::Value::String(word) if word.parse::<usize>().is_err() => word.parse(),
            toml::Value::Integer(words) => words.to_string().parse(),
            _ => Err(PassageWords::EXPECTED.to_owned()),
        }
    }
}

impl FromStr for PassageWords {
    type Err = String;

    fn from_str(text: &str) -> Result<PassageWords, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(PassageWords::Auto),
            ("as_given", _) => Ok(PassageWords::AsGiven),
            (_, Ok(words)) if words > 0 => Ok(PassageWords::Words(words)),
            _ => Err(PassageWords::EXPECTED.to_owned()),
        }
    }
}

impl PassageWords {
    /// What values there are.
    pub const EXPECTED: &str = "\"auto\", \"as_given\" or a number of words above 0";

    /// Words per passage for sequences of up to `length` tokens; none: documents are passages as they are.
    pub fn words(self, length: usize) -> Option<usize> {
        match self {
            PassageWords::Auto => Some((length * 3 / 4).max(1)),
            PassageWords::AsGiven => None,
            PassageWords::Words(words) => Some(words),
        }
    }
}

/// Types of other rooms, written as the names that they go by.
mod by_name {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
