//! Packed batches as the plans take them, for tests and benchmarks that need no tokenizer.

use tlm::device::{Device, DeviceError};
use tlm::kernel::StepParams;
use tlm::plan::{Plan, Space};
use tlm::rng::Stream;

/// One batch: every input of a plan, by the input's name.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    pub ids: Vec<u32>,
    pub positions: Vec<u32>,
    pub cu_seqlens: Vec<u32>,
    pub masked_rows: Vec<u32>,
    pub masked_labels: Vec<u32>,
    pub masked_weights: Vec<u32>,
    pub labels: Vec<u32>,
    pub label_weights: Vec<u32>,
    pub sorted_rows: Vec<u32>,
    pub bucket_ids: Vec<u32>,
    pub bucket_offsets: Vec<u32>,
}

impl Packed {
    /// Sequences one after the other; `masked` are rows of the batch, ascending, with their true ids; the loss weights are
    /// those of the joint objective.
    pub fn new(ids: &[u32], cu_seqlens: &[u32], masked: &[(u32, u32)], labels: &[u32], rho2: f64) -> Packed {
        let spans = cu_seqlens.windows(2);
        let mut rows: Vec<u32> = (0..ids.len() as u32).collect();
        rows.sort_by_key(|&row| (ids[row as usize], row));
        let mut bucket_ids: Vec<u32> = rows.iter().map(|&row| ids[row as usize]).collect();
        bucket_ids.dedup();
        let starts = bucket_ids
            .iter()
            .map(|&id| rows.partition_point(|&row| ids[row as usize] < id) as u32);
        let bucket_offsets = starts.chain([ids.len() as u32]).collect();
        let mlm = rho2 / (rho2 + 1.0) / masked.len().max(1) as f64;
        let task = 1.0 / (rho2 + 1.0) / labels.len().max(1) as f64;
        Packed {
            ids: ids.to_vec(),
            positions: spans.flat_map(|span| 0..span[1] - span[0]).collect(),
            cu_seqlens: cu_seqlens.to_vec(),
            masked_rows: masked.iter().map(|&(row, _)| row).collect(),
            masked_labels: masked.iter().map(|&(_, label)| label).collect(),
            masked_weights: vec![(mlm as f32).to_bits(); masked.len()],
            labels: labels.to_vec(),
            label_weights: vec![(task as f32).to_bits(); labels.len()],
            sorted_rows: rows,
            bucket_ids,
            bucket_offsets,
        }
    }

    /// Random ids in sequences of these lengths, 15 % of the rows masked.
    pub fn random(lengths: &[u32], vocabulary: u32, classes: u32, seed: u64) -> Packed {
        let mut stream = Stream::new(seed, 0, 0);
        let mut cu_seqlens = vec![0];
        for &length in lengths {
            cu_seqlens.push(cu_seqlens.last().copied().unwrap_or(0) + length);
        }
        let tokens = cu_seqlens.last().copied().unwrap_or(0);
        let ids: Vec<u32> = (0..tokens).map(|_| stream.next_u32() % vocabulary).collect();
        let count = u64::from(tokens) * 15 / 100;
        let row = |index| (index * u64::from(tokens) / count) as u32;
        let masked: Vec<(u32, u32)> = (0..count)
            .map(|index| (row(index), stream.next_u32() % vocabulary))
            .collect();
        let labels: Vec<u32> = lengths.iter().map(|_| stream.next_u32() % classes).collect();
        Packed::new(&ids, &cu_seqlens, &masked, &labels, 20.0)
    }

    /// The counts of this batch; no learning rate, no clipping.
    pub fn step(&self) -> StepParams {
        let squares = self.cu_seqlens.windows(2).map(|span| (span[1] - span[0]).pow(2));
        StepParams {
            tokens: self.ids.len() as u32,
            sequences: self.cu_seqlens.len() as u32 - 1,
            masked: self.masked_rows.len() as u32,
            buckets: self.bucket_ids.len() as u32,
            squared_lengths: squares.sum(),
            clip_norm: f32::INFINITY,
            ..StepParams::default()
        }
    }

    /// Writes the step's parameters and all inputs that `plan` has.
    pub fn write(&self, device: &mut dyn Device, plan: &Plan, step: &StepParams) -> Result<(), DeviceError> {
        device.write(Space::Inputs, 0, step.words())?;
        for port in &plan.inputs {
            let words = match port.name {
                "ids" => &self.ids,
                "positions" => &self.positions,
                "cu_seqlens" => &self.cu_seqlens,
                "masked_rows" => &self.masked_rows,
                "masked_labels" => &self.masked_labels,
                "masked_weights" => &self.masked_weights,
                "labels" => &self.labels,
                "label_weights" => &self.label_weights,
                "sorted_rows" => &self.sorted_rows,
                "bucket_ids" => &self.bucket_ids,
                "bucket_offsets" => &self.bucket_offsets,
                other => panic!("no input `{other}`"),
            };
            device.write(Space::Inputs, port.offset, words)?;
        }
        Ok(())
    }
}
