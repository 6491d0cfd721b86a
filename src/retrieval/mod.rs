//! Retrieval: BM25 selection of the external data.
//!
//! TLM searches a general corpus with every training text and trains on the union of what it finds. That is a special
//! case of retrieval: very many queries, each a whole text; hundreds of hits wanted for each; only the union is used.
//! Skipping methods (WAND, MaxScore) do not pay then, since nearly every document shares a word with a long query. So
//! the search is exhaustive, and the loops are turned inside out: the corpus is cut into tiles, and one pass over the
//! tiles serves all queries, with the accumulators of a (query, sub-tile) pair in the L1 cache.
//!
//! ```text
//! texts --Analyzer--> terms --IndexBuilder, IndexWriter--> Index  = segments: vocabulary (df, cf), tiles of (local id, tf)
//! Index + Bm25 + union of query terms -------> SubTileImage = lists of (code, document), dense code columns
//! query terms x idf -------------------------> WeightedQuery = (term, u16 weight), shift
//! SubTileImage x WeightedQuery --Search------> K hits each --Union--> documents with minimum rank
//! ```
//!
//! The index holds counts alone, so k1, b, the variant, the kind of document length and stop words are chosen at query
//! time. On disk it is mapped, and read once for all queries; in memory it is the same bytes.
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
mod best;
mod block;
mod bm25;
mod build;
mod bytes;
mod codec;
mod coder;
mod desks;
mod engine;
mod error;
mod fetch;
mod image;
mod index;
mod kept;
mod limits;
mod lists;
mod loops;
mod manifest;
mod on_device;
mod pass;
mod passages;
mod pipeline;
mod porter;
mod query;
mod rake;
mod scoring;
mod search;
mod segment;
mod selection;
mod term_cache;
mod tile;
mod vocabulary;
mod words;
mod workers;
mod writer;

pub use analyzer::{Analyzer, STOP_WORDS};
pub use bm25::{Bm25, DocumentLength, Variant, lucene_length};
pub use build::IndexBuilder;
pub use engine::{Engine, EngineHit, EngineResults, EngineSettings};
pub use error::RetrievalError;
pub use index::{Index, IndexSummary};
pub use limits::{DEFAULT_MEMORY, DEFAULT_TILE_DOCUMENTS, LEAST_MEMORY, PIECE_BYTES, PIECE_DOCUMENTS};
pub use passages::Passage;
pub use porter::stem;
pub use query::Query;
pub use rake::{NLTK_STOP_WORDS, Phrase, rake_phrases};
pub use search::{Hit, Search, SearchResults, SearchSettings, search};
pub use selection::{Selected, Union, random};
pub use words::for_each_word;
pub use writer::IndexWriter;

/// Called with (work done, work in all) while a long operation runs, from any of its threads.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);
