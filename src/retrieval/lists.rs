//! Where the lists of a set of terms lie in a tile.
//!
//! Made when a tile is searched, for the terms of the queries at hand. The lists stay where they are, in the index. One
//! `TileLists` serves one tile after another, so that its memory is asked for once.

use super::RetrievalError;
use super::bm25::CodeTable;
use super::codec::{SUB_TILE, sub_tiles};
use super::fetch::fetch;
use super::segment::TileData;
use super::tile::ListPlace;

/// The lists of a tile by sub-tiles; terms are numbered by their place in the set.
#[derive(Default)]
pub(super) struct TileLists<'a> {
    first_document: u32,
    /// The length of each document.
    lengths: &'a [[u8; 4]],
    /// All lists of the tile.
    bytes: &'a [u8],
    /// Their codes, if the index keeps them.
    kept: Option<&'a [u32]>,
    terms: usize,
    /// `(sub_tiles + 1, terms)`: where the postings of each sub-tile begin in `bytes`, and where the last ones end.
    cuts: Vec<u32>,
    /// The postings whose frequencies they cannot hold, (term, code << 16 | local id), ascending by sub-tile, term and id;
    /// none where codes are kept.
    longs: Vec<(u32, u32)>,
}

/// What the terms of a set have in a sub-tile; they are numbered by their place in the set.
#[derive(Clone, Copy)]
pub(super) struct SubTileLists<'a> {
    /// The ordinal of the sub-tile's first document.
    pub(super) first_document: u32,
    /// The length of each document, as the index has it.
    pub(super) lengths: &'a [[u8; 4]],
    /// All lists of the tile.
    pub(super) bytes: &'a [u8],
    /// Their codes, if the index keeps them: see [`kept_range`](super::kept::kept_range).
    pub(super) kept: Option<&'a [u32]>,
    /// Where each term's postings begin in `bytes`, and where they end.
    pub(super) starts: &'a [u32],
    pub(super) ends: &'a [u32],
    /// The postings whose frequencies they cannot hold, (term, code << 16 | local id), ascending; none where codes are kept.
    pub(super) longs: &'a [(u32, u32)],
}

impl SubTileLists<'_> {
    /// How many postings a term has.
    pub(super) fn postings_of(&self, term: usize) -> usize {
        (self.ends[term] - self.starts[term]) as usize / size_of::<u16>()
    }

    /// How many postings they have together.
    pub(super) fn postings(&self) -> usize {
        (0..self.starts.len()).map(|term| self.postings_of(term)).sum()
    }
}

/// The lists of a tile have fewer bytes together.
pub(super) const MAX_LISTS: u32 = 1 << 31;

/// How many lists ahead their beginnings are asked for, and how many bytes of them.
const AHEAD: usize = 8;
const HEAD: usize = 64;

impl<'a> TileLists<'a> {
    /// Finds the lists of `tile`, whose first document has this ordinal. `terms` holds (number in the segment, place in
    /// the set of `set_len`) of those of the set's terms that the segment has, ascending. `kept` are the tile's codes, if
    /// the index keeps them.
    pub(super) fn fill(
        &mut self,
        tile: &TileData<'a>,
        first_document: u32,
        terms: &[(u32, u32)],
        set_len: usize,
        codes: &CodeTable,
        kept: Option<&'a [u32]>,
    ) -> Result<(), RetrievalError> {
        if tile.lists.len() >= MAX_LISTS as usize {
            return Err(tile.damaged());
        }
        let places = find_lists(tile, terms)?;
        self.first_document = first_document;
        self.lengths = tile.lengths;
        self.bytes = tile.lists;
        self.kept = kept;
        self.terms = set_len;
        let cuts = sub_tiles(tile.documents) + 1;
        self.cuts.clear();
        self.cuts.resize(cuts * set_len, 0);
        self.longs.clear();
        for (number, (term, place)) in places.iter().enumerate() {
            if let Some((_, ahead)) = places.get(number + AHEAD) {
                let start = ahead.start as usize;
                fetch(tile.lists.get(start..start + HEAD).unwrap_or_default());
            }
            let list = tile.list(place).ok_or_else(|| tile.damaged())?;
            let of_term = self.cuts[*term as usize..].iter_mut().step_by(set_len);
            for (cut, postings) in of_term.zip(&list.cuts[..cuts]) {
                *cut = place.start + list.start as u32 + size_of::<u16>() as u32 * postings;
            }
            if kept.is_none() && list.has_long_tfs() {
                let read = list.for_each_long(|_, id, tf| {
                    self.longs.push((*term, tile.code(codes, id, tf) << 16 | u32::from(id)));
                });
                read.ok_or_else(|| tile.damaged())?;
            }
        }
        // Those of a term ascend already.
        self.longs
            .sort_by_key(|&(term, long)| (long as u16 as usize / SUB_TILE, term));
        Ok(())
    }

    /// About the bytes that are held for a tile of so many postings and documents and a set of so many terms, with the
    /// tile's pages.
    pub(super) fn bytes(postings: u64, documents: u32, set_len: usize) -> u64 {
        let cuts = (sub_tiles(documents) + 1) * set_len;
        5 * postings / 2 + (cuts * size_of::<u32>()) as u64 + u64::from(documents) * size_of::<u32>() as u64
    }

    /// How many sub-tiles the tile has.
    pub(super) fn sub_tiles(&self) -> usize {
        sub_tiles(self.lengths.len() as u32)
    }

    /// What lies in a sub-tile.
    pub(super) fn sub_tile(&self, number: usize) -> SubTileLists<'_> {
        let first = number * SUB_TILE;
        let (starts, ends) = self.cuts[number * self.terms..][..2 * self.terms].split_at(self.terms);
        let before = |bound| {
            self.longs
                .partition_point(|&(_, long)| (long as u16 as usize / SUB_TILE) < bound)
        };
        SubTileLists {
            first_document: self.first_document + first as u32,
            lengths: &self.lengths[first..self.lengths.len().min(first + SUB_TILE)],
            bytes: self.bytes,
            kept: self.kept,
            starts,
            ends,
            longs: &self.longs[before(number)..before(number + 1)],
        }
    }
}

/// The lists of the tile by the place of their term in the set.
fn find_lists(tile: &TileData, terms: &[(u32, u32)]) -> Result<Vec<(u32, ListPlace)>, RetrievalError> {
    let numbers: Vec<u32> = terms.iter().map(|&(number, _)| number).collect();
    let mut lists = Vec::new();
    let found = tile
        .directory
        .find(&numbers, |at, list| lists.push((terms[at].1, list)));
    found.ok_or_else(|| tile.damaged())?;
    Ok(lists)
}
