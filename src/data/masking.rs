//! Masking for the masked language model.
//!
//! Every token that is no special token is selected independently with probability `rate` (Bernoulli, so the number
//! varies); a selected one becomes `[MASK]` in 80 % of cases, a random id of the whole vocabulary in 10 %, and stays in
//! 10 %. The model predicts the original id of all selected tokens. (Devlin et al. 2019, section 3.1.)
//!
//! Row `r` of batch `i` uses the four words of one Philox block, so that masks are drawn anew at every use of a text
//! and are the same after a resume:
//!
//! ```text
//! counter = (r, MASK + stream, i low, i high)
//! word 0  selected?   word 1  [MASK], random or unchanged   words 2 and 3  the random id
//! ```

use super::batch::Batch;
use super::error::DataError;
use super::tokenizer::SpecialIds;
use crate::rng::{key, philox4x32_10, purpose, scale, threshold};

/// Share of the selected tokens that become `[MASK]`.
pub const MASK_SHARE: f64 = 0.8;
/// Share of the selected tokens that become a random id.
pub const RANDOM_SHARE: f64 = 0.1;

/// How texts are masked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Masking {
    rate: f64,
    special: SpecialIds,
    vocab_size: u32,
}

impl Masking {
    /// Masking of tokens below `vocab_size` with probability `rate`, 0.15 in BERT and TLM.
    ///
    /// # Errors
    /// [`DataError::Setting`] unless 0 < `rate` < 1 and the vocabulary has ids.
    pub fn new(rate: f64, special: SpecialIds, vocab_size: usize) -> Result<Self, DataError> {
        if !(rate > 0.0 && rate < 1.0) {
            return Err(DataError::Setting {
                what: "mask_rate",
                found: rate.to_string(),
                expected: "a number between 0 and 1, such as 0.15".into(),
            });
        }
        match u32::try_from(vocab_size) {
            Ok(vocab_size) if vocab_size > 0 => Ok(Masking {
                rate,
                special,
                vocab_size,
            }),
            _ => Err(DataError::Setting {
                what: "vocab_size",
                found: vocab_size.to_string(),
                expected: "between 1 and 2^32 - 1".into(),
            }),
        }
    }

    /// Masked rows to plan for in batches of up to `tokens` tokens: the mean and six standard deviations, so that one
    /// batch in a billion has a surplus; at least 1.
    #[must_use]
    pub fn capacity(&self, tokens: usize) -> usize {
        let mean = tokens as f64 * self.rate;
        let bound = mean + 6.0 * (mean * (1.0 - self.rate)).sqrt();
        (bound.ceil() as usize).clamp(1, tokens.max(1))
    }

    /// Masks the packed batch `index` in place: its `ids`, `masked_rows`, `masked_labels` and `mask_surplus`.
    pub(super) fn apply(&self, seed: u64, stream: u32, index: u64, batch: &mut Batch) {
        let key = key(seed);
        let selected_below = threshold(self.rate);
        let mask_below = threshold(MASK_SHARE);
        let random_below = threshold(MASK_SHARE + RANDOM_SHARE);
        let capacity = batch.capacity().masked;
        batch.masked_rows.clear();
        batch.masked_labels.clear();
        batch.mask_surplus = 0;
        for (row, id) in (0_u32..).zip(&mut batch.ids) {
            if self.special.contains(*id) {
                continue;
            }
            let counter = [row, purpose::MASK + stream, index as u32, (index >> 32) as u32];
            let words = philox4x32_10(counter, key);
            if words[0] >= selected_below {
                continue;
            }
            if batch.masked_rows.len() == capacity {
                batch.mask_surplus += 1;
                continue;
            }
            batch.masked_rows.push(row);
            batch.masked_labels.push(*id);
            if words[1] < mask_below {
                *id = self.special.mask;
            } else if words[1] < random_below {
                *id = scale(u64::from(words[2]) << 32 | u64::from(words[3]), self.vocab_size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::BatchCapacity;

    const SPECIAL: SpecialIds = SpecialIds {
        pad: 0,
        unk: 1,
        cls: 2,
        sep: 3,
        mask: 4,
    };
    const VOCABULARY: u32 = 100;

    /// A batch of one sequence whose ordinary tokens cycle through 5..100.
    fn batch(tokens: usize, masked: usize) -> Batch {
        let mut batch = Batch::new(BatchCapacity {
            tokens,
            sequences: 1,
            masked,
        });
        let ids: Vec<u32> = (0..tokens as u32)
            .map(|row| if row % 10 == 0 { row / 10 % 5 } else { 5 + row % 95 })
            .collect();
        batch.clear();
        batch.push(0, &ids, None).unwrap();
        batch
    }

    fn masking() -> Masking {
        Masking::new(0.15, SPECIAL, VOCABULARY as usize).unwrap()
    }

    fn assert_share(what: &str, count: usize, of: usize, p: f64) {
        let sigma = (of as f64 * p * (1.0 - p)).sqrt();
        assert!(
            (count as f64 - of as f64 * p).abs() < 6.0 * sigma,
            "{what}: {count} of {of}, expected {p}"
        );
    }

    #[test]
    fn shares_are_binomial_and_special_tokens_are_never_masked() {
        let tokens = 400_000;
        let before = batch(tokens, tokens);
        let mut after = before.clone();
        masking().apply(1, 0, 7, &mut after);
        let candidates = before.ids.iter().filter(|&&id| id > 4).count();
        assert_share("selected", after.masked(), candidates, 0.15);
        let (mut masks, mut same, mut others) = (0, 0, vec![0_usize; VOCABULARY as usize]);
        for (&row, &label) in after.masked_rows.iter().zip(&after.masked_labels) {
            let (original, now) = (before.ids[row as usize], after.ids[row as usize]);
            assert_eq!(label, original);
            assert!(original > 4, "a special token was masked");
            match now {
                4 => masks += 1,
                now if now == original => same += 1,
                now => others[now as usize] += 1,
            }
        }
        // A random id is the mask or the original one time in the vocabulary's size each.
        let hit = 0.1 / f64::from(VOCABULARY);
        assert_share("[MASK]", masks, after.masked(), 0.8 + hit);
        assert_share("unchanged", same, after.masked(), 0.1 + hit);
        assert_share("random", others.iter().sum(), after.masked(), 0.1 - 2.0 * hit);
        // Also special ids come up; only [MASK] was counted apart.
        let random = others.iter().sum::<usize>();
        for id in (0..4).chain(5..VOCABULARY as usize) {
            assert_share("one random id", others[id], random, 1.0 / f64::from(VOCABULARY - 1));
        }
        assert!(after.masked_rows.is_sorted_by(|a, b| a < b));
        let rest = (0..tokens as u32).filter(|row| after.masked_rows.binary_search(row).is_err());
        for row in rest {
            assert_eq!(before.ids[row as usize], after.ids[row as usize]);
        }
    }

    #[test]
    fn masks_depend_on_seed_stream_and_batch_and_on_nothing_else() {
        let masked = |seed, stream, index| {
            let mut batch = batch(2000, 2000);
            masking().apply(seed, stream, index, &mut batch);
            batch
        };
        assert_eq!(masked(1, 0, 5), masked(1, 0, 5));
        for other in [
            masked(2, 0, 5),
            masked(1, 1, 5),
            masked(1, 0, 6),
            masked(1, 0, 5 + (1 << 32)),
        ] {
            assert_ne!(masked(1, 0, 5).masked_rows, other.masked_rows);
        }
    }

    #[test]
    fn a_full_plan_leaves_the_surplus_as_it_is_and_counts_it() {
        let mut wide = batch(4000, 4000);
        masking().apply(3, 0, 0, &mut wide);
        let mut narrow = batch(4000, 100);
        masking().apply(3, 0, 0, &mut narrow);
        assert_eq!(wide.mask_surplus, 0);
        assert_eq!(narrow.masked(), 100);
        assert_eq!(narrow.masked() + narrow.mask_surplus, wide.masked());
        assert_eq!(narrow.masked_rows, wide.masked_rows[..100]);
        let last = narrow.masked_rows[99] as usize;
        assert_eq!(narrow.ids[last + 1..], batch(4000, 100).ids[last + 1..]);
    }

    #[test]
    fn the_planned_capacity_is_six_sigma_above_the_mean() {
        assert_eq!(masking().capacity(0), 1);
        assert_eq!(masking().capacity(1), 1);
        // 10,000 * 0.15 = 1500, sigma = sqrt(1500 * 0.85) = 35.7071
        assert_eq!(masking().capacity(10_000), 1715);
    }

    #[test]
    fn a_rate_outside_its_range_is_an_error() {
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            let error = Masking::new(rate, SPECIAL, 100).unwrap_err().to_string();
            assert!(
                error.starts_with("mask_rate is") && error.contains("between 0 and 1"),
                "{error}"
            );
        }
        assert!(Masking::new(0.15, SPECIAL, 0).is_err());
    }
}
