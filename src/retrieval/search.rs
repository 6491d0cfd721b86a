//! Search: the K best documents of every query, in one pass over the tiles.
//!
//! ```text
//! analyze queries -> weighted queries; the union of their terms
//! for each pass of queries (buffers of 2 K keys each, within three eighths of the memory):
//!     for each group of tiles (their pages and places of lists within a quarter of the memory):
//!         in parallel over tiles:              find the lists of the union
//!         in parallel over sub-tiles (desks):  execution image for the union; chunk after chunk of queries: score, keep the best
//!     sort what was kept, hand it on
//! ```
//!
//! A sub-tile's image, within a quarter of the memory with those of the other threads, stays in the caches of the
//! processor that made it while one chunk of queries after another uses it. The pages of a group's tiles are given back
//! when it is done, unless it is the only one.

use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::best::{Best, buffer_len};
use super::bm25::{Bm25, CodeTable, WeightedQuery};
use super::codec::sub_tiles;
use super::desks::{self, Way};
use super::index::{Index, TileRef};
use super::kept::KeptCodes;
use super::limits::DEFAULT_MEMORY;
use super::lists::{SubTileLists, TileLists};
use super::on_device::DeviceSearch;
use super::pass::Pass;
use super::query::{Prepared, Query};
use super::{Progress, RetrievalError};
use crate::device::choice::DeviceChoice;

/// A document found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its ordinal in the corpus.
    pub document: u32,
    /// Its integer score, above 0, in units of the query.
    pub score: u32,
}

/// What is searched for, and how.
#[derive(Debug, Clone)]
pub struct SearchSettings {
    /// Hits of a query.
    pub k: usize,
    /// The ranking function.
    pub bm25: Bm25,
    /// What of a text is the query.
    pub query: Query,
    /// Words of queries that do not count: the terms that the index's analyzer makes of them.
    pub stop_words: Vec<String>,
    /// Bytes of memory for the search beside the queries' texts and codes that the index keeps, about.
    pub memory: u64,
    /// What computes; every device finds the same.
    pub device: DeviceChoice,
}

impl SearchSettings {
    /// The `k` best documents by BM25 with its default parameters for whole texts.
    #[must_use]
    pub fn new(k: usize) -> Self {
        SearchSettings {
            k,
            bm25: Bm25::default(),
            query: Query::Text,
            stop_words: Vec::new(),
            memory: DEFAULT_MEMORY,
            device: DeviceChoice::Cpu,
        }
    }
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

/// A search that is ready to run.
pub struct Search<'a> {
    index: &'a Index,
    k: usize,
    memory: u64,
    device: DeviceChoice,
    codes: Arc<CodeTable>,
    /// The codes of the postings, if the index keeps them.
    kept: Option<&'a KeptCodes>,
    prepared: Prepared,
}

/// Up to so many queries use kept codes. More of them share what is coded for them, which then costs less than to fetch twice
/// as many bytes from memory.
const KEPT_QUERIES: usize = 16;

/// Finds for each query the `k` documents with the highest BM25 scores, all in memory: [`Search`] with its defaults.
///
/// # Errors
/// As [`Search::new`] and [`Search::run`].
pub fn search<S: AsRef<str> + Sync>(
    index: &Index,
    queries: &[S],
    k: usize,
    bm25: &Bm25,
    progress: Progress,
) -> Result<SearchResults, RetrievalError> {
    let settings = SearchSettings {
        bm25: *bm25,
        ..SearchSettings::new(k)
    };
    Search::new(index, queries, &settings)?.collect(progress)
}

impl<'a> Search<'a> {
    /// Analyses and weighs the queries. A query is a text; repeated terms count as often as they occur.
    ///
    /// # Errors
    /// [`RetrievalError::OutOfRange`] for k = 0 and for parameters of BM25 outside their ranges,
    /// [`RetrievalError::TooManyTerms`] for a query of more than 131,072 distinct terms.
    pub fn new<S: AsRef<str> + Sync>(
        index: &'a Index,
        queries: &[S],
        settings: &SearchSettings,
    ) -> Result<Self, RetrievalError> {
        settings.bm25.validate()?;
        if settings.k == 0 {
            return Err(RetrievalError::OutOfRange {
                setting: "k",
                found: "0".to_owned(),
                expected: "1 or more",
            });
        }
        let SearchSettings {
            query,
            stop_words,
            bm25,
            ..
        } = settings;
        let use_kept = settings.device == DeviceChoice::Cpu && queries.len() <= KEPT_QUERIES;
        Ok(Search {
            index,
            k: settings.k,
            memory: settings.memory,
            device: settings.device,
            codes: index.code_table(bm25),
            kept: index.kept(bm25).filter(|_| use_kept),
            prepared: Prepared::new(index, queries, *query, stop_words, bm25)?,
        })
    }

    /// How many queries there are.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.prepared.queries.len()
    }

    /// One unit of the integer scores of a query in BM25.
    #[must_use]
    pub fn unit(&self, query: usize) -> f64 {
        self.prepared.queries[query].unit
    }

    /// The queries that have no term that the index knows and that counts. They have no hits.
    #[must_use]
    pub fn without_terms(&self) -> Vec<u32> {
        let queries = (0..).zip(&self.prepared.queries);
        let silent = queries.filter(|(_, query)| query.terms.is_empty());
        silent.map(|(place, _)| place).collect()
    }

    /// Finds the hits of all queries and keeps them.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn collect(&self, progress: Progress) -> Result<SearchResults, RetrievalError> {
        let mut hits = Vec::with_capacity(self.queries());
        self.run(progress, |found: Vec<Hit>| {
            hits.push(found);
            Ok::<_, RetrievalError>(())
        })?;
        Ok(SearchResults {
            hits,
            units: self.prepared.queries.iter().map(|query| query.unit).collect(),
            without_terms: self.without_terms(),
        })
    }

    /// Hands the hits of each query to `consume`, in the order of the queries: score descending, then document ascending.
    ///
    /// Only documents that share a term with the query are hits, so there may be fewer than K. `progress` counts (query,
    /// 4,096 documents) pairs. The result depends on neither the number of threads nor memory, tile size or segments.
    ///
    /// # Errors
    /// Those of `consume`, [`RetrievalError::Damaged`] for a tile that is not as it was written, and
    /// [`RetrievalError::Device`] for a device that is not there or fails.
    pub fn run<E: From<RetrievalError>>(
        &self,
        progress: Progress,
        mut consume: impl FnMut(Vec<Hit>) -> Result<(), E>,
    ) -> Result<(), E> {
        let queries = &self.prepared.queries;
        let documents = self.index.documents() as usize;
        let sub_tiles: usize = self.index.tiles().iter().map(|tile| sub_tiles(tile.documents)).sum();
        let total = queries.len() as u64 * sub_tiles as u64;
        let done = AtomicU64::new(0);
        let report = |pairs: usize| progress(done.fetch_add(pairs as u64, Ordering::Relaxed) + pairs as u64, total);
        // The buffer, and the hits that come of it.
        let per_query = (buffer_len(self.k, documents) + self.k.min(documents)) * size_of::<u64>();
        let per_pass = usize::try_from(self.memory * 3 / 8).unwrap_or(usize::MAX) / per_query;
        let mut device = DeviceSearch::new(self.device, self.k)?;
        for queries in queries.chunks(per_pass.max(1)) {
            let found = self.pass(queries, device.as_mut(), true, &report)?;
            let missed: Vec<WeightedQuery> = queries
                .iter()
                .zip(&found)
                .filter(|(_, hits)| hits.is_none())
                .map(|(query, _)| query.clone())
                .collect();
            let again = match missed.is_empty() {
                true => Vec::new(),
                false => self.pass(&missed, device.as_mut(), false, &|_| ())?,
            };
            let mut again = again.into_iter().flatten();
            for hits in found {
                let hits = hits.or_else(|| again.next());
                consume(hits.expect("without guesses every query has its hits"))?;
            }
        }
        Ok(())
    }

    /// The hits of some of the queries; `None` for those whose threshold was guessed too high.
    fn pass(
        &self,
        queries: &[WeightedQuery],
        mut device: Option<&mut DeviceSearch>,
        guesses: bool,
        report: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Option<Vec<Hit>>>, RetrievalError> {
        let documents = self.index.documents() as usize;
        let best: Vec<Best> = queries.iter().map(|_| Best::new(self.k, documents)).collect();
        let mut uses = vec![0; self.prepared.terms];
        for &(term, _) in queries.iter().flat_map(|query| &query.terms) {
            uses[term as usize] += 1;
        }
        let mut lists: Vec<TileLists> = Vec::new();
        let pass = Pass {
            queries,
            best: &best,
            uses: &uses,
            codes: &self.codes,
            memory: self.memory / 4,
            report,
        };
        let tiles = spread(self.index.tiles());
        let mut way = Way {
            done: 0,
            fair: 0,
            guesses,
        };
        for group in self.tile_groups(&tiles) {
            lists.resize_with(group.len().max(lists.len()), TileLists::default);
            let lists = &mut lists[..group.len()];
            let filled = lists.par_iter_mut().zip(group);
            filled.try_for_each(|(lists, &tile)| self.fill(lists, tile))?;
            let sub_tiles: Vec<SubTileLists> = lists
                .iter()
                .flat_map(|lists| (0..lists.sub_tiles()).map(|number| lists.sub_tile(number)))
                .collect();
            let (sub_tiles, fair) = fair_sample_first(&sub_tiles);
            way.fair = fair;
            match &mut device {
                Some(device) => device.search(&pass, &sub_tiles)?,
                None => desks::score(&pass, &sub_tiles, &way),
            }
            way.done += sub_tiles.len();
            // An index that fits the memory stays mapped for the next pass and the next search.
            if group.len() < tiles.len() {
                group.iter().for_each(|&tile| self.index.release(tile));
            }
        }
        Ok(best.into_par_iter().map(Best::into_hits).collect())
    }

    /// Finds the lists of a tile.
    fn fill(&self, lists: &mut TileLists<'a>, tile: TileRef) -> Result<(), RetrievalError> {
        let data = self.index.tile(tile)?;
        lists.fill(
            &data,
            tile.first_document,
            &self.prepared.of_segment[tile.segment],
            self.prepared.terms,
            &self.codes,
            self.kept.map(|kept| kept.of_tile(tile)),
        )
    }

    /// The tiles in runs that fit the memory.
    fn tile_groups<'t>(&self, tiles: &'t [TileRef]) -> impl Iterator<Item = &'t [TileRef]> {
        let mut rest = tiles;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = |tile: &&TileRef| {
                bytes += TileLists::bytes(tile.postings, tile.documents, self.prepared.terms);
                bytes <= self.memory / 4
            };
            let len = rest.iter().take_while(fits).count().max(1).min(rest.len());
            let (group, tail) = rest.split_at(len);
            rest = tail;
            (!group.is_empty()).then_some(group)
        })
    }
}

/// Every fourth first, in an order in which every beginning is spread over the whole; then the others as they are. Returns
/// how many the first are, too.
fn fair_sample_first<T: Copy>(values: &[T]) -> (Vec<T>, usize) {
    let first: Vec<T> = values.iter().copied().step_by(4).collect();
    let others = values.iter().copied().enumerate();
    let others = others.filter(|(place, _)| place % 4 != 0).map(|(_, value)| value);
    (spread(&first).into_iter().chain(others).collect(), first.len())
}

/// The same in an order in which every beginning is spread over the whole: with steps of about 0.618 of the length.
fn spread<T: Copy>(values: &[T]) -> Vec<T> {
    let len = values.len();
    let mut step = (len as f64 * 0.618) as usize;
    while step > 1 && !coprime(step, len) {
        step -= 1;
    }
    (0..len).map(|place| values[place * step.max(1) % len]).collect()
}

fn coprime(a: usize, b: usize) -> bool {
    if b == 0 { a == 1 } else { coprime(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::codec::SUB_TILE;
    use crate::retrieval::{Analyzer, IndexBuilder};

    #[test]
    fn kept_codes_are_used_by_few_queries_of_the_same_function_on_the_cpu() {
        let mut index = Index::build(&["one", "two"], Analyzer::Standard, &|_, _| ()).unwrap();
        let settings = SearchSettings::new(1);
        let uses = |index: &Index, queries: usize, settings: &SearchSettings| {
            Search::new(index, &vec!["one"; queries], settings)
                .unwrap()
                .kept
                .is_some()
        };
        assert!(!uses(&index, 1, &settings));
        index.keep_codes(&settings.bm25).unwrap();
        let mut other_function = settings.clone();
        other_function.bm25.b = 0.5;
        let mut other_device = settings.clone();
        other_device.device = DeviceChoice::Auto;
        assert!(uses(&index, 1, &settings) && uses(&index, KEPT_QUERIES, &settings));
        assert!(!uses(&index, KEPT_QUERIES + 1, &settings));
        assert!(!uses(&index, 1, &other_function) && !uses(&index, 1, &other_device));
    }

    #[test]
    fn a_threshold_that_was_guessed_too_high_costs_a_pass_and_no_hit() {
        const TILES: usize = 8;
        const OF_TILE: usize = 4;
        let sub_tiles_of = |tile: usize| (0..OF_TILE).map(move |number| tile * OF_TILE + number);
        let tiles: Vec<usize> = (0..TILES).collect();
        let sub_tiles: Vec<usize> = spread(&tiles).into_iter().flat_map(sub_tiles_of).collect();
        let (order, fair) = fair_sample_first(&sub_tiles);
        assert_eq!(fair, 8);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..TILES * OF_TILE).collect::<Vec<_>>());

        // One word is in documents of the first four sub-tiles only, the other one is everywhere.
        let text = |document: usize| {
            let often = 1 + document / 16 % 3;
            let early = document.is_multiple_of(16) && order[..4].contains(&(document / SUB_TILE));
            let word = if early { "early " } else { "ever " };
            word.repeat(often) + &"more ".repeat(document % 11)
        };
        let documents = order.len() * SUB_TILE;
        let mut builder = IndexBuilder::new(Analyzer::Standard, (OF_TILE * SUB_TILE) as u32).unwrap();
        let texts: Vec<String> = (0..documents).map(text).collect();
        builder.add(&texts, &|_, _| ()).unwrap();
        let index = builder.finish().unwrap();

        let queries = ["early", "ever"];
        let search = |k| Search::new(&index, &queries, &SearchSettings::new(k)).unwrap();
        let some = search(2000);
        let once = some.pass(&some.prepared.queries, None, true, &|_| ()).unwrap();
        assert!(once[0].is_none());
        assert!(once[1].is_some());
        let all = search(documents).collect(&|_, _| ()).unwrap().hits;
        let hits = some.collect(&|_, _| ()).unwrap().hits;
        assert_eq!(all[0].len(), 4 * SUB_TILE / 16);
        assert!(hits[0] == all[0]);
        assert!(hits[1] == all[1][..2000]);
    }
}
