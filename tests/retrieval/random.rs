//! Random texts.

/// A linear congruential generator (Knuth's MMIX), its high bits.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// So many words `w0`, `w1`, ...; small numbers are frequent.
    pub fn text(&mut self, words: u64, vocabulary: u64) -> String {
        let words = (0..words).map(|_| {
            let bound = self.below(vocabulary) + 1;
            format!("w{}", self.below(bound))
        });
        words.collect::<Vec<_>>().join(" ")
    }
}
