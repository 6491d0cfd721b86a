//! `tlm search`: ranked lists in the format of the TREC conferences, which `trec_eval` and its kin read.
//!
//! ```text
//! query Q0 passage rank score tag         rank from 1, score descending
//! ```
//!
//! Blanks divide the columns, so white space in a name is written as `%` and two hexadecimal digits for each of its bytes, as
//! in a URL; a name without white space stands as it is. Judgements for such names must be written alike.
//!
//! `trec_eval` reads scores as 32-bit floats, ignores the rank and orders equal scores by name. So that it sees the order of
//! the search, a score that is not below the one before is written as the next smaller float.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use super::TlmError;
use super::observer::{Observer, Unit};
use super::select::open_index;
use super::watched::watched;
use crate::atomic::{NewFile, WriteError};
use crate::data::{Contents, Fields, Record, Records, expand};
use crate::retrieval::{Analyzer, Hit, Index, Search, SearchSettings};

/// What `tlm search` is asked for.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    /// The directory of the index.
    pub index: PathBuf,
    /// Files or patterns of the queries.
    pub queries: Vec<String>,
    /// Their columns or JSON fields.
    pub fields: Fields,
    /// Passages per query, and how they are found.
    pub settings: SearchSettings,
    /// How the index' texts became terms, to be sure; none: whatever it is.
    pub analyzer: Option<Analyzer>,
    /// The last column of the run.
    pub tag: String,
    /// The file to be written.
    pub out: PathBuf,
}

/// What a search did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SearchReport {
    /// Passages of the index.
    pub documents: u64,
    /// Queries, empty ones included.
    pub queries: u64,
    /// Those of them without any term of the index.
    pub queries_without_terms: u64,
    /// Lines written.
    pub hits: u64,
    /// How texts became terms.
    pub analyzer: String,
    /// Wall clock of the search, without opening the index and reading the queries.
    pub search_seconds: f64,
    /// Wall clock of everything.
    pub seconds: f64,
}

/// Hits whose names are looked up together, at most: the names of a frame are unpacked once for all of them.
const MOST_HITS_TOGETHER: u64 = 1 << 20;

/// Bytes of memory for each of them: a name takes an eighth of it.
const BYTES_PER_HIT: u64 = 1 << 10;

/// Queries whose lines are made together, by all threads.
const QUERIES_TOGETHER: usize = 64;

/// Searches for every query and writes the run, whole or not at all.
///
/// # Errors
/// Everything that can be wrong with the queries' files ([`TlmError::Data`]), the index ([`TlmError::Retrieval`]) or the
/// output ([`TlmError::Write`]); [`TlmError::Refused`] for queries without a name or of the same name.
pub fn search(request: &SearchRequest, observer: &mut dyn Observer) -> Result<SearchReport, TlmError> {
    let started = Instant::now();
    let index = open_index(&request.index, request.analyzer)?;
    let (names, texts) = read_queries(request)?;
    let searched = Instant::now();
    let position = AtomicU64::new(0);
    let count = texts.len() as u64;
    let (hits, silent) = watched("searching", count, Unit::Texts, observer, &position, || {
        let search = Search::new(&index, &texts, &request.settings)?;
        let mut run = RunWriter::new(request, &index, &names)?;
        let progress = |done: u64, total: u64| {
            let texts = u128::from(count) * u128::from(done) / u128::from(total.max(1));
            position.fetch_max(texts as u64, Ordering::Relaxed);
        };
        let mut query = 0;
        search.run(&progress, |hits| {
            query += 1;
            run.push(hits, search.unit(query - 1))
        })?;
        Ok::<_, TlmError>((run.finish()?, search.without_terms().len() as u64))
    })?;
    if silent > 0 {
        observer.note(&format!(
            "{silent} of {count} queries have no term of the index: they find nothing"
        ));
    }
    Ok(SearchReport {
        documents: u64::from(index.documents()),
        queries: count,
        queries_without_terms: silent,
        hits,
        analyzer: index.analyzer().name().to_owned(),
        search_seconds: searched.elapsed().as_secs_f64(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Ids and texts of the queries, in order.
fn read_queries(request: &SearchRequest) -> Result<(Vec<String>, Vec<String>), TlmError> {
    let files = expand(&request.queries)?;
    let mut records = Records::open(&files, Contents::Passages, &request.fields, |_| {});
    let (mut names, mut texts, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    while let Some(record) = records.next() {
        let Record { id, text, line, .. } = record?;
        // Queries without ids are numbered.
        let name = column(&id.unwrap_or_else(|| (names.len() + 1).to_string()));
        let refused = |reason: &str| {
            let path = records.path().display();
            Err(TlmError::Refused(format!("{path}:{line}: the id {name:?} {reason}")))
        };
        if name.is_empty() {
            return refused("has nothing in it, which a run cannot hold: give another id, or none");
        }
        if !seen.insert(name.clone()) {
            return refused("stands at another query as well: give each query an id of its own");
        }
        names.push(name);
        texts.push(text);
    }
    Ok((names, texts))
}

/// A name as a column of the format: white space as `%` and the hexadecimal digits of its bytes.
fn column(name: &str) -> String {
    let mut column = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_whitespace() {
            let mut bytes = [0; 4];
            let bytes = letter.encode_utf8(&mut bytes).bytes();
            column.extend(bytes.map(|byte| format!("%{byte:02X}")));
        } else {
            column.push(letter);
        }
    }
    column
}

/// Writes a run.
struct RunWriter<'a> {
    index: &'a Index,
    /// The names of those that are not written yet.
    queries: &'a [String],
    tag: &'a str,
    out: NewFile,
    /// Of the next queries: hits and one unit of their scores.
    pending: Vec<(Vec<Hit>, f64)>,
    pending_hits: usize,
    most_pending: usize,
    written: u64,
}

impl<'a> RunWriter<'a> {
    fn new(request: &'a SearchRequest, index: &'a Index, queries: &'a [String]) -> Result<Self, TlmError> {
        Ok(RunWriter {
            index,
            queries,
            tag: &request.tag,
            out: NewFile::create(&request.out)?,
            pending: Vec::new(),
            pending_hits: 0,
            most_pending: (request.settings.memory / BYTES_PER_HIT).min(MOST_HITS_TOGETHER) as usize,
            written: 0,
        })
    }

    fn push(&mut self, hits: Vec<Hit>, unit: f64) -> Result<(), TlmError> {
        self.pending_hits += hits.len();
        self.pending.push((hits, unit));
        match self.pending_hits >= self.most_pending {
            true => self.write_pending(),
            false => Ok(()),
        }
    }

    fn write_pending(&mut self) -> Result<(), TlmError> {
        let hits = self.pending.iter().flat_map(|(hits, _)| hits);
        let mut documents: Vec<u32> = hits.map(|hit| hit.document).collect();
        documents.sort_unstable();
        documents.dedup();
        let passages = self.index.passage_names(&documents)?;
        if passages.iter().any(|passage| passage.id.is_empty()) {
            return Err(TlmError::Refused(
                "a passage has an empty id, which a run cannot hold: build the index with other ids".to_owned(),
            ));
        }
        let names: Vec<String> = passages.into_par_iter().map(|passage| column(&passage.id)).collect();
        let tag = self.tag;
        let lines_of = |(query, (hits, unit)): (&String, &(Vec<Hit>, f64))| {
            let mut lines = String::new();
            let mut last = f32::INFINITY;
            for (rank, hit) in (1..).zip(hits) {
                let place = documents.partition_point(|&document| document < hit.document);
                let name = &names[place];
                last = ((f64::from(hit.score) * unit) as f32).min(last.next_down());
                writeln!(lines, "{query} Q0 {name} {rank} {last} {tag}").expect("a string takes everything");
            }
            lines
        };
        let (queries, rest) = self.queries.split_at(self.pending.len());
        self.queries = rest;
        let together = queries.chunks(QUERIES_TOGETHER);
        for (queries, hits) in together.zip(self.pending.chunks(QUERIES_TOGETHER)) {
            let lines: Vec<String> = queries.par_iter().zip(hits).map(lines_of).collect();
            for lines in lines {
                self.out.write_all(lines.as_bytes()).map_err(self.failed())?;
            }
        }
        self.written += self.pending_hits as u64;
        self.pending_hits = 0;
        self.pending.clear();
        Ok(())
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> TlmError + use<> {
        let path = self.out.path().to_owned();
        move |source| WriteError::of(&path, source).into()
    }

    fn finish(mut self) -> Result<u64, TlmError> {
        self.write_pending()?;
        self.out.commit()?;
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_of_names_is_escaped_and_nothing_else() {
        assert_eq!(column("a b\tc\u{2003}d"), "a%20b%09c%E2%80%83d");
        for name in ["wiki/12#3", "50%", "x%20y", "naïve"] {
            assert_eq!(column(name), name);
        }
    }
}
