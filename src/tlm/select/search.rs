//! The search behind a selection: the corpus is read twice and never held.
//!
//! ```text
//! corpus files --> documents --cut at sentence ends--> passages --> index          first reading
//! training texts --BM25--> K passages each --> union with minimum rank --> ordinals
//! corpus files --> the selected passages' texts                                    second reading
//! ```
//!
//! Memory holds the index but not the texts of the corpus; reading twice costs less than keeping them.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::External;
use crate::data::{DataError, Fields, Passage, Passages, cut_passage, expand, stored_bytes};
use crate::retrieval::{self, Analyzer, Bm25, DEFAULT_TILE_DOCUMENTS, Index, IndexBuilder, Selected};
use crate::tlm::TlmError;
use crate::tlm::config::SelectMethod;
use crate::tlm::observer::{Observer, Unit};
use crate::tlm::outcome::{SelectReport, SelectedPassage};
use crate::tlm::watched::watched;

/// Documents that are cut and indexed together, at most.
const PIECE_DOCUMENTS: usize = 1 << 15;
/// Documents between two words to the observer.
const TOLD_DOCUMENTS: usize = 1 << 9;
/// Bytes of text that are cut and indexed together, about.
const PIECE_BYTES: usize = 64 << 20;

/// A selection as both entrances describe it.
pub(super) struct Selection<'a> {
    /// Files or patterns of the corpus.
    pub inputs: &'a [String],
    /// Its fields.
    pub fields: Fields,
    /// Words per passage that documents are cut to; none: a document is a passage.
    pub passage_words: Option<NonZeroUsize>,
    /// BM25 or random.
    pub method: SelectMethod,
    /// Passages per query.
    pub top_k: u32,
    /// Passages of this rank and above are dropped.
    pub rank_cut: u32,
    /// How texts become terms.
    pub analyzer: Analyzer,
    /// The ranking function.
    pub bm25: Bm25,
    /// Of a random selection.
    pub seed: u64,
}

impl Selection<'_> {
    /// Selects for the queries.
    pub fn run(&self, queries: &[String], observer: &mut dyn Observer) -> Result<External, TlmError> {
        self.bm25.validate()?;
        let files = expand(self.inputs)?;
        let index = self.index(&files, observer)?;
        observer.note(&format!(
            "index: {} passages, {} terms, {} analyzer",
            index.documents(),
            index.vocabulary().len(),
            self.analyzer
        ));
        let texts = queries.len() as u64;
        let results = watched("searching", texts, observer, |position| {
            // The search counts its own units; they are shown as texts.
            let progress = |done: u64, total: u64| {
                let texts = u128::from(texts) * u128::from(done) / u128::from(total.max(1));
                position.fetch_max(texts as u64, Ordering::Relaxed);
            };
            retrieval::search(&index, queries, self.top_k as usize, &self.bm25, &progress)
        })?;
        let silent = results.without_terms.len() as u64;
        if silent > 0 {
            observer.note(&format!(
                "{silent} of {} queries have no term of the corpus: they select nothing",
                queries.len()
            ));
        }
        let mut selected = retrieval::select(&results, index.documents());
        selected.retain(|found| found.rank < self.rank_cut);
        let chosen: Vec<Chosen> = match self.method {
            SelectMethod::Random => retrieval::random(index.documents(), selected.len() as u32, self.seed)?
                .into_iter()
                .zip(0..)
                .map(|(document, rank)| Chosen {
                    document,
                    rank,
                    score: None,
                })
                .collect(),
            SelectMethod::Bm25 | SelectMethod::None => selected.iter().map(Chosen::from).collect(),
        };
        let passages = self.texts(&files, &chosen, index.documents(), observer)?;
        let report = SelectReport {
            documents: u64::from(index.documents()),
            queries: queries.len() as u64,
            queries_without_terms: silent,
            ..SelectReport::default()
        };
        Ok(External { passages, report })
    }

    /// First reading: the index of all passages.
    fn index(&self, files: &[PathBuf], observer: &mut dyn Observer) -> Result<Index, TlmError> {
        let mut builder = IndexBuilder::new(self.analyzer, DEFAULT_TILE_DOCUMENTS)?;
        let empty = self.for_each_piece(files, "indexing", observer, |passages| {
            let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
            Ok(builder.add(&texts, &|_, _| ())?)
        })?;
        let index = builder.finish();
        match files.first() {
            Some(path) if index.documents() == 0 => Err(TlmError::Data(DataError::OnlyEmptyTexts {
                path: path.clone(),
                empty: empty as usize,
            })),
            _ => {
                if empty > 0 {
                    observer.note(&format!("{empty} empty passages of the corpus are left out"));
                }
                Ok(index)
            }
        }
    }

    /// Second reading: the chosen passages in their order.
    fn texts(
        &self,
        files: &[PathBuf],
        chosen: &[Chosen],
        documents: u32,
        observer: &mut dyn Observer,
    ) -> Result<Vec<SelectedPassage>, TlmError> {
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_unstable_by_key(|&place| chosen[place].document);
        let mut next = order.iter().copied().peekable();
        let mut found: Vec<Option<SelectedPassage>> = vec![None; chosen.len()];
        let mut read = 0_u64;
        self.for_each_piece(files, "reading the selected passages", observer, |passages| {
            for passage in passages {
                if let Some(place) = next.next_if(|&place| u64::from(chosen[place].document) == read) {
                    let Passage { id, source, text } = passage;
                    let Chosen { rank, score, .. } = chosen[place];
                    found[place] = Some(SelectedPassage {
                        id,
                        source,
                        text,
                        rank,
                        score,
                    });
                }
                read += 1;
            }
            Ok(())
        })?;
        let found: Option<Vec<SelectedPassage>> = found.into_iter().collect();
        found.filter(|_| read == u64::from(documents)).ok_or_else(|| {
            TlmError::Refused("the corpus changed while passages were selected from it: select again".to_owned())
        })
    }

    /// Reads the corpus and hands on its passages in order, many at a time. Returns the number of empty documents.
    fn for_each_piece(
        &self,
        files: &[PathBuf],
        work: &str,
        observer: &mut dyn Observer,
        mut consume: impl FnMut(Vec<Passage>) -> Result<(), TlmError>,
    ) -> Result<u64, TlmError> {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes_read);
        observer.begin(work, stored_bytes(files)?, 0, Unit::Bytes);
        let count = move |bytes| {
            counter.fetch_add(bytes, Ordering::Relaxed);
        };
        let mut corpus = Passages::open(files, &self.fields, count);
        loop {
            let mut piece = Vec::new();
            let mut bytes = 0;
            while piece.len() < PIECE_DOCUMENTS && bytes < PIECE_BYTES {
                let Some(passage) = corpus.next().transpose()? else {
                    break;
                };
                bytes += passage.text.len();
                piece.push(passage);
                if piece.len().is_multiple_of(TOLD_DOCUMENTS) {
                    observer.advance(bytes_read.load(Ordering::Relaxed), "");
                }
            }
            if piece.is_empty() {
                observer.end();
                return Ok(corpus.empty());
            }
            consume(self.cut(piece))?;
            observer.advance(bytes_read.load(Ordering::Relaxed), "");
        }
    }

    fn cut(&self, documents: Vec<Passage>) -> Vec<Passage> {
        match self.passage_words {
            None => documents,
            Some(words) => documents
                .into_par_iter()
                .flat_map_iter(|document| cut_passage(document, words))
                .collect(),
        }
    }
}

/// A passage to be taken from the corpus.
struct Chosen {
    document: u32,
    rank: u32,
    score: Option<f64>,
}

impl From<&Selected> for Chosen {
    /// The score with six decimals: the search's integers are good for about five digits, and so few come back from a
    /// JSON file as the same number.
    fn from(selected: &Selected) -> Chosen {
        Chosen {
            document: selected.document,
            rank: selected.rank,
            score: Some((selected.score * 1e6).round() / 1e6),
        }
    }
}
