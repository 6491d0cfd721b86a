//! The execution image of a sub-tile: its postings as the scoring loop wants them.
//!
//! Made when a sub-tile is searched, for the terms of the queries at hand and one set of BM25 parameters, and small enough
//! for the caches of the processor that makes and uses it.
//!
//! ```text
//! list     u32 code << 16 | document, ascending by document
//! column   u16 codes of all documents, 0 where the term is absent: for terms that are frequent and that many queries
//!          use, where adding up all documents in vectors is cheaper than following documents
//! ```
//!
//! Columns lie strip by strip, `(16 strips, columns, 256)`: a strip of all columns is small enough for the first-level or
//! second-level cache, where one query after another uses it. One image serves one sub-tile after another, so that its
//! memory is asked for once. Where the index keeps the codes of its postings, the lists are there, and only columns are made.

use std::iter::Peekable;
use std::ops::Range;
use std::slice::Iter;

use super::bm25::CodeTable;
use super::codec::{SUB_TILE, posting};
use super::coder::Coder;
use super::fetch::fetch;
use super::kept::kept_range;
use super::lists::SubTileLists;
use crate::device::cpu::vectorised;

/// Documents of a strip.
pub(super) const STRIP: usize = 256;

/// Strips of a sub-tile.
pub(super) const STRIPS: usize = SUB_TILE / STRIP;

/// A sub-tile made ready for a set of terms; terms are numbered by their place in that set.
#[derive(Default)]
pub(super) struct SubTileImage<'a> {
    first_document: u32,
    coder: Coder,
    /// For each term where its postings begin and end, or [`COLUMN`] and its number.
    places: Vec<[u32; 2]>,
    /// The tile's postings, if the index keeps their codes: then they are not in `postings`.
    kept: Option<&'a [u32]>,
    /// code << 16 | document
    postings: Vec<u32>,
    /// So many of them belong to this sub-tile.
    used: usize,
    /// (gain, term) of the terms that have columns, ascending by term.
    column_terms: Vec<(u64, u32)>,
    /// `(STRIPS, column_count, STRIP)` codes.
    columns: Vec<u16>,
    /// The largest code of each column.
    largest: Vec<u16>,
}

/// What a term has in a sub-tile.
pub(super) enum Place {
    /// Where its postings lie.
    List(Range<usize>),
    /// The number of its column.
    Column(usize),
}

/// Marks a column among the places.
const COLUMN: u32 = u32::MAX;

/// Bytes of a column.
const COLUMN_BYTES: u64 = (SUB_TILE * size_of::<u16>()) as u64;

/// How many lists ahead their beginnings are asked for, and how many bytes of them.
const AHEAD: usize = 12;
const HEAD: u32 = 1024;

/// How many codes at the beginning of a list that the index keeps are asked for before the first query adds them.
const KEPT_HEAD: usize = 256;

/// What it costs to make an empty column, counted in postings that are added. This and the next two were found by trying, with
/// 60 and with 600 queries of whole passages, on an Intel Xeon with its AVX-512 and without.
const MAKE_COLUMN: u64 = SUB_TILE as u64 / 4;

/// What it costs to put a posting in its place there.
const FILL_COLUMN: u64 = 2;

/// What it costs a query to add a column up.
const ADD_COLUMN: u64 = SUB_TILE as u64 / 9;

/// What a column saves, counted in postings that need not be followed: all those of the queries that use it, less what it
/// costs to make it and, for each of these queries, to add it up; none if it does not pay.
fn gain(postings: usize, uses: u32) -> Option<u64> {
    let (postings, uses) = (postings as u64, u64::from(uses));
    let saved = uses.checked_sub(FILL_COLUMN)? * postings;
    saved
        .checked_sub(MAKE_COLUMN + uses * ADD_COLUMN)
        .filter(|&gain| gain > 0)
}

impl<'a> SubTileImage<'a> {
    /// Makes this the image of a sub-tile. `uses` holds how many queries use each term of the set; columns take up to
    /// `memory` bytes.
    pub(super) fn fill(&mut self, lists: &SubTileLists<'a>, uses: &[u32], memory: u64, codes: &CodeTable) {
        self.first_document = lists.first_document;
        self.kept = lists.kept;
        self.choose_columns(lists, uses, memory);
        self.places.clear();
        self.largest.clear();
        // Both are overwritten, so they never get shorter.
        let column_count = self.column_terms.len();
        self.columns.resize(self.columns.len().max(column_count * SUB_TILE), 0);
        if self.kept.is_none() {
            let postings = lists.postings();
            self.coder.fill(lists.lengths, codes, postings);
            let in_columns = self.column_terms.iter();
            let in_columns: usize = in_columns.map(|&(_, term)| lists.postings_of(term as usize)).sum();
            self.postings.resize(self.postings.len().max(postings - in_columns), 0);
        }
        let coder = &self.coder;
        let (columns, mut postings) = (self.columns.as_mut_slice(), self.postings.as_mut_slice());
        let mut used = 0;
        let mut longs = lists.longs.iter().peekable();
        let mut column_terms = self.column_terms.iter().peekable();
        for (place, (&start, &end)) in lists.starts.iter().zip(lists.ends).enumerate() {
            if lists.kept.is_none()
                && let (Some(&start), Some(&end)) = (lists.starts.get(place + AHEAD), lists.ends.get(place + AHEAD))
            {
                fetch(&lists.bytes[start as usize..end.min(start + HEAD) as usize]);
            }
            let term = place as u32;
            let list = lists.bytes[start as usize..end as usize].as_chunks().0;
            let kept = lists.kept.map(|kept| (kept, kept_range(start, end)));
            if column_terms.next_if(|&&(_, other)| other == term).is_some() {
                let column = column_count - column_terms.len() - 1;
                // Here it stays in the first-level cache until it is complete.
                let mut codes = [0; SUB_TILE];
                if let Some((kept, range)) = kept {
                    for &posting in &kept[range] {
                        codes[posting as usize % SUB_TILE] = (posting >> 16) as u16;
                    }
                } else {
                    let known = coder.codes();
                    for posting in list.iter().map(|&bytes| posting(bytes)) {
                        codes[usize::from(posting) % SUB_TILE] = known.of(posting);
                    }
                    of_term(&mut longs, term).for_each(|long| codes[long as usize % SUB_TILE] = (long >> 16) as u16);
                }
                let largest = vectorised(
                    #[inline(always)]
                    || {
                        for (strip, codes) in codes.as_chunks::<STRIP>().0.iter().enumerate() {
                            let start = (strip * column_count + column) * STRIP;
                            columns[start..start + STRIP].copy_from_slice(codes);
                        }
                        codes.iter().copied().fold(0, u16::max)
                    },
                );
                self.largest.push(largest);
                self.places.push([COLUMN, column as u32]);
            } else if let Some((kept, range)) = kept {
                fetch(&kept[range.start..range.end.min(range.start + KEPT_HEAD)]);
                self.places.push([range.start as u32, range.end as u32]);
            } else {
                let coded;
                (coded, postings) = postings.split_at_mut(list.len());
                coder.code_all(list, coded);
                for long in of_term(&mut longs, term) {
                    let document = long % SUB_TILE as u32;
                    if let Ok(place) = coded.binary_search_by_key(&document, |&posting| posting as u16 as u32) {
                        coded[place] = long >> 16 << 16 | document;
                    }
                }
                self.places.push([used as u32, (used + list.len()) as u32]);
                used += list.len();
            }
        }
        self.used = used;
    }

    /// The bytes of an image of these lists, were there no columns.
    pub(super) fn bytes_without_columns(lists: &SubTileLists) -> u64 {
        let coded = match lists.kept {
            Some(_) => 0,
            None => lists.postings(),
        };
        let bytes = coded * size_of::<u32>() + lists.starts.len() * size_of::<[u32; 2]>();
        bytes as u64
    }

    /// Decides which terms have columns.
    fn choose_columns(&mut self, lists: &SubTileLists, uses: &[u32], memory: u64) {
        self.column_terms.clear();
        for (term, &uses) in uses.iter().enumerate() {
            if let Some(gain) = gain(lists.postings_of(term), uses) {
                self.column_terms.push((gain, term as u32));
            }
        }
        let at_most = (memory / COLUMN_BYTES) as usize;
        if self.column_terms.len() > at_most {
            self.column_terms.sort_unstable_by(|a, b| b.cmp(a));
            self.column_terms.truncate(at_most);
            self.column_terms.sort_unstable_by_key(|&(_, term)| term);
        }
    }

    /// The ordinal of the sub-tile's first document.
    pub(super) fn first_document(&self) -> u32 {
        self.first_document
    }

    /// What a term (its place in the set) has.
    #[inline(always)]
    pub(super) fn place(&self, term: u32) -> Place {
        match self.places[term as usize] {
            [COLUMN, number] => Place::Column(number as usize),
            [start, end] => Place::List(start as usize..end as usize),
        }
    }

    /// Some of the postings, code << 16 | document.
    #[inline(always)]
    pub(super) fn postings(&self, range: Range<usize>) -> &[u32] {
        &self.kept.unwrap_or(&self.postings)[range]
    }

    /// Those of all lists, one after another, where the index keeps none.
    pub(super) fn all_postings(&self) -> &[u32] {
        &self.postings[..self.used]
    }

    /// How many columns there are.
    pub(super) fn column_count(&self) -> usize {
        self.column_terms.len()
    }

    /// The largest code of a column.
    #[inline(always)]
    pub(super) fn largest_code(&self, column: usize) -> u16 {
        self.largest[column]
    }

    /// The codes of a column in a strip.
    #[inline(always)]
    pub(super) fn codes(&self, strip: usize, column: usize) -> &[u16; STRIP] {
        self.columns[(strip * self.column_count() + column) * STRIP..]
            .first_chunk()
            .expect("every column has STRIP codes in each strip")
    }
}

/// The next longs as far as they are the term's.
fn of_term(longs: &mut Peekable<Iter<(u32, u32)>>, term: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || Some(longs.next_if(|&&(other, _)| other == term)?.1))
}
