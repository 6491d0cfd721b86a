//! The best hits of a query so far, which any thread adds to.
//!
//! Keys are score << 32 | !document, so that a larger key is a better hit: the score first, then the smaller document.
//! The buffer takes twice K keys; when it is full, selection leaves the K best, and scores below the K-th no longer come
//! in. The K best under a total order are the same in whatever order the documents came.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::search::Hit;

/// The best hits of a query among the documents scored so far.
pub(super) struct Best {
    k: usize,
    /// Scores up to this one do not come in.
    threshold: AtomicU32,
    keys: Mutex<Vec<u64>>,
}

impl Best {
    /// For the `k` best of `documents`.
    pub(super) fn new(k: usize, documents: usize) -> Self {
        Best {
            k,
            threshold: AtomicU32::new(0),
            keys: Mutex::new(Vec::with_capacity(buffer_len(k, documents))),
        }
    }

    /// Scores up to this one do not come in. It only rises.
    #[inline(always)]
    pub(super) fn threshold(&self) -> u32 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// Takes in those of the [`key`]s that pass.
    pub(super) fn take(&self, keys: impl IntoIterator<Item = u64>) {
        let mut kept = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            if kept.len() == kept.capacity() {
                self.select(&mut kept);
            }
            if (key >> 32) as u32 > self.threshold() {
                kept.push(key);
            }
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
        self.threshold.store((kth >> 32) as u32 - 1, Ordering::Relaxed);
    }

    /// The hits, best first.
    pub(super) fn into_hits(self) -> Vec<Hit> {
        let mut keys = self.keys.into_inner().unwrap_or_else(PoisonError::into_inner);
        if keys.len() > self.k {
            leave_best(&mut keys, self.k);
        }
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.iter()
            .map(|&key| Hit {
                document: !(key as u32),
                score: (key >> 32) as u32,
            })
            .collect()
    }
}

/// Leaves the `k` best of `k` or more keys. Returns the last of them.
fn leave_best(keys: &mut Vec<u64>, k: usize) -> u64 {
    let (_, &mut kth, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    keys.truncate(k);
    kth
}

/// A document and its score, 1 or more; a larger key is a better hit.
#[inline(always)]
pub(super) fn key(document: u32, score: u32) -> u64 {
    u64::from(score) << 32 | u64::from(!document)
}

/// Keys in the buffer of a query. A buffer that can hold every document is never selected from before the end.
pub(super) fn buffer_len(k: usize, documents: usize) -> usize {
    k.saturating_mul(2).min(documents).max(1)
}
