//! The queries' way through sub-tiles on all threads.
//!
//! A thread has a desk, on which it makes the image of one sub-tile after another and takes all queries through it, some
//! at a time. When no sub-tile is left, it helps at the other desks. So nobody waits for the slowest, and with many queries
//! a few sub-tiles keep all threads busy.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use super::best::Best;
use super::bm25::{CodeTable, WeightedQuery};
use super::image::SubTileImage;
use super::lists::SubTileLists;
use super::scoring::{Accumulators, MAX_QUERIES, score_sub_tile};

/// The work of a thread.
struct Desk {
    image: RwLock<SubTileImage>,
    /// Where the queries begin that are not yet taken through the image.
    queries: AtomicUsize,
}

/// Takes the queries through the sub-tiles and keeps the best of each. `uses` holds how many queries use each term; images
/// have about `memory` bytes together. `report` is told of scored pairs of query and sub-tile.
pub(super) fn score(
    sub_tiles: &[SubTileLists],
    uses: &[u32],
    codes: &CodeTable,
    memory: u64,
    queries: &[WeightedQuery],
    best: &[Best],
    report: &(dyn Fn(usize) + Sync),
) {
    let largest = sub_tiles.iter().map(SubTileImage::bytes_without_columns).max();
    let largest = largest.unwrap_or(0).max(1);
    let threads = (memory / largest).clamp(1, rayon::current_num_threads() as u64);
    let for_columns = (memory / threads).saturating_sub(largest);
    let desk = || Desk {
        image: RwLock::default(),
        queries: AtomicUsize::new(queries.len()),
    };
    let desks: Vec<Desk> = std::iter::repeat_with(desk).take(threads as usize).collect();
    let next = AtomicUsize::new(0);
    rayon::broadcast(|thread| {
        let mut accumulators = Accumulators::new();
        let mut work_at = |desk: &Desk| {
            let image = desk.image.read().unwrap_or_else(PoisonError::into_inner);
            loop {
                let start = desk.queries.fetch_add(MAX_QUERIES, Ordering::Relaxed);
                if start >= queries.len() {
                    break;
                }
                let chunk = start..queries.len().min(start + MAX_QUERIES);
                let (queries, best) = (&queries[chunk.clone()], &best[chunk]);
                score_sub_tile(&image, queries, &mut accumulators, best);
                report(queries.len());
            }
        };
        while let Some(own) = desks.get(thread.index()) {
            // Taken with the image locked: who finds none left waits at this desk until its image is made.
            let mut image = own.image.write().unwrap_or_else(PoisonError::into_inner);
            let Some(lists) = sub_tiles.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            image.fill(lists, uses, for_columns, codes);
            own.queries.store(0, Ordering::Relaxed);
            drop(image);
            work_at(own);
        }
        desks.iter().for_each(work_at);
    });
}
