//! Search: the K best documents of every query, in one pass over the tiles.
//!
//! ```text
//! analyze queries -> weighted queries; the union of their terms
//! for each group of tiles (images within IMAGE_BUDGET):
//!     in parallel over tiles:             execution images for the union
//!     in parallel over chunks of queries: for each tile, each sub-tile, each query of the chunk: score, keep the best
//! sort what was kept
//! ```
//!
//! The loop order keeps a sub-tile's postings in the second-level cache while the chunk's queries use them. A query's
//! buffer belongs to one chunk, so nothing is locked.

use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bm25::{Bm25, CodeTable, WeightedQuery};
use super::image::TileImage;
use super::index::{Index, Tile};
use super::scoring::{Accumulators, Best, buffer_len, score_sub_tile};
use super::term_cache::TermCache;
use super::workers::map_with_worker;
use super::{Progress, RetrievalError};

/// Bytes of execution images that are in memory at a time.
const IMAGE_BUDGET: usize = 256 << 20;

/// Bytes of the queries' buffers that are in memory at a time; more queries take several passes.
const BUFFER_BUDGET: usize = 1 << 30;

/// Queries that a thread takes through a tile together, at most.
const MAX_CHUNK: usize = 256;

/// A document found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its ordinal in the corpus.
    pub document: u32,
    /// Its integer score, above 0, in units of [`SearchResults::units`].
    pub score: u32,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchResults {
    /// For each query at most K hits: score descending, then document ascending.
    pub hits: Vec<Vec<Hit>>,
    /// For each query one unit of its integer scores in BM25.
    pub units: Vec<f64>,
    /// The queries that have no term that the index knows and that counts. They have no hits.
    pub without_terms: Vec<u32>,
}

impl SearchResults {
    /// The BM25 score of a hit of query number `query`. For BM25L and BM25+ without the constant of absent terms.
    #[must_use]
    pub fn bm25(&self, query: usize, hit: Hit) -> f64 {
        f64::from(hit.score) * self.units[query]
    }
}

/// Finds for each query the `k` documents with the highest BM25 scores.
///
/// A query is a whole text; repeated terms count as often as they occur. Only documents that share a term with the
/// query are hits, so there may be fewer than `k`. `progress` counts (query, tile) pairs. The result depends on
/// neither the number of threads nor the tile size.
///
/// # Errors
/// [`RetrievalError::OutOfRange`] for k = 0 and for parameters of `bm25` outside their ranges,
/// [`RetrievalError::TooManyTerms`] for a query of more than 131,072 distinct terms.
pub fn search<S: AsRef<str> + Sync>(
    index: &Index,
    queries: &[S],
    k: usize,
    bm25: &Bm25,
    progress: Progress,
) -> Result<SearchResults, RetrievalError> {
    bm25.validate()?;
    if k == 0 {
        return Err(RetrievalError::OutOfRange {
            setting: "k",
            found: "0".to_owned(),
            expected: "1 or more",
        });
    }
    let mut weighted = weigh_queries(index, queries, bm25)?;
    let terms = number_by_union(&mut weighted, index.vocabulary().len());
    let codes = CodeTable::new(*bm25, index.average_length());

    let done = AtomicU64::new(0);
    let total = weighted.len() as u64 * index.tiles().len() as u64;
    let report = |pairs: usize| progress(done.fetch_add(pairs as u64, Ordering::Relaxed) + pairs as u64, total);

    let mut hits = Vec::with_capacity(weighted.len());
    let documents = index.documents() as usize;
    let queries_per_pass = (BUFFER_BUDGET / (buffer_len(k, documents) * size_of::<u64>())).max(1);
    for queries in weighted.chunks(queries_per_pass) {
        let mut best: Vec<Best> = queries.iter().map(|_| Best::new(k, documents)).collect();
        let chunk = queries
            .len()
            .div_ceil(4 * rayon::current_num_threads())
            .clamp(1, MAX_CHUNK);
        for group in tile_groups(index.tiles()) {
            let images: Vec<TileImage> = group
                .par_iter()
                .map(|tile| TileImage::new(tile, lengths(index, tile), &terms, &codes))
                .collect();
            best.par_chunks_mut(chunk).zip(queries.par_chunks(chunk)).for_each_init(
                Accumulators::new,
                |accumulators, (best, queries)| {
                    for image in &images {
                        search_tile(image, queries, accumulators, best);
                        report(queries.len());
                    }
                },
            );
        }
        hits.par_extend(best.into_par_iter().map(Best::into_hits));
    }
    Ok(SearchResults {
        hits,
        units: weighted.iter().map(|query| query.unit).collect(),
        without_terms: (0..)
            .zip(&weighted)
            .filter(|(_, query)| query.terms.is_empty())
            .map(|(i, _)| i)
            .collect(),
    })
}

/// Takes a chunk of queries through a tile.
fn search_tile(image: &TileImage, queries: &[WeightedQuery], accumulators: &mut Accumulators, best: &mut [Best]) {
    for sub_tile in 0..image.sub_tiles() {
        for (query, best) in queries.iter().zip(best.iter_mut()) {
            if !query.terms.is_empty() {
                score_sub_tile(image, sub_tile, query, accumulators, best);
            }
        }
    }
}

/// The lengths of a tile's documents.
fn lengths<'a>(index: &'a Index, tile: &Tile) -> &'a [u32] {
    let first = tile.first_document() as usize;
    &index.lengths()[first..first + tile.documents() as usize]
}

/// The tiles in runs whose images fit the budget.
fn tile_groups(tiles: &[Tile]) -> Vec<&[Tile]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, tile) in tiles.iter().enumerate() {
        let image = tile.postings() * size_of::<u32>();
        if i > start && bytes + image > IMAGE_BUDGET {
            groups.push(&tiles[start..i]);
            (start, bytes) = (i, 0);
        }
        bytes += image;
    }
    if start < tiles.len() {
        groups.push(&tiles[start..]);
    }
    groups
}

/// The queries as weighted terms of the vocabulary.
fn weigh_queries<S: AsRef<str> + Sync>(
    index: &Index,
    queries: &[S],
    bm25: &Bm25,
) -> Result<Vec<WeightedQuery>, RetrievalError> {
    let pieces: Vec<(usize, &[S])> = queries.chunks(MAX_CHUNK).enumerate().collect();
    let weighted = map_with_worker(
        &pieces,
        || QueryAnalyzer::new(index),
        |analyzer, &(piece, queries)| -> Result<Vec<WeightedQuery>, RetrievalError> {
            let first = piece * MAX_CHUNK;
            (first..)
                .zip(queries)
                .map(|(query, text)| WeightedQuery::new(query, analyzer.tokens(text.as_ref()), index, bm25))
                .collect()
        },
    );
    let weighted: Result<Vec<Vec<WeightedQuery>>, RetrievalError> = weighted.into_iter().collect();
    Ok(weighted?.into_iter().flatten().collect())
}

/// Turns texts into numbers of the index's vocabulary.
struct QueryAnalyzer<'a> {
    index: &'a Index,
    cache: TermCache,
    /// By the cache's term number: the vocabulary's number, or [`UNKNOWN`].
    numbers: Vec<u32>,
    tokens: Vec<u32>,
}

/// The number of a term that no document has.
const UNKNOWN: u32 = u32::MAX;

impl<'a> QueryAnalyzer<'a> {
    fn new(index: &'a Index) -> Self {
        QueryAnalyzer {
            index,
            cache: TermCache::new(index.analyzer()),
            numbers: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// The known terms of a text, in order.
    fn tokens(&mut self, text: &str) -> &mut [u32] {
        if self.cache.forget_if_large() {
            self.numbers.clear();
        }
        self.tokens.clear();
        self.cache.for_each_term(text, |number| self.tokens.push(number));
        let terms = self.cache.terms();
        for number in self.numbers.len()..terms.len() {
            self.numbers
                .push(self.index.vocabulary().number(terms.get(number)).unwrap_or(UNKNOWN));
        }
        for token in &mut self.tokens {
            *token = self.numbers[*token as usize];
        }
        self.tokens.retain(|&token| token != UNKNOWN);
        &mut self.tokens
    }
}

/// Renumbers the queries' terms by their place in the union of all queries' terms, which is returned, ascending.
fn number_by_union(queries: &mut [WeightedQuery], vocabulary_len: u32) -> Vec<u32> {
    let mut places = vec![0_u32; vocabulary_len as usize];
    for query in queries.iter() {
        for &(term, _) in &query.terms {
            places[term as usize] = 1;
        }
    }
    let terms: Vec<u32> = (0..vocabulary_len).filter(|&term| places[term as usize] == 1).collect();
    for (place, &term) in (0..).zip(&terms) {
        places[term as usize] = place;
    }
    queries.par_iter_mut().for_each(|query| {
        for (term, _) in &mut query.terms {
            *term = places[*term as usize];
        }
    });
    terms
}
