//! Retrieval: BM25 selection of the external data.
//!
//! TLM searches a general corpus with every training text and trains on the union of what it finds. That is a special
//! case of retrieval: very many queries, each a whole text; hundreds of hits wanted for each; only the union is used.
//! Skipping methods (WAND, MaxScore) do not pay then, since nearly every document shares a word with a long query. So
//! the search is exhaustive, and the loops are turned inside out: the corpus is cut into tiles, and one pass over the
//! tiles serves all queries, with the accumulators of a (query, sub-tile) pair in the L1 cache.
//!
//! ```text
//! texts --Analyzer--> terms --IndexBuilder--> Index   = vocabulary (df, cf), document lengths, tiles of (local id, tf)
//! Index + Bm25 + union of query terms ------> TileImage = (code, local id) lists and dense code columns
//! query terms x idf ------------------------> WeightedQuery = (term, u16 weight), shift
//! TileImage x WeightedQuery --search--------> K hits each --select--> documents with minimum rank
//! ```
//!
//! The index holds counts alone, so k1, b, the variant and the kind of document length are chosen at query time.
//!
//! # Arithmetic
//!
//! Scores are integers, so that any order of summation, any tiling and any device gives the same lists.
//!
//! * code of a posting: c = max(1, round(65535 tf / (tf + k B))), 16 bits, B from the document's length ([`Bm25`]);
//! * weight of a query term: w = max(1, round(65535 x / max x)), 16 bits, x = qtf * idf;
//! * contribution: (w c + h) >> s with h = 2^(s-1) (0 for s = 0); s is the smallest shift for which no document can
//!   reach 2^32, so sums in u32 cannot overflow;
//! * order: score descending, then document ascending. It is total, so the K best are unique.
//!
//! Against exact BM25 a score is off by at most sum over terms of (65536 + w) / 2^(s+1) + 1/2 units (twice that where
//! a maximum with 1 acts): about 1e-5 of the best score of a typical query.

mod analyzer;
mod bm25;
mod build;
mod image;
mod index;
mod porter;
mod scoring;
mod search;
mod selection;
mod term_cache;
mod words;
mod workers;

pub use analyzer::Analyzer;
pub use bm25::{Bm25, CodeTable, DocumentLength, Variant, WeightedQuery, lucene_length};
pub use build::{DEFAULT_TILE_DOCUMENTS, IndexBuilder};
pub use index::{Index, Tile, Vocabulary};
pub use porter::stem;
pub use search::{Hit, SearchResults, search};
pub use selection::{Selected, random, select};
pub use words::for_each_word;

use thiserror::Error;

/// What can be wrong with a request to the retrieval layer.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RetrievalError {
    /// A name that is none of the choices.
    #[error("{setting}: unknown name {found:?}; choose one of {expected}")]
    UnknownName {
        /// The setting, for example `analyzer`.
        setting: &'static str,
        /// The name given.
        found: String,
        /// The names there are.
        expected: &'static str,
    },
    /// A number outside its range.
    #[error("{setting} is {found}; it must be {expected}")]
    OutOfRange {
        /// The setting, for example `k1`.
        setting: &'static str,
        /// The value given.
        found: String,
        /// The range in words.
        expected: &'static str,
    },
    /// A query of more distinct terms than 32-bit sums allow.
    #[error("query {query} has {terms} distinct terms; the limit is {limit}: cut the text")]
    TooManyTerms {
        /// The query's place in the list, from 0.
        query: usize,
        /// Its distinct terms in the index.
        terms: usize,
        /// The largest number of terms.
        limit: usize,
    },
    /// More passages than 32-bit ordinals can number.
    #[error("the corpus has more than {limit} passages; split it and select from each part")]
    TooManyPassages {
        /// The largest number of passages.
        limit: u32,
    },
}

/// Called with (work done, work in all) while a long operation runs, from any of its threads.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);
