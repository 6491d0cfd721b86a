//! The inner loop: scores of some queries in one sub-tile, and the best documents so far.
//!
//! Accumulators are `[u32; SUB_TILE]` for each query, 16 KB: one fits the L1 cache, all of them half of the L2 cache.
//!
//! ```text
//! for each query    lists     scores[id] += (w c + h) >> s                   one document after another
//!                   bounds    of each block of 32 documents: what the columns from the i-th on can add, by their
//!                             largest codes there
//! for each strip of 256 documents, each query, each block of the strip:
//!                   columns   sums += (w c[d] + h) >> s, the heaviest first  vectors of documents, in registers
//!                             a block is left as soon as no sum of it can pass the threshold any more
//!                   scan      a block with a score above the threshold -> buffer of keys
//! ```
//!
//! A strip of all columns is read from memory once for all queries. Frequent terms have the columns, and small weights: the
//! bounds, a thirty-second of the work of the columns, spare much of it. They change no result: what is left out could not
//! come in.
//!
//! An absent document has code 0 in a column and adds h >> s = 0. Keys are score << 32 | !document, so that a larger
//! key is a better hit. The buffer takes twice K keys; when it is full, selection leaves the K best, and the K-th score
//! becomes the threshold. Documents come in ascending order, so one that only equals the threshold loses the tie.

use std::ops::Range;

use super::bm25::WeightedQuery;
use super::image::{BLOCK, BLOCKS, Place, STRIP, STRIPS, TileImage};
use super::search::Hit;

/// Documents that are scored together.
pub(super) const SUB_TILE: usize = 4096;

/// Queries that are scored together, at most: their accumulators are 256 KB.
pub(super) const MAX_QUERIES: usize = 16;

/// Columns that are added up between two looks at the threshold.
const STAGE: usize = 4;

/// The best hits of a query among the documents scored so far.
pub(super) struct Best {
    k: usize,
    /// The first `len` are in use.
    keys: Vec<u64>,
    len: usize,
    /// Scores up to this one do not come in.
    threshold: u32,
}

impl Best {
    /// For the `k` best of `documents`.
    pub(super) fn new(k: usize, documents: usize) -> Self {
        Best {
            k,
            keys: vec![0; buffer_len(k, documents)],
            len: 0,
            threshold: 0,
        }
    }

    /// The hits, best first.
    pub(super) fn into_hits(mut self) -> Vec<Hit> {
        if self.len > self.k {
            self.select();
        }
        let keys = &mut self.keys[..self.len];
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.iter()
            .map(|&key| Hit {
                document: !(key as u32),
                score: (key >> 32) as u32,
            })
            .collect()
    }

    /// Takes in a document behind all those before it, if its score passes.
    pub(super) fn take(&mut self, document: u32, score: u32) {
        if self.len == self.keys.len() {
            self.select();
        }
        if score > self.threshold {
            self.keys[self.len] = key(document, score);
            self.len += 1;
        }
    }

    /// Raises the threshold to the K-th score, if there are so many.
    pub(super) fn raise(&mut self) {
        if self.len >= self.k {
            self.select();
        }
    }

    /// Scores up to this one do not come in.
    pub(super) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Takes in those of consecutive documents whose score passes.
    #[inline(always)]
    fn offer(&mut self, first_document: u32, scores: &[u32; BLOCK]) {
        if self.len + BLOCK > self.keys.len() {
            self.select();
        }
        // Every key is written, and only those that pass advance the end: no branch to mispredict.
        let free = &mut self.keys[self.len..self.len + BLOCK];
        let mut taken = 0;
        for (document, &score) in (first_document..).zip(scores) {
            free[taken] = key(document, score);
            taken += usize::from(score > self.threshold);
        }
        self.len += taken;
    }

    /// Leaves the K best.
    #[inline(never)]
    fn select(&mut self) {
        let (_, kth, _) = self.keys[..self.len].select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
        self.threshold = (*kth >> 32) as u32;
        self.len = self.k;
    }
}

/// A larger key is a better hit.
#[inline(always)]
fn key(document: u32, score: u32) -> u64 {
    u64::from(score) << 32 | u64::from(!document)
}

/// Keys in the buffer of a query. A buffer that can hold every document is never selected from before the end.
pub(super) fn buffer_len(k: usize, documents: usize) -> usize {
    k.saturating_mul(2).min(documents) + BLOCK
}

/// The memory of one thread.
pub(super) struct Accumulators(Vec<Accumulator>);

/// The memory of a query.
struct Accumulator {
    scores: [u32; SUB_TILE],
    /// (column, weight) of the query's columns.
    columns: Vec<(usize, u32)>,
    /// (postings, weight) of the query's lists.
    lists: Vec<(Range<usize>, u32)>,
    /// For each stage of columns, the lightest first, and each block: what the stage and those of lighter columns can
    /// add to a score.
    bounds: Vec<[u32; BLOCKS]>,
    /// Most blocks of the strip before had to be completed: then one look at the threshold has to do.
    completes: bool,
}

impl Accumulators {
    /// Ready for up to [`MAX_QUERIES`] queries at a time.
    pub(super) fn new() -> Self {
        let accumulator = || Accumulator {
            scores: [0; SUB_TILE],
            columns: Vec::new(),
            lists: Vec::new(),
            bounds: Vec::new(),
            completes: false,
        };
        Accumulators(std::iter::repeat_with(accumulator).take(MAX_QUERIES).collect())
    }
}

/// Scores the documents of a sub-tile against up to [`MAX_QUERIES`] queries and takes in those that belong to the best
/// of each so far.
///
/// The queries' terms are numbered as in the image. The code for the processor at hand is chosen here; all versions are
/// the same function, compiled for other vectors. Against SSE2, AVX2 halves the time and AVX-512 saves another sixth.
pub(super) fn score_sub_tile(
    image: &TileImage,
    sub_tile: usize,
    queries: &[WeightedQuery],
    accumulators: &mut Accumulators,
    best: &mut [Best],
) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("bmi2")
        {
            // SAFETY: the only requirement is that the processor has these four features, which was just detected.
            unsafe { score_with_avx512(image, sub_tile, queries, accumulators, best) };
            return;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the only requirement is that the processor has these two features, which was just detected.
            unsafe { score_with_avx2(image, sub_tile, queries, accumulators, best) };
            return;
        }
    }
    score(image, sub_tile, queries, accumulators, best);
}

/// [`score`], compiled for processors with AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn score_with_avx512(
    image: &TileImage,
    sub_tile: usize,
    queries: &[WeightedQuery],
    accumulators: &mut Accumulators,
    best: &mut [Best],
) {
    score(image, sub_tile, queries, accumulators, best);
}

/// [`score`], compiled for processors with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn score_with_avx2(
    image: &TileImage,
    sub_tile: usize,
    queries: &[WeightedQuery],
    accumulators: &mut Accumulators,
    best: &mut [Best],
) {
    score(image, sub_tile, queries, accumulators, best);
}

#[inline(always)]
fn score(
    image: &TileImage,
    sub_tile: usize,
    queries: &[WeightedQuery],
    accumulators: &mut Accumulators,
    best: &mut [Best],
) {
    for (query, accumulator) in queries.iter().zip(&mut accumulators.0) {
        add_lists(image, sub_tile, query, accumulator);
        find_bounds(image, sub_tile, query, accumulator);
    }
    for strip in 0..STRIPS {
        let each = queries.iter().zip(&mut accumulators.0).zip(&mut *best);
        for ((query, accumulator), best) in each {
            add_columns(image, sub_tile, strip, query, accumulator, best);
        }
    }
}

/// The scores by the lists alone, and which terms have columns.
#[inline(always)]
fn add_lists(image: &TileImage, sub_tile: usize, query: &WeightedQuery, accumulator: &mut Accumulator) {
    let (half, shift) = (query.half(), query.shift);
    let Accumulator {
        scores, columns, lists, ..
    } = accumulator;
    scores.fill(0);
    columns.clear();
    lists.clear();
    for &(term, weight) in &query.terms {
        match image.place(term, sub_tile) {
            Place::Column(column) => columns.push((column, weight)),
            Place::List(range) => {
                if !range.is_empty() {
                    fetch(&image.postings()[range.clone()]);
                    lists.push((range, weight));
                }
            }
        }
    }
    for (range, weight) in lists {
        // SUB_TILE is a power of two, so the mask takes the tile's local id to the sub-tile's.
        let mut add = |posting: u32| {
            scores[posting as usize % SUB_TILE] += (*weight * (posting >> 16) + half) >> shift;
        };
        let (fours, rest) = image.postings()[range.clone()].as_chunks::<4>();
        for &[a, b, c, d] in fours {
            add(a);
            add(b);
            add(c);
            add(d);
        }
        rest.iter().copied().for_each(add);
    }
}

/// Asks for the beginning of a list, so that the lists of a query come from memory side by side.
#[inline(always)]
fn fetch(list: &[u32]) {
    #[cfg(target_arch = "x86_64")]
    for line in list.chunks(64 / size_of::<u32>()).take(FETCHED_LINES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that reads nothing into the program and cannot fault; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = list;
}

/// Cache lines of a list that are asked for; the processor sees by itself how a longer one goes on.
#[cfg(target_arch = "x86_64")]
const FETCHED_LINES: usize = 4;

/// What the columns can add to a score.
#[inline(always)]
fn find_bounds(image: &TileImage, sub_tile: usize, query: &WeightedQuery, accumulator: &mut Accumulator) {
    let (half, shift) = (query.half(), query.shift);
    let Accumulator { columns, bounds, .. } = accumulator;
    let mut bound = [0; BLOCKS];
    bounds.clear();
    for stage in columns.rchunks(STAGE) {
        for &(column, weight) in stage {
            for (bound, &code) in bound.iter_mut().zip(image.maxima(column, sub_tile)) {
                *bound += (weight * u32::from(code) + half) >> shift;
            }
        }
        bounds.push(bound);
    }
}

/// Completes the scores of a strip of the sub-tile, as far as they matter, and takes in the best.
#[inline(always)]
fn add_columns(
    image: &TileImage,
    sub_tile: usize,
    strip: usize,
    query: &WeightedQuery,
    accumulator: &mut Accumulator,
    best: &mut Best,
) {
    let (half, shift) = (query.half(), query.shift);
    let Accumulator {
        scores,
        columns,
        bounds,
        completes,
        ..
    } = accumulator;
    let first_document = image.first_document() + (sub_tile * SUB_TILE + strip * STRIP) as u32;
    let scores = scores[strip * STRIP..][..STRIP].as_chunks_mut::<BLOCK>().0;
    let mut completed = 0;
    for (block, scores) in scores.iter_mut().enumerate() {
        let mut left = columns.as_slice();
        for bounds in bounds.iter().rev() {
            if left.is_empty() || !any_above(scores, bounds[strip * STRIP / BLOCK + block], best.threshold) {
                break;
            }
            // The first stage has what is left over by stages of full size.
            let len = match *completes {
                true => left.len(),
                false => (left.len() - 1) % STAGE + 1,
            };
            let (stage, behind) = left.split_at(len);
            left = behind;
            let mut sums = *scores;
            for &(column, weight) in stage {
                let codes = &image.codes(sub_tile * STRIPS + strip, column).as_chunks::<BLOCK>().0[block];
                for (sum, &code) in sums.iter_mut().zip(codes) {
                    *sum += (weight * u32::from(code) + half) >> shift;
                }
            }
            *scores = sums;
        }
        if left.is_empty() {
            completed += 1;
            if any_above(scores, 0, best.threshold) {
                best.offer(first_document + (block * BLOCK) as u32, scores);
            }
        }
    }
    // From time to time it is tried again.
    *completes = strip % 8 != 7 && (*completes || 2 * completed > STRIP / BLOCK);
}

/// Whether a sum can pass the threshold with so much more.
#[inline(always)]
fn any_above(sums: &[u32; BLOCK], more: u32, threshold: u32) -> bool {
    let mut any = false;
    for &sum in sums {
        any |= sum + more > threshold;
    }
    any
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;
    use crate::retrieval::bm25::{Bm25, CodeTable};
    use crate::retrieval::query::Prepared;
    use crate::retrieval::{Analyzer, IndexBuilder, Query, StopWords};

    #[test]
    fn all_compiled_versions_find_the_same_hits() {
        // Two sub-tiles; "even" is a column, the other words are lists.
        let passages: Vec<String> = (0..6000_u32)
            .map(|i| {
                format!(
                    "{} p{} q{}",
                    if i % 2 == 0 { "even" } else { "odd even" },
                    i % 97,
                    i % 1001
                )
            })
            .collect();
        let mut builder = IndexBuilder::new(Analyzer::Standard, 6000).unwrap();
        builder.add(&passages, &|_, _| ()).unwrap();
        let index = builder.finish().unwrap();
        let bm25 = Bm25::default();
        let codes = CodeTable::new(bm25, index.average_length());
        let texts = ["even odd p3 p50 q12 q900"];
        let prepared = Prepared::new(&index, &texts, Query::Text, &StopWords::default(), &bm25).unwrap();
        let tile = index.tile(index.tiles()[0]).unwrap();
        let mut image = TileImage::default();
        image
            .fill(&tile, 0, &prepared.of_segment[0], prepared.terms, &codes)
            .unwrap();

        type Version = fn(&TileImage, usize, &[WeightedQuery], &mut Accumulators, &mut [Best]);
        let mut versions: Vec<Version> = vec![score, score_sub_tile];
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the two features were just detected.
            versions.push(|i, s, q, a, b| unsafe { score_with_avx2(i, s, q, a, b) });
        }
        let hits = versions.into_iter().map(|version| {
            let (mut accumulators, mut best) = (Accumulators::new(), [Best::new(40, 6000)]);
            for sub_tile in 0..image.sub_tiles() {
                version(&image, sub_tile, &prepared.queries, &mut accumulators, &mut best);
            }
            let [best] = best;
            best.into_hits()
        });
        let hits: Vec<Vec<Hit>> = hits.collect();
        assert_eq!(hits[0].len(), 40);
        assert!(hits.iter().all(|other| *other == hits[0]));
    }
}
