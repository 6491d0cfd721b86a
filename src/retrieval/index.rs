//! The index: what is known of a corpus without any parameter of the ranking.
//!
//! ```text
//! vocabulary   the sorted distinct terms; a term's number is its place       V terms, df u32, cf u64
//! lengths      the number of terms of every document, exact                  N x u32
//! tiles        T documents each (the last may have fewer), self-contained:
//!   directory  (term u32, start u32, count u32), ascending by term
//!   postings   per term: local id u16, ascending; tf u8                      3 bytes a posting
//!   long tf    (posting u32, tf u32) where tf >= 255, ascending; the u8 is 255 there
//! ```
//!
//! A document is its ordinal, 0..N, in the order of the corpus; a local id is the ordinal less the tile's first one.
//! Texts and names are the caller's. A tile is a complete small index of its documents, so tiles are built, read and
//! searched one by one, and more documents only mean more tiles.

use super::analyzer::Analyzer;
use super::term_cache::TermList;

/// An index of N documents in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    pub(super) analyzer: Analyzer,
    pub(super) vocabulary: Vocabulary,
    pub(super) lengths: Vec<u32>,
    pub(super) total_length: u64,
    pub(super) tiles: Vec<Tile>,
}

impl Index {
    /// The analyzer that made the terms; queries go through the same.
    #[must_use]
    pub fn analyzer(&self) -> Analyzer {
        self.analyzer
    }

    /// N, the number of documents, empty ones included.
    #[must_use]
    pub fn documents(&self) -> u32 {
        u32::try_from(self.lengths.len()).expect("the builder numbers documents in 32 bits")
    }

    /// The number of terms in all documents together, repetitions included.
    #[must_use]
    pub fn total_length(&self) -> u64 {
        self.total_length
    }

    /// avgdl, the mean number of terms of a document; 0 for an empty index.
    #[must_use]
    pub fn average_length(&self) -> f64 {
        self.total_length as f64 / (self.lengths.len().max(1) as f64)
    }

    /// The number of terms of every document.
    #[must_use]
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// The distinct terms with their frequencies.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The tiles, in the order of their documents.
    #[must_use]
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// The number of (term, document) pairs.
    #[must_use]
    pub fn postings(&self) -> u64 {
        self.tiles.iter().map(|tile| tile.local_ids.len() as u64).sum()
    }

    /// The bytes that the index occupies.
    #[must_use]
    pub fn memory(&self) -> usize {
        let tiles: usize = self.tiles.iter().map(Tile::memory).sum();
        tiles + self.vocabulary.memory() + self.lengths.len() * size_of::<u32>()
    }
}

/// The distinct terms of a corpus, sorted by their bytes; a term's number is its place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Vocabulary {
    pub(super) terms: TermList,
    pub(super) df: Vec<u32>,
    pub(super) cf: Vec<u64>,
}

impl Vocabulary {
    /// V, the number of terms.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.df.len()).expect("the builder numbers terms in 32 bits")
    }

    /// Whether there is no term.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.df.is_empty()
    }

    /// The term with this number.
    #[must_use]
    pub fn term(&self, number: u32) -> &str {
        self.terms.get(number as usize)
    }

    /// The number of a term, if the corpus has it.
    #[must_use]
    pub fn number(&self, term: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.term(middle).cmp(term) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// Document frequency: in how many documents the term occurs.
    #[must_use]
    pub fn df(&self, number: u32) -> u32 {
        self.df[number as usize]
    }

    /// Collection frequency: how often the term occurs in all documents together.
    #[must_use]
    pub fn cf(&self, number: u32) -> u64 {
        self.cf[number as usize]
    }

    fn memory(&self) -> usize {
        self.terms.memory() + self.df.len() * (size_of::<u32>() + size_of::<u64>())
    }
}

/// The index of consecutive documents, at most 65,536.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tile {
    pub(super) first_document: u32,
    pub(super) documents: u32,
    /// Ascending by term.
    pub(super) directory: Vec<DirectoryEntry>,
    pub(super) local_ids: Vec<u16>,
    /// 255 stands for a frequency in `long_tfs`.
    pub(super) tfs: Vec<u8>,
    /// (posting, frequency), ascending by posting.
    pub(super) long_tfs: Vec<(u32, u32)>,
}

/// Where the postings of a term lie in a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirectoryEntry {
    pub(super) term: u32,
    pub(super) start: u32,
    pub(super) count: u32,
}

/// The tf byte that refers to [`Tile::long_tfs`].
pub(super) const LONG_TF: u8 = 255;

impl Tile {
    /// The ordinal of the first document.
    #[must_use]
    pub fn first_document(&self) -> u32 {
        self.first_document
    }

    /// How many documents the tile has.
    #[must_use]
    pub fn documents(&self) -> u32 {
        self.documents
    }

    /// How many postings the tile has.
    #[must_use]
    pub fn postings(&self) -> usize {
        self.local_ids.len()
    }

    /// The (local id, tf) pairs of a directory entry, ascending by local id.
    pub(super) fn list(&self, entry: DirectoryEntry) -> impl Iterator<Item = (u16, u32)> {
        let range = entry.start as usize..(entry.start + entry.count) as usize;
        let first = entry.start;
        let ids = self.local_ids[range.clone()].iter();
        ids.zip(&self.tfs[range]).zip(first..).map(|((&id, &tf), posting)| {
            let tf = if tf == LONG_TF {
                self.long_tf(posting)
            } else {
                u32::from(tf)
            };
            (id, tf)
        })
    }

    #[cold]
    fn long_tf(&self, posting: u32) -> u32 {
        let place = self.long_tfs.binary_search_by_key(&posting, |&(posting, _)| posting);
        self.long_tfs[place.expect("the builder lists the frequency of every posting marked LONG_TF")].1
    }

    fn memory(&self) -> usize {
        self.directory.len() * size_of::<DirectoryEntry>()
            + self.local_ids.len() * (size_of::<u16>() + size_of::<u8>())
            + self.long_tfs.len() * size_of::<(u32, u32)>()
    }
}
