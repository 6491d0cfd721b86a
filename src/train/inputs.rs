//! The input block of a plan: one step's scalars and one batch, as the device gets them in a single upload.
//!
//! ```text
//! StepParams | ids | positions | cu_seqlens | ... each at the offset of its port, only its live rows written
//! ```
//!
//! Which ports there are and where, the plan says; what goes into them follows from their names, which are those of the
//! fields of [`Batch`]. Words behind the live rows keep what an earlier batch left there: no kernel reads them, because
//! every kernel takes its row count from [`StepParams`].
//!
//! A loss over rows is a weighted sum on the device. The weights are `factor / rows` here ([`row_weight`]), so that the
//! kernels know nothing of means, of the two losses' factors, or of batches without any masked token.

use crate::bert::Capacity;
use crate::data::{Batch, BatchCapacity};
use crate::kernel::StepParams;
use crate::plan::Plan;

/// Host memory of the input block, allocated once at the size of the largest plan.
#[derive(Clone, Debug)]
pub struct InputBlock {
    words: Vec<u32>,
    used: usize,
}

/// A plan's capacity as batches are packed for it.
pub fn batch_capacity(capacity: &Capacity) -> BatchCapacity {
    BatchCapacity {
        tokens: capacity.tokens as usize,
        sequences: capacity.sequences as usize,
        masked: capacity.masked as usize,
    }
}

/// Weight of one row in a mean over `rows` rows that counts with `factor`: factor / rows, and 0 where a batch has no
/// such row (no token was masked), so that an empty mean is 0 and never NaN.
pub fn row_weight(factor: f64, rows: u64) -> f32 {
    if rows == 0 { 0.0 } else { (factor / rows as f64) as f32 }
}

/// The scalars of a step with the counts of its batch: tokens, sequences, masked rows, buckets, squared lengths.
pub fn counted(step: &StepParams, batch: &Batch) -> StepParams {
    let squared_lengths = batch.cu_seqlens.windows(2).map(|ends| (ends[1] - ends[0]).pow(2)).sum();
    StepParams {
        tokens: batch.tokens() as u32,
        sequences: batch.sequences() as u32,
        masked: batch.masked() as u32,
        buckets: batch.bucket_ids.len() as u32,
        squared_lengths,
        ..*step
    }
}

impl InputBlock {
    /// A block of `words` words: the largest [`Plan::input_words`] of the plans that it serves.
    pub fn new(words: usize) -> InputBlock {
        InputBlock {
            words: vec![0; words],
            used: 0,
        }
    }

    /// Fills in the block for one run of `plan`. The counts of `step` are taken from the batch, its other fields as they
    /// are. `mlm_weight` and `task_weight` are the factors of the two mean losses. Allocates nothing.
    ///
    /// # Panics
    /// If the batch is larger than the plan's capacity, the block smaller than the plan's inputs, or a plan with labels
    /// meets an unlabelled batch.
    pub fn fill(&mut self, plan: &Plan, batch: &Batch, step: &StepParams, mlm_weight: f64, task_weight: f64) {
        let step = counted(step, batch);
        self.words[..StepParams::WORDS].copy_from_slice(step.words());
        self.used = StepParams::WORDS;
        let (masked, sequences) = (batch.masked(), batch.sequences());
        let masked_weight = row_weight(mlm_weight, masked as u64);
        let label_weight = row_weight(task_weight, sequences as u64);
        self.port(plan, "ids", batch.tokens(), Rows::Words(&batch.ids));
        self.port(plan, "positions", batch.tokens(), Rows::Words(&batch.positions));
        self.port(plan, "cu_seqlens", sequences + 1, Rows::Words(&batch.cu_seqlens));
        self.port(plan, "sorted_rows", batch.tokens(), Rows::Words(&batch.sorted_rows));
        let buckets = batch.bucket_ids.len();
        self.port(plan, "bucket_ids", buckets, Rows::Words(&batch.bucket_ids));
        self.port(plan, "bucket_offsets", buckets + 1, Rows::Words(&batch.bucket_offsets));
        self.port(plan, "masked_rows", masked, Rows::Words(&batch.masked_rows));
        self.port(plan, "masked_labels", masked, Rows::Words(&batch.masked_labels));
        self.port(plan, "masked_weights", masked, Rows::Same(masked_weight));
        self.port(plan, "labels", sequences, Rows::Words(&batch.labels));
        self.port(plan, "label_weights", sequences, Rows::Same(label_weight));
    }

    /// Multiplies the losses' gradients with 2^exponent, until the block is filled again.
    pub fn scale_loss(&mut self, exponent: i32) {
        let words = &mut self.words[..StepParams::WORDS];
        let step: &mut [StepParams] = bytemuck::cast_slice_mut(words);
        step[0].loss_scale = (exponent as f32).exp2();
        step[0].inverse_loss_scale = (-exponent as f32).exp2();
    }

    /// The words to be written to the start of the device's input buffer: up to the last live row.
    pub fn words(&self) -> &[u32] {
        &self.words[..self.used]
    }

    /// Writes the first `rows` words of a port, if the plan has it.
    fn port(&mut self, plan: &Plan, name: &str, rows: usize, values: Rows) {
        let Some(port) = plan.input(name) else { return };
        let live = &mut self.words[port.offset..port.offset + port.words][..rows];
        match values {
            Rows::Words(words) => live.copy_from_slice(words),
            Rows::Same(value) => live.fill(value.to_bits()),
        }
        self.used = self.used.max(port.offset + rows);
    }
}

/// What the rows of a port hold.
enum Rows<'a> {
    /// These words.
    Words(&'a [u32]),
    /// One number, everywhere.
    Same(f32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::plans::{self, Kind};
    use crate::bert::{Capacity, parameters};
    use crate::data::{BatchCapacity, BatchSettings, BatchStream, Masking, Sequences, SpecialIds};
    use crate::hub::BertConfig;
    use std::sync::Arc;

    const CAPACITY: Capacity = Capacity {
        tokens: 24,
        sequences: 3,
        masked: 24,
        max_length: 8,
    };

    fn plan(kind: Kind) -> Plan {
        let config = BertConfig {
            vocab_size: 40,
            hidden_size: 64,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            intermediate_size: 64,
            max_position_embeddings: 8,
            max_length: 8,
            labels: vec!["no".into(), "yes".into()],
            ..BertConfig::default()
        };
        plans::batch(kind, &config, &parameters(&config), &CAPACITY, plans::Form::default()).unwrap()
    }

    /// Three labelled sequences, nearly every token of which is masked, or none.
    fn batch(masked: bool) -> Batch {
        let mut sequences = Sequences::default();
        for ids in [&[2, 9, 9, 7, 3][..], &[2, 11, 3], &[2, 9, 3]] {
            sequences.push(ids);
        }
        sequences.set_labels(vec![1, 0, 1]).unwrap();
        let special = SpecialIds {
            pad: 0,
            unk: 1,
            cls: 2,
            sep: 3,
            mask: 4,
        };
        let capacity = BatchCapacity {
            tokens: 24,
            sequences: 3,
            masked: 24,
        };
        let settings = BatchSettings {
            seed: 1,
            stream: 0,
            batch: 3,
            masking: masked.then(|| Masking::new(0.999, special, 40).unwrap()),
            capacity,
        };
        let mut batch = Batch::new(capacity);
        let stream = BatchStream::new(Arc::new(sequences), settings).unwrap();
        stream.cursor().fill(0, &mut batch).unwrap();
        batch
    }

    /// The live words that a port must get, from the batch's definition.
    fn expected(name: &str, batch: &Batch) -> Vec<u32> {
        let weights = |factor: f64, rows: usize| vec![((factor / rows as f64) as f32).to_bits(); rows];
        match name {
            "ids" => batch.ids.clone(),
            "positions" => batch.positions.clone(),
            "cu_seqlens" => batch.cu_seqlens.clone(),
            "sorted_rows" => batch.sorted_rows.clone(),
            "bucket_ids" => batch.bucket_ids.clone(),
            "bucket_offsets" => batch.bucket_offsets.clone(),
            "masked_rows" => batch.masked_rows.clone(),
            "masked_labels" => batch.masked_labels.clone(),
            "masked_weights" => weights(0.75, batch.masked_rows.len()),
            "labels" => batch.labels.clone(),
            "label_weights" => weights(0.25, 3),
            other => panic!("a port that nobody fills: {other}"),
        }
    }

    #[test]
    fn every_port_of_every_plan_gets_the_words_of_its_field_and_nothing_behind_them() {
        const UNTOUCHED: u32 = 0xdead_beef;
        let batch = batch(true);
        assert!(batch.masked() > 0 && batch.masked() < CAPACITY.masked as usize);
        for kind in [Kind::External, Kind::Joint, Kind::Finetune, Kind::Evaluate] {
            let plan = plan(kind);
            let mut block = InputBlock::new(plan.input_words());
            block.words.fill(UNTOUCHED);
            let step = StepParams {
                step: 7,
                seed: [3, 4],
                learning_rate: 0.5,
                ..StepParams::default()
            };
            block.fill(&plan, &batch, &step, 0.75, 0.25);
            let mut last = 0;
            for port in &plan.inputs {
                let words = expected(port.name, &batch);
                let (live, rest) = block.words[port.offset..port.offset + port.words].split_at(words.len());
                assert_eq!(live, words, "{} of {}", port.name, plan.name);
                assert!(rest.iter().all(|&word| word == UNTOUCHED), "{}", port.name);
                last = last.max(port.offset + words.len());
            }
            assert_eq!(block.words().len(), last);
        }
    }

    #[test]
    fn the_scalars_of_the_step_stay_and_the_counts_are_those_of_the_batch() {
        let batch = batch(true);
        let plan = plan(Kind::Joint);
        let mut block = InputBlock::new(plan.input_words());
        let step = StepParams {
            step: 7,
            seed: [3, 4],
            tokens: 99,
            learning_rate: 0.5,
            bias_correction: 0.25,
            clip_norm: 2.0,
            ..StepParams::default()
        };
        block.fill(&plan, &batch, &step, 1.0, 1.0);
        let distinct: std::collections::BTreeSet<u32> = batch.ids.iter().copied().collect();
        let expected = StepParams {
            tokens: 11,
            sequences: 3,
            masked: batch.masked_rows.len() as u32,
            buckets: distinct.len() as u32,
            squared_lengths: 5 * 5 + 3 * 3 + 3 * 3,
            ..step
        };
        assert_eq!(&block.words()[..StepParams::WORDS], expected.words());
    }

    #[test]
    fn a_batch_without_masked_tokens_adds_nothing_and_is_not_nan() {
        assert_eq!(row_weight(1.0, 0), 0.0);
        assert_eq!(row_weight(0.5, 4), 0.125);
        let (batch, plan) = (batch(false), plan(Kind::External));
        let mut block = InputBlock::new(plan.input_words());
        block.fill(&plan, &batch, &StepParams::default(), 1.0, 0.0);
        assert_eq!(
            block.words()[StepParams::count_word(crate::kernel::Count::Masked) as usize],
            0
        );
    }
}
