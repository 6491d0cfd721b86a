//! A trained model, opened for use: its directory, one plan on a device, its tokenizer and labels.
//!
//! ```text
//! texts --tokenizer--> [CLS] ... [SEP], truncated to the model's max_length --evaluate plan--> logits [texts, C]
//! ```
//!
//! Only what classifying needs is read: encoder and task head, not the head of masked language modelling.

use std::path::Path;
use std::sync::Arc;

use super::TlmError;
use crate::bert::plans::{self, Kind};
use crate::bert::{self, Capacity};
use crate::data::{BatchCapacity, LongTexts, Sequences, Tokenizer};
use crate::device::choice::DeviceChoice;
use crate::device::open::{Opened, open};
use crate::device::{Device, Program, Sizes};
use crate::hub::{self, BertConfig, ModelDirectory};
use crate::plan::{ParamTable, Plan, Space};
use crate::train::classifier::{logits, scores};

/// Prefix of the parameters that classifying does not need.
const MLM_HEAD: &str = "cls.";

/// A model directory, ready to label texts.
pub struct Classifier {
    device: Box<dyn Device>,
    decision: String,
    plan: Plan,
    program: Program,
    capacity: BatchCapacity,
    tokenizer: Tokenizer,
    config: BertConfig,
}

impl Classifier {
    /// Opens a model directory for batches of `batch` texts.
    ///
    /// # Errors
    /// [`TlmError::Hub`] and [`TlmError::Data`] for missing, damaged or unfit files, [`TlmError::Refused`] for a model
    /// without a task head, [`TlmError::Plan`] and [`TlmError::Device`].
    pub fn open(model: &Path, choice: DeviceChoice, batch: usize) -> Result<Classifier, TlmError> {
        let ModelDirectory {
            config,
            weights,
            tokenizer,
        } = hub::open(model)?;
        let tokenizer = Tokenizer::load(&tokenizer)?;
        let refused = |message: String| Err(TlmError::Refused(format!("{}: {message}", model.display())));
        let head = hub::names::task_head(&config);
        if config.labels.is_empty() || !head.iter().all(|(name, _)| weights.contains(name)) {
            let advice = "the model has no task head (classifier.dense, classifier.out_proj), so it cannot tell \
                          classes apart: train one with `tlm finetune CONFIG --model DIR`";
            return refused(advice.to_owned());
        }
        if tokenizer.vocab_size() > config.vocab_size {
            return refused(format!(
                "the tokenizer has {} tokens, the model {}: they must come from the same model",
                tokenizer.vocab_size(),
                config.vocab_size
            ));
        }
        let (sequences, tokens) = (
            u32::try_from(batch),
            u32::try_from(batch.saturating_mul(config.max_length)),
        );
        let (Ok(sequences), Ok(tokens)) = (sequences, tokens) else {
            return refused(format!(
                "{batch} texts of {} tokens are too many for one batch",
                config.max_length
            ));
        };
        let params = bert::parameters(&config);
        let capacity = Capacity {
            tokens,
            sequences,
            masked: 0,
            max_length: config.max_length as u32,
        };
        let plan = plans::batch(Kind::Evaluate, &config, &params, &capacity, plans::Form::default())?;
        let Opened { mut device, decision } = open(choice, Sizes::of(params.words(), false, &[&plan]))?;
        let program = device.load(&plan)?;
        device.write(Space::Params, 0, bytemuck::cast_slice(&parameters(&params, &weights)?))?;
        let capacity = BatchCapacity {
            tokens: tokens as usize,
            sequences: batch,
            masked: 0,
        };
        Ok(Classifier {
            device,
            decision,
            plan,
            program,
            capacity,
            tokenizer,
            config,
        })
    }

    /// Names of the classes by index.
    pub fn labels(&self) -> &[String] {
        &self.config.labels
    }

    /// The device and why it was chosen.
    pub fn decision(&self) -> &str {
        &self.decision
    }

    /// Logits `[texts, C]`, row-major. A text of more tokens than the model takes loses its end; one without any, such
    /// as an empty text, is `[CLS] [SEP]`.
    ///
    /// # Errors
    /// [`TlmError::Data`] if the tokenizer fails on a text, [`TlmError::Train`] for failures of the device.
    pub fn logits<T: AsRef<str> + Sync>(&mut self, texts: &[T]) -> Result<Vec<f32>, TlmError> {
        let (sequences, _) = self
            .tokenizer
            .encode(texts, self.config.max_length, LongTexts::Truncate)?;
        self.logits_of(&Arc::new(sequences))
    }

    /// Probabilities of the classes for each text, in the order of [`Classifier::labels`].
    ///
    /// # Errors
    /// As [`Classifier::logits`].
    pub fn classify<T: AsRef<str> + Sync>(&mut self, texts: &[T]) -> Result<Vec<Vec<f64>>, TlmError> {
        let logits = self.logits(texts)?;
        Ok(logits.chunks_exact(self.labels().len()).map(scores).collect())
    }

    fn logits_of(&mut self, sequences: &Arc<Sequences>) -> Result<Vec<f32>, TlmError> {
        let (device, capacity) = (self.device.as_mut(), self.capacity);
        Ok(logits(
            device,
            self.program,
            &self.plan,
            sequences,
            capacity.sequences,
            capacity,
        )?)
    }
}

/// The flat parameter buffer of a file: every tensor but the MLM head's, which stay zero.
fn parameters(params: &ParamTable, weights: &hub::WeightsFile) -> Result<Vec<f32>, TlmError> {
    let mut flat = vec![0.0; params.words()];
    for (spec, offset) in params.iter().filter(|(spec, _)| !spec.name.starts_with(MLM_HEAD)) {
        weights.read_into(&spec.name, &spec.shape(), &mut flat[offset..offset + spec.len()])?;
    }
    Ok(flat)
}
