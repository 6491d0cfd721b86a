//! The table of all configuration keys: section, name, type with range, meaning with the source of its default.
//!
//! Reading, checking, advising and printing all go through this table, so a key exists here or not at all. A test holds
//! it against the structures.

use toml::Value;

use super::sections::{PassageWords, Query};
use crate::train::metrics::Metric;

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section it stands in.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it means, in one line.
    pub doc: &'static str,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text but the empty one.
    Text,
    /// A text that can name a directory.
    Name,
    /// Path of a file, relative to the configuration.
    File,
    /// Path of a directory, relative to the configuration.
    Directory,
    /// One file pattern or a list of them, relative to the configuration.
    Patterns,
    /// A whole number, both ends included.
    Whole(u64, u64),
    /// A number from 0 to below 1.
    Rate,
    /// A number above 0 and below 1.
    PositiveRate,
    /// A number from 0 to 1.
    UnitInterval,
    /// A number of at least 0.
    NotNegative,
    /// A number above 0.
    Positive,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// true or false.
    Switch,
    /// How a text becomes a query.
    Query,
    /// How documents become passages.
    PassageWords,
}

/// Every section with its meaning, in the order of printing.
pub const SECTIONS: &[(&str, &str)] = &[
    (
        "task",
        "What is to be learnt. Paths are relative to this file; patterns (*, ?, **) and lists are allowed.",
    ),
    ("corpus", "General texts that the external data is selected from."),
    (
        "select",
        "Stage 0: the training texts are queries, the union of their results is the external data.",
    ),
    (
        "tokenizer",
        "WordPiece vocabulary: trained on task and selected texts, or given.",
    ),
    ("model", "BERT encoder, post-norm, one segment."),
    (
        "stage1",
        "Stage 1: joint training from scratch on external and internal batches.",
    ),
    (
        "stage2",
        "Stage 2: fine-tuning on the clean task texts alone, from stage 1's weights with a new head.",
    ),
    ("run", "Seeds, logging, checkpoints."),
];

const LARGE: u64 = 1 << 32;

/// Every key, by section, in the order of printing.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("task", "name", Kind::Name,
        "Name of the task; the default run directory is runs/NAME."),
    key("task", "train", Kind::Patterns,
        "Labelled training texts: .jsonl, .csv or .tsv, also .gz or .zst. They are the queries, too."),
    key("task", "dev", Kind::Patterns,
        "Labelled texts that choose the best checkpoint."),
    key("task", "test", Kind::Patterns,
        "Labelled texts, scored once at the end."),
    key("task", "metric", Kind::Choice(&Metric::NAMES),
        "Score that chooses the checkpoint and is reported: micro_f1 (= accuracy), macro_f1, accuracy."),
    key("task", "text_column", Kind::Text,
        "Column or JSON field of the text."),
    key("task", "label_column", Kind::Text,
        "Column or JSON field of the label."),

    key("corpus", "inputs", Kind::Patterns,
        "Texts: .jsonl, .csv, .tsv, or .txt with a passage a line; also .gz or .zst."),
    key("corpus", "index", Kind::Directory,
        "An index made by `tlm index build`, instead of inputs."),
    key("corpus", "text_column", Kind::Text,
        "Column or JSON field of the text."),
    key("corpus", "passage_words", Kind::PassageWords,
        "Words per passage of whole sentences: a number, \"auto\" (3/4 of the external length) or \"as_given\"."),

    key("select", "method", Kind::Choice(&["bm25", "random", "none"]),
        "bm25; random: as many passages at random; none: task texts only, every step is internal."),
    key("select", "top_k", Kind::Whole(1, LARGE - 1),
        "Passages per training text. Paper: 5000 below 5,000 training texts, 50 above 100,000."),
    key("select", "rank_cut", Kind::Whole(1, LARGE - 1),
        "Use passages with rank < rank_cut only (0-based), to try a smaller top_k on one selection."),
    key("select", "file", Kind::File,
        "A selection made by `tlm select`, used instead of searching."),
    key("select", "query", Kind::Query,
        "text: the whole text; rake: its 20 best key phrases, published for long texts; tfidf:N: its N best terms."),
    key("select", "analyzer", Kind::Choice(&["standard", "english"]),
        "english: stop words and Porter stemmer; standard: words and lower case only, as published."),
    key("select", "variant", Kind::Choice(&["lucene", "robertson", "atire", "bm25l", "bm25+"]),
        "Form of BM25; lucene is what Elasticsearch computes."),
    key("select", "k1", Kind::NotNegative,
        "BM25: saturation of the term frequency."),
    key("select", "b", Kind::UnitInterval,
        "BM25: strength of the length normalisation."),
    key("select", "length", Kind::Choice(&["exact", "lucene"]),
        "Document length: exact, or rounded to Lucene's one byte."),

    key("tokenizer", "vocab_size", Kind::Whole(32, 1 << 20),
        "Entries of the vocabulary to be trained (published models: 30522 of bert-base-uncased)."),
    key("tokenizer", "file", Kind::File,
        "tokenizer.json or vocab.txt, instead of training one."),

    key("model", "preset", Kind::Choice(&["tiny", "mini", "small", "medium", "base", "large"]),
        "Layers/hidden: tiny 2/128, mini 4/256, small 4/512, medium 8/512, base 12/768, large 24/1024."),
    key("model", "max_length", Kind::Whole(8, LARGE),
        "Longest task text in tokens with [CLS] and [SEP]; a multiple of 4. Longer texts are cut."),
    key("model", "layers", Kind::Whole(1, 1000),
        "Transformer layers."),
    key("model", "hidden", Kind::Whole(32, LARGE),
        "Width; a multiple of heads."),
    key("model", "heads", Kind::Whole(1, 1024),
        "Attention heads; hidden / heads must be 32, 64 or 128."),
    key("model", "intermediate", Kind::Whole(1, LARGE),
        "Width of the feed-forward layer; a multiple of 4."),
    key("model", "max_positions", Kind::Whole(8, LARGE),
        "Rows of the position table; at least every length used."),
    key("model", "dropout", Kind::Rate,
        "Dropout after the embeddings and after every sublayer, in both stages."),
    key("model", "attention_dropout", Kind::Rate,
        "Dropout of the attention probabilities, in both stages."),
    key("model", "recompute", Kind::Switch,
        "Layers compute their values again in the backward instead of keeping them: less memory, more work, same bits."),
    key("model", "precision", Kind::Choice(&["auto", "f32", "f16", "bf16"]),
        "How activations and their gradients are stored; sums and weights are f32. auto: f32 but on CUDA's matrix units."),

    key("stage1", "steps", Kind::Whole(0, LARGE - 1),
        "Optimiser steps, external and internal together. Published: 50,000 to 500,000."),
    key("stage1", "batch", Kind::Whole(1, 1 << 20),
        "Sequences per optimiser step. Published: 256."),
    key("stage1", "accumulate", Kind::Whole(1, 1 << 20),
        "Forward passes that a batch is split into, where it does not fit the memory at once."),
    key("stage1", "rho1", Kind::Whole(0, LARGE - 1),
        "External batches before each internal one; 0: internal only. Published: 1 to 1999, small for large tasks."),
    key("stage1", "rho2", Kind::NotNegative,
        "Weight of the language-model loss on internal batches; 0: classification only. Published: 20 to 1000."),
    key("stage1", "loss", Kind::Choice(&["normalised", "literal"]),
        "normalised: (rho2 L_mlm + L_task) / (rho2 + 1), the published code; literal: rho2 L_mlm + L_task, the paper."),
    key("stage1", "head_on_external", Kind::Choice(&["zero", "skip"]),
        "zero: external steps update the task head with a zero gradient (published code); skip: they leave it alone."),
    key("stage1", "mask_rate", Kind::PositiveRate,
        "Probability that a token is masked: 80 % [MASK], 10 % a random token, 10 % itself."),
    key("stage1", "external_length", Kind::Whole(8, LARGE),
        "Longest external text in tokens with [CLS] and [SEP]; a multiple of 4."),
    key("stage1", "eval_every", Kind::Whole(0, LARGE - 1),
        "Steps between evaluations on dev; 0: only at the end."),
    key("stage1", "learning_rate", Kind::Positive,
        "Peak learning rate. Published: 1e-4 at base size; 1e-3 suits tiny and mini."),
    key("stage1", "warmup", Kind::Whole(0, LARGE - 1),
        "Steps of linear warm-up, then linear decay to 0."),
    key("stage1", "beta1", Kind::Rate,
        "AdamW: decay of the first moment."),
    key("stage1", "beta2", Kind::Rate,
        "AdamW: decay of the second moment."),
    key("stage1", "epsilon", Kind::Positive,
        "AdamW: added to the root of the uncorrected second moment."),
    key("stage1", "weight_decay", Kind::Rate,
        "AdamW: decoupled decay, not on biases and LayerNorm."),
    key("stage1", "clip", Kind::NotNegative,
        "Largest global norm of the gradient; 0: no clipping, as the published code."),

    key("stage2", "steps", Kind::Whole(0, LARGE - 1),
        "Optimiser steps; 0: stage 1's model is tested as it is. Published: 30,000."),
    key("stage2", "batch", Kind::Whole(1, 1 << 20),
        "Sequences per optimiser step. Published: 32."),
    key("stage2", "accumulate", Kind::Whole(1, 1 << 20),
        "Forward passes that a batch is split into, where it does not fit the memory at once."),
    key("stage2", "eval_every", Kind::Whole(1, LARGE - 1),
        "Steps between evaluations on dev; the last step is always evaluated. Published: 1,000."),
    key("stage2", "learning_rate", Kind::Positive,
        "Peak learning rate. Published: 2e-5 at base size; 1e-4 suits tiny and mini."),
    key("stage2", "warmup", Kind::Whole(0, LARGE - 1),
        "Steps of linear warm-up, then linear decay to 0."),
    key("stage2", "beta1", Kind::Rate,
        "AdamW: decay of the first moment."),
    key("stage2", "beta2", Kind::Rate,
        "AdamW: decay of the second moment."),
    key("stage2", "epsilon", Kind::Positive,
        "AdamW: added to the root of the uncorrected second moment."),
    key("stage2", "weight_decay", Kind::Rate,
        "AdamW: decoupled decay, not on biases and LayerNorm."),
    key("stage2", "clip", Kind::NotNegative,
        "Largest global norm of the gradient; 0: no clipping, as the published code."),

    key("run", "seed", Kind::Whole(0, i64::MAX as u64 - LARGE),
        "Seed of initialisation, masking, dropout and shuffling."),
    key("run", "seeds", Kind::Whole(1, 1000),
        "Repeats with seed, seed + 1, ...; mean and standard deviation are reported."),
    key("run", "log_every", Kind::Whole(1, LARGE - 1),
        "Steps between lines of metrics.jsonl."),
    key("run", "save_every", Kind::Whole(0, LARGE - 1),
        "Steps between checkpoints; 0: only at the end of a stage and on interruption."),
];

const fn key(section: &'static str, name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        section,
        name,
        kind,
        doc,
    }
}

/// The key `section.name`, if there is one.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

impl Key {
    /// `section.name`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

impl Kind {
    /// What is allowed, to follow the word "expected".
    pub fn expected(&self) -> String {
        match self {
            Kind::Text => "a text in quotes, not empty".to_owned(),
            Kind::Name => "a text in quotes that can name a directory (no / or \\, not . or ..)".to_owned(),
            Kind::File => "the path of a file in quotes".to_owned(),
            Kind::Directory => "the path of a directory in quotes".to_owned(),
            Kind::Patterns => {
                "a file pattern in quotes, or a list of them: [\"a.jsonl\", \"more/*.jsonl.gz\"]".to_owned()
            }
            Kind::Whole(least, most) if *most < LARGE - 1 => format!("a whole number from {least} to {most}"),
            Kind::Whole(least, _) => format!("a whole number of at least {least} (below 2^32)"),
            Kind::Rate => "a number from 0 to below 1".to_owned(),
            Kind::PositiveRate => "a number above 0 and below 1".to_owned(),
            Kind::UnitInterval => "a number from 0 to 1".to_owned(),
            Kind::NotNegative => "a number of at least 0".to_owned(),
            Kind::Positive => "a number above 0".to_owned(),
            Kind::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", words.join(", "))
            }
            Kind::Switch => "true or false".to_owned(),
            Kind::Query => "\"text\", \"rake\" or \"tfidf:N\" with N terms above 0".to_owned(),
            Kind::PassageWords => PassageWords::EXPECTED.to_owned(),
        }
    }

    /// The value in its one form (a single pattern as a list, a whole number as a float where a number is due), or none
    /// where it is not allowed.
    pub fn accept(&self, value: &Value) -> Option<Value> {
        let text = |good: fn(&str) -> bool| value.as_str().filter(|text| good(text)).map(Value::from);
        let number = |good: fn(f64) -> bool| {
            let number = value
                .as_float()
                .or_else(|| value.as_integer().map(|whole| whole as f64))?;
            (number.is_finite() && good(number)).then_some(Value::Float(number))
        };
        match self {
            Kind::Text | Kind::File | Kind::Directory => text(|text| !text.is_empty()),
            Kind::Name => text(|text| !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\\'])),
            Kind::Patterns => {
                let list = match value {
                    Value::String(_) => vec![value.clone()],
                    _ => value.as_array()?.clone(),
                };
                let good = list
                    .iter()
                    .all(|pattern| pattern.as_str().is_some_and(|text| !text.is_empty()));
                (good && !list.is_empty()).then_some(Value::Array(list))
            }
            Kind::Whole(least, most) => {
                let whole = u64::try_from(value.as_integer()?).ok()?;
                (*least..=*most).contains(&whole).then(|| value.clone())
            }
            Kind::Rate => number(|number| (0.0..1.0).contains(&number)),
            Kind::PositiveRate => number(|number| number > 0.0 && number < 1.0),
            Kind::UnitInterval => number(|number| (0.0..=1.0).contains(&number)),
            Kind::NotNegative => number(|number| number >= 0.0),
            Kind::Positive => number(|number| number > 0.0),
            Kind::Choice(words) => value.as_str().filter(|word| words.contains(word)).map(Value::from),
            Kind::Switch => value.as_bool().map(Value::from),
            Kind::Query => value
                .as_str()?
                .parse::<Query>()
                .ok()
                .map(|query| query.to_string().into()),
            Kind::PassageWords => PassageWords::try_from(value.clone()).ok().map(Value::from),
        }
    }

    /// Whether values are written in quotes, so that `--set` may leave the quotes out.
    pub fn is_text(&self) -> bool {
        matches!(
            self,
            Kind::Text | Kind::Name | Kind::File | Kind::Directory | Kind::Patterns | Kind::Choice(_) | Kind::Query
        )
    }
}
