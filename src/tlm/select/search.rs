//! The search behind a selection, in an index on disk or in one that is made for it.
//!
//! ```text
//! corpus files --> documents --cut at sentence ends--> passages --> index in memory      first reading
//! training texts --BM25--> K passages each --> union with minimum rank --> ordinals
//! corpus files --> the selected passages' texts                                          second reading
//! ```
//!
//! Memory holds the index but not the texts of the corpus; reading twice costs less than keeping them. An index on disk
//! has the texts beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::External;
use crate::data::Passage;
use crate::retrieval::{
    self, Analyzer, DEFAULT_TILE_DOCUMENTS, Index, IndexBuilder, Search, SearchSettings, Selected, Union,
};
use crate::tlm::TlmError;
use crate::tlm::config::SelectMethod;
use crate::tlm::corpus::{CorpusFiles, Reading};
use crate::tlm::observer::{Observer, Unit};
use crate::tlm::outcome::{SelectReport, SelectedPassage};
use crate::tlm::watched::watched;

/// What a selection is made from.
pub(super) enum Source {
    /// Files that are read and indexed for it.
    Files(CorpusFiles, Analyzer),
    /// An index that is there.
    Index(Box<Index>),
}

/// A selection as both entrances describe it.
pub(super) struct Selection {
    pub source: Source,
    /// BM25 or random.
    pub method: SelectMethod,
    /// Passages per query, and how they are found.
    pub settings: SearchSettings,
    /// Passages of this rank and above are dropped.
    pub rank_cut: Option<u32>,
    /// Of a random selection.
    pub seed: u64,
}

impl Selection {
    /// Selects for the queries.
    pub fn run(&self, queries: &[String], observer: &mut dyn Observer) -> Result<External, TlmError> {
        self.settings.bm25.validate()?;
        match &self.source {
            Source::Index(index) => {
                observer.note(&format!(
                    "index: {} passages in {} segments, {} analyzer",
                    index.documents(),
                    index.segment_count(),
                    index.analyzer()
                ));
                let (chosen, report) = self.choose(index, queries, observer)?;
                let documents: Vec<u32> = chosen.iter().map(|chosen| chosen.document).collect();
                let passages = index.passages(&documents)?;
                let passages = chosen
                    .iter()
                    .zip(passages)
                    .map(|(chosen, passage)| chosen.passage(passage));
                Ok(External {
                    passages: passages.collect(),
                    report,
                })
            }
            Source::Files(files, analyzer) => {
                let index = indexed(files, *analyzer, observer)?;
                observer.note(&format!("index: {} passages, {analyzer} analyzer", index.documents()));
                let (chosen, report) = self.choose(&index, queries, observer)?;
                let passages = texts(files, &chosen, index.documents(), observer)?;
                Ok(External { passages, report })
            }
        }
    }

    /// Which passages, in their order.
    fn choose(
        &self,
        index: &Index,
        queries: &[String],
        observer: &mut dyn Observer,
    ) -> Result<(Vec<Chosen>, SelectReport), TlmError> {
        let texts = queries.len() as u64;
        let position = AtomicU64::new(0);
        let (union, silent) = watched("searching", texts, Unit::Texts, observer, &position, || {
            let search = Search::new(index, queries, &self.settings)?;
            let mut union = Union::new(index.documents());
            let mut units = (0..queries.len()).map(|query| search.unit(query));
            // The search counts its own units; they are shown as texts.
            let progress = |done: u64, total: u64| {
                let texts = u128::from(texts) * u128::from(done) / u128::from(total.max(1));
                position.fetch_max(texts as u64, Ordering::Relaxed);
            };
            search.run(&progress, |hits| {
                union.add(&hits, units.next().unwrap_or_default());
                Ok::<_, TlmError>(())
            })?;
            Ok::<_, TlmError>((union, search.without_terms().len() as u64))
        })?;
        if silent > 0 {
            observer.note(&format!(
                "{silent} of {} queries have no term of the corpus: they select nothing",
                queries.len()
            ));
        }
        let mut selected = union.into_selected();
        selected.retain(|found| self.rank_cut.is_none_or(|cut| found.rank < cut));
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
        let report = SelectReport {
            documents: u64::from(index.documents()),
            queries: queries.len() as u64,
            queries_without_terms: silent,
            ..SelectReport::default()
        };
        Ok((chosen, report))
    }
}

/// First reading: the index of all passages.
fn indexed(files: &CorpusFiles, analyzer: Analyzer, observer: &mut dyn Observer) -> Result<Index, TlmError> {
    let reading = Reading::default();
    let index = watched(
        "indexing",
        files.stored_bytes()?,
        Unit::Bytes,
        observer,
        &reading.bytes,
        || {
            let mut builder = IndexBuilder::new(analyzer, DEFAULT_TILE_DOCUMENTS)?;
            builder.add_stream(files.pieces(&reading), |piece| files.cut(piece))?;
            Ok::<_, TlmError>(builder.finish()?)
        },
    )?;
    if index.documents() == 0 {
        return Err(files.only_empty(&reading));
    }
    let empty = reading.empty.load(Ordering::Relaxed);
    if empty > 0 {
        observer.note(&format!("{empty} empty passages of the corpus are left out"));
    }
    Ok(index)
}

/// Second reading: the chosen passages in their order.
fn texts(
    files: &CorpusFiles,
    chosen: &[Chosen],
    documents: u32,
    observer: &mut dyn Observer,
) -> Result<Vec<SelectedPassage>, TlmError> {
    let mut order: Vec<usize> = (0..chosen.len()).collect();
    order.sort_unstable_by_key(|&place| chosen[place].document);
    let mut next = order.into_iter().peekable();
    let mut found: Vec<Option<SelectedPassage>> = vec![None; chosen.len()];
    let mut read = 0_u32;
    let reading = Reading::default();
    let work = "reading the selected passages";
    watched(
        work,
        files.stored_bytes()?,
        Unit::Bytes,
        observer,
        &reading.bytes,
        || {
            let mut pieces = files.pieces(&reading);
            loop {
                // A piece for each thread to cut.
                let group = (0..rayon::current_num_threads()).map_while(|_| pieces().transpose());
                let group: Vec<Vec<Passage>> = group.collect::<Result<_, TlmError>>()?;
                if group.is_empty() {
                    return Ok::<_, TlmError>(());
                }
                let group: Vec<Vec<Passage>> = group.into_par_iter().map(|piece| files.cut(piece)).collect();
                for passage in group.into_iter().flatten() {
                    if let Some(place) = next.next_if(|&place| chosen[place].document == read) {
                        found[place] = Some(chosen[place].passage(passage));
                    }
                    read = read.saturating_add(1);
                }
            }
        },
    )?;
    let found: Option<Vec<SelectedPassage>> = found.into_iter().collect();
    found.filter(|_| read == documents).ok_or_else(|| {
        TlmError::Refused("the corpus changed while passages were selected from it: select again".to_owned())
    })
}

/// A passage to be taken from the corpus.
struct Chosen {
    document: u32,
    rank: u32,
    score: Option<f64>,
}

impl Chosen {
    fn passage(&self, passage: Passage) -> SelectedPassage {
        let Passage { id, source, text } = passage;
        SelectedPassage {
            id,
            source,
            text,
            rank: self.rank,
            score: self.score,
        }
    }
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
