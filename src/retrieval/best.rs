//! The best hits of a query so far, which any thread adds to.
//!
//! Keys are score << 32 | !document, so that a larger key is a better hit: the score first, then the smaller document.
//! The buffer takes twice K keys; when it is full, selection leaves the K best, and scores below the K-th no longer come
//! in. The K best under a total order are the same in whatever order the documents came.
//!
//! Long before that, the hits among a fair sample of the documents tell about where the K-th of all will be. A score below
//! it is guessed as threshold, and most of the keys that would be put out again never come in. If in the end K scores are
//! as high as the highest guess, it has cost nothing; if not, the query has to be searched again without guesses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::search::Hit;

/// The best hits of a query among the documents scored so far.
pub(super) struct Best {
    k: usize,
    /// Scores up to this one do not come in.
    threshold: AtomicU32,
    /// Documents of lower scores may have been left out, others not; 0 without a guess.
    guess: AtomicU32,
    keys: Mutex<Vec<u64>>,
}

impl Best {
    /// For the `k` best of `documents`.
    pub(super) fn new(k: usize, documents: usize) -> Self {
        Best {
            k,
            threshold: AtomicU32::new(0),
            guess: AtomicU32::new(0),
            keys: Mutex::new(Vec::with_capacity(buffer_len(k, documents))),
        }
    }

    /// Scores up to this one do not come in. It only rises.
    #[inline(always)]
    pub(super) fn threshold(&self) -> u32 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// Takes in [`key`]s of scores above the threshold, as it was when they were chosen or as it is.
    pub(super) fn take(&self, mut keys: &[u64]) {
        let mut kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        while !keys.is_empty() {
            if kept.len() == kept.capacity() {
                self.select(&mut kept);
            }
            let (now, later) = keys.split_at(keys.len().min(kept.capacity() - kept.len()));
            kept.extend_from_slice(now);
            keys = later;
        }
    }

    /// Raises the threshold as far as the hits so far allow.
    pub(super) fn raise(&self) {
        let mut kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= self.k {
            self.select(&mut kept);
        }
    }

    /// Leaves the K best of K or more.
    #[inline(never)]
    fn select(&self, kept: &mut Vec<u64>) {
        let kth = leave_best(kept, self.k);
        // One with the K-th score may still come in, for its smaller number.
        self.threshold.fetch_max(score(kth) - 1, Ordering::Relaxed);
    }

    /// Guesses a threshold, when about this share of the documents has come, and a fair sample of them.
    pub(super) fn guess(&self, share: f64) {
        let mut kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        // The K best of all have so many among these, on average. Half as many again and four times the deviation of a
        // sample at random make a guess that is too high rare, also where such documents come in groups.
        let expected = share * self.k as f64;
        let rank = (1.5 * expected + 4.0 * expected.sqrt() + 8.0) as usize;
        if rank < kept.len().min(self.k) {
            let at_rank = score(nth_best(&mut kept, rank));
            self.guess.fetch_max(at_rank, Ordering::Relaxed);
            self.threshold.fetch_max(at_rank - 1, Ordering::Relaxed);
        }
    }

    /// The hits, best first; `None` if a guess was too high.
    pub(super) fn into_hits(self) -> Option<Vec<Hit>> {
        let mut keys = self.keys.into_inner().unwrap_or_else(PoisonError::into_inner);
        let guess = self.guess.into_inner();
        if keys.len() >= self.k {
            let kth = leave_best(&mut keys, self.k);
            if score(kth) < guess {
                return None;
            }
        } else if guess > 0 {
            return None;
        }
        keys.sort_unstable_by(|a, b| b.cmp(a));
        let hit = |key| Hit {
            document: !(key as u32),
            score: score(key),
        };
        Some(keys.into_iter().map(hit).collect())
    }
}

/// Leaves the `k` best of `k` or more keys. Returns the last of them.
fn leave_best(keys: &mut Vec<u64>, k: usize) -> u64 {
    let kth = nth_best(keys, k);
    keys.truncate(k);
    kth
}

/// The `n`-th best of `n` or more keys, behind the better ones.
fn nth_best(keys: &mut [u64], n: usize) -> u64 {
    *keys.select_nth_unstable_by(n - 1, |a, b| b.cmp(a)).1
}

/// A document and its score, 1 or more; a larger key is a better hit.
#[inline(always)]
pub(super) fn key(document: u32, score: u32) -> u64 {
    u64::from(score) << 32 | u64::from(!document)
}

/// The score of a key.
#[inline(always)]
fn score(key: u64) -> u32 {
    (key >> 32) as u32
}

/// Keys in the buffer of a query. A buffer that can hold every document is never selected from before the end.
pub(super) fn buffer_len(k: usize, documents: usize) -> usize {
    k.saturating_mul(2).min(documents).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(scores: &[u32]) -> Vec<u64> {
        (0..)
            .zip(scores)
            .map(|(document, &score)| key(document, score))
            .collect()
    }

    #[test]
    fn a_good_guess_keeps_what_is_needed_and_a_bad_one_is_seen() {
        let scores: Vec<u32> = (1..=1000).map(|n| n * 7919 % 1009 + 1).collect();
        let exact = Best::new(100, 1000);
        exact.take(&keys(&scores));
        let exact = exact.into_hits().unwrap();
        assert_eq!(exact.len(), 100);
        // The K-th is near 909; an eighth of the documents is a fair sample.
        let fair = Best::new(100, 1000);
        fair.take(&keys(&scores[..125]));
        fair.guess(0.125);
        assert!((500..909).contains(&fair.threshold()));
        fair.take(&keys(&scores)[125..]);
        assert_eq!(fair.into_hits(), Some(exact));
        // All good ones come first, all of the same score, or too few come at all.
        for rest in [vec![1; 900], vec![2000; 0]] {
            for first in [[2000; 99].as_slice(), &[2000; 60]] {
                let unfair = Best::new(100, 1000);
                unfair.take(&keys(first));
                unfair.guess(0.1);
                assert_eq!(unfair.threshold(), 1999);
                unfair.take(&keys(&rest));
                assert_eq!(unfair.into_hits(), None);
            }
        }
        // One score for all is no reason to search again.
        let equal = Best::new(100, 1000);
        equal.take(&keys(&[7; 100]));
        equal.guess(0.1);
        assert_eq!(equal.threshold(), 6);
        equal.take(&keys(&[7; 1000])[100..]);
        let hits = equal.into_hits().unwrap();
        assert!((0..100).eq(hits.iter().map(|hit| hit.document)));
        // With too few hits in the sample nothing is guessed.
        let few = Best::new(100, 1000);
        few.take(&keys(&[5; 30]));
        few.guess(0.1);
        assert_eq!(few.threshold(), 0);
        assert_eq!(few.into_hits().unwrap().len(), 30);
    }
}
