//! Default values: the published code's where a small machine can bear them (everything but steps, batch, vocabulary
//! and model size, where an hour on a few cores has to be enough).

use super::sections::*;
use crate::device::choice::PrecisionChoice;
use crate::retrieval::{Analyzer, DocumentLength, Variant};
use crate::tlm::objective::{HeadOnExternal, LossForm};
use crate::train::metrics::Metric;

impl Default for TaskConfig {
    fn default() -> TaskConfig {
        TaskConfig {
            name: "task".to_owned(),
            train: Vec::new(),
            dev: Vec::new(),
            test: Vec::new(),
            metric: Metric::MacroF1,
            text_column: "text".to_owned(),
            label_column: "label".to_owned(),
        }
    }
}

impl Default for CorpusConfig {
    fn default() -> CorpusConfig {
        CorpusConfig {
            inputs: Vec::new(),
            index: None,
            text_column: "text".to_owned(),
            passage_words: PassageWords::Auto,
        }
    }
}

impl Default for SelectConfig {
    fn default() -> SelectConfig {
        SelectConfig {
            method: SelectMethod::Bm25,
            top_k: 50,
            rank_cut: None,
            file: None,
            query: Query::Text,
            analyzer: Analyzer::English,
            variant: Variant::Lucene,
            k1: 1.2,
            b: 0.75,
            length: DocumentLength::Exact,
        }
    }
}

impl Default for TokenizerConfig {
    fn default() -> TokenizerConfig {
        TokenizerConfig {
            vocab_size: 8192,
            file: None,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> ModelConfig {
        ModelConfig {
            preset: Preset::Mini,
            max_length: 128,
            layers: None,
            hidden: None,
            heads: None,
            intermediate: None,
            max_positions: None,
            dropout: 0.1,
            attention_dropout: 0.1,
            recompute: false,
            precision: PrecisionChoice::Auto,
        }
    }
}

impl Default for OptimizerConfig {
    /// Stage 1's.
    fn default() -> OptimizerConfig {
        OptimizerConfig {
            learning_rate: 1e-4,
            warmup: None,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-6,
            weight_decay: 0.01,
            clip: 0.0,
        }
    }
}

impl Default for Stage1Config {
    fn default() -> Stage1Config {
        Stage1Config {
            steps: 2000,
            batch: 64,
            accumulate: 1,
            rho1: 3,
            rho2: 20.0,
            loss: LossForm::Normalised,
            head_on_external: HeadOnExternal::Zero,
            mask_rate: 0.15,
            external_length: None,
            eval_every: 0,
            optimizer: OptimizerConfig::default(),
        }
    }
}

impl Default for Stage2Config {
    fn default() -> Stage2Config {
        Stage2Config {
            steps: 600,
            batch: 32,
            accumulate: 1,
            eval_every: 100,
            optimizer: OptimizerConfig {
                learning_rate: 2e-5,
                weight_decay: 0.0,
                ..OptimizerConfig::default()
            },
        }
    }
}

impl Default for RunConfig {
    fn default() -> RunConfig {
        RunConfig {
            seed: 42,
            seeds: 1,
            log_every: 10,
            save_every: 500,
        }
    }
}
