//! Dropout: the mask is a function of seed, step, op and element, never stored.
//!
//! ```text
//! keep(e)  iff  philox(counter = (e / 4, op, step, 0), key = seed)[e mod 4] >= threshold,   threshold = p 2^32
//! y        =    keep ? x / (1 - p) : 0
//! ```
//!
//! The backward regenerates the same mask. On the CPU sixteen counters run side by side.

use crate::device::cpu::LANES;
use crate::kernel::{Dims, StepParams};
use crate::rng::{PHILOX_M0, PHILOX_M1, PHILOX_W0, PHILOX_W1, philox4x32_10};

/// Elements whose words are drawn together.
pub const GROUP: usize = 4 * LANES;

/// A dropout rate and the op id of its masks, as recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Probability that an element is dropped, in [0, 1).
    pub probability: f32,
    /// Op id.
    pub op: u32,
}

impl Rate {
    /// The launch constants `threshold`, `keep_scale` and `op`.
    pub fn constants(&self) -> [(&'static str, u32); 3] {
        let scale = 1.0 / (1.0 - self.probability);
        let threshold = crate::rng::threshold(f64::from(self.probability));
        [
            ("threshold", threshold),
            ("keep_scale", scale.to_bits()),
            ("op", self.op),
        ]
    }
}

/// A launch's dropout.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    threshold: u32,
    scale: f32,
    op: u32,
    step: u32,
    key: [u32; 2],
}

impl Dropout {
    /// From the launch constants of [`Rate::constants`].
    pub fn new(dims: &Dims, step: &StepParams) -> Dropout {
        Dropout {
            threshold: dims.word("threshold"),
            scale: dims.float("keep_scale"),
            op: dims.word("op"),
            step: step.step,
            key: step.seed,
        }
    }

    /// Whether anything is dropped at all.
    #[inline(always)]
    pub fn active(&self) -> bool {
        self.threshold != 0
    }

    /// Factors (0 or 1 / (1 - p)) of elements `first ..`, at most [`GROUP`] of them.
    #[inline(always)]
    pub fn factors(&self, first: usize, factors: &mut [f32; GROUP]) {
        if first.is_multiple_of(4) {
            let words = self.words(first as u32 / 4);
            for (factor, word) in factors.iter_mut().zip(&words) {
                *factor = if *word >= self.threshold { self.scale } else { 0.0 };
            }
            return;
        }
        for (index, factor) in factors.iter_mut().enumerate() {
            let element = (first + index) as u32;
            let word = philox4x32_10([element / 4, self.op, self.step, 0], self.key)[element as usize % 4];
            *factor = if word >= self.threshold { self.scale } else { 0.0 };
        }
    }

    /// Applies dropout in place to elements `first .. first + x.len()`.
    #[inline(always)]
    pub fn apply(&self, first: usize, x: &mut [f32]) {
        if !self.active() {
            return;
        }
        let mut factors = [0.0; GROUP];
        for (group, x) in x.chunks_mut(GROUP).enumerate() {
            self.factors(first + group * GROUP, &mut factors);
            for (x, factor) in x.iter_mut().zip(&factors) {
                *x *= factor;
            }
        }
    }

    /// The words of counters `block .. block + 16`, in the order of their elements.
    #[inline(always)]
    fn words(&self, block: u32) -> [u32; GROUP] {
        // 64-bit lanes of which the low word counts: a product's high word is then one shift away from where the next
        // round multiplies it, and what its own high words hold by then is never read.
        const LOW: u64 = 0xffff_ffff;
        let mut c0 = [0u64; LANES];
        for (lane, c) in c0.iter_mut().enumerate() {
            *c = u64::from(block.wrapping_add(lane as u32));
        }
        let (mut c1, mut c2, mut c3) = (
            [u64::from(self.op); LANES],
            [u64::from(self.step); LANES],
            [0u64; LANES],
        );
        let [mut k0, mut k1] = self.key;
        for _ in 0..10 {
            for lane in 0..LANES {
                let p0 = u64::from(PHILOX_M0) * (c0[lane] & LOW);
                let p1 = u64::from(PHILOX_M1) * (c2[lane] & LOW);
                c0[lane] = (p1 >> 32) ^ c1[lane] ^ u64::from(k0);
                c2[lane] = (p0 >> 32) ^ c3[lane] ^ u64::from(k1);
                c1[lane] = p1;
                c3[lane] = p0;
            }
            k0 = k0.wrapping_add(PHILOX_W0);
            k1 = k1.wrapping_add(PHILOX_W1);
        }
        let mut words = [0; GROUP];
        for lane in 0..LANES {
            words[4 * lane] = c0[lane] as u32;
            words[4 * lane + 1] = c1[lane] as u32;
            words[4 * lane + 2] = c2[lane] as u32;
            words[4 * lane + 3] = c3[lane] as u32;
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::case::keeps;

    #[test]
    fn grouped_factors_equal_the_definition_at_any_offset() {
        let step = StepParams {
            step: 9,
            seed: [3, 4],
            ..StepParams::default()
        };
        let mut dims = Dims::default();
        for (name, word) in (Rate {
            probability: 0.3,
            op: 77,
        })
        .constants()
        {
            dims.constant(name, word);
        }
        let dropout = Dropout::new(&dims, &step);
        for first in [0usize, 4, 64, 1000, 1001, 1002, 1003] {
            let mut factors = [0.0; GROUP];
            dropout.factors(first, &mut factors);
            for (index, factor) in factors.iter().enumerate() {
                let kept = keeps(&step, 77, dims.word("threshold"), first + index);
                assert_eq!(
                    *factor,
                    if kept { 1.0 / (1.0 - 0.3f32) } else { 0.0 },
                    "element {}",
                    first + index
                );
            }
        }
    }
}
