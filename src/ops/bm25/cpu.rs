//! BM25 on the CPU: a task a query. The search on this machine has a loop of its own (`retrieval::scoring`), which keeps
//! a tile in the caches for many queries and never writes scores to memory; this one is what the GPUs' kernels are laid beside.

use rayon::prelude::*;

use super::{COLUMN, NONE, SUB_TILE};
use crate::kernel::Call;

/// One query's row of `queries`.
#[derive(Clone, Copy)]
struct Query {
    first: usize,
    terms: usize,
    shift: u32,
    threshold: u32,
}

impl Query {
    fn of(row: &[u32]) -> Query {
        Query {
            first: row[0] as usize,
            terms: row[1] as usize,
            shift: row[2],
            threshold: row[3],
        }
    }
}

pub(super) fn score(call: &Call) {
    let documents = call.dims().size("documents");
    let (postings, columns, spans, weights) = (call.u32(0), call.u32(1), call.u32(2), call.u32(3));
    let rows = call.u32(4).par_chunks_exact(4);
    let scores = call.u32_mut(5).par_chunks_exact_mut(documents);
    scores.zip(rows).for_each(|(scores, row)| {
        let query = Query::of(row);
        let half = if query.shift == 0 { 0 } else { 1 << (query.shift - 1) };
        let sub_tiles = documents / SUB_TILE;
        for (sub_tile, sums) in scores.chunks_exact_mut(SUB_TILE).enumerate() {
            sums.fill(0);
            for (term, &weight) in weights.iter().enumerate().skip(query.first).take(query.terms) {
                let at = 2 * (term * sub_tiles + sub_tile);
                let (start, count) = (spans[at] as usize, spans[at + 1]);
                let part = |code: u32| (weight * code + half) >> query.shift;
                if count == COLUMN {
                    for (pair, &codes) in sums.chunks_exact_mut(2).zip(&columns[start..start + SUB_TILE / 2]) {
                        pair[0] += part(codes & 0xffff);
                        pair[1] += part(codes >> 16);
                    }
                } else {
                    for &posting in &postings[start..start + count as usize] {
                        sums[posting as usize % SUB_TILE] += part(posting >> 16);
                    }
                }
            }
        }
    });
}

pub(super) fn select(call: &Call) {
    let (documents, width) = (call.dims().size("documents"), call.dims().size("width"));
    let scores = call.u32(0).par_chunks_exact(documents);
    let rows = call.u32(1).par_chunks_exact(4);
    let found = call.u32_mut(2).par_chunks_exact_mut(width);
    found.zip(scores).zip(rows).for_each(|((found, scores), row)| {
        let (k, threshold) = (found.len() / 2, Query::of(row).threshold);
        let passing = (0u32..).zip(scores).filter(|&(_, &score)| score > threshold);
        let mut best: Vec<(u32, u32)> = passing.map(|(document, &score)| (document, score)).collect();
        if best.len() > k {
            let better = |a: &(u32, u32), b: &(u32, u32)| b.1.cmp(&a.1).then(a.0.cmp(&b.0));
            best.select_nth_unstable_by(k - 1, better);
            best.truncate(k);
            best.sort_unstable();
        }
        best.resize(k, (NONE, 0));
        for (place, (document, score)) in found.chunks_exact_mut(2).zip(best) {
            place.copy_from_slice(&[document, score]);
        }
    });
}
