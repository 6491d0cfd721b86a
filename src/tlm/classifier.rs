//! A trained model, opened for use: its directory, one plan on a device, its tokenizer and labels.
//!
//! ```text
//! texts --tokenizer--> [CLS] ... [SEP], truncated to the model's max_length --evaluate plan--> logits [texts, C]
//! ```
//!
//! Only what classifying needs is read: encoder and task head, not the head of masked language modelling.

use std::path::Path;
use std::sync::Arc;

use super::model::{check_vocabulary, classifier_values};
use super::{TlmError, sizes};
use crate::bert;
use crate::bert::plans::{self, Form, Kind};
use crate::data::{BatchCapacity, LongTexts, Tokenizer};
use crate::device::choice::DeviceChoice;
use crate::device::open::Target;
use crate::device::{Device, Program, Sizes};
use crate::hub::{self, BertConfig};
use crate::plan::{Plan, Space};
use crate::train::classifier::{logits, scores};
use crate::train::inputs::batch_capacity;

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
        let directory = hub::open(model)?;
        let tokenizer = Tokenizer::load(&directory.tokenizer)?;
        let head = hub::names::task_head(&directory.config);
        let has_head = head.iter().all(|(name, _)| directory.weights.contains(name));
        if directory.config.labels.is_empty() || !has_head {
            let advice = "the model has no task head (classifier.dense, classifier.out_proj), so it cannot tell \
                          classes apart: train one with `tlm finetune CONFIG --model DIR`";
            return Err(TlmError::Refused(format!("{}: {advice}", model.display())));
        }
        check_vocabulary(model, &directory.config, &tokenizer)?;
        let params = bert::parameters(&directory.config);
        let capacity = sizes::capacity(batch, directory.config.max_length, None)?;
        let target = Target::of(choice)?;
        let form = Form {
            limits: target.limits(),
            ..Form::default()
        };
        let plan = plans::batch(Kind::Evaluate, &directory.config, &params, &capacity, form)?;
        let mut opened = target.open(Sizes::of(params.words(), false, &[&plan]))?;
        let program = opened.device.load(&plan)?;
        let values = classifier_values(&directory, &params)?;
        opened.device.write(Space::Params, 0, bytemuck::cast_slice(&values))?;
        let capacity = batch_capacity(&capacity);
        let config = directory.config;
        Ok(Classifier {
            decision: opened.decision(plan.precision),
            device: opened.device,
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
        let (device, sequences) = (self.device.as_mut(), Arc::new(sequences));
        let found = logits(device, self.program, &self.plan, &sequences, self.capacity, &mut |_| ())?;
        Ok(found)
    }

    /// Probabilities of the classes for each text, in the order of [`Classifier::labels`].
    ///
    /// # Errors
    /// As [`Classifier::logits`].
    pub fn classify<T: AsRef<str> + Sync>(&mut self, texts: &[T]) -> Result<Vec<Vec<f64>>, TlmError> {
        let logits = self.logits(texts)?;
        Ok(logits.chunks_exact(self.labels().len()).map(scores).collect())
    }
}
