//! The execution image of a tile: its postings as the scoring loop wants them.
//!
//! Made when a tile is searched, for the terms of the queries at hand and one set of BM25 parameters. Lists stay where they
//! are, in the index; the tile's sub-tiles of [`SUB_TILE`] documents have accumulators that fit the L1 cache.
//!
//! ```text
//! list     the index's postings of a sub-tile: a posting is a place in the sub-tile's table
//! table    (16, 4096) u16 codes of the frequencies 1 to 15 in each document of a sub-tile, then zeros
//! longs    u32 code << 16 | local id: the postings of lists whose frequencies are above 15
//! column   u16 codes of all documents of the tile, 0 where the term is absent: for terms that are frequent and that
//!          many queries use, where adding up all documents in vectors is cheaper than following ids
//! ```
//!
//! Columns lie strip by strip, `(strips, columns, 256)`: a strip of all columns is small enough for the first-level or
//! second-level cache, where one query after another uses it. One image serves one tile after another, so that its memory
//! is asked for once.

use std::ops::Range;

use super::RetrievalError;
use super::bm25::CodeTable;
use super::codec::{LONG_TF, PostingList, SUB_TILE, posting, sub_tiles};
use super::fetch::fetch;
use super::segment::TileData;
use super::tile::ListPlace;

/// Documents of a strip.
pub(super) const STRIP: usize = 256;

/// Strips of a sub-tile.
pub(super) const STRIPS: usize = SUB_TILE / STRIP;

/// Codes of a sub-tile, one for each value of a posting.
pub(super) const TABLE: usize = LONG_TF as usize * SUB_TILE;

/// A tile made ready for a set of terms; terms are numbered by their place in that set.
#[derive(Default)]
pub(super) struct TileImage<'a> {
    first_document: u32,
    sub_tiles: usize,
    /// All lists of the tile.
    lists: &'a [u8],
    /// `(terms, sub_tiles + 1)` places in `lists`, with [`WITH_LONGS`] where the sub-tile has some; for a column [`COLUMN`] +
    /// its number.
    cuts: Vec<u32>,
    /// `(sub_tiles, 16, SUB_TILE)` codes.
    tables: Vec<u16>,
    /// (term, long), ascending by term and then by id.
    longs: Vec<(u32, u32)>,
    column_count: usize,
    /// `(sub_tiles * STRIPS, column_count, STRIP)` codes.
    columns: Vec<u16>,
}

/// What a term has in a sub-tile.
pub(super) enum Place {
    /// Where its postings lie among the bytes of all lists, and where those that are longs among these.
    List(Range<usize>, Range<usize>),
    /// The number of its column.
    Column(usize),
}

/// Marks a column among the cuts.
const COLUMN: u32 = 1 << 31;

/// Marks a part of a list with long frequencies among the cuts.
const WITH_LONGS: u32 = 1 << 30;

/// How many lists ahead their beginnings are asked for, and how many bytes of them.
const AHEAD: usize = 8;
const HEAD: usize = 64;

/// Whether a list of so many postings pays as a column of so many documents that so many queries use: if queries look at
/// more postings than the column costs, which is about that of each document once, to make it, and for each query that of
/// every sixteenth. Found by trying 1/2, 1 and 2 and 1/32, 1/16 and 1/8 with 60 and with 1,000 queries of whole passages.
fn pays(postings: u32, documents: u32, uses: u32) -> bool {
    let [postings, documents, uses] = [postings, documents, uses].map(u64::from);
    postings * uses * 16 > documents * (16 + uses)
}

impl<'a> TileImage<'a> {
    /// Makes this the image of `tile`, whose first document has this ordinal. `terms` holds (number in the segment,
    /// place in the set) of those of the set's terms that the segment has, ascending; `uses` how many queries use each
    /// of the set.
    pub(super) fn fill(
        &mut self,
        tile: &TileData<'a>,
        first_document: u32,
        terms: &[(u32, u32)],
        uses: &[u32],
        codes: &CodeTable,
    ) -> Result<(), RetrievalError> {
        if tile.lists.len() >= WITH_LONGS as usize {
            return Err(tile.damaged());
        }
        let places = find_lists(tile, terms)?;
        let is_column = |&(term, list): &(u32, ListPlace)| pays(list.postings, tile.documents, uses[term as usize]);
        self.first_document = first_document;
        self.sub_tiles = sub_tiles(tile.documents);
        self.lists = tile.lists;
        self.column_count = places.iter().filter(|place| is_column(place)).count();
        self.cuts.clear();
        self.cuts.resize(uses.len() * (self.sub_tiles + 1), 0);
        self.longs.clear();
        // Every code of these is written below.
        self.columns
            .resize(self.sub_tiles * STRIPS * self.column_count * STRIP, 0);
        let lengths: Vec<u32> = tile.lengths().collect();
        self.fill_tables(&lengths, codes);

        let mut column = 0;
        for (number, &(term, place)) in places.iter().enumerate() {
            if let Some((_, ahead)) = places.get(number + AHEAD) {
                let start = ahead.start as usize;
                fetch(tile.lists.get(start..start + HEAD).unwrap_or_default());
            }
            let list = tile.list(&place).ok_or_else(|| tile.damaged())?;
            let mut longs = Vec::new();
            if list.has_long_tfs() {
                let read = list.for_each_long(|id, tf| {
                    let code = lengths.get(usize::from(id)).map_or(0, |&length| codes.code(tf, length));
                    longs.push(u32::from(code) << 16 | u32::from(id));
                });
                read.ok_or_else(|| tile.damaged())?;
            }
            let width = self.sub_tiles + 1;
            let cuts = &mut self.cuts[term as usize * width..][..width];
            if is_column(&(term, place)) {
                cuts.fill(COLUMN | column as u32);
                self.fill_column(column, &list, &longs);
                column += 1;
            } else {
                for (cut, postings) in cuts.iter_mut().zip(list.cuts) {
                    *cut = place.start + list.start as u32 + size_of::<u16>() as u32 * postings;
                }
                for &long in &longs {
                    cuts[long as u16 as usize / SUB_TILE] |= WITH_LONGS;
                }
                self.longs.extend(longs.into_iter().map(|long| (term, long)));
            }
        }
        // Those of a term ascend already.
        self.longs.sort_by_key(|&(term, _)| term);
        Ok(())
    }

    /// The codes of all values of postings.
    fn fill_tables(&mut self, lengths: &[u32], codes: &CodeTable) {
        // The last row of each table stays as it is made, 0.
        self.tables.resize(self.sub_tiles * TABLE, 0);
        for (table, lengths) in self.tables.chunks_exact_mut(TABLE).zip(lengths.chunks(SUB_TILE)) {
            for (row, tf) in table.chunks_exact_mut(SUB_TILE).zip(1..LONG_TF) {
                let (row, behind) = row.split_at_mut(lengths.len());
                codes.fill(tf, lengths, row);
                behind.fill(0);
            }
        }
    }

    /// Scatters a list and its longs over a column.
    fn fill_column(&mut self, column: usize, list: &PostingList, longs: &[u32]) {
        let mut longs = longs.iter().peekable();
        for sub_tile in 0..self.sub_tiles {
            // In the first-level cache; from there it goes to its strips line by line.
            let mut codes = [[0; STRIP]; STRIPS];
            let scattered = codes.as_flattened_mut();
            let table: &[u16; TABLE] = self.tables[sub_tile * TABLE..].first_chunk().expect("as many tables");
            for &bytes in list.of_sub_tile(sub_tile) {
                let posting = usize::from(posting(bytes));
                scattered[posting % SUB_TILE] = table[posting];
            }
            while let Some(&&long) = longs
                .peek()
                .filter(|&&&long| long as u16 as usize / SUB_TILE == sub_tile)
            {
                scattered[long as usize % SUB_TILE] = (long >> 16) as u16;
                longs.next();
            }
            let strips = self.columns.as_chunks_mut::<STRIP>().0;
            let strips = strips[sub_tile * STRIPS * self.column_count..][column..].iter_mut();
            for (strip, codes) in strips.step_by(self.column_count).zip(&codes) {
                *strip = *codes;
            }
        }
    }

    /// About the bytes of an image of so many postings for a set of so many terms, with the lists.
    pub(super) fn bytes(postings: u64, documents: u32, set_len: usize) -> u64 {
        let sub_tiles = sub_tiles(documents);
        // Columns take about as much as the lists.
        postings * 5 + (set_len * (sub_tiles + 1) * size_of::<u32>() + sub_tiles * TABLE * size_of::<u16>()) as u64
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
    pub(super) fn place(&self, term: u32, sub_tile: usize) -> Place {
        let cut = term as usize * (self.sub_tiles + 1) + sub_tile;
        let (start, end) = (self.cuts[cut], self.cuts[cut + 1]);
        if start & COLUMN != 0 {
            return Place::Column((start ^ COLUMN) as usize);
        }
        let longs = match start & WITH_LONGS {
            0 => 0..0,
            _ => self.longs_of(term, sub_tile),
        };
        Place::List((start & !WITH_LONGS) as usize..(end & !WITH_LONGS) as usize, longs)
    }

    #[cold]
    fn longs_of(&self, term: u32, sub_tile: usize) -> Range<usize> {
        let before = |bound: usize| {
            let is_before = |&(other, long): &(u32, u32)| (other, long as u16 as usize / SUB_TILE) < (term, bound);
            self.longs.partition_point(is_before)
        };
        before(sub_tile)..before(sub_tile + 1)
    }

    /// Some of the postings of a list.
    #[inline(always)]
    pub(super) fn postings(&self, range: Range<usize>) -> &'a [[u8; 2]] {
        self.lists[range].as_chunks().0
    }

    /// Some of the longs of a list, code << 16 | local id.
    #[inline(always)]
    pub(super) fn longs(&self, range: Range<usize>) -> impl Iterator<Item = u32> {
        self.longs[range].iter().map(|&(_, long)| long)
    }

    /// The codes of a sub-tile by the values of postings; 0 for those that are longs.
    #[inline(always)]
    pub(super) fn table(&self, sub_tile: usize) -> &[u16; TABLE] {
        self.tables[sub_tile * TABLE..]
            .first_chunk()
            .expect("every sub-tile has a table")
    }

    /// How many columns there are.
    pub(super) fn column_count(&self) -> usize {
        self.column_count
    }

    /// The codes of all columns in a strip, `(column_count, STRIP)`; none behind the last.
    #[inline(always)]
    pub(super) fn strip(&self, strip: usize) -> &[u16] {
        let len = self.column_count * STRIP;
        self.columns.get(strip * len..(strip + 1) * len).unwrap_or_default()
    }

    /// The codes of a column in a strip; strips are counted from the tile's first.
    #[inline(always)]
    pub(super) fn codes(&self, strip: usize, column: usize) -> &[u16; STRIP] {
        self.columns[(strip * self.column_count + column) * STRIP..]
            .first_chunk()
            .expect("every column has STRIP codes in each strip")
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
