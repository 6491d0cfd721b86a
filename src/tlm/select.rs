//! Stage 0: the external data.
//!
//! ```text
//! corpus files --> documents --cut at sentence ends--> passages --> index          first reading
//! training texts --BM25--> K passages each --> union with minimum rank --> ordinals
//! corpus files --> the selected passages' texts                                    second reading
//! ```
//!
//! The labelled training texts are the queries, whole, never those of dev or test. Memory holds the index but not the
//! texts of the corpus; reading twice costs less than keeping them.
//!
//! The baseline `random` takes as many passages as BM25 selects, so BM25 runs for their number. A selection file has a
//! line for each passage, in the order of first hits (for `random`, in the order of the draw, which is also the rank):
//!
//! ```text
//! {"id": "wiki/123#4", "source": "wiki", "text": "...", "rank": 0, "score": 17.25}
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::TlmError;
use super::config::{Config, Query, SelectMethod};
use super::observer::{Observer, Unit};
use super::outcome::{SelectReport, SelectedPassage, SourceCount};
use crate::atomic;
use crate::data::{Contents, DataError, Fields, Passage, Passages, Records, cut_passage, expand, stored_bytes};
use crate::retrieval::{self, Analyzer, Bm25, DEFAULT_TILE_DOCUMENTS, Index, IndexBuilder, Selected};

/// Documents that are cut and indexed together, at most.
const PIECE_DOCUMENTS: usize = 1 << 15;
/// Bytes of text that are cut and indexed together, about.
const PIECE_BYTES: usize = 64 << 20;
/// Selected passages shown in a report.
const EXAMPLES: usize = 5;

/// The external data and how it was found.
#[derive(Clone, Debug, Default)]
pub struct External {
    /// The passages in the order of first hits.
    pub passages: Vec<SelectedPassage>,
    /// Figures.
    pub report: SelectReport,
}

/// Where `tlm select` selects from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Corpus {
    /// An index directory.
    Index(PathBuf),
    /// Files or patterns of passages, taken as they are.
    Files(Vec<String>),
}

/// What `tlm select` is asked for.
#[derive(Clone, Debug)]
pub struct SelectRequest {
    /// Where from.
    pub corpus: Corpus,
    /// Files or patterns of the queries' texts.
    pub queries: Vec<String>,
    /// Column or JSON field of the queries' text.
    pub text_column: String,
    /// Passages per query.
    pub top_k: u32,
    /// What of a text is the query.
    pub query: Query,
    /// BM25 or random.
    pub method: SelectMethod,
    /// Seed of a random selection.
    pub seed: u64,
    /// How texts become terms; none: english.
    pub analyzer: Option<Analyzer>,
    /// The ranking function.
    pub bm25: Bm25,
    /// The file to be written.
    pub out: PathBuf,
}

/// A selection as both entrances describe it.
struct Selection<'a> {
    inputs: &'a [String],
    fields: Fields,
    passage_words: Option<NonZeroUsize>,
    method: SelectMethod,
    top_k: u32,
    rank_cut: u32,
    analyzer: Analyzer,
    bm25: Bm25,
    seed: u64,
}

/// The external data of a run: selected for `task_texts`, the training texts, as `[select]` says, or read from
/// `select.file`. `seed` decides a random selection.
///
/// # Errors
/// Everything that can be wrong with the corpus' files ([`TlmError::Data`]) or the search ([`TlmError::Retrieval`]).
pub fn select_external(
    config: &Config,
    task_texts: &[String],
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<External, TlmError> {
    let started = Instant::now();
    let mut external = if config.select.method == SelectMethod::None {
        External::default()
    } else if let Some(file) = &config.select.file {
        let mut passages = read_selected(file)?;
        passages.retain(|passage| config.select.rank_cut.is_none_or(|cut| passage.rank < cut));
        observer.note(&format!("selection: {} passages of {}", passages.len(), file.display()));
        External {
            passages,
            report: SelectReport::default(),
        }
    } else {
        let selection = Selection {
            inputs: &config.corpus.inputs,
            fields: Fields {
                text: config.corpus.text_column.clone(),
                ..Fields::default()
            },
            passage_words: config.passage_words().and_then(NonZeroUsize::new),
            method: config.select.method,
            top_k: config.select.top_k,
            rank_cut: config.rank_cut(),
            analyzer: config.select.analyzer,
            bm25: config.select.bm25(),
            seed,
        };
        selection.run(task_texts, observer)?
    };
    let method = match (config.select.method, &config.select.file) {
        (SelectMethod::None, _) => "none",
        (_, Some(_)) => "file",
        (SelectMethod::Random, None) => "random",
        (SelectMethod::Bm25, None) => "bm25",
    };
    external.describe(method, started);
    Ok(external)
}

/// `tlm select`: selects for the texts of the query files and writes the selection.
///
/// # Errors
/// As [`select_external`]; [`TlmError::Refused`] for what this version cannot select with; [`TlmError::Write`].
pub fn select(request: &SelectRequest, observer: &mut dyn Observer) -> Result<SelectReport, TlmError> {
    let started = Instant::now();
    let Corpus::Files(inputs) = &request.corpus else {
        let advice = "this version reads no index from disk: give the passages themselves with --corpus";
        return Err(TlmError::Refused(advice.to_owned()));
    };
    if request.query != Query::Text {
        let query = request.query;
        return Err(TlmError::Refused(format!(
            "--query {query} is not in this version: use --query text"
        )));
    }
    let method = match request.method {
        SelectMethod::Bm25 => "bm25",
        SelectMethod::Random => "random",
        SelectMethod::None => return Err(TlmError::Refused("--method none selects nothing".to_owned())),
    };
    let selection = Selection {
        inputs,
        fields: Fields::default(),
        passage_words: None,
        method: request.method,
        top_k: request.top_k,
        rank_cut: request.top_k,
        analyzer: request.analyzer.unwrap_or_default(),
        bm25: request.bm25,
        seed: request.seed,
    };
    let queries = read_queries(&request.queries, &request.text_column, observer)?;
    let mut external = selection.run(&queries, observer)?;
    external.describe(method, started);
    write_selected(&request.out, &external.passages)?;
    Ok(external.report)
}

/// Writes a selection file, whole or not at all.
///
/// # Errors
/// [`TlmError::Write`].
pub fn write_selected(path: &Path, passages: &[SelectedPassage]) -> Result<(), TlmError> {
    let write = |out: &mut dyn Write| {
        passages.iter().try_for_each(|passage| {
            serde_json::to_writer(&mut *out, passage)?;
            out.write_all(b"\n")
        })
    };
    Ok(atomic::write_with(path, write)?)
}

/// Reads a selection file.
///
/// # Errors
/// [`TlmError::Data`] with file and line.
pub fn read_selected(path: &Path) -> Result<Vec<SelectedPassage>, TlmError> {
    let file = File::open(path).map_err(|source| DataError::Open {
        path: path.to_owned(),
        source,
    })?;
    let mut passages = Vec::new();
    for (line, bytes) in (1_u64..).zip(BufReader::new(file).split(b'\n')) {
        let bytes = bytes.map_err(|source| DataError::Read {
            path: path.to_owned(),
            line,
            source,
        })?;
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        passages.push(serde_json::from_slice(&bytes).map_err(|error| {
            DataError::Json {
                path: path.to_owned(),
                line,
                column: error.column(),
                reason: error
                    .to_string()
                    .split(" at line ")
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            }
        })?);
    }
    Ok(passages)
}

impl External {
    /// Completes the report by what follows from the passages.
    fn describe(&mut self, method: &str, started: Instant) {
        let mut by_source: Vec<SourceCount> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for passage in &self.passages {
            let place = *places.entry(passage.source.as_str()).or_insert_with(|| {
                let source = passage.source.clone();
                by_source.push(SourceCount { source, count: 0 });
                by_source.len() - 1
            });
            by_source[place].count += 1;
        }
        by_source.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.source.cmp(&b.source)));
        self.report.method = method.to_owned();
        self.report.selected = self.passages.len() as u64;
        self.report.by_source = by_source;
        self.report.examples = self.passages.iter().take(EXAMPLES).cloned().collect();
        self.report.seconds = started.elapsed().as_secs_f64();
    }
}

impl Selection<'_> {
    fn run(&self, queries: &[String], observer: &mut dyn Observer) -> Result<External, TlmError> {
        self.bm25.validate()?;
        let files = expand(self.inputs)?;
        let index = self.index(&files, observer)?;
        observer.note(&format!(
            "index: {} passages, {} terms, {} analyzer",
            index.documents(),
            index.vocabulary().len(),
            self.analyzer
        ));
        let search = |progress: retrieval::Progress| {
            retrieval::search(&index, queries, self.top_k as usize, &self.bm25, progress)
        };
        let results = watched("searching", queries.len() as u64, observer, search)?;
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
    fn from(selected: &Selected) -> Chosen {
        Chosen {
            document: selected.document,
            rank: selected.rank,
            score: Some(selected.score),
        }
    }
}

/// The texts of query files; labels are not looked at. Empty ones are left out and counted.
fn read_queries(patterns: &[String], text: &str, observer: &mut dyn Observer) -> Result<Vec<String>, TlmError> {
    let fields = Fields {
        text: text.to_owned(),
        ..Fields::default()
    };
    let files = expand(patterns)?;
    let (mut texts, mut empty) = (Vec::new(), 0);
    for record in Records::open(&files, Contents::Passages, &fields, |_| {}) {
        let text = record?.text;
        if text.trim().is_empty() {
            empty += 1;
        } else {
            texts.push(text);
        }
    }
    if empty > 0 {
        observer.note(&format!("{empty} empty queries are left out"));
    }
    Ok(texts)
}

/// Runs `job` on a thread of its own and tells the observer, whom only this thread may speak to, how far it is:
/// the job's share done as a share of `texts`.
fn watched<T: Send>(
    work: &str,
    texts: u64,
    observer: &mut dyn Observer,
    job: impl FnOnce(retrieval::Progress) -> T + Send,
) -> T {
    observer.begin(work, texts, 0, Unit::Texts);
    let position = AtomicU64::new(0);
    let watcher = std::thread::current();
    let result = std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let result = job(&|done, total| {
                let texts = u128::from(texts) * u128::from(done) / u128::from(total.max(1));
                position.fetch_max(texts as u64, Ordering::Relaxed);
            });
            watcher.unpark();
            result
        });
        while !job.is_finished() {
            std::thread::park_timeout(Duration::from_millis(20));
            observer.advance(position.load(Ordering::Relaxed), "");
        }
        job.join()
    });
    observer.end();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
