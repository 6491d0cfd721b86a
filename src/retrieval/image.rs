//! The execution image of a tile: its postings as the scoring loop wants them.
//!
//! Made when a tile is searched, for the terms of the queries at hand and one set of BM25 parameters. The tile is cut
//! into sub-tiles of [`SUB_TILE`] documents, whose accumulators fit the L1 cache.
//!
//! ```text
//! list     u32 postings: code << 16 | local id, ascending by local id; per sub-tile the cut where its part begins
//! column   u16 codes of all documents of the tile, 0 where the term is absent: for terms of more than an eighth of
//!          the documents, where adding up all of them in vectors is cheaper than following ids
//! ```

use super::bm25::CodeTable;
use super::index::Tile;
use super::scoring::SUB_TILE;

/// A tile made ready for a set of terms; terms are numbered by their place in that set.
pub(super) struct TileImage {
    first_document: u32,
    sub_tiles: usize,
    /// (sub_tiles + 1) positions in `postings` for each term; for a column [`COLUMN`] + its number comes first.
    cuts: Vec<u32>,
    postings: Vec<u32>,
    /// `sub_tiles * SUB_TILE` codes for each column.
    columns: Vec<u16>,
}

/// The part of a term's postings that lies in a sub-tile.
pub(super) enum Part<'a> {
    /// code << 16 | local id in the tile.
    List(&'a [u32]),
    /// Where the codes of the sub-tile begin among those of all columns.
    Column(usize),
}

/// Marks a column among the cuts.
const COLUMN: u32 = 1 << 31;

/// A list longer than the tile's documents / DENSE becomes a column. Of 4, 6, 8 and 12 the search of 226,141 passages
/// was fastest with 8 (4 took 7 % longer); it bounds a column's memory to four times that of the list.
const DENSE: u32 = 8;

impl TileImage {
    /// The image of `tile` for `terms`, ascending; `lengths` are those of the tile's documents.
    pub(super) fn new(tile: &Tile, lengths: &[u32], terms: &[u32], codes: &CodeTable) -> Self {
        let sub_tiles = (tile.documents as usize).div_ceil(SUB_TILE);
        let mut image = TileImage {
            first_document: tile.first_document,
            sub_tiles,
            cuts: Vec::with_capacity(terms.len() * (sub_tiles + 1)),
            postings: Vec::new(),
            columns: Vec::new(),
        };
        let mut directory = tile.directory.iter().peekable();
        for &term in terms {
            while directory.next_if(|entry| entry.term < term).is_some() {}
            let entry = directory.next_if(|entry| entry.term == term);
            let coded = entry.into_iter().flat_map(|&entry| {
                tile.list(entry)
                    .map(|(id, tf)| (id, codes.code(tf, lengths[usize::from(id)])))
            });
            if entry.is_some_and(|entry| entry.count > tile.documents / DENSE) {
                image.push_column(coded);
            } else {
                image.push_list(coded);
            }
        }
        image
    }

    fn push_list(&mut self, coded: impl Iterator<Item = (u16, u16)>) {
        let first_cut = self.cuts.len();
        for (id, code) in coded {
            let sub_tile = usize::from(id) / SUB_TILE;
            while self.cuts.len() <= first_cut + sub_tile {
                self.cuts.push(self.postings.len() as u32);
            }
            self.postings.push(u32::from(code) << 16 | u32::from(id));
        }
        self.cuts
            .resize(first_cut + self.sub_tiles + 1, self.postings.len() as u32);
    }

    fn push_column(&mut self, coded: impl Iterator<Item = (u16, u16)>) {
        let stride = self.sub_tiles * SUB_TILE;
        let start = self.columns.len();
        self.columns.resize(start + stride, 0);
        for (id, code) in coded {
            self.columns[start + usize::from(id)] = code;
        }
        self.cuts
            .resize(self.cuts.len() + self.sub_tiles + 1, COLUMN | (start / stride) as u32);
    }

    /// The ordinal of the tile's first document.
    pub(super) fn first_document(&self) -> u32 {
        self.first_document
    }

    /// How many sub-tiles the tile has.
    pub(super) fn sub_tiles(&self) -> usize {
        self.sub_tiles
    }

    /// What a term (its place in the set) has in a sub-tile.
    #[inline(always)]
    pub(super) fn part(&self, term: u32, sub_tile: usize) -> Part<'_> {
        let cut = term as usize * (self.sub_tiles + 1) + sub_tile;
        let (start, end) = (self.cuts[cut], self.cuts[cut + 1]);
        if start & COLUMN == 0 {
            return Part::List(&self.postings[start as usize..end as usize]);
        }
        Part::Column(((start ^ COLUMN) as usize * self.sub_tiles + sub_tile) * SUB_TILE)
    }

    /// `N` codes of a column; `start` is what [`Part::Column`] gives plus a multiple of N below [`SUB_TILE`].
    #[inline(always)]
    pub(super) fn column_codes<const N: usize>(&self, start: usize) -> &[u16; N] {
        self.columns[start..]
            .first_chunk()
            .expect("every column has SUB_TILE codes for each sub-tile")
    }
}
