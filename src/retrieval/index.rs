//! The index: what is known of a corpus without any parameter of the ranking.
//!
//! ```text
//! segments    up to 2^22 documents each, immutable: tiles and a vocabulary with df and cf        see `segment`
//! passages    id, source and text of every document, for writing out a selection                 see `passages`
//! ```
//!
//! A document is its ordinal, 0..N, in the order in which the corpus was given. A term's df and cf are sums over the
//! segments, and so are N and the mean length; where one segment ends and the next begins changes no result. An index
//! in memory is the same bytes without the passages.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::RetrievalError;
use super::analyzer::Analyzer;
use super::bm25::{Bm25, CodeTable};
use super::bytes::Bytes;
use super::kept::KeptCodes;
use super::manifest::Manifest;
use super::passages::{Passage, PassageFile};
use super::segment::{Segment, TileData};

/// An index of N documents.
#[derive(Debug)]
pub struct Index {
    directory: Option<PathBuf>,
    analyzer: Analyzer,
    passage_words: Option<u32>,
    segments: Vec<Segment>,
    passages: Vec<PassageFile>,
    tiles: Vec<TileRef>,
    documents: u32,
    total_length: u64,
    /// That of the last search, for the next one.
    code_table: Mutex<Option<Arc<CodeTable>>>,
    kept: Option<KeptCodes>,
}

/// Where a tile is.
#[derive(Debug, Clone, Copy)]
pub(super) struct TileRef {
    /// Among the tiles of the index.
    pub(super) ordinal: usize,
    pub(super) segment: usize,
    /// Within the segment.
    pub(super) number: usize,
    /// The ordinal of its first document.
    pub(super) first_document: u32,
    pub(super) documents: u32,
    pub(super) postings: u64,
}

/// Sizes of an index.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct IndexSummary {
    /// How texts became terms.
    pub analyzer: String,
    /// Words per passage that documents were cut into; none: taken as they were.
    pub passage_words: Option<u32>,
    /// N, empty ones included.
    pub documents: u32,
    /// Terms of all documents together, repetitions included.
    pub total_length: u64,
    /// Mean number of terms of a document.
    pub average_length: f64,
    /// Distinct terms.
    pub terms: u64,
    /// (term, document) pairs.
    pub postings: u64,
    /// Number of segments.
    pub segments: usize,
    /// Number of tiles.
    pub tiles: usize,
    /// Bytes of the segments.
    pub index_bytes: u64,
    /// Bytes of the stored passages.
    pub passage_bytes: u64,
}

impl Index {
    /// Opens the index in a directory. Footers and vocabularies are checked now, tiles and passages when they are read.
    ///
    /// # Errors
    /// [`RetrievalError::NoIndex`], [`RetrievalError::Format`], [`RetrievalError::Read`], and
    /// [`RetrievalError::Damaged`] with the file.
    pub fn open(directory: &Path) -> Result<Index, RetrievalError> {
        let manifest = Manifest::read(directory)?;
        let broken = |reason: String| RetrievalError::damaged(&directory.join("index.json"), reason);
        let analyzer = manifest.analyzer.parse();
        let analyzer = analyzer.map_err(|error: RetrievalError| broken(error.to_string()))?;
        let map = |file: &str, expected: u64| {
            let bytes = Bytes::map(&directory.join(file))?;
            match bytes.all().len() as u64 {
                found if found == expected => Ok(bytes),
                found => Err(bytes.damaged(format!("it has {found} bytes instead of {expected}"))),
            }
        };
        let mut segments = Vec::new();
        for entry in &manifest.segments {
            let segment = Segment::open(map(&entry.file, entry.bytes)?)?;
            let footer = segment.footer();
            let found = (footer.documents, footer.total_length, footer.postings, footer.terms);
            if found != (entry.documents, entry.total_length, entry.postings, entry.terms) {
                return Err(segment
                    .bytes()
                    .damaged("it is not the segment that index.json describes"));
            }
            segments.push(segment);
        }
        let mut passages = Vec::new();
        for entry in &manifest.passages {
            let bytes = map(&entry.file, entry.bytes)?;
            let file = PassageFile::open(bytes)?;
            if file.documents() != entry.documents {
                let path = directory.join(&entry.file);
                return Err(RetrievalError::damaged(
                    &path,
                    "it is not the file that index.json describes",
                ));
            }
            passages.push(file);
        }
        let index = Index::of(
            Some(directory.to_owned()),
            analyzer,
            manifest.passage_words,
            segments,
            passages,
        )?;
        let stored: u64 = index.passages.iter().map(|file| u64::from(file.documents())).sum();
        let found = (u64::from(index.documents), index.total_length, stored);
        if found != (manifest.documents, manifest.total_length, manifest.documents) {
            return Err(broken("its sums are not those of its files".to_owned()));
        }
        Ok(index)
    }

    /// An index of these parts.
    pub(super) fn of(
        directory: Option<PathBuf>,
        analyzer: Analyzer,
        passage_words: Option<u32>,
        segments: Vec<Segment>,
        passages: Vec<PassageFile>,
    ) -> Result<Index, RetrievalError> {
        let (mut tiles, mut documents, mut total_length) = (Vec::new(), 0_u32, 0);
        for (segment, found) in segments.iter().enumerate() {
            for (number, tile) in found.footer().tiles.iter().enumerate() {
                tiles.push(TileRef {
                    ordinal: tiles.len(),
                    segment,
                    number,
                    first_document: documents,
                    documents: tile.documents,
                    postings: tile.postings,
                });
                let sum = documents.checked_add(tile.documents);
                documents = sum.ok_or(RetrievalError::TooManyPassages { limit: u32::MAX })?;
            }
            total_length += found.footer().total_length;
        }
        Ok(Index {
            directory,
            analyzer,
            passage_words,
            segments,
            passages,
            tiles,
            documents,
            total_length,
            code_table: Mutex::default(),
            kept: None,
        })
    }

    /// Codes all postings for a ranking function and keeps them, for many searches of few queries: each of them otherwise
    /// codes the postings that it uses. Searches of up to 16 queries whose device is
    /// [`DeviceChoice::Cpu`](crate::device::choice::DeviceChoice) use the codes if their `bm25` is the same, others do as before;
    /// all find what they find without. The codes take [`Index::code_bytes`] of memory, beside that of the searches.
    ///
    /// # Errors
    /// [`RetrievalError::OutOfRange`] for parameters outside their ranges, [`RetrievalError::Damaged`],
    /// [`RetrievalError::NoMemory`]. Then no codes are kept.
    pub fn keep_codes(&mut self, bm25: &Bm25) -> Result<(), RetrievalError> {
        bm25.validate()?;
        self.drop_codes(); // frees their memory first
        self.kept = Some(KeptCodes::new(self, bm25)?);
        Ok(())
    }

    /// Gives the memory of kept codes back.
    pub fn drop_codes(&mut self) {
        self.kept = None;
    }

    /// Whether the index keeps codes.
    #[must_use]
    pub fn keeps_codes(&self) -> bool {
        self.kept.is_some()
    }

    /// The bytes of all codes, kept or not: less than twice those of the index.
    #[must_use]
    pub fn code_bytes(&self) -> u64 {
        let codes = self.tiles.iter().map(|&tile| self.codes_of(tile) as u64);
        codes.sum::<u64>() * size_of::<u32>() as u64
    }

    /// The directory of an index on disk.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The analyzer that made the terms; queries go through the same.
    #[must_use]
    pub fn analyzer(&self) -> Analyzer {
        self.analyzer
    }

    /// Words per passage that documents were cut into; none: taken as they were.
    #[must_use]
    pub fn passage_words(&self) -> Option<u32> {
        self.passage_words
    }

    /// N, the number of documents, empty ones included.
    #[must_use]
    pub fn documents(&self) -> u32 {
        self.documents
    }

    /// The number of terms in all documents together, repetitions included.
    #[must_use]
    pub fn total_length(&self) -> u64 {
        self.total_length
    }

    /// avgdl, the mean number of terms of a document; 0 for an empty index.
    #[must_use]
    pub fn average_length(&self) -> f64 {
        self.total_length as f64 / f64::from(self.documents.max(1))
    }

    /// In how many documents a term occurs, and how often in all of them; (0, 0) for a term of no document.
    #[must_use]
    pub fn frequencies(&self, term: &str) -> (u32, u64) {
        let found = self
            .segments
            .iter()
            .filter_map(|segment| segment.vocabulary().find(term));
        found.fold((0, 0), |(df, cf), entry| (df + entry.df, cf + entry.cf))
    }

    /// The number of (term, document) pairs.
    #[must_use]
    pub fn postings(&self) -> u64 {
        self.tiles.iter().map(|tile| tile.postings).sum()
    }

    /// How many tiles there are.
    #[must_use]
    pub fn tile_count(&self) -> usize {
        self.tiles.len()
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The bytes of the segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.bytes().all().len() as u64)
            .sum()
    }

    /// The number of terms of every document.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`].
    pub fn lengths(&self) -> Result<Vec<u32>, RetrievalError> {
        let mut lengths = Vec::with_capacity(self.documents as usize);
        for &tile in &self.tiles {
            lengths.extend(self.tile(tile)?.lengths());
        }
        Ok(lengths)
    }

    /// Calls `visit` with every distinct term, in the order of their bytes, its df and its cf.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`].
    pub fn for_each_term(&self, mut visit: impl FnMut(&str, u32, u64)) -> Result<(), RetrievalError> {
        let mut cursors: Vec<_> = self
            .segments
            .iter()
            .map(|segment| segment.vocabulary().cursor())
            .collect();
        let mut heap = BinaryHeap::new();
        let mut advance = |number: usize, heap: &mut BinaryHeap<_>| {
            let broken = || self.segments[number].bytes().damaged("the vocabulary is no vocabulary");
            if let Some(entry) = cursors[number].advance() {
                let entry = entry.ok_or_else(broken)?;
                let term = String::from_utf8(cursors[number].term().to_owned()).map_err(|_| broken())?;
                heap.push(Reverse((term, number, entry.df, entry.cf)));
            }
            Ok::<_, RetrievalError>(())
        };
        for number in 0..self.segments.len() {
            advance(number, &mut heap)?;
        }
        while let Some(Reverse((term, number, mut df, mut cf))) = heap.pop() {
            advance(number, &mut heap)?;
            while heap.peek().is_some_and(|Reverse((other, ..))| *other == term) {
                if let Some(Reverse((_, number, more_df, more_cf))) = heap.pop() {
                    (df, cf) = (df + more_df, cf + more_cf);
                    advance(number, &mut heap)?;
                }
            }
            visit(&term, df, cf);
        }
        Ok(())
    }

    /// The passages with these ordinals, in their order; each below N and given once.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`]; [`RetrievalError::Mismatch`] for an index without passages.
    pub fn passages(&self, documents: &[u32]) -> Result<Vec<Passage>, RetrievalError> {
        self.stored(documents, true)
    }

    /// The same without the texts, which is much faster.
    ///
    /// # Errors
    /// As [`Index::passages`].
    pub fn passage_names(&self, documents: &[u32]) -> Result<Vec<Passage>, RetrievalError> {
        self.stored(documents, false)
    }

    fn stored(&self, documents: &[u32], with_texts: bool) -> Result<Vec<Passage>, RetrievalError> {
        let mut order: Vec<usize> = (0..documents.len()).collect();
        order.sort_unstable_by_key(|&place| documents[place]);
        let mut found = vec![Passage::default(); documents.len()];
        let (mut first, mut rest) = (0, order.as_slice());
        for file in &self.passages {
            let end = first + file.documents();
            let (here, later) = rest.split_at(rest.partition_point(|&place| documents[place] < end));
            let numbers: Vec<u32> = here.iter().map(|&place| documents[place] - first).collect();
            for (&place, passage) in here.iter().zip(file.get(&numbers, with_texts)?) {
                found[place] = passage;
            }
            (first, rest) = (end, later);
        }
        match rest {
            [] => Ok(found),
            _ => Err(RetrievalError::Mismatch("this index stores no passages".to_owned())),
        }
    }

    /// Sizes.
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`].
    pub fn summary(&self) -> Result<IndexSummary, RetrievalError> {
        let mut terms = 0;
        self.for_each_term(|_, _, _| terms += 1)?;
        Ok(IndexSummary {
            analyzer: self.analyzer.name().to_owned(),
            passage_words: self.passage_words,
            documents: self.documents,
            total_length: self.total_length,
            average_length: self.average_length(),
            terms,
            postings: self.postings(),
            segments: self.segments.len(),
            tiles: self.tiles.len(),
            index_bytes: self.bytes(),
            passage_bytes: self.passages.iter().map(PassageFile::len).sum(),
        })
    }

    /// Reads every byte and compares every count. `progress` counts bytes of [`Index::stored_bytes`].
    ///
    /// # Errors
    /// [`RetrievalError::Damaged`] with the first file that is not as it was written.
    pub fn verify(&self, progress: super::Progress) -> Result<(), RetrievalError> {
        let (total, mut done) = (self.stored_bytes(), 0);
        for segment in &self.segments {
            segment.verify()?;
            done += segment.bytes().all().len() as u64;
            progress(done, total);
        }
        for file in &self.passages {
            file.verify()?;
            done += file.len();
            progress(done, total);
        }
        Ok(())
    }

    /// The bytes of all files but the manifest.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.bytes() + self.passages.iter().map(PassageFile::len).sum::<u64>()
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn tiles(&self) -> &[TileRef] {
        &self.tiles
    }

    /// A tile, checked.
    pub(super) fn tile(&self, tile: TileRef) -> Result<TileData<'_>, RetrievalError> {
        self.segments[tile.segment].tile(tile.number)
    }

    /// How many codes a tile has: one for each two bytes of its lists.
    pub(super) fn codes_of(&self, tile: TileRef) -> usize {
        (self.segments[tile.segment].list_bytes(tile.number) / size_of::<u16>() as u64) as usize
    }

    /// The codes of a ranking function.
    pub(super) fn code_table(&self, bm25: &Bm25) -> Arc<CodeTable> {
        let mut last = self.code_table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = last.take().filter(|table| table.bm25() == bm25);
        let table = table.unwrap_or_else(|| Arc::new(CodeTable::new(*bm25, self.average_length())));
        *last = Some(Arc::clone(&table));
        table
    }

    /// The codes of all postings, if they are kept for this ranking function.
    pub(super) fn kept(&self, bm25: &Bm25) -> Option<&KeptCodes> {
        self.kept.as_ref().filter(|kept| kept.bm25() == bm25)
    }

    /// Gives the memory of a tile back.
    pub(super) fn release(&self, tile: TileRef) {
        self.segments[tile.segment].release(tile.number);
    }
}
