//! Parameters between a model directory and the flat buffer of a device.
//!
//! ```text
//! model.safetensors, tensors by name  <-->  f32 [words], each tensor at the offset of its ParamTable entry
//! ```

use std::path::Path;

use super::TlmError;
use crate::data::Tokenizer;
use crate::hub::{self, BertConfig, ModelDirectory};
use crate::plan::{ParamSpec, ParamTable};
use crate::train::trainer::Trainer;

/// Prefix of the masked language model's head.
const MLM_HEAD: &str = "cls.";

/// The parameters that fine-tuning starts from: everything but the task head, which is made anew and stays zero here. A
/// bare encoder has no head of masked language modelling; fine-tuning does not use it.
///
/// # Errors
/// [`TlmError::Hub`] naming a tensor that is missing or has another shape.
pub fn encoder_values(model: &ModelDirectory, table: &ParamTable) -> Result<Vec<f32>, TlmError> {
    read(model, table, |spec| {
        !spec.head && (!spec.name.starts_with(MLM_HEAD) || model.weights.contains(&spec.name))
    })
}

/// The parameters that classifying reads: everything but the head of masked language modelling, which stays zero.
///
/// # Errors
/// As [`encoder_values`].
pub fn classifier_values(model: &ModelDirectory, table: &ParamTable) -> Result<Vec<f32>, TlmError> {
    read(model, table, |spec| !spec.name.starts_with(MLM_HEAD))
}

fn read(model: &ModelDirectory, table: &ParamTable, wanted: impl Fn(&ParamSpec) -> bool) -> Result<Vec<f32>, TlmError> {
    let mut flat = vec![0.0; table.words()];
    for (spec, offset) in table.iter().filter(|(spec, _)| wanted(spec)) {
        let words = &mut flat[offset..offset + spec.len()];
        model.weights.read_into(&spec.name, &spec.shape(), words)?;
    }
    Ok(flat)
}

/// Refuses a tokenizer whose ids go beyond the model's word embedding.
///
/// # Errors
/// [`TlmError::Refused`] with the directory.
pub fn check_vocabulary(path: &Path, model: &BertConfig, tokenizer: &Tokenizer) -> Result<(), TlmError> {
    if tokenizer.vocab_size() <= model.vocab_size {
        return Ok(());
    }
    Err(TlmError::Refused(format!(
        "{}: the tokenizer has {} tokens, the model {}: they must come from the same model",
        path.display(),
        tokenizer.vocab_size(),
        model.vocab_size
    )))
}

/// Writes the model on the device as a model directory; `tokenizer` is a `tokenizer.json`.
///
/// # Errors
/// [`TlmError::Hub`] with the path; device failures.
pub fn save(path: &Path, trainer: &mut Trainer, tokenizer: &Path) -> Result<(), TlmError> {
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
