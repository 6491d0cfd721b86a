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
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::codec::SUB_TILE;
use super::search::Hit;

/// The best hits of a query among the documents scored so far.
pub(super) struct Best {
    k: usize,
    /// All that are to be scored.
    documents: usize,
    /// Scores up to this one do not come in.
    threshold: AtomicU32,
    /// Documents of lower scores may have been left out, others not; 0 without a guess.
    guess: AtomicU32,
    kept: Mutex<Kept>,
}

struct Kept {
    keys: Vec<u64>,
    /// So many documents have been scored to find them.
    scored: usize,
}

impl Best {
    /// For the `k` best of `documents`.
    pub(super) fn new(k: usize, documents: usize) -> Self {
        Best {
            k,
            documents,
            threshold: AtomicU32::new(0),
            guess: AtomicU32::new(0),
            kept: Mutex::new(Kept {
                keys: Vec::with_capacity(buffer_len(k, documents)),
                scored: 0,
            }),
        }
    }

    /// Scores up to this one do not come in. It only rises.
    #[inline(always)]
    pub(super) fn threshold(&self) -> u32 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// Takes in the [`key`]s of those of the next `scored` documents whose scores are above the threshold, as it was when they
    /// were chosen or as it is.
    pub(super) fn take(&self, mut keys: &[u64], scored: usize) {
        let mut kept = self.kept();
        kept.scored += scored;
        while !keys.is_empty() {
            if kept.keys.len() == kept.keys.capacity() {
                self.select(&mut kept.keys);
            }
            let (now, later) = keys.split_at(keys.len().min(kept.keys.capacity() - kept.keys.len()));
            kept.keys.extend_from_slice(now);
            keys = later;
        }
    }

    /// Raises the threshold as far as the hits so far allow.
    pub(super) fn raise(&self) {
        let mut kept = self.kept();
        if kept.keys.len() >= self.k {
            self.select(&mut kept.keys);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the K best of K or more.
    #[inline(never)]
    fn select(&self, keys: &mut Vec<u64>) {
        let kth = leave_best(keys, self.k);
        // One with the K-th score may still come in, for its smaller number.
        self.threshold.fetch_max(score(kth) - 1, Ordering::Relaxed);
    }

    /// Guesses a threshold, when the documents that have been scored are a fair sample of all.
    pub(super) fn guess(&self) {
        let mut kept = self.kept();
        // The K best of all have so many among these, on average. Half as many again and four times the deviation of a
        // sample at random make a guess that is too high rare, also where such documents come in groups; more than half in
        // a small sample, which may have a whole group in it.
        let expected = self.k as f64 * kept.scored as f64 / self.documents as f64;
        let margin = (GROUPS / kept.scored as f64).max(1.5);
        let rank = (margin * expected + 4.0 * expected.sqrt() + 8.0) as usize;
        if rank < kept.keys.len().min(self.k) {
            let at_rank = score(nth_best(&mut kept.keys, rank));
            self.guess.fetch_max(at_rank, Ordering::Relaxed);
            self.threshold.fetch_max(at_rank - 1, Ordering::Relaxed);
        }
    }

    /// The hits, best first; `None` if a guess was too high.
    pub(super) fn into_hits(self) -> Option<Vec<Hit>> {
        let mut keys = self.kept.into_inner().unwrap_or_else(PoisonError::into_inner).keys;
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

/// The fewer documents a sample has, the more of its hits may belong to one group: five times its share of them is allowed
/// for in a fifth of so many documents, which is one sub-tile. Found by trying, with whole passages as queries and K from 10
/// to 20,000.
const GROUPS: f64 = (5 * SUB_TILE) as f64;

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
        const DOCUMENTS: usize = 200_000;
        let scores: Vec<u32> = (1..=DOCUMENTS as u32).map(|n| n * 7919 % 200_003 + 1).collect();
        let exact = Best::new(1000, DOCUMENTS);
        exact.take(&keys(&scores), DOCUMENTS);
        let exact = exact.into_hits().unwrap();
        assert_eq!(exact.len(), 1000);
        // The K-th is near 199,000; an eighth of the documents is a fair sample, and so are 4,000, held for less than they are.
        for (sample, least) in [(25_000, 197_000), (4000, 190_000)] {
            let fair = Best::new(1000, DOCUMENTS);
            let (first, rest) = (&keys(&scores)[..sample], &keys(&scores)[sample..]);
            fair.take(first, first.len());
            fair.guess();
            assert!((least..199_000).contains(&fair.threshold()), "{}", fair.threshold());
            fair.take(rest, rest.len());
            assert!(fair.into_hits().unwrap() == exact);
        }
        // All good ones come first, all of the same score, or too few come at all.
        for rest in [vec![1; 900], vec![2000; 0]] {
            for first in [[2000; 99].as_slice(), &[2000; 60]] {
                let unfair = Best::new(100, 100_000);
                unfair.take(&keys(first), 4000);
                unfair.guess();
                assert_eq!(unfair.threshold(), 1999);
                unfair.take(&keys(&rest), 96_000);
                assert_eq!(unfair.into_hits(), None);
            }
        }
        // One score for all is no reason to search again.
        let equal = Best::new(100, 100_000);
        equal.take(&keys(&[7; 100]), 4000);
        equal.guess();
        assert_eq!(equal.threshold(), 6);
        equal.take(&keys(&[7; 1000])[100..], 96_000);
        let hits = equal.into_hits().unwrap();
        assert!((0..100).eq(hits.iter().map(|hit| hit.document)));
        // The same hits among more documents, and too few of them, are no reason to guess.
        for (found, scored) in [(100, 50_000), (15, 4000)] {
            let few = Best::new(100, 100_000);
            few.take(&keys(&[7; 100][..found]), scored);
            few.guess();
            assert_eq!(few.threshold(), 0);
            assert_eq!(few.into_hits().unwrap().len(), found);
        }
    }
}
