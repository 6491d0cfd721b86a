//! Building an index: a stream of passages to tiles and segments.
//!
//! ```text
//! read      a piece of the corpus                     one thread at a time, whichever is free
//! analyse   piece -> block of counts, frames of texts any thread
//! join      blocks in corpus order -> parts of tiles  in order, under the lock; frames go to their file
//! assemble  parts -> tile                             any thread
//! append    tiles in order -> segment                 in order, under the lock
//! ```
//!
//! All threads do the same: assemble a tile if one is complete, else read and analyse a piece. Nothing is merged later
//! but the vocabulary. The index is a function of the passages and the limits alone, whichever thread did what.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::analyzer::Analyzer;
use super::block::{Block, BlockAnalyzer};
use super::bytes::Bytes;
use super::index::Index;
use super::limits::{DEFAULT_MEMORY, DEFAULT_TILE_DOCUMENTS, Limits, PIECE_DOCUMENTS};
use super::manifest::{PassagesEntry, SegmentEntry, passages_name, segment_name};
use super::passages::{Frame, Packer, Passage, PassageFile, PassageWriter};
use super::pipeline;
use super::segment::{Footer, Segment, SegmentWriter};
use super::tile::{BlockPart, TileDraft};
use super::{Progress, RetrievalError};
use crate::atomic::{NewFile, WriteError};

/// What a build writes to.
pub(super) enum Output {
    Memory(Vec<u8>),
    File(NewFile),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Memory(out) => out.write(bytes),
            Output::File(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Memory(_) => Ok(()),
            Output::File(out) => out.flush(),
        }
    }
}

/// Where the parts of the index go.
pub(super) enum Target {
    Memory,
    /// A directory, and the number of its next file.
    Directory(PathBuf, u32),
}

/// A piece of the corpus after analysis.
pub(super) struct Analyzed {
    pub(super) block: Block,
    pub(super) frames: Vec<Frame>,
}

/// What has been made so far; changed in corpus order only.
pub(super) struct Assembly {
    limits: Limits,
    target: Target,
    open: Vec<BlockPart>,
    open_documents: u32,
    open_postings: u64,
    documents: u64,
    segment: Option<SegmentWriter<Output>>,
    passages: Option<PassageWriter<Output>>,
    finished: Vec<(Footer, u64, Option<Vec<u8>>)>,
}

impl Assembly {
    pub(super) fn new(limits: Limits, target: Target) -> Self {
        Assembly {
            limits,
            target,
            open: Vec::new(),
            open_documents: 0,
            open_postings: 0,
            documents: 0,
            segment: None,
            passages: None,
            finished: Vec::new(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Joins the next piece. Returns the parts of every tile that is complete by it.
    pub(super) fn join(&mut self, piece: Analyzed) -> Result<Vec<Vec<BlockPart>>, RetrievalError> {
        if let Target::Directory(directory, number) = &self.target {
            let path = directory.join(passages_name(*number));
            let writer = match &mut self.passages {
                Some(writer) => writer,
                none => none.insert(
                    PassageWriter::new(Output::File(NewFile::create(&path)?))
                        .map_err(|source| WriteError::of(&path, source))?,
                ),
            };
            for frame in &piece.frames {
                writer.append(frame).map_err(|source| WriteError::of(&path, source))?;
            }
        }
        self.documents += piece.block.documents() as u64;
        if self.documents > u64::from(u32::MAX) {
            return Err(RetrievalError::TooManyPassages { limit: u32::MAX });
        }
        let block = Arc::new(piece.block);
        let mut complete = Vec::new();
        let mut start = 0;
        for (document, &distinct) in block.distinct.iter().enumerate() {
            let full = self.open_documents == self.limits.tile_documents
                || self.open_postings + u64::from(distinct) > self.limits.tile_postings && self.open_documents > 0;
            if full {
                self.push_part(&block, start, document);
                start = document;
                complete.extend(self.close_tile());
            }
            self.open_documents += 1;
            self.open_postings += u64::from(distinct);
        }
        self.push_part(&block, start, block.documents());
        Ok(complete)
    }

    fn push_part(&mut self, block: &Arc<Block>, start: usize, end: usize) {
        if start < end {
            self.open.push(BlockPart {
                block: Arc::clone(block),
                documents: start..end,
            });
        }
    }

    /// The parts of the tile that is still open, if it has any.
    fn close_tile(&mut self) -> Option<Vec<BlockPart>> {
        (self.open_documents, self.open_postings) = (0, 0);
        (!self.open.is_empty()).then(|| std::mem::take(&mut self.open))
    }

    /// Appends the next tile.
    pub(super) fn append(&mut self, tile: &TileDraft) -> Result<(), RetrievalError> {
        let full = self.segment.as_ref().is_some_and(|segment| {
            segment.documents() + tile.documents > self.limits.segment_documents
                || segment.memory() > self.limits.segment_memory
        });
        if full {
            self.close_segment()?;
        }
        let path = self.segment_path();
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => {
                let out = match &self.target {
                    Target::Memory => Output::Memory(Vec::new()),
                    Target::Directory(..) => Output::File(NewFile::create(&path)?),
                };
                none.insert(SegmentWriter::new(out).map_err(|source| WriteError::of(&path, source))?)
            }
        };
        segment.append(tile).map_err(|source| WriteError::of(&path, source))?;
        Ok(())
    }

    /// The file of the segment that is being written.
    fn segment_path(&self) -> PathBuf {
        match &self.target {
            Target::Memory => PathBuf::from("index in memory"),
            Target::Directory(directory, first) => directory.join(segment_name(first + self.finished.len() as u32)),
        }
    }

    fn close_segment(&mut self) -> Result<(), RetrievalError> {
        let path = self.segment_path();
        let Some(segment) = self.segment.take() else {
            return Ok(());
        };
        let (out, len, footer) = segment.finish().map_err(|source| WriteError::of(&path, source))?;
        let held = match out {
            Output::Memory(bytes) => Some(bytes),
            Output::File(file) => {
                file.commit()?;
                None
            }
        };
        self.finished.push((footer, len, held));
        Ok(())
    }

    /// Ends the last tile and the last segment.
    fn close(&mut self) -> Result<(), RetrievalError> {
        if let Some(parts) = self.close_tile() {
            self.append(&TileDraft::assemble(&parts))?;
        }
        self.close_segment()
    }

    /// Ends everything that goes to a directory: the files made.
    pub(super) fn finish(mut self) -> Result<(Vec<SegmentEntry>, Option<PassagesEntry>), RetrievalError> {
        self.close()?;
        let Target::Directory(directory, first) = &self.target else {
            return Ok((Vec::new(), None));
        };
        let segments = (*first..)
            .zip(&self.finished)
            .map(|(number, (footer, bytes, _))| SegmentEntry {
                file: segment_name(number),
                bytes: *bytes,
                documents: footer.documents,
                total_length: footer.total_length,
                postings: footer.postings,
                terms: footer.terms,
            });
        let segments = segments.collect();
        let file = passages_name(*first);
        let path = directory.join(&file);
        let Some(writer) = self.passages else {
            return Ok((segments, None));
        };
        let (out, bytes, documents, text_bytes) = writer.finish().map_err(|source| WriteError::of(&path, source))?;
        if let Output::File(out) = out {
            out.commit()?;
        }
        let entry = PassagesEntry {
            file,
            bytes,
            documents,
            text_bytes,
        };
        Ok((segments, Some(entry)))
    }
}

/// Takes passages in corpus order and makes an [`Index`] in memory of them, without their texts.
pub struct IndexBuilder {
    analyzer: Analyzer,
    assembly: Assembly,
}

impl Index {
    /// Indexes a corpus in memory: passage i becomes document i. `progress` counts passages.
    ///
    /// # Errors
    /// As [`IndexBuilder::add`].
    pub fn build<S: AsRef<str> + Sync>(
        passages: &[S],
        analyzer: Analyzer,
        progress: Progress,
    ) -> Result<Index, RetrievalError> {
        let mut builder = IndexBuilder::new(analyzer, DEFAULT_TILE_DOCUMENTS)?;
        builder.add(passages, progress)?;
        builder.finish()
    }
}

impl IndexBuilder {
    /// A builder without documents. Every tile but the last gets `tile_documents` documents (1 to 65,536), fewer where
    /// they are long, which changes speed and memory, never a result.
    ///
    /// # Errors
    /// [`RetrievalError::OutOfRange`] for another tile size.
    pub fn new(analyzer: Analyzer, tile_documents: u32) -> Result<Self, RetrievalError> {
        let limits = Limits::new(DEFAULT_MEMORY, rayon::current_num_threads())?.with_tile_documents(tile_documents)?;
        Ok(IndexBuilder {
            analyzer,
            assembly: Assembly::new(limits, Target::Memory),
        })
    }

    /// The same with segments of at most so many documents, which changes no result either.
    #[must_use]
    pub fn with_segment_documents(mut self, documents: u32) -> Self {
        self.assembly.limits.segment_documents = documents;
        self
    }

    /// Appends texts. Call it as often as the corpus arrives in pieces; large pieces use more threads. `progress` counts
    /// the texts of this call.
    ///
    /// # Errors
    /// [`RetrievalError::TooManyPassages`] beyond 2^32 - 1 documents.
    pub fn add<S: AsRef<str> + Sync>(&mut self, texts: &[S], progress: Progress) -> Result<(), RetrievalError> {
        // Every thread gets work of a small corpus as well.
        let piece = texts
            .len()
            .div_ceil(4 * rayon::current_num_threads())
            .clamp(1, PIECE_DOCUMENTS / 2);
        let mut pieces = texts.chunks(piece);
        let mut done = 0;
        let source = || {
            let piece = pieces.next();
            done += piece.map_or(0, <[S]>::len) as u64;
            progress(done, texts.len() as u64);
            Ok::<_, RetrievalError>(piece)
        };
        pipeline::run(&mut self.assembly, self.analyzer, source, |worker, texts| {
            Ok(Analyzed {
                block: worker.blocks.analyze(texts),
                frames: Vec::new(),
            })
        })
    }

    /// Appends passages from a stream: `source` gives pieces of the corpus until there are none, `cut` makes passages of
    /// a piece, on any thread.
    ///
    /// # Errors
    /// Those of `source`, and as [`IndexBuilder::add`].
    pub fn add_stream<P: Send, E: From<RetrievalError> + Send>(
        &mut self,
        source: impl FnMut() -> Result<Option<P>, E> + Send,
        cut: impl Fn(P) -> Vec<Passage> + Sync,
    ) -> Result<(), E> {
        pipeline::run(&mut self.assembly, self.analyzer, source, |worker, piece| {
            let passages = cut(piece);
            Ok(Analyzed {
                block: worker.blocks.analyze(passages.iter().map(|passage| &passage.text)),
                frames: Vec::new(),
            })
        })
    }

    /// The index of everything added.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`] if memory has not kept what was put there.
    pub fn finish(mut self) -> Result<Index, RetrievalError> {
        self.assembly.close()?;
        let segments = self.assembly.finished.into_iter().filter_map(|(_, _, bytes)| bytes);
        let segments: Result<Vec<Segment>, RetrievalError> =
            segments.map(|bytes| Segment::open(Bytes::held(bytes))).collect();
        Index::of(None, self.analyzer, None, segments?, Vec::<PassageFile>::new())
    }
}

/// What a thread of a build keeps from piece to piece.
pub(super) struct Worker {
    pub(super) blocks: BlockAnalyzer,
    packer: Option<Packer>,
}

impl Worker {
    pub(super) fn new(analyzer: Analyzer, cached_words: usize) -> Self {
        Worker {
            blocks: BlockAnalyzer::new(analyzer, cached_words),
            packer: None,
        }
    }

    /// A piece on its way to a file: counts and compressed texts.
    pub(super) fn analyze_passages(&mut self, passages: &[Passage]) -> Result<Analyzed, RetrievalError> {
        let failed = |source| WriteError::of(&PathBuf::from("passages"), source);
        let packer = match &mut self.packer {
            Some(packer) => packer,
            none => none.insert(Packer::new().map_err(failed)?),
        };
        Ok(Analyzed {
            frames: packer.pack(passages).map_err(failed)?,
            block: self.blocks.analyze(passages.iter().map(|passage| &passage.text)),
        })
    }
}
