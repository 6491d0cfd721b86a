//! The complete configuration of a run: eight TOML sections, every key of the method, each with a default.
//!
//! ```toml
//! [task]                      # what is to be learnt
//! train = "train.jsonl"
//! dev = "dev.jsonl"
//! test = "test.jsonl"
//! [corpus]                    # where the external data is selected from
//! inputs = ["corpus/*.jsonl.zst"]
//! ```
//!
//! is already a valid file; `[select]`, `[tokenizer]`, `[model]`, `[stage1]`, `[stage2]` and `[run]` refine it.
//! Defaults are those of the published code where a small machine can bear them, and a small machine's for steps, batch
//! and model size.
//!
//! Reading goes through one table of keys ([`schema`]), which knows each key's type, range and meaning: it finds
//! unknown keys and names the nearest, says what a bad value should have been, and prints the complete configuration
//! with its comments ([`Config::to_toml`]). Paths are relative to the configuration file and absolute after loading, so
//! that the printed file can be used from anywhere.
//!
//! A key whose value follows from others (a preset's number of layers, the warm-up as a tenth of the steps) is an
//! `Option` in the sections and is resolved by a method of [`Config`]; it is printed as a comment, so that an override
//! such as `--set model.preset=tiny` on a printed configuration still means what it says.

mod defaults;
mod parse;
mod print;
pub mod schema;
mod sections;
mod validate;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::train::schedule::LinearSchedule;
use parse::Origins;

pub use sections::{
    CorpusConfig, ModelConfig, OptimizerConfig, PassageWords, Preset, Query, RunConfig, SelectConfig, SelectMethod,
    Stage1Config, Stage2Config, TaskConfig, TokenizerConfig,
};

/// A whole configuration, checked; see the module's text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// The labelled data and how it is judged.
    pub task: TaskConfig,
    /// The general corpus.
    pub corpus: CorpusConfig,
    /// Stage 0: selection of the external data.
    pub select: SelectConfig,
    /// The vocabulary.
    pub tokenizer: TokenizerConfig,
    /// The encoder.
    pub model: ModelConfig,
    /// Stage 1: joint training from scratch.
    pub stage1: Stage1Config,
    /// Stage 2: fine-tuning.
    pub stage2: Stage2Config,
    /// Seeds, logging and checkpoints.
    pub run: RunConfig,
    /// Where each given key was given, for messages.
    #[serde(skip)]
    origins: Origins,
}

/// The encoder's size with the preset and its overrides put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Transformer layers.
    pub layers: usize,
    /// Width H of the residual stream.
    pub hidden: usize,
    /// Attention heads; each is `hidden / heads` wide.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Rows of the position table.
    pub max_positions: usize,
}

/// Why a configuration cannot be used. Nothing has been read but the configuration, nothing written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself cannot be read.
    #[error("cannot read the configuration {}: {source}", file.display())]
    Read {
        /// The configuration file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{}:{line}:{column}: not valid TOML: {message}", file.display())]
    Syntax {
        /// The configuration file.
        file: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based column, in characters.
        column: usize,
        /// The parser's words.
        message: String,
    },
    /// A key or section that does not exist.
    #[error("{origin}: unknown {what}: {advice}")]
    Unknown {
        /// `file:line` or the `--set` argument.
        origin: String,
        /// `key "rho_1" in [stage1]` or `section [stage3]`.
        what: String,
        /// The nearest valid name and all that would be allowed.
        advice: String,
    },
    /// A key without a default is absent.
    #[error("{}: {key} is missing: {advice}", file.display())]
    Missing {
        /// The configuration file.
        file: PathBuf,
        /// `section.key`.
        key: String,
        /// What to write.
        advice: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{origin}: {key} = {found}: expected {expected}")]
    BadValue {
        /// `file:line` or the `--set` argument.
        origin: String,
        /// `section.key`.
        key: String,
        /// The value as TOML.
        found: String,
        /// Type, range or allowed values.
        expected: String,
    },
    /// Values that are valid alone but not together.
    #[error("{origin}: {message}")]
    Conflict {
        /// `file:line`, the `--set` argument, or the file where the key was not given.
        origin: String,
        /// What does not fit and what would.
        message: String,
    },
    /// An override that is not `section.key=value`.
    #[error("--set {text}: expected section.key=value, for example --set stage1.rho1=7")]
    Override {
        /// The argument.
        text: String,
    },
    /// A data file that does not exist.
    #[error("{origin}: {key}: {message}")]
    NoFile {
        /// `file:line` or the `--set` argument.
        origin: String,
        /// `section.key`.
        key: String,
        /// The absolute path or pattern and what is wrong with it.
        message: String,
    },
}

impl Config {
    /// Reads `file`, applies `overrides` (each `section.key=value`, the value in TOML or a bare string) in order, and
    /// checks everything that can be checked without opening the data.
    ///
    /// # Errors
    /// The first [`ConfigError`] found, with its file and line.
    pub fn load(file: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
        let bytes = std::fs::read(file).map_err(|source| ConfigError::Read {
            file: file.to_path_buf(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            ConfigError::Syntax {
                file: file.to_path_buf(),
                line: 1 + good.iter().filter(|&&byte| byte == b'\n').count(),
                column: 1 + good.iter().rev().take_while(|&&byte| byte != b'\n').count(),
                message: "invalid UTF-8; save the file as UTF-8".to_owned(),
            }
        })?;
        Config::parse(&text, file, overrides)
    }

    /// As [`Config::load`], from `text` as if it stood in `file` (which need not exist).
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, file: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
        let config = parse::parse(text, file, overrides)?;
        validate::check_values(&config)?;
        Ok(config)
    }

    /// Checks that every file and pattern that the configuration names exists.
    ///
    /// # Errors
    /// [`ConfigError::NoFile`] with the absolute path.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        validate::check_files(self)
    }

    /// The complete configuration as TOML, every key with its meaning; reading it back gives the same configuration.
    pub fn to_toml(&self) -> String {
        print::to_toml(self)
    }

    /// Keys whose values differ between two configurations, as `(section.key, value here, value there)`; a key that is
    /// not set has the value it follows from. A resumed run must not differ from the run it goes on with.
    pub fn differences(&self, other: &Config) -> Vec<(String, String, String)> {
        print::differences(self, other)
    }

    /// The encoder's size: the preset with its overrides.
    pub fn shape(&self) -> ModelShape {
        let (layers, hidden) = self.model.preset.layers_and_hidden();
        let hidden = self.model.hidden.unwrap_or(hidden);
        ModelShape {
            layers: self.model.layers.unwrap_or(layers),
            hidden,
            heads: self.model.heads.unwrap_or((hidden / 64).max(1)),
            intermediate: self.model.intermediate.unwrap_or(4 * hidden),
            max_positions: self
                .model
                .max_positions
                .unwrap_or_else(|| self.model.max_length.max(self.external_length()).max(512)),
        }
    }

    /// Longest external sequence in tokens, with \[CLS\] and \[SEP\].
    pub fn external_length(&self) -> usize {
        self.stage1.external_length.unwrap_or(self.model.max_length)
    }

    /// Words per passage that a corpus given as documents is cut into; none: inputs are passages as they are.
    pub fn passage_words(&self) -> Option<usize> {
        self.corpus.passage_words.words(self.external_length())
    }

    /// External data with this rank or a higher one is not used.
    pub fn rank_cut(&self) -> u32 {
        self.select.rank_cut.unwrap_or(self.select.top_k)
    }

    /// External batches per internal batch; 0 where `select.method = "none"`, since there is no external data then.
    pub fn rho1(&self) -> u64 {
        if self.select.method == SelectMethod::None {
            0
        } else {
            self.stage1.rho1
        }
    }

    /// Learning rate of stage 1.
    pub fn stage1_schedule(&self) -> LinearSchedule {
        self.stage1.optimizer.schedule(self.stage1.steps)
    }

    /// Learning rate of stage 2.
    pub fn stage2_schedule(&self) -> LinearSchedule {
        self.stage2.optimizer.schedule(self.stage2.steps)
    }

    /// Seeds of the repeats: `run.seed`, `run.seed + 1`, ...
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        let first = self.run.seed;
        (0..u64::from(self.run.seeds)).map(move |repeat| first + repeat)
    }
}

#[cfg(test)]
mod tests;
