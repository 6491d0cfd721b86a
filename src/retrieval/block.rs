//! Blocks: runs of consecutive documents after analysis, the unit of work of a build.
//!
//! Terms are numbered by first occurrence within the block, so that a block is a function of its texts alone.

use std::slice::from_ref;

use super::analyzer::Analyzer;
use super::fetch::fetch;
use super::term_cache::{TermCache, TermList};

/// A run of documents as counts of terms.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Distinct terms in the order of their first occurrence.
    pub(super) terms: TermList,
    /// The cache that numbered them, and its number of each; says nothing of the texts, and only saves look-ups.
    pub(super) cache: u64,
    pub(super) numbers: Vec<u32>,
    /// (index into `terms`, tf), document by document.
    pub(super) postings: Vec<(u32, u32)>,
    /// Number of distinct terms of each document.
    pub(super) distinct: Vec<u32>,
    /// Number of terms of each document.
    pub(super) lengths: Vec<u32>,
}

impl Block {
    /// How many documents there are.
    pub(super) fn documents(&self) -> usize {
        self.lengths.len()
    }

    /// Gives back memory that is not in use: blocks wait in large numbers.
    fn shrink(&mut self) {
        self.terms.shrink();
        self.postings.shrink_to_fit();
        self.numbers.shrink_to_fit();
        self.distinct.shrink_to_fit();
        self.lengths.shrink_to_fit();
    }

    /// The (index into `terms`, tf) pairs of every document in turn.
    pub(super) fn by_document(&self) -> impl Iterator<Item = &[(u32, u32)]> {
        let mut rest = self.postings.as_slice();
        self.distinct.iter().map(move |&distinct| {
            let (document, tail) = rest.split_at(distinct as usize);
            rest = tail;
            document
        })
    }
}

/// Turns texts into blocks, one after another.
pub(super) struct BlockAnalyzer {
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

/// How many terms ahead their [`Seen`] are asked for.
const AHEAD: usize = 16;

impl BlockAnalyzer {
    /// An analyzer that remembers up to `cached_words` words between blocks.
    pub(super) fn new(analyzer: Analyzer, cached_words: usize) -> Self {
        BlockAnalyzer {
            cache: TermCache::new(analyzer, cached_words),
            seen: Vec::new(),
        }
    }

    /// The texts as a block, in order.
    pub(super) fn analyze(&mut self, texts: impl IntoIterator<Item = impl AsRef<str>>) -> Block {
        self.cache.forget_if_large();
        self.seen.clear();
        let unseen = Seen {
            term: NOT_SEEN,
            document: NOT_SEEN,
            posting: 0,
        };
        let mut numbers: Vec<u32> = Vec::new();
        let mut terms: Vec<u32> = Vec::new();
        let mut block = Block::default();
        for (document, text) in (0_u32..).zip(texts) {
            let postings_before = block.postings.len();
            self.cache.number_terms(text.as_ref(), &mut terms);
            self.seen.resize(self.cache.terms().len(), unseen);
            for (place, &number) in terms.iter().enumerate() {
                if let Some(&ahead) = terms.get(place + AHEAD) {
                    fetch(from_ref(&self.seen[ahead as usize]));
                }
                let seen = &mut self.seen[number as usize];
                if seen.document == document {
                    block.postings[seen.posting as usize].1 += 1;
                    continue;
                }
                if seen.term == NOT_SEEN {
                    seen.term = numbers.len() as u32;
                    numbers.push(number);
                }
                seen.document = document;
                seen.posting = block.postings.len() as u32;
                block.postings.push((seen.term, 1));
            }
            block.distinct.push((block.postings.len() - postings_before) as u32);
            block.lengths.push(terms.len() as u32);
        }
        for &number in &numbers {
            block.terms.push(self.cache.terms().get(number as usize));
        }
        (block.cache, block.numbers) = (self.cache.identity(), numbers);
        block.shrink();
        block
    }
}
