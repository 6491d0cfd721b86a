//! Making and extending an index on disk.

use std::path::{Path, PathBuf};

use super::RetrievalError;
use super::analyzer::Analyzer;
use super::build::{Assembly, Target};
use super::limits::Limits;
use super::manifest::{Manifest, WriteLock, may_hold_index};
use super::passages::Passage;
use super::pipeline;
use crate::atomic::WriteError;

/// Writes passages to an index in a directory. The index there stays as it is until [`IndexWriter::commit`].
pub struct IndexWriter {
    directory: PathBuf,
    analyzer: Analyzer,
    /// The index as it will be, without what is being added.
    manifest: Manifest,
    assembly: Assembly,
    /// Dropped last, so that it removes what the others leave.
    lock: WriteLock,
}

impl IndexWriter {
    /// A new index in `directory`, which is made if it does not exist, in place of one that is there. The build keeps to
    /// about `memory` bytes (at least 64 MiB); `passage_words` is noted for those who add.
    ///
    /// # Errors
    /// [`RetrievalError::OutOfRange`] for less memory, [`RetrievalError::Mismatch`] for a directory that holds something
    /// else, [`RetrievalError::Busy`], [`RetrievalError::Write`].
    pub fn create(
        directory: &Path,
        analyzer: Analyzer,
        passage_words: Option<u32>,
        memory: u64,
    ) -> Result<Self, RetrievalError> {
        let limits = Limits::new(memory, rayon::current_num_threads())?;
        if directory.is_file() {
            return Err(WriteError::InTheWay {
                path: directory.to_owned(),
                found: "a file",
            }
            .into());
        }
        if !may_hold_index(directory) {
            return Err(RetrievalError::Mismatch(format!(
                "{}: the directory holds other files; name one that does not exist, is empty, or holds an index",
                directory.display()
            )));
        }
        // An index that is there, even a broken one, stays until the new one is complete.
        let lock = WriteLock::take(directory)?;
        lock.tidy();
        let next = lock.next_number();
        let manifest = Manifest {
            analyzer: analyzer.name().to_owned(),
            passage_words,
            documents: 0,
            total_length: 0,
            segments: Vec::new(),
            passages: Vec::new(),
        };
        Ok(IndexWriter::new(directory, lock, analyzer, manifest, limits, next))
    }

    /// The index in `directory`, to which passages are added.
    ///
    /// # Errors
    /// As those of [`super::Index::open`] and [`IndexWriter::create`].
    pub fn extend(directory: &Path, memory: u64) -> Result<Self, RetrievalError> {
        let limits = Limits::new(memory, rayon::current_num_threads())?;
        // An index that cannot be read is not added to.
        let index = super::Index::open(directory)?;
        let lock = WriteLock::take(directory)?;
        let manifest = Manifest::read(directory)?;
        lock.tidy();
        let next = lock.next_number();
        Ok(IndexWriter::new(
            directory,
            lock,
            index.analyzer(),
            manifest,
            limits,
            next,
        ))
    }

    fn new(
        directory: &Path,
        lock: WriteLock,
        analyzer: Analyzer,
        manifest: Manifest,
        limits: Limits,
        next: u32,
    ) -> Self {
        IndexWriter {
            directory: directory.to_owned(),
            analyzer,
            manifest,
            assembly: Assembly::new(limits, Target::Directory(directory.to_owned(), next)),
            lock,
        }
    }

    /// How texts become terms.
    #[must_use]
    pub fn analyzer(&self) -> Analyzer {
        self.analyzer
    }

    /// The documents of the index before the addition.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.manifest.documents
    }

    /// Words per passage that documents are cut into; none: taken as they are.
    #[must_use]
    pub fn passage_words(&self) -> Option<u32> {
        self.manifest.passage_words
    }

    /// Appends passages from a stream: `source` gives pieces of the corpus until there are none, `cut` makes passages of
    /// a piece, on any thread.
    ///
    /// # Errors
    /// Those of `source`, [`RetrievalError::TooManyPassages`] beyond 2^32 - 1 passages, [`RetrievalError::Write`].
    pub fn add_stream<P: Send, E: From<RetrievalError> + Send>(
        &mut self,
        source: impl FnMut() -> Result<Option<P>, E> + Send,
        cut: impl Fn(P) -> Vec<Passage> + Sync,
    ) -> Result<(), E> {
        pipeline::run(&mut self.assembly, self.analyzer, source, |worker, piece| {
            worker.analyze_passages(&cut(piece))
        })
    }

    /// Makes what was added part of the index, in one step.
    ///
    /// # Errors
    /// [`RetrievalError::Write`]; the index is as before then.
    pub fn commit(self) -> Result<(), RetrievalError> {
        let IndexWriter {
            directory,
            mut manifest,
            assembly,
            lock,
            ..
        } = self;
        let (segments, passages) = assembly.finish()?;
        for segment in segments {
            manifest.documents += u64::from(segment.documents);
            manifest.total_length += segment.total_length;
            manifest.segments.push(segment);
        }
        if manifest.documents > u64::from(u32::MAX) {
            return Err(RetrievalError::TooManyPassages { limit: u32::MAX });
        }
        manifest.passages.extend(passages);
        manifest.publish(&directory)?;
        drop(lock);
        Ok(())
    }
}
