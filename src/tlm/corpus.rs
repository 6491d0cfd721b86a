//! The general corpus as a stream of pieces: what indexing and selection read.
//!
//! ```text
//! files --> documents --many at a time--> pieces --cut at sentence ends, on any thread--> passages
//! ```

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::data::{DataError, Fields, Passage, Passages, cut_passage, expand, stored_bytes};
use crate::retrieval::{PIECE_BYTES, PIECE_DOCUMENTS};

use super::TlmError;

/// The files of a corpus and how they are read.
pub(super) struct CorpusFiles {
    files: Vec<PathBuf>,
    fields: Fields,
    /// Words per passage that documents are cut to; none: a document is a passage.
    passage_words: Option<NonZeroUsize>,
}

/// How far a reading is.
#[derive(Default)]
pub(super) struct Reading {
    /// Stored bytes read.
    pub bytes: AtomicU64,
    /// Bytes of the texts read.
    pub text_bytes: AtomicU64,
    /// Empty documents left out.
    pub empty: AtomicU64,
}

impl CorpusFiles {
    /// The files that patterns name.
    pub fn find(
        patterns: &[String],
        fields: Fields,
        passage_words: Option<NonZeroUsize>,
    ) -> Result<CorpusFiles, TlmError> {
        Ok(CorpusFiles {
            files: expand(patterns)?,
            fields,
            passage_words,
        })
    }

    /// Bytes of the files as stored.
    pub fn stored_bytes(&self) -> Result<u64, TlmError> {
        Ok(stored_bytes(&self.files)?)
    }

    /// The error of a corpus without a text.
    pub fn only_empty(&self, reading: &Reading) -> TlmError {
        TlmError::Data(DataError::OnlyEmptyTexts {
            path: self.files.first().cloned().unwrap_or_default(),
            empty: reading.empty.load(Ordering::Relaxed) as usize,
        })
    }

    /// Reads the corpus: each call gives the next documents, none at the end.
    pub fn pieces<'a>(
        &self,
        reading: &'a Reading,
    ) -> impl FnMut() -> Result<Option<Vec<Passage>>, TlmError> + Send + use<'a> {
        let mut corpus = Passages::open(&self.files, &self.fields, |bytes| {
            reading.bytes.fetch_add(bytes, Ordering::Relaxed);
        });
        move || {
            let mut piece = Vec::new();
            let mut bytes = 0;
            while piece.len() < PIECE_DOCUMENTS && bytes < PIECE_BYTES {
                let Some(passage) = corpus.next().transpose()? else {
                    break;
                };
                bytes += passage.text.len();
                piece.push(passage);
            }
            reading.text_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            reading.empty.store(corpus.empty(), Ordering::Relaxed);
            Ok((!piece.is_empty()).then_some(piece))
        }
    }

    /// The passages of a piece, in order.
    pub fn cut(&self, documents: Vec<Passage>) -> Vec<Passage> {
        match self.passage_words {
            None => documents,
            Some(words) => documents
                .into_iter()
                .flat_map(|document| cut_passage(document, words))
                .collect(),
        }
    }
}
