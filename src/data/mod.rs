//! Data: from files to packed batches.
//!
//! ```text
//! files      globs, gzip and Zstandard, lines            records   rows of .jsonl and .txt; table: of .csv and .tsv
//! task       labelled splits                             corpus    passages
//! sentences  sentence ends                               passages  cutting long texts
//! wordpiece  training a vocabulary                       tokenizer BERT's WordPiece, trained or loaded
//! encode     texts -> flat token sequences
//! masking    15 % of the tokens                          batch     packed tokens, masked rows, buckets
//! batch_stream  which sequence stands in which batch     prefetch  preparing batches ahead
//! ```
//!
//! Everything is a function of the files, the settings and the seed: never of the number of threads, the order of a
//! hash map or what ran before.

mod batch;
mod batch_stream;
mod corpus;
mod encode;
mod error;
mod files;
mod masking;
mod passages;
mod prefetch;
mod records;
mod sentences;
mod table;
mod task;
mod tokenizer;
mod wordpiece;

pub use batch::{Batch, BatchCapacity};
pub use batch_stream::{BatchCursor, BatchSettings, BatchStream, EvaluationBatches};
pub use corpus::{Passage, Passages};
pub use encode::{EncodingReport, LongTexts, Sequences};
pub use error::DataError;
pub use files::{Format, expand, stored_bytes};
pub use masking::{MASK_SHARE, Masking, RANDOM_SHARE};
pub use passages::{cut_by_words, cut_passage};
pub use prefetch::Prefetch;
pub use records::{Contents, Fields, Record, Records};
pub use sentences::sentences;
pub use task::{Example, Task, TaskFiles, read_examples, shared_texts};
pub use tokenizer::{SpecialIds, Tokenizer};
pub use wordpiece::{SPECIAL_TOKENS, VocabularySettings, WordCounts, train_vocabulary};
