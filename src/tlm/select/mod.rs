//! Stage 0: the external data. `Selection` finds it; here are the two entrances, a run's and that of `tlm select`, and
//! the selection file.
//!
//! The labelled training texts are the queries, whole, never those of dev or test.
//!
//! The baseline `random` takes as many passages as BM25 selects, so BM25 runs for their number. A selection file has a
//! line for each passage, in the order of first hits (for `random`, in the order of the draw, which is also the rank):
//!
//! ```text
//! {"id": "wiki/123#4", "source": "wiki", "text": "...", "rank": 0, "score": 17.25}
//! ```

mod engine;
mod search;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::TlmError;
use super::config::{Config, PassageWords, SelectMethod};
use super::corpus::CorpusFiles;
use super::observer::Observer;
use super::outcome::{SelectReport, SelectedPassage, SourceCount};
use crate::atomic;
use crate::data::{Contents, DataError, Fields, Records, expand};
use crate::retrieval::{Analyzer, EngineSettings, Index, SearchSettings};
use engine::select_by_engine;
use search::{Selection, Source};

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
#[derive(Clone, Debug)]
pub enum Corpus {
    /// An index directory.
    Index(PathBuf),
    /// Files or patterns of passages or documents.
    Files(Vec<String>),
    /// An index of OpenSearch or Elasticsearch, which analyses and ranks by its own settings.
    Engine(EngineSettings),
}

/// What `tlm select` is asked for.
#[derive(Clone, Debug)]
pub struct SelectRequest {
    /// Where from.
    pub corpus: Corpus,
    /// How documents become passages; `auto` for the default length of external texts.
    pub passage_words: PassageWords,
    /// Column or JSON field of the corpus' text.
    pub corpus_text_column: String,
    /// Files or patterns of the queries' texts.
    pub queries: Vec<String>,
    /// Column or JSON field of the queries' text.
    pub text_column: String,
    /// Passages per query, and how they are found; an engine looks at their number and at what of a text is the query.
    pub settings: SearchSettings,
    /// BM25 or random.
    pub method: SelectMethod,
    /// Seed of a random selection.
    pub seed: u64,
    /// How texts become terms; none: as the index, or english.
    pub analyzer: Option<Analyzer>,
    /// The file to be written.
    pub out: PathBuf,
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
        let source = match &config.corpus.index {
            Some(index) => Source::Index(Box::new(open_index(index, Some(config.select.analyzer))?)),
            None => {
                let words = config.passage_words().and_then(NonZeroUsize::new);
                let files = CorpusFiles::find(&config.corpus.inputs, text_field(&config.corpus.text_column), words)?;
                Source::Files(files, config.select.analyzer)
            }
        };
        let selection = Selection {
            source,
            method: config.select.method,
            settings: SearchSettings {
                bm25: config.select.bm25(),
                query: config.select.query,
                ..SearchSettings::new(config.select.top_k as usize)
            },
            rank_cut: config.select.rank_cut,
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
/// As [`select_external`]; [`TlmError::Write`].
pub fn select(request: &SelectRequest, observer: &mut dyn Observer) -> Result<SelectReport, TlmError> {
    let started = Instant::now();
    let method = match request.method {
        SelectMethod::Bm25 => "bm25",
        SelectMethod::Random => "random",
        SelectMethod::None => return Err(TlmError::Refused("--method none selects nothing".to_owned())),
    };
    let source = match &request.corpus {
        Corpus::Engine(settings) => {
            if request.method == SelectMethod::Random {
                let advice = "an engine gives no random passages: select them from an index or from files";
                return Err(TlmError::Refused(advice.to_owned()));
            }
            let queries = read_queries(&request.queries, &request.text_column, observer)?;
            let mut external =
                select_by_engine(settings, &queries, request.settings.k, request.settings.query, observer)?;
            external.describe(method, started);
            write_selected(&request.out, &external.passages)?;
            return Ok(external.report);
        }
        Corpus::Index(index) => Source::Index(Box::new(open_index(index, request.analyzer)?)),
        Corpus::Files(inputs) => {
            let words = request.passage_words.words(Config::default().external_length());
            let fields = text_field(&request.corpus_text_column);
            let files = CorpusFiles::find(inputs, fields, words.and_then(NonZeroUsize::new))?;
            Source::Files(files, request.analyzer.unwrap_or_default())
        }
    };
    let selection = Selection {
        source,
        method: request.method,
        settings: request.settings.clone(),
        rank_cut: None,
        seed: request.seed,
    };
    let queries = read_queries(&request.queries, &request.text_column, observer)?;
    let mut external = selection.run(&queries, observer)?;
    external.describe(method, started);
    write_selected(&request.out, &external.passages)?;
    Ok(external.report)
}

/// The index in a directory, for texts that become terms by `analyzer`; none: by the index's own.
///
/// # Errors
/// [`TlmError::Retrieval`] for an index that cannot be read or was made by another analyzer.
pub(super) fn open_index(directory: &Path, analyzer: Option<Analyzer>) -> Result<Index, TlmError> {
    let index = Index::open(directory)?;
    let made = index.analyzer();
    match analyzer.filter(|&analyzer| analyzer != made) {
        None => Ok(index),
        Some(asked) => Err(TlmError::Refused(format!(
            "{}: the index was made by the analyzer {made}, and {asked} is asked for: ask for {made} or build another index",
            directory.display()
        ))),
    }
}

fn text_field(text: &str) -> Fields {
    Fields {
        text: text.to_owned(),
        ..Fields::default()
    }
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

/// The texts of query files; labels are not looked at. Empty ones are left out and counted.
fn read_queries(patterns: &[String], text: &str, observer: &mut dyn Observer) -> Result<Vec<String>, TlmError> {
    let files = expand(patterns)?;
    let (mut texts, mut empty) = (Vec::new(), 0);
    for record in Records::open(&files, Contents::Passages, &text_field(text), |_| {}) {
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
