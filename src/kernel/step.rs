//! Scalars that change from step to step, in one small buffer that every kernel reads.
//!
//! They are never launch arguments: a captured CUDA graph or a recorded command buffer would freeze them. The learning
//! rate of step 7 reaches the device as 4 bytes of this structure.

use super::Count;

/// One step's scalars, as the device sees them: 32 words.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct StepParams {
    /// Optimiser step, 0-based; part of the counter of every random number.
    pub step: u32,
    /// Key of the random numbers: low and high word of the seed.
    pub seed: [u32; 2],
    /// Live tokens of the packed batch.
    pub tokens: u32,
    /// Live sequences.
    pub sequences: u32,
    /// Live masked rows.
    pub masked: u32,
    /// Distinct token ids.
    pub buckets: u32,
    /// Sum of squared sequence lengths, low word: what attention costs.
    pub squared_lengths: u32,
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// `sqrt(1 - beta2^t) / (1 - beta1^t)` with t = updates so far + 1.
    pub bias_correction: f32,
    /// The same for the task head, where it has seen fewer updates.
    pub head_bias_correction: f32,
    /// Gradients are scaled down to this global norm; infinity: not clipped.
    pub clip_norm: f32,
    /// What the losses' gradients are multiplied with, so that small ones survive in binary16; a power of two.
    pub loss_scale: f32,
    /// Its reciprocal, which the norm and the optimiser undo it with.
    pub inverse_loss_scale: f32,
    /// Reserved, zero.
    pub reserved: [u32; 18],
}

impl Default for StepParams {
    /// Zeros, and gradients as they are.
    fn default() -> StepParams {
        StepParams {
            loss_scale: 1.0,
            inverse_loss_scale: 1.0,
            ..bytemuck::Zeroable::zeroed()
        }
    }
}

impl StepParams {
    /// Counts that make every row of every plan live: for measuring launches.
    pub fn all_live() -> StepParams {
        StepParams {
            tokens: u32::MAX,
            sequences: u32::MAX,
            masked: u32::MAX,
            buckets: u32::MAX,
            ..StepParams::default()
        }
    }

    /// Words of the structure.
    pub const WORDS: usize = size_of::<StepParams>() / 4;

    /// Live number of rows of a kind.
    pub fn count(&self, count: Count) -> u32 {
        match count {
            Count::Fixed => u32::MAX,
            Count::Tokens => self.tokens,
            Count::Sequences => self.sequences,
            Count::Masked => self.masked,
            Count::Buckets => self.buckets,
        }
    }

    /// Index of the word that holds a count; `u32::MAX` for [`Count::Fixed`].
    pub const fn count_word(count: Count) -> u32 {
        match count {
            Count::Fixed => u32::MAX,
            Count::Tokens => 3,
            Count::Sequences => 4,
            Count::Masked => 5,
            Count::Buckets => 6,
        }
    }

    /// Sum of squared sequence lengths.
    pub fn squared_lengths(&self) -> u64 {
        u64::from(self.squared_lengths)
    }

    /// The words as the device gets them.
    pub fn words(&self) -> &[u32] {
        bytemuck::cast_slice(std::slice::from_ref(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_words_point_at_their_fields() {
        let step = StepParams {
            tokens: 11,
            sequences: 12,
            masked: 13,
            buckets: 14,
            ..StepParams::default()
        };
        for count in [Count::Tokens, Count::Sequences, Count::Masked, Count::Buckets] {
            assert_eq!(step.words()[StepParams::count_word(count) as usize], step.count(count));
        }
        assert_eq!(step.words().len(), 32);
    }
}
