//! Which sequences make up which batch.
//!
//! Training: batch `i` holds the places `i * batch .. (i + 1) * batch` of the endless sequence
//!
//! ```text
//! order of epoch 0 | order of epoch 1 | order of epoch 2 | ...
//! ```
//!
//! where each epoch is a permutation drawn from (seed, SHUFFLE + stream, epoch). All batches have exactly `batch`
//! sequences: they run across the ends of epochs, and data smaller than a batch repeats within it. So a batch is a
//! function of its index alone, and a run resumes exactly from its step.
//!
//! Evaluation: the sequences in order, unmasked, the last batch smaller.

use super::batch::{Batch, BatchCapacity};
use super::encode::Sequences;
use super::error::DataError;
use super::masking::Masking;
use crate::rng::{Stream, purpose};
use std::sync::Arc;

/// The endless batches of a training stream: an immutable description, see [`BatchStream::cursor`].
#[derive(Debug, Clone)]
pub struct BatchStream {
    sequences: Arc<Sequences>,
    settings: BatchSettings,
}

/// What a training stream is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchSettings {
    /// The run's seed.
    pub seed: u64,
    /// Number of the stream, below 2^16: external and internal data, for one, draw apart.
    pub stream: u32,
    /// Sequences a batch.
    pub batch: usize,
    /// Masking, or none for classification alone.
    pub masking: Option<Masking>,
    /// The plan's capacity.
    pub capacity: BatchCapacity,
}

impl BatchStream {
    /// Batches of these sequences.
    ///
    /// # Errors
    /// [`DataError::Setting`] without sequences (or with 2^32 or more), for an empty batch or one above the capacity,
    /// or a stream number of 2^16 or more.
    pub fn new(sequences: Arc<Sequences>, settings: BatchSettings) -> Result<Self, DataError> {
        if sequences.is_empty() || u32::try_from(sequences.len()).is_err() {
            return Err(DataError::Setting {
                what: "the number of training sequences",
                found: sequences.len().to_string(),
                expected: "between 1 and 2^32 - 1".into(),
            });
        }
        check_batch(settings.batch, settings.capacity)?;
        if settings.stream >= 1 << 16 {
            return Err(DataError::Setting {
                what: "the stream number",
                found: settings.stream.to_string(),
                expected: "below 65536".into(),
            });
        }
        Ok(BatchStream { sequences, settings })
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &BatchSettings {
        &self.settings
    }

    /// The sequences that the batches are made of.
    #[must_use]
    pub fn sequences(&self) -> &Arc<Sequences> {
        &self.sequences
    }

    /// Which pass over the data batch `index` starts in, as a fraction: 1.5 is the middle of the second.
    #[must_use]
    pub fn epoch(&self, index: u64) -> f64 {
        index as f64 * self.settings.batch as f64 / self.sequences.len() as f64
    }

    /// A reader of batches. It remembers the order of one epoch; what it fills in depends on the index alone.
    #[must_use]
    pub fn cursor(&self) -> BatchCursor {
        BatchCursor {
            stream: self.clone(),
            epoch: None,
            order: Vec::new(),
        }
    }
}

/// Fills batches of a [`BatchStream`].
#[derive(Debug, Clone)]
pub struct BatchCursor {
    stream: BatchStream,
    epoch: Option<u64>,
    order: Vec<u32>,
}

impl BatchCursor {
    /// Fills in batch `index`. Allocates nothing but the first epoch's order.
    ///
    /// # Errors
    /// [`DataError::Capacity`] if the batch does not fit.
    pub fn fill(&mut self, index: u64, batch: &mut Batch) -> Result<(), DataError> {
        let BatchSettings {
            seed,
            stream,
            batch: size,
            masking,
            ..
        } = self.stream.settings;
        let count = self.stream.sequences.len() as u64;
        batch.clear();
        for place in index * size as u64..(index + 1) * size as u64 {
            let sequence = self.at(place / count, (place % count) as usize);
            let sequences = &self.stream.sequences;
            batch.push(
                index,
                sequences.ids(sequence),
                sequences.labels().get(sequence).copied(),
            )?;
        }
        if let Some(masking) = masking {
            masking.apply(seed, stream, index, batch);
        }
        batch.sort_rows();
        Ok(())
    }

    /// The sequence at a place of an epoch's order.
    fn at(&mut self, epoch: u64, place: usize) -> usize {
        if self.epoch != Some(epoch) {
            let BatchSettings { seed, stream, .. } = self.stream.settings;
            self.order.clear();
            self.order.extend((0_u32..).take(self.stream.sequences.len()));
            Stream::new(seed, purpose::SHUFFLE + stream, epoch).shuffle(&mut self.order);
            self.epoch = Some(epoch);
        }
        self.order[place] as usize
    }
}

/// All sequences once, in order and unmasked.
#[derive(Debug, Clone)]
pub struct EvaluationBatches {
    sequences: Arc<Sequences>,
    batch: usize,
}

impl EvaluationBatches {
    /// Batches of `batch` sequences, the last one smaller.
    ///
    /// # Errors
    /// [`DataError::Setting`] for an empty batch or one above the capacity.
    pub fn new(sequences: Arc<Sequences>, batch: usize, capacity: BatchCapacity) -> Result<Self, DataError> {
        check_batch(batch, capacity)?;
        Ok(EvaluationBatches { sequences, batch })
    }

    /// Number of batches; none without sequences.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.sequences.len().div_ceil(self.batch) as u64
    }

    /// Fills in batch `index`, which starts with sequence `index * batch`. At or above [`EvaluationBatches::count`] the
    /// batch is empty.
    ///
    /// # Errors
    /// [`DataError::Capacity`] if the batch does not fit.
    pub fn fill(&self, index: u64, batch: &mut Batch) -> Result<(), DataError> {
        batch.clear();
        let start = (index as usize).saturating_mul(self.batch).min(self.sequences.len());
        let end = (start + self.batch).min(self.sequences.len());
        for sequence in start..end {
            batch.push(
                index,
                self.sequences.ids(sequence),
                self.sequences.labels().get(sequence).copied(),
            )?;
        }
        batch.sort_rows();
        Ok(())
    }
}

fn check_batch(batch: usize, capacity: BatchCapacity) -> Result<(), DataError> {
    if batch == 0 || batch > capacity.sequences {
        return Err(DataError::Setting {
            what: "batch",
            found: batch.to_string(),
            expected: format!("between 1 and the plan's {} sequences", capacity.sequences),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
