//! The queries' way through sub-tiles on all threads.
//!
//! A thread has a desk, on which it makes the image of one sub-tile after another and takes all queries through it, some
//! at a time. When no sub-tile is left, it helps at the other desks. So nobody waits for the slowest, and with many queries
//! a few sub-tiles keep all threads busy.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use super::best::Best;
use super::image::SubTileImage;
use super::lists::SubTileLists;
use super::pass::Pass;
use super::scoring::{Accumulators, MAX_QUERIES, score_sub_tile};

/// The work of a thread.
struct Desk<'a> {
    image: RwLock<SubTileImage<'a>>,
    /// Its number in the group.
    sub_tile: AtomicUsize,
    /// Where the queries begin that are not yet taken through the image.
    queries: AtomicUsize,
}

/// How far a search has come.
pub(super) struct Way {
    /// Sub-tiles of the groups before this one. The groups are a fair sample of the documents, whichever come first.
    pub(super) done: usize,
    /// So many of the group's sub-tiles are a fair sample of the group, whichever of these come first.
    pub(super) fair: usize,
    /// Whether thresholds may be guessed.
    pub(super) guesses: bool,
}

impl Way {
    /// Whether a guess is worth it with this sub-tile of the group: after the first one and each time that they are twice as
    /// many, as long as they are a fair sample.
    fn guess_after(&self, sub_tile: usize) -> bool {
        let come = self.done + sub_tile + 1;
        let fair = sub_tile < self.fair || self.done > 0;
        self.guesses && fair && come.is_power_of_two()
    }
}

/// Takes the queries of a pass through the sub-tiles of a group.
pub(super) fn score(pass: &Pass, sub_tiles: &[SubTileLists], way: &Way) {
    let &Pass {
        queries,
        best,
        uses,
        codes,
        memory,
        report,
    } = pass;
    let largest = sub_tiles.iter().map(SubTileImage::bytes_without_columns).max();
    let largest = largest.unwrap_or(0).max(1);
    let threads = (memory / largest).clamp(1, rayon::current_num_threads() as u64);
    let for_columns = (memory / threads).saturating_sub(largest);
    let desk = || Desk {
        image: RwLock::default(),
        sub_tile: AtomicUsize::new(0),
        queries: AtomicUsize::new(queries.len()),
    };
    let desks: Vec<Desk> = std::iter::repeat_with(desk).take(threads as usize).collect();
    let next = AtomicUsize::new(0);
    rayon::broadcast(|thread| {
        let mut accumulators = Accumulators::new();
        let mut work_at = |desk: &Desk| {
            let image = desk.image.read().unwrap_or_else(PoisonError::into_inner);
            let sub_tile = desk.sub_tile.load(Ordering::Relaxed);
            loop {
                let start = desk.queries.fetch_add(MAX_QUERIES, Ordering::Relaxed);
                if start >= queries.len() {
                    break;
                }
                let chunk = start..queries.len().min(start + MAX_QUERIES);
                let (queries, best) = (&queries[chunk.clone()], &best[chunk]);
                score_sub_tile(&image, queries, &mut accumulators, best);
                if way.guess_after(sub_tile) {
                    best.iter().for_each(Best::guess);
                }
                report(queries.len());
            }
        };
        while let Some(own) = desks.get(thread.index()) {
            // Taken with the image locked: who finds none left waits at this desk until its image is made.
            let mut image = own.image.write().unwrap_or_else(PoisonError::into_inner);
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(lists) = sub_tiles.get(number) else {
                break;
            };
            own.sub_tile.store(number, Ordering::Relaxed);
            image.fill(lists, uses, for_columns, codes);
            own.queries.store(0, Ordering::Relaxed);
            drop(image);
            work_at(own);
        }
        desks.iter().for_each(work_at);
    });
}
