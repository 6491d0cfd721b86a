//! Building an index.
//!
//! ```text
//! passages --(block of consecutive passages, any thread)--> Block: terms, (term, tf) per document
//! blocks of a tile --(tile, any thread)--> TileTerms: terms, postings ordered by term
//! finish: all terms --> sorted vocabulary --> term numbers into the directories
//! ```
//!
//! A tile is complete as soon as its documents are read; nothing is merged later but the vocabulary. Within a block
//! and a tile, terms are numbered by first occurrence; the final numbers come from the sorted vocabulary. So the index
//! is a function of the passages and the tile size alone, however they were handed in and whichever thread ran.

use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

use super::analyzer::Analyzer;
use super::index::{DirectoryEntry, Index, LONG_TF, Tile, Vocabulary};
use super::term_cache::{TermCache, TermList, TermNumbers};
use super::workers::map_with_worker;
use super::{Progress, RetrievalError};

/// Documents of a tile unless told otherwise: a tile of 4-byte postings then is about 8 MB.
pub const DEFAULT_TILE_DOCUMENTS: u32 = 32_768;

/// Local ids have 16 bits.
const MAX_TILE_DOCUMENTS: u32 = 65_536;

/// Documents of a block: small enough to spread one tile over many threads.
const BLOCK_DOCUMENTS: usize = 4_096;

/// Takes passages in corpus order and makes an [`Index`] of them.
pub struct IndexBuilder {
    analyzer: Analyzer,
    tile_documents: usize,
    tiles: Vec<TileTerms>,
    /// Blocks of the tile that is still open.
    open: Vec<Block>,
    lengths: Vec<u32>,
}

/// A run of passages after analysis.
struct Block {
    /// Distinct terms in the order of their first occurrence.
    terms: TermList,
    /// (index into `terms`, tf), document by document.
    postings: Vec<(u32, u32)>,
    /// Number of distinct terms of each document.
    distinct: Vec<u32>,
    /// Number of terms of each document.
    lengths: Vec<u32>,
}

/// A tile whose directory still has the tile's own term numbers.
struct TileTerms {
    tile: Tile,
    /// Distinct terms in the order of their first occurrence; so is the directory.
    terms: TermList,
    /// How often each term occurs in the tile.
    cf: Vec<u64>,
}

impl Index {
    /// Indexes a corpus: passage i becomes document i. `progress` counts passages.
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
        Ok(builder.finish())
    }
}

impl IndexBuilder {
    /// A builder without documents. Every tile but the last gets `tile_documents` documents (1 to 65,536), which
    /// changes speed and memory, never a result.
    ///
    /// # Errors
    /// [`RetrievalError::OutOfRange`] for another tile size.
    pub fn new(analyzer: Analyzer, tile_documents: u32) -> Result<Self, RetrievalError> {
        if !(1..=MAX_TILE_DOCUMENTS).contains(&tile_documents) {
            return Err(RetrievalError::OutOfRange {
                setting: "tile_documents",
                found: tile_documents.to_string(),
                expected: "from 1 to 65536",
            });
        }
        Ok(IndexBuilder {
            analyzer,
            tile_documents: tile_documents as usize,
            tiles: Vec::new(),
            open: Vec::new(),
            lengths: Vec::new(),
        })
    }

    /// Appends passages. Call it as often as the corpus arrives in pieces; large pieces use more threads.
    /// `progress` counts the passages of this call.
    ///
    /// # Errors
    /// [`RetrievalError::TooManyPassages`] beyond 2^32 - 1 documents; the builder is as before then.
    pub fn add<S: AsRef<str> + Sync>(&mut self, passages: &[S], progress: Progress) -> Result<(), RetrievalError> {
        let total = self.lengths.len() + passages.len();
        if u32::try_from(total).is_err() {
            return Err(RetrievalError::TooManyPassages { limit: u32::MAX });
        }
        for block in self.analyze(passages, progress) {
            self.lengths.extend(&block.lengths);
            self.open.push(block);
        }
        self.close_tiles(false);
        Ok(())
    }

    /// The index of everything added.
    #[must_use]
    pub fn finish(mut self) -> Index {
        self.close_tiles(true);
        let (vocabulary, numbers) = merge_vocabularies(&self.tiles);
        let tiles = self
            .tiles
            .into_par_iter()
            .zip(numbers)
            .map(|(tile, numbers)| with_numbers(tile.tile, &numbers));
        Index {
            analyzer: self.analyzer,
            vocabulary,
            total_length: self.lengths.iter().map(|&length| u64::from(length)).sum(),
            tiles: tiles.collect(),
            lengths: self.lengths,
        }
    }

    /// The passages as blocks, in order; no block crosses a tile's border.
    fn analyze<S: AsRef<str> + Sync>(&self, passages: &[S], progress: Progress) -> Vec<Block> {
        let mut pieces: Vec<&[S]> = Vec::new();
        let mut rest = passages;
        let mut in_tile = self.lengths.len() % self.tile_documents;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.len().min(BLOCK_DOCUMENTS).min(self.tile_documents - in_tile));
            in_tile = (in_tile + piece.len()) % self.tile_documents;
            pieces.push(piece);
            rest = tail;
        }
        let done = AtomicU64::new(0);
        map_with_worker(
            &pieces,
            || BlockAnalyzer::new(self.analyzer),
            |worker, piece| {
                let block = worker.analyze(piece);
                let piece = piece.len() as u64;
                progress(done.fetch_add(piece, Ordering::Relaxed) + piece, passages.len() as u64);
                block
            },
        )
    }

    /// Makes tiles of the open blocks, of an incomplete tile's only at the end.
    fn close_tiles(&mut self, at_end: bool) {
        let mut groups = Vec::new();
        let mut group = Vec::new();
        let mut documents = 0;
        for block in std::mem::take(&mut self.open) {
            documents += block.lengths.len();
            group.push(block);
            if documents == self.tile_documents {
                groups.push(std::mem::take(&mut group));
                documents = 0;
            }
        }
        if at_end && !group.is_empty() {
            groups.push(std::mem::take(&mut group));
        }
        self.open = group;
        let closed = self.tiles.len();
        let tiles = groups.into_par_iter().enumerate().map(|(i, blocks)| {
            let first_document = (closed + i) * self.tile_documents;
            assemble(
                u32::try_from(first_document).expect("add() bounds the number of documents"),
                &blocks,
            )
        });
        let tiles: Vec<TileTerms> = tiles.collect();
        self.tiles.extend(tiles);
    }
}

/// Turns passages into blocks, one after another.
struct BlockAnalyzer {
    cache: TermCache,
    /// By the cache's term number.
    seen: Vec<Seen>,
}

/// Where a term was met last.
#[derive(Clone, Copy)]
struct Seen {
    /// Its index in the block's terms, or [`NOT_SEEN`].
    term: u32,
    /// The document, counted within the block, or [`NOT_SEEN`].
    document: u32,
    /// The posting of that document.
    posting: u32,
}

const NOT_SEEN: u32 = u32::MAX;

impl BlockAnalyzer {
    fn new(analyzer: Analyzer) -> Self {
        BlockAnalyzer {
            cache: TermCache::new(analyzer),
            seen: Vec::new(),
        }
    }

    fn analyze<S: AsRef<str>>(&mut self, passages: &[S]) -> Block {
        self.cache.forget_if_large();
        self.seen.clear();
        let unseen = Seen {
            term: NOT_SEEN,
            document: NOT_SEEN,
            posting: 0,
        };
        let mut numbers: Vec<u32> = Vec::new();
        let mut block = Block {
            terms: TermList::default(),
            postings: Vec::new(),
            distinct: Vec::with_capacity(passages.len()),
            lengths: Vec::with_capacity(passages.len()),
        };
        for (document, passage) in (0_u32..).zip(passages) {
            let postings_before = block.postings.len();
            let mut length = 0_u32;
            self.cache.for_each_term(passage.as_ref(), |number| {
                length += 1;
                if number as usize >= self.seen.len() {
                    self.seen.resize(number as usize + 1, unseen);
                }
                let seen = &mut self.seen[number as usize];
                if seen.document == document {
                    block.postings[seen.posting as usize].1 += 1;
                    return;
                }
                if seen.term == NOT_SEEN {
                    seen.term = numbers.len() as u32;
                    numbers.push(number);
                }
                seen.document = document;
                seen.posting = block.postings.len() as u32;
                block.postings.push((seen.term, 1));
            });
            block.distinct.push((block.postings.len() - postings_before) as u32);
            block.lengths.push(length);
        }
        for &number in &numbers {
            block.terms.push(self.cache.terms().get(number as usize));
        }
        block
    }
}

/// The blocks of one tile as a tile.
fn assemble(first_document: u32, blocks: &[Block]) -> TileTerms {
    // The tile's term numbers of each block's terms.
    let mut tile_terms = TermNumbers::default();
    let numbers_of = |block: &Block| block.terms.iter().map(|term| tile_terms.number(term)).collect();
    let block_numbers: Vec<Vec<u32>> = blocks.iter().map(numbers_of).collect();
    let terms = tile_terms.terms;

    // Counting sort of the postings by term; documents come in order.
    let mut directory: Vec<DirectoryEntry> = (0..terms.len() as u32)
        .map(|term| DirectoryEntry {
            term,
            start: 0,
            count: 0,
        })
        .collect();
    for (block, numbers) in blocks.iter().zip(&block_numbers) {
        for &(term, _) in &block.postings {
            directory[numbers[term as usize] as usize].count += 1;
        }
    }
    let mut total = 0;
    for entry in &mut directory {
        entry.start = total;
        total += entry.count;
        entry.count = 0;
    }
    let mut tile = Tile {
        first_document,
        documents: 0,
        directory,
        local_ids: vec![0; total as usize],
        tfs: vec![0; total as usize],
        long_tfs: Vec::new(),
    };
    let mut cf = vec![0_u64; terms.len()];
    for (block, numbers) in blocks.iter().zip(&block_numbers) {
        let mut postings = block.postings.iter();
        for &distinct in &block.distinct {
            for &(term, tf) in postings.by_ref().take(distinct as usize) {
                let number = numbers[term as usize] as usize;
                let entry = &mut tile.directory[number];
                let place = entry.start + entry.count;
                entry.count += 1;
                cf[number] += u64::from(tf);
                tile.local_ids[place as usize] = tile.documents as u16;
                tile.tfs[place as usize] = tf.min(u32::from(LONG_TF)) as u8;
                if tf >= u32::from(LONG_TF) {
                    tile.long_tfs.push((place, tf));
                }
            }
            tile.documents += 1;
        }
    }
    tile.long_tfs.sort_unstable();
    TileTerms { tile, terms, cf }
}

/// The sorted vocabulary of all tiles, and for each tile the number in it of each of the tile's terms.
fn merge_vocabularies(tiles: &[TileTerms]) -> (Vocabulary, Vec<Vec<u32>>) {
    let mut all = TermNumbers::default();
    let numbers_of = |tile: &TileTerms| tile.terms.iter().map(|term| all.number(term)).collect();
    let mut numbers: Vec<Vec<u32>> = tiles.iter().map(numbers_of).collect();
    let mut order: Vec<(u64, &str, u32)> = (0..)
        .zip(all.terms.iter())
        .map(|(number, term)| (first_bytes(term), term, number))
        .collect();
    order.par_sort_unstable();

    let mut vocabulary = Vocabulary {
        terms: TermList::default(),
        df: vec![0; order.len()],
        cf: vec![0; order.len()],
    };
    let mut places = vec![0_u32; order.len()];
    for (place, &(_, term, number)) in (0..).zip(&order) {
        places[number as usize] = place;
        vocabulary.terms.push(term);
    }
    for (tile, numbers) in tiles.iter().zip(&mut numbers) {
        for ((number, entry), cf) in numbers.iter_mut().zip(&tile.tile.directory).zip(&tile.cf) {
            *number = places[*number as usize];
            vocabulary.df[*number as usize] += entry.count;
            vocabulary.cf[*number as usize] += cf;
        }
    }
    (vocabulary, numbers)
}

/// The first eight bytes as a number that sorts as they do: it spares most comparisons of strings.
fn first_bytes(term: &str) -> u64 {
    let mut bytes = [0; 8];
    let len = term.len().min(8);
    bytes[..len].copy_from_slice(&term.as_bytes()[..len]);
    u64::from_be_bytes(bytes)
}

/// The tile with the vocabulary's term numbers in its directory.
fn with_numbers(mut tile: Tile, numbers: &[u32]) -> Tile {
    for entry in &mut tile.directory {
        entry.term = numbers[entry.term as usize];
    }
    tile.directory.sort_unstable_by_key(|entry| entry.term);
    tile
}
