//! One worker per thread, pieces of work taken in turn, results in order.
//!
//! Rayon makes fresh state for every split of a parallel iterator. The caches of analysis are worth keeping, so here
//! each thread makes its state once and takes pieces until none is left.

use rayon::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `work(state, piece)` for every piece, results in the order of the pieces. `new_state` runs once per thread.
pub(super) fn map_with_worker<P: Sync, W, R: Send>(
    pieces: &[P],
    new_state: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, &P) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(pieces.len()));
    (0..rayon::current_num_threads()).into_par_iter().for_each(|_| {
        let mut state = new_state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(number) else { break };
            let result = work(&mut state, piece);
            results
                .lock()
                .expect("nothing panics while it holds the lock")
                .push((number, result));
        }
    });
    let mut results = results.into_inner().expect("nothing panics while it holds the lock");
    results.sort_unstable_by_key(|&(number, _)| number);
    results.into_iter().map(|(_, result)| result).collect()
}
