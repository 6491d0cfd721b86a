//! `tlm index`: an index of a corpus on disk, made once and searched often.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::TlmError;
use super::corpus::{CorpusFiles, Reading};
use super::observer::{Observer, Unit};
use super::watched::watched;
use crate::data::Fields;
use crate::retrieval::{Analyzer, Index, IndexSummary, IndexWriter};

/// A corpus to be indexed.
#[derive(Clone, Debug)]
pub struct IndexRequest {
    /// The directory of the index.
    pub index: PathBuf,
    /// Files or patterns of passages or documents.
    pub inputs: Vec<String>,
    /// Their columns or JSON fields.
    pub fields: Fields,
    /// Bytes of memory that the build keeps to.
    pub memory: u64,
}

/// What a build or an addition did.
#[derive(Clone, Debug, Serialize)]
pub struct IndexReport {
    /// The index as it is now.
    #[serde(flatten)]
    pub summary: IndexSummary,
    /// Passages added.
    pub added: u64,
    /// Empty documents left out.
    pub empty: u64,
    /// Bytes of the texts read.
    pub text_bytes: u64,
    /// Wall clock.
    pub seconds: f64,
}

/// Makes a new index, in place of one that is there: that one stays until this is complete.
///
/// # Errors
/// Everything that can be wrong with the corpus' files ([`TlmError::Data`]) or the index ([`TlmError::Retrieval`]).
pub fn build(
    request: &IndexRequest,
    analyzer: Analyzer,
    passage_words: Option<NonZeroUsize>,
    observer: &mut dyn Observer,
) -> Result<IndexReport, TlmError> {
    let files = CorpusFiles::find(&request.inputs, request.fields.clone(), passage_words)?;
    let words = passage_words.map(|words| words.get().min(u32::MAX as usize) as u32);
    let writer = IndexWriter::create(&request.index, analyzer, words, request.memory)?;
    write(request, &files, writer, observer)
}

/// Adds passages to an index. Its analyzer and its words per passage hold for them as well.
///
/// # Errors
/// As [`build`].
pub fn add(request: &IndexRequest, observer: &mut dyn Observer) -> Result<IndexReport, TlmError> {
    let writer = IndexWriter::extend(&request.index, request.memory)?;
    let words = writer
        .passage_words()
        .and_then(|words| NonZeroUsize::new(words as usize));
    let files = CorpusFiles::find(&request.inputs, request.fields.clone(), words)?;
    write(request, &files, writer, observer)
}

fn write(
    request: &IndexRequest,
    files: &CorpusFiles,
    mut writer: IndexWriter,
    observer: &mut dyn Observer,
) -> Result<IndexReport, TlmError> {
    let started = Instant::now();
    let reading = Reading::default();
    let before = writer.documents();
    watched(
        "indexing",
        files.stored_bytes()?,
        Unit::Bytes,
        observer,
        &reading.bytes,
        || {
            writer.add_stream(files.pieces(&reading), |piece| files.cut(piece))?;
            if reading.text_bytes.load(Ordering::Relaxed) == 0 {
                return Err(files.only_empty(&reading));
            }
            Ok::<_, TlmError>(writer.commit()?)
        },
    )?;
    let summary = Index::open(&request.index)?.summary()?;
    let empty = reading.empty.load(Ordering::Relaxed);
    if empty > 0 {
        observer.note(&format!("{empty} empty passages of the corpus are left out"));
    }
    Ok(IndexReport {
        added: u64::from(summary.documents) - before,
        summary,
        empty,
        text_bytes: reading.text_bytes.load(Ordering::Relaxed),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The sizes of an index.
///
/// # Errors
/// [`TlmError::Retrieval`] for an index that cannot be read.
pub fn info(index: &Path) -> Result<IndexSummary, TlmError> {
    Ok(Index::open(index)?.summary()?)
}

/// Reads every byte of an index and compares every checksum and count.
///
/// # Errors
/// [`TlmError::Retrieval`] with the first file that is not as it was written.
pub fn verify(index: &Path, observer: &mut dyn Observer) -> Result<IndexSummary, TlmError> {
    let index = Index::open(index)?;
    let position = AtomicU64::new(0);
    watched(
        "verifying",
        index.stored_bytes(),
        Unit::Bytes,
        observer,
        &position,
        || index.verify(&|done, _| position.store(done, Ordering::Relaxed)),
    )?;
    Ok(index.summary()?)
}
