//! Model directories in the layout of Hugging Face transformers, out and in.
//!
//! ```text
//! config.json            sizes, labels, and tlm_max_length        (config)
//! model.safetensors      every parameter under its usual name     (names, weights)
//! tokenizer.json         the `tokenizers` crate's own format
//! tokenizer_config.json  which tokenizer class, longest input
//! ```
//!
//! `BertModel` and `BertForMaskedLM` of transformers load such a directory as it is. The task head (Linear, GELU,
//! Linear on the \[CLS\] row) has no counterpart in `BertForSequenceClassification`, whose classifier reads a tanh
//! pooler; it is stored as `classifier.dense` and `classifier.out_proj`, the names that ELECTRA's head, which computes
//! the same, gives them.
//!
//! Reading also takes encoders that others trained (with or without the `bert.` prefix, LayerNorm's `gamma` and `beta`,
//! half precision), so that fine-tuning can start from a published checkpoint.

pub mod config;
pub mod names;
pub mod weights;

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::atomic::{self, WriteError};
pub use config::BertConfig;
pub use weights::{Tensor, WeightsFile};

/// Name of the configuration in a model directory.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the parameters in a model directory.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the tokenizer in a model directory.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of a bare WordPiece vocabulary, which older checkpoints have instead of [`TOKENIZER_FILE`].
pub const VOCABULARY_FILE: &str = "vocab.txt";

/// Why a model directory cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The directory is not a model directory.
    #[error("{} is not a model directory: {message}", path.display())]
    NotAModel {
        /// The directory.
        path: PathBuf,
        /// What is missing and what to do.
        message: String,
    },
    /// `config.json` is not JSON or has a value that cannot be used.
    #[error("{}: {key}: found {found}, expected {expected}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The JSON key, or the line and column.
        key: String,
        /// What stands there.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// The parameters' file was cut off or changed after it was written.
    #[error("{} is damaged: {message}; copy it again or go back to an earlier checkpoint", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How one can tell.
        message: String,
    },
    /// A parameter that the model has is not in the file.
    #[error("{}: no tensor \"{name}\"{advice}", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The canonical name.
        name: String,
        /// The most similar name in the file, as a half-sentence, or nothing.
        advice: String,
    },
    /// A parameter has another shape or type than the model.
    #[error("{}: tensor \"{name}\" is {found}, expected {expected}; {}", path.display(), SHAPE_ADVICE)]
    Shape {
        /// The file.
        path: PathBuf,
        /// The name in the file.
        name: String,
        /// Type and shape in the file.
        found: String,
        /// Type and shape of the model.
        expected: String,
    },
    /// Tensors that cannot be written: a name twice, or data that does not fill the shape.
    #[error("cannot write {}: tensor \"{name}\": {message}", path.display())]
    BadTensor {
        /// The file that was to be written.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        message: String,
    },
}

const SHAPE_ADVICE: &str = "config.json and model.safetensors must come from the same model";

/// A model directory that was opened: configuration read, parameters checked.
#[derive(Debug)]
pub struct ModelDirectory {
    /// `config.json`.
    pub config: BertConfig,
    /// `model.safetensors`.
    pub weights: WeightsFile,
    /// `tokenizer.json`, or `vocab.txt` where only that is there.
    pub tokenizer: PathBuf,
}

/// Writes a model directory; one of that name is replaced as a whole. `tokenizer` is the text of `tokenizer.json`.
///
/// # Errors
/// [`HubError::Write`] or [`HubError::BadTensor`]; an older directory of that name then stays.
pub fn save(path: &Path, config: &BertConfig, tensors: &[Tensor<'_>], tokenizer: &str) -> Result<(), HubError> {
    atomic::write_directory(path, |to| {
        atomic::write(&to.join(CONFIG_FILE), config.to_json().as_bytes())?;
        weights::write(&to.join(WEIGHTS_FILE), tensors, &[])?;
        atomic::write(&to.join(TOKENIZER_FILE), tokenizer.as_bytes())?;
        atomic::write(&to.join("tokenizer_config.json"), tokenizer_config(config).as_bytes())?;
        Ok(())
    })
}

/// Opens a model directory, our own or a published BERT checkpoint.
///
/// # Errors
/// [`HubError`] naming the file and what is missing, damaged or unfit.
pub fn open(path: &Path) -> Result<ModelDirectory, HubError> {
    let not_a_model = |message: String| HubError::NotAModel {
        path: path.to_path_buf(),
        message,
    };
    if !path.is_dir() {
        return Err(not_a_model("there is no such directory".to_owned()));
    }
    let weights = path.join(WEIGHTS_FILE);
    if !weights.is_file() {
        let remedy = match path.join("pytorch_model.bin").is_file() {
            true => "convert pytorch_model.bin with `save_pretrained(..., safe_serialization=True)` of transformers",
            false => "give the directory that holds config.json, model.safetensors and tokenizer.json",
        };
        return Err(not_a_model(format!("it has no {WEIGHTS_FILE}; {remedy}")));
    }
    let tokenizer = [TOKENIZER_FILE, VOCABULARY_FILE]
        .map(|name| path.join(name))
        .into_iter()
        .find(|file| file.is_file());
    Ok(ModelDirectory {
        config: BertConfig::read(&path.join(CONFIG_FILE))?,
        tokenizer: tokenizer
            .ok_or_else(|| not_a_model(format!("it has neither {TOKENIZER_FILE} nor {VOCABULARY_FILE}")))?,
        weights: WeightsFile::open(&weights)?,
    })
}

/// transformers takes the normaliser and the special tokens' ids from `tokenizer.json`, but these words from here.
fn tokenizer_config(config: &BertConfig) -> String {
    let value = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_length,
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "model_input_names": ["input_ids", "attention_mask"],
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::names;

    fn tiny() -> BertConfig {
        BertConfig {
            vocab_size: 11,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 16,
            max_length: 16,
            labels: vec!["negative".into(), "positive".into(), "Größe".into()],
            ..BertConfig::default()
        }
    }

    fn values(config: &BertConfig) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let number = |tensor: usize, i: usize| ((tensor * 1000 + i) as f32).sin();
        names::all(config)
            .into_iter()
            .enumerate()
            .map(|(n, (name, shape))| {
                let data = (0..shape.iter().product()).map(|i| number(n, i)).collect();
                (name, shape, data)
            })
            .collect()
    }

    #[test]
    fn a_saved_model_is_read_back_bit_for_bit_with_its_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        let (config, values) = (tiny(), values(&tiny()));
        let tensors: Vec<Tensor<'_>> = values
            .iter()
            .map(|(name, shape, data)| Tensor { name, shape, data })
            .collect();
        save(&path, &config, &tensors, "{}").unwrap();
        let model = open(&path).unwrap();
        assert_eq!(model.config, config);
        assert_eq!(model.tokenizer, path.join("tokenizer.json"));
        for (name, shape, data) in &values {
            let read = model.weights.read(name, shape).unwrap();
            assert!(
                read.iter().map(|x| x.to_bits()).eq(data.iter().map(|x| x.to_bits())),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_missing_in_a_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let message = |path: &Path| open(path).unwrap_err().to_string();
        assert!(message(&directory.path().join("absent")).contains("there is no such directory"));
        assert!(message(directory.path()).contains("it has no model.safetensors"));
        std::fs::write(directory.path().join("pytorch_model.bin"), "x").unwrap();
        assert!(message(directory.path()).contains("convert pytorch_model.bin"));
        weights::write(&directory.path().join(WEIGHTS_FILE), &[], &[]).unwrap();
        std::fs::write(directory.path().join(CONFIG_FILE), tiny().to_json()).unwrap();
        assert!(message(directory.path()).contains("neither tokenizer.json nor vocab.txt"));
    }
}
