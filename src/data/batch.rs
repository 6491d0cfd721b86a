//! A batch: packed tokens without padding, and the lists that the kernels need.
//!
//! ```text
//! ids            tokens            input ids, masked ones replaced         [CLS] a b [SEP] [CLS] c [SEP]
//! positions      tokens            position within the sequence              0   1 2   3     0   1   2
//! cu_seqlens     sequences + 1     first row of each sequence, and the end   0 4 7
//! masked_rows    masked            rows to predict, ascending
//! masked_labels  masked            their original ids
//! labels         sequences         class of each sequence; none for external data
//! sorted_rows    tokens            rows in the order of (id, row)
//! bucket_ids     buckets           the distinct ids, ascending
//! bucket_offsets buckets + 1       where each id's rows start in sorted_rows
//! ```
//!
//! The first row of a sequence is its `[CLS]` row. The buckets let the backward of the embedding add up the gradient of
//! each vocabulary row in one place and in a fixed order, without atomics. All buffers are allocated once, at the
//! capacity of the plan, and reused.

use super::error::DataError;

/// The largest batch that a plan takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchCapacity {
    /// Packed tokens.
    pub tokens: usize,
    /// Sequences.
    pub sequences: usize,
    /// Masked rows; 0 without masking.
    pub masked: usize,
}

/// One packed batch; shapes in the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Input token ids, after masking. Shape: tokens.
    pub ids: Vec<u32>,
    /// Position of each token within its sequence. Shape: tokens.
    pub positions: Vec<u32>,
    /// Row of the first token of each sequence, then the number of tokens. Shape: sequences + 1.
    pub cu_seqlens: Vec<u32>,
    /// Rows whose id is predicted, ascending. Shape: masked.
    pub masked_rows: Vec<u32>,
    /// The original ids of those rows. Shape: masked.
    pub masked_labels: Vec<u32>,
    /// Class of each sequence. Shape: sequences, or empty for unlabelled data.
    pub labels: Vec<u32>,
    /// Rows sorted by input id, then by row. Shape: tokens.
    pub sorted_rows: Vec<u32>,
    /// Distinct input ids, ascending. Shape: buckets.
    pub bucket_ids: Vec<u32>,
    /// Start of each bucket in `sorted_rows`, then the number of tokens. Shape: buckets + 1.
    pub bucket_offsets: Vec<u32>,
    /// Rows that were selected for masking but stayed as they are, because the plan was full.
    pub mask_surplus: usize,
    capacity: BatchCapacity,
    sort_keys: Vec<u64>,
}

impl Batch {
    /// An empty batch with room for `capacity`.
    #[must_use]
    pub fn new(capacity: BatchCapacity) -> Self {
        let tokens = || Vec::with_capacity(capacity.tokens);
        Batch {
            ids: tokens(),
            positions: tokens(),
            cu_seqlens: Vec::with_capacity(capacity.sequences + 1),
            masked_rows: Vec::with_capacity(capacity.masked),
            masked_labels: Vec::with_capacity(capacity.masked),
            labels: Vec::with_capacity(capacity.sequences),
            sorted_rows: tokens(),
            bucket_ids: tokens(),
            bucket_offsets: Vec::with_capacity(capacity.tokens + 1),
            mask_surplus: 0,
            capacity,
            sort_keys: Vec::with_capacity(capacity.tokens),
        }
    }

    /// Number of packed tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Number of masked rows.
    #[must_use]
    pub fn masked(&self) -> usize {
        self.masked_rows.len()
    }

    /// The largest batch that fits.
    #[must_use]
    pub fn capacity(&self) -> BatchCapacity {
        self.capacity
    }

    /// Empties the batch; its memory stays.
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.positions.clear();
        self.cu_seqlens.clear();
        self.cu_seqlens.push(0);
        self.masked_rows.clear();
        self.masked_labels.clear();
        self.labels.clear();
        self.mask_surplus = 0;
    }

    /// Packs one more sequence into batch `index`.
    pub(super) fn push(&mut self, index: u64, ids: &[u32], label: Option<u32>) -> Result<(), DataError> {
        let full = |what, needed, capacity| {
            Err(DataError::Capacity {
                batch: index,
                what,
                needed,
                capacity,
            })
        };
        let (tokens, sequences) = (self.ids.len() + ids.len(), self.cu_seqlens.len());
        if tokens > self.capacity.tokens {
            return full("tokens", tokens, self.capacity.tokens);
        }
        if sequences > self.capacity.sequences {
            return full("sequences", sequences, self.capacity.sequences);
        }
        self.ids.extend_from_slice(ids);
        self.positions.extend((0_u32..).take(ids.len()));
        self.cu_seqlens.push(tokens as u32);
        self.labels.extend(label);
        Ok(())
    }

    /// Sorts the rows into buckets; after masking.
    pub(super) fn sort_rows(&mut self) {
        self.sort_keys.clear();
        self.sort_keys
            .extend(self.ids.iter().zip(0_u64..).map(|(&id, row)| u64::from(id) << 32 | row));
        // Keys are distinct, so an unstable sort is stable in effect, and it does not allocate.
        self.sort_keys.sort_unstable();
        self.sorted_rows.clear();
        self.bucket_ids.clear();
        self.bucket_offsets.clear();
        for (place, &key) in (0_u32..).zip(&self.sort_keys) {
            let (id, row) = ((key >> 32) as u32, key as u32);
            if self.bucket_ids.last() != Some(&id) {
                self.bucket_ids.push(id);
                self.bucket_offsets.push(place);
            }
            self.sorted_rows.push(row);
        }
        self.bucket_offsets.push(self.sorted_rows.len() as u32);
    }
}
