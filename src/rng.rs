//! Random numbers: Philox4x32-10, one counter-based generator for every backend.
//!
//! Philox (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a bijection of a
//! 128-bit counter under a 64-bit key: ten rounds of two 32 x 32 -> 64 bit products. It has no state, so any number
//! of any step can be had alone, in any order and on any device, and a run resumes exactly from (seed, step).
//!
//! ```text
//! key     = (seed low, seed high)
//! counter = (block, purpose, index low, index high)        four u32 words come out of each block
//! ```
//!
//! | draw | block | purpose | index |
//! |---|---|---|---|
//! | dropout in a kernel | element / 4 (word = element % 4) | the op's id, below [`purpose::INIT`] | optimiser step |
//! | masking | row in the packed batch | [`purpose::MASK`] + stream | batch |
//! | [`Stream`]: shuffling, initialisation, selection | counts up | one of [`purpose`] | epoch, parameter, query |
//!
//! The position in the tensor names a draw, never a thread or a launch, so masks are bit-equal on all backends.
//! Decisions compare a word with an integer [`threshold`], never a float. Normal numbers go through `libm`, whose
//! results do not depend on the platform's C library.

/// What a draw is for: the second counter word.
///
/// Purposes lie 2^16 apart, so that each can be split by adding a small stream number (the external and the internal
/// data are two streams). Everything below [`purpose::INIT`] belongs to dropout, whose second word is the op's id.
pub mod purpose {
    /// Initial values of parameters; the index is the parameter's place in the layout.
    pub const INIT: u32 = 0x8000_0000;
    /// The order of examples within an epoch; a stream number is added, the index is the epoch.
    pub const SHUFFLE: u32 = 0x8001_0000;
    /// Masked language modelling; a stream number is added, the index is the batch.
    pub const MASK: u32 = 0x8002_0000;
    /// Random selection of passages from the corpus (the ablation's baseline).
    pub const SELECT: u32 = 0x8003_0000;
    /// Synthetic inputs of benchmarks and profiles.
    pub const SYNTHETIC: u32 = 0x8004_0000;
}

/// First multiplier (M4x32_0 of Random123).
pub const PHILOX_M0: u32 = 0xD251_1F53;
/// Second multiplier (M4x32_1 of Random123).
pub const PHILOX_M1: u32 = 0xCD9E_8D57;
/// Increment of the first key word: the golden ratio.
pub const PHILOX_W0: u32 = 0x9E37_79B9;
/// Increment of the second key word: sqrt(3) - 1.
pub const PHILOX_W1: u32 = 0xBB67_AE85;

/// Philox4x32 with ten rounds: four random words for a counter under a key.
#[inline]
#[must_use]
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let p0 = u64::from(PHILOX_M0) * u64::from(c0);
        let p1 = u64::from(PHILOX_M1) * u64::from(c2);
        (c0, c1, c2, c3) = (
            (p1 >> 32) as u32 ^ c1 ^ k0,
            p1 as u32,
            (p0 >> 32) as u32 ^ c3 ^ k1,
            p0 as u32,
        );
        k0 = k0.wrapping_add(PHILOX_W0);
        k1 = k1.wrapping_add(PHILOX_W1);
    }
    [c0, c1, c2, c3]
}

/// The key of a seed: its low and its high word.
#[inline]
#[must_use]
pub fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// The integer threshold of a probability: a word is below it with probability `p`, to 2^-33.
///
/// Dropout drops an element when its word is below `threshold(p)` and keeps it at or above. `p` at or above 1 gives
/// the largest word, below or at 0 (and NaN) gives 0.
#[must_use]
pub fn threshold(p: f64) -> u32 {
    libm::round(p * 4_294_967_296.0) as u32
}

/// Maps 64 random bits to `0..n`. The bias is below n / 2^64, and the number of words used is fixed, which
/// counter-addressed draws need (rejection would shift all later ones).
#[inline]
#[must_use]
pub fn scale(bits: u64, n: u32) -> u32 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u32
}

/// Sequential draws on the host: the words of blocks 0, 1, 2, ... of (seed, purpose, index).
///
/// Equal arguments give equal draws on every platform. A stream holds 2^34 words; then it starts over.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    purpose: u32,
    index: u64,
    block: u32,
    words: [u32; 4],
    used: usize,
    spare_normal: Option<f32>,
}

impl Stream {
    /// The stream of a [`purpose`] and an index (epoch, parameter, query) under the run's seed.
    #[must_use]
    pub fn new(seed: u64, purpose: u32, index: u64) -> Self {
        Stream {
            key: key(seed),
            purpose,
            index,
            block: 0,
            words: [0; 4],
            used: 4,
            spare_normal: None,
        }
    }

    /// The next 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [self.block, self.purpose, self.index as u32, (self.index >> 32) as u32];
            self.words = philox4x32_10(counter, self.key);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// An integer of `0..n`, without bias (Lemire, "Fast random integer generation in an interval", 2019); 0 if `n`
    /// is 0.
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let rejected = n.wrapping_neg() % n;
            while (product as u32) < rejected {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// A number of [0, 1): 24 random bits, so every value is exact.
    #[inline]
    pub fn unit_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// A number between `lo` and `hi`, computed in f64 and rounded once.
    #[inline]
    pub fn uniform_f32(&mut self, lo: f32, hi: f32) -> f32 {
        let unit = f64::from(self.next_u32()) * (1.0 / 4_294_967_296.0);
        (f64::from(lo) + (f64::from(hi) - f64::from(lo)) * unit) as f32
    }

    /// A standard normal number: Box-Muller in f64, both numbers of a pair are used. |z| < 6.8.
    pub fn normal_f32(&mut self) -> f32 {
        if let Some(z) = self.spare_normal.take() {
            return z;
        }
        // Half a unit off zero keeps the logarithm finite.
        let u1 = (f64::from(self.next_u32()) + 0.5) * (1.0 / 4_294_967_296.0);
        let u2 = f64::from(self.next_u32()) * (1.0 / 4_294_967_296.0);
        let radius = libm::sqrt(-2.0 * libm::log(u1));
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * u2);
        self.spare_normal = Some((radius * sin) as f32);
        (radius * cos) as f32
    }

    /// Fisher-Yates shuffle: every order is equally likely. At most 2^32 - 1 items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(u32::try_from(last + 1).expect("at most 2^32 - 1 items are shuffled"));
            items.swap(last, other as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of Random123 1.14: counter, key, expected.
    const KNOWN_ANSWERS: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        (
            [u32::MAX; 4],
            [u32::MAX; 2],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        ),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        for (counter, key, expected) in KNOWN_ANSWERS {
            assert_eq!(
                philox4x32_10(counter, key),
                expected,
                "counter {counter:x?}, key {key:x?}"
            );
        }
    }

    #[test]
    fn a_stream_reads_the_blocks_of_its_counter_in_order() {
        let seed = 0x0123_4567_89ab_cdef;
        let index = 0xfedc_ba98_7654_3210;
        let mut stream = Stream::new(seed, purpose::SELECT, index);
        for block in 0..3 {
            let counter = [block, purpose::SELECT, 0x7654_3210, 0xfedc_ba98];
            for word in philox4x32_10(counter, [0x89ab_cdef, 0x0123_4567]) {
                assert_eq!(stream.next_u32(), word);
            }
        }
    }

    #[test]
    fn below_is_uniform_within_six_sigma() {
        let mut stream = Stream::new(1, purpose::SELECT, 0);
        let (n, draws) = (7_u32, 700_000_u32);
        let mut counts = [0_u32; 7];
        for _ in 0..draws {
            counts[stream.below(n) as usize] += 1;
        }
        let p = 1.0 / f64::from(n);
        let sigma = (f64::from(draws) * p * (1.0 - p)).sqrt();
        for count in counts {
            assert!(
                (f64::from(count) - f64::from(draws) * p).abs() < 6.0 * sigma,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn below_rejects_the_surplus_of_a_large_range() {
        // With n = 3 * 2^30 a plain multiplication would give every third value twice as often.
        let n = 3 << 30;
        let draws = 300_000_u32;
        let mut stream = Stream::new(2, purpose::SELECT, 0);
        let mut thirds = [0_u32; 3];
        for _ in 0..draws {
            thirds[(stream.below(n) % 3) as usize] += 1;
        }
        let sigma = (f64::from(draws) * (1.0 / 3.0) * (2.0 / 3.0)).sqrt();
        for count in thirds {
            assert!(
                (f64::from(count) - f64::from(draws) / 3.0).abs() < 6.0 * sigma,
                "{thirds:?}"
            );
        }
        assert_eq!(stream.below(1), 0);
        assert_eq!(stream.below(0), 0);
    }

    #[test]
    fn unit_and_uniform_numbers_stay_in_their_interval_with_the_right_mean() {
        let mut stream = Stream::new(3, purpose::INIT, 0);
        let draws = 200_000;
        let (mut unit_sum, mut uniform_sum) = (0.0_f64, 0.0_f64);
        for _ in 0..draws {
            let unit = stream.unit_f32();
            assert!((0.0..1.0).contains(&unit));
            let uniform = stream.uniform_f32(-0.25, 0.75);
            assert!((-0.25..=0.75).contains(&uniform));
            unit_sum += f64::from(unit);
            uniform_sum += f64::from(uniform);
        }
        let six_sigma = 6.0 * (1.0 / 12.0_f64).sqrt() / f64::from(draws).sqrt();
        assert!((unit_sum / f64::from(draws) - 0.5).abs() < six_sigma);
        assert!((uniform_sum / f64::from(draws) - 0.25).abs() < six_sigma);
    }

    #[test]
    fn normal_numbers_have_the_moments_of_the_standard_normal() {
        let mut stream = Stream::new(4, purpose::INIT, 9);
        let draws = 400_000;
        let mut moments = [0.0_f64; 4];
        for _ in 0..draws {
            let z = f64::from(stream.normal_f32());
            assert!(z.abs() < 6.8);
            for (power, moment) in moments.iter_mut().enumerate() {
                *moment += z.powi(power as i32 + 1) / f64::from(draws);
            }
        }
        // Variances of z, z^2, z^3 and z^4 under N(0, 1): 1, 2, 15, 96.
        for ((moment, expected), variance) in moments.iter().zip([0.0, 1.0, 0.0, 3.0]).zip([1.0, 2.0, 15.0, 96.0_f64]) {
            assert!(
                (moment - expected).abs() < 6.0 * (variance / f64::from(draws)).sqrt(),
                "{moments:?}"
            );
        }
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_every_order_is_equally_likely() {
        let mut large: Vec<u32> = (0..10_000).collect();
        Stream::new(5, purpose::SHUFFLE, 0).shuffle(&mut large);
        assert_ne!(large, (0..10_000).collect::<Vec<u32>>());
        large.sort_unstable();
        assert_eq!(large, (0..10_000).collect::<Vec<u32>>());

        let draws = 60_000_u32;
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..u64::from(draws) {
            let mut order = [0_u8, 1, 2];
            Stream::new(5, purpose::SHUFFLE, epoch).shuffle(&mut order);
            *counts.entry(order).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        let p = 1.0_f64 / 6.0;
        let six_sigma = 6.0 * (f64::from(draws) * p * (1.0 - p)).sqrt();
        for (order, count) in counts {
            assert!(
                (f64::from(count) - f64::from(draws) * p).abs() < six_sigma,
                "{order:?}: {count}"
            );
        }
    }

    #[test]
    fn seed_purpose_and_index_each_select_another_stream() {
        let first = |seed, purpose, index| Stream::new(seed, purpose, index).next_u32();
        let base = first(1, purpose::MASK, 0);
        assert_eq!(base, first(1, purpose::MASK, 0));
        assert_ne!(base, first(1 << 32 | 1, purpose::MASK, 0));
        assert_ne!(base, first(1, purpose::MASK + 1, 0));
        assert_ne!(base, first(1, purpose::MASK, 1 << 32));
    }

    #[test]
    fn thresholds_and_scaling_are_exact_at_the_ends() {
        assert_eq!(threshold(0.0), 0);
        assert_eq!(threshold(0.5), 1 << 31);
        assert_eq!(threshold(0.1), 429_496_730);
        assert_eq!(threshold(1.0), u32::MAX);
        assert_eq!(threshold(f64::NAN), 0);
        assert_eq!(scale(0, 30_522), 0);
        assert_eq!(scale(u64::MAX, 30_522), 30_521);
        assert_eq!(scale(1 << 63, 30_522), 15_261);
    }
}
