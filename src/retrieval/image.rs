//! The execution image of a tile: its postings as the scoring loop wants them.
//!
//! Made when a tile is searched, for the terms of the queries at hand and one set of BM25 parameters. The tile is cut
//! into sub-tiles of [`SUB_TILE`] documents, whose accumulators fit the L1 cache.
//!
//! ```text
//! list     u32 postings: code << 16 | local id, ascending by local id; per sub-tile the cut where its part begins
//! column   u16 codes of all documents of the tile, 0 where the term is absent: for terms of more than an eighth of
//!          the documents, where adding up all of them in vectors is cheaper than following ids
//! maxima   u16 largest code of a column in each block of 32 documents
//! ```
//!
//! Columns lie strip by strip, `(strips, columns, 256)`: a strip of all columns is small enough for the first-level or
//! second-level cache, where one query after another uses it. One image serves one tile after another, so that its memory
//! is asked for once.

use std::ops::Range;

use super::RetrievalError;
use super::bm25::CodeTable;
use super::codec::ListDecoder;
use super::scoring::SUB_TILE;
use super::segment::TileData;
use super::tile::ListPlace;

/// Documents of a block, whose sums are compared with the threshold together.
pub(super) const BLOCK: usize = 32;

/// Blocks of a sub-tile.
pub(super) const BLOCKS: usize = SUB_TILE / BLOCK;

/// Documents of a strip.
pub(super) const STRIP: usize = 256;

/// Strips of a sub-tile.
pub(super) const STRIPS: usize = SUB_TILE / STRIP;

/// A tile made ready for a set of terms; terms are numbered by their place in that set.
#[derive(Default)]
pub(super) struct TileImage {
    first_document: u32,
    sub_tiles: usize,
    /// (sub_tiles + 1) positions in `postings` for each term; for a column [`COLUMN`] + its number comes first.
    cuts: Vec<u32>,
    postings: Vec<u32>,
    column_count: usize,
    /// `(sub_tiles * STRIPS, column_count, STRIP)` codes.
    columns: Vec<u16>,
    /// `(column_count, sub_tiles * BLOCKS)` largest codes.
    maxima: Vec<u16>,
}

/// What a term has in a sub-tile.
pub(super) enum Place {
    /// Where its part lies among all postings.
    List(Range<usize>),
    /// The number of its column.
    Column(usize),
}

/// Marks a column among the cuts.
const COLUMN: u32 = 1 << 31;

/// A list longer than the tile's documents / DENSE becomes a column. Of 4, 6, 8 and 12 the search of 226,141 passages
/// was fastest with 8 (4 took 7 % longer); it bounds a column's memory to four times that of the list.
const DENSE: u32 = 8;

/// Frequencies whose codes are looked up once per document; nearly all are among them.
const ROWS: usize = 4;

impl TileImage {
    /// Makes this the image of `tile`, whose first document has this ordinal. `terms` holds (number in the segment,
    /// place in the set) of those of the set's `set_len` terms that the segment has, ascending.
    pub(super) fn fill(
        &mut self,
        tile: &TileData,
        first_document: u32,
        terms: &[(u32, u32)],
        set_len: usize,
        codes: &CodeTable,
    ) -> Result<(), RetrievalError> {
        let documents = tile.documents as usize;
        let sub_tiles = documents.div_ceil(SUB_TILE);
        let lists = find_lists(tile, terms)?;
        let is_column = |list: &ListPlace| list.postings > tile.documents / DENSE;
        let column_count = lists.iter().filter(|(_, list)| is_column(list)).count();
        let listed: usize = lists
            .iter()
            .filter(|(_, list)| !is_column(list))
            .map(|(_, list)| list.postings as usize)
            .sum();
        let blocks = sub_tiles * BLOCKS;
        (self.first_document, self.sub_tiles, self.column_count) = (first_document, sub_tiles, column_count);
        reset(&mut self.cuts, set_len * (sub_tiles + 1));
        reset(&mut self.columns, blocks * column_count * BLOCK);
        reset(&mut self.maxima, blocks * column_count);
        self.postings.clear();
        self.postings.reserve(listed);

        let rows = CodeRows::new(tile, codes);
        let mut decoder = ListDecoder::new();
        let mut column = 0;
        for (place, list) in lists {
            let bytes = tile.lists.get(list.start as usize..(list.start + list.bytes) as usize);
            let bytes = bytes.ok_or_else(|| tile.damaged())?;
            let cuts = &mut self.cuts[place * (sub_tiles + 1)..(place + 1) * (sub_tiles + 1)];
            let decoded = if is_column(&list) {
                cuts.fill(COLUMN | column as u32);
                let codes = &mut self.columns;
                let maxima = &mut self.maxima[column * blocks..][..blocks];
                let start = column * STRIP;
                column += 1;
                decoder.decode(bytes, list.postings, tile.documents, |ids, tfs| {
                    for (&id, &tf) in ids.iter().zip(tfs) {
                        let (strip, place) = (id as usize / STRIP, id as usize % STRIP);
                        let code = rows.code(id, tf);
                        codes[strip * column_count * STRIP + start + place] = code;
                        let largest = &mut maxima[id as usize / BLOCK];
                        *largest = code.max(*largest);
                    }
                })
            } else {
                let start = self.postings.len();
                let postings = &mut self.postings;
                let decoded = decoder.decode(bytes, list.postings, tile.documents, |ids, tfs| {
                    let coded = ids.iter().zip(tfs);
                    postings.extend(coded.map(|(&id, &tf)| u32::from(rows.code(id, tf)) << 16 | id));
                });
                cut(cuts, &self.postings, start);
                decoded
            };
            decoded.ok_or_else(|| tile.damaged())?;
        }
        Ok(())
    }

    /// About the bytes of an image of so many postings for a set of so many terms.
    pub(super) fn bytes(postings: u64, documents: u32, set_len: usize) -> u64 {
        let cuts = (documents as usize).div_ceil(SUB_TILE) + 1;
        // Columns take somewhat more than the lists would.
        postings * 5 + (set_len * cuts * size_of::<u32>()) as u64
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
        match start & COLUMN {
            0 => Place::List(start as usize..end as usize),
            _ => Place::Column((start ^ COLUMN) as usize),
        }
    }

    /// The postings of all lists.
    pub(super) fn postings(&self) -> &[u32] {
        &self.postings
    }

    /// How many columns there are.
    pub(super) fn column_count(&self) -> usize {
        self.column_count
    }

    /// The codes of a column in a strip; strips are counted from the tile's first.
    #[inline(always)]
    pub(super) fn codes(&self, strip: usize, column: usize) -> &[u16; STRIP] {
        self.columns[(strip * self.column_count + column) * STRIP..]
            .first_chunk()
            .expect("every column has STRIP codes in each strip")
    }

    /// The largest code of a column in each block of a sub-tile.
    #[inline(always)]
    pub(super) fn maxima(&self, column: usize, sub_tile: usize) -> &[u16; BLOCKS] {
        self.maxima[(column * self.sub_tiles + sub_tile) * BLOCKS..]
            .first_chunk()
            .expect("every column has BLOCKS maxima in each sub-tile")
    }
}

/// Makes `values` that many zeros, in the memory that it has.
fn reset<T: Copy + Default>(values: &mut Vec<T>, len: usize) {
    values.clear();
    values.resize(len, T::default());
}

/// The codes of a tile's postings.
struct CodeRows<'a> {
    codes: &'a CodeTable,
    lengths: Vec<u32>,
    /// By document, for the frequencies 1 to [`ROWS`].
    rows: Vec<[u16; ROWS]>,
}

impl<'a> CodeRows<'a> {
    fn new(tile: &TileData, codes: &'a CodeTable) -> Self {
        let lengths: Vec<u32> = tile.lengths().collect();
        let row = |&length: &u32| std::array::from_fn(|tf| codes.code(tf as u32 + 1, length));
        CodeRows {
            codes,
            rows: lengths.iter().map(row).collect(),
            lengths,
        }
    }

    /// The code of a document for a frequency less 1.
    #[inline(always)]
    fn code(&self, id: u32, tf: u32) -> u16 {
        match self.rows[id as usize].get(tf as usize) {
            Some(&code) => code,
            None => self.codes.code(tf.saturating_add(1), self.lengths[id as usize]),
        }
    }
}

/// The lists of the tile by the place of their term in the set.
fn find_lists(tile: &TileData, terms: &[(u32, u32)]) -> Result<Vec<(usize, ListPlace)>, RetrievalError> {
    let numbers: Vec<u32> = terms.iter().map(|&(number, _)| number).collect();
    let mut lists = Vec::new();
    let found = tile
        .directory
        .find(&numbers, |at, list| lists.push((terms[at].1 as usize, list)));
    found.ok_or_else(|| tile.damaged())?;
    Ok(lists)
}

/// Fills in where the parts of the last list, which begins at `start`, begin and end.
fn cut(cuts: &mut [u32], postings: &[u32], start: usize) {
    let mut at = start;
    for (sub_tile, cut) in cuts.iter_mut().enumerate() {
        let first = (sub_tile * SUB_TILE) as u32;
        at += postings[at..].partition_point(|&posting| posting & 0xffff < first);
        *cut = at as u32;
    }
}
