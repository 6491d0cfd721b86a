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

use std::ops::Range;

use super::RetrievalError;
use super::bm25::CodeTable;
use super::codec::ListDecoder;
use super::scoring::SUB_TILE;
use super::segment::TileData;
use super::tile::ListPlace;

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

/// Where what a term has in a sub-tile lies.
pub(super) enum Place {
    /// Among all postings.
    List(Range<usize>),
    /// Where the codes of the sub-tile begin among those of all columns.
    Column(usize),
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

/// Frequencies whose codes are looked up once per document; nearly all are among them.
const ROWS: usize = 4;

impl TileImage {
    /// The image of `tile`, whose first document has this ordinal. `terms` holds (number in the segment, place in the
    /// set) of those of the set's `set_len` terms that the segment has, ascending.
    pub(super) fn new(
        tile: &TileData,
        first_document: u32,
        terms: &[(u32, u32)],
        set_len: usize,
        codes: &CodeTable,
    ) -> Result<Self, RetrievalError> {
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
        let stride = sub_tiles * SUB_TILE;
        let mut image = TileImage {
            first_document,
            sub_tiles,
            cuts: vec![0; set_len * (sub_tiles + 1)],
            postings: Vec::with_capacity(listed),
            columns: vec![0; column_count * stride],
        };

        let lengths: Vec<u32> = tile.lengths().collect();
        let rows: Vec<u16> = (1..=ROWS as u32)
            .flat_map(|tf| lengths.iter().map(move |&length| codes.code(tf, length)))
            .collect();
        let code = |id: u32, tf: u32| match tf as usize {
            tf if tf < ROWS => rows[tf * documents + id as usize],
            _ => codes.code(tf.saturating_add(1), lengths[id as usize]),
        };
        let mut decoder = ListDecoder::new();
        let mut column = 0;
        for (place, list) in lists {
            let bytes = tile.lists.get(list.start as usize..(list.start + list.bytes) as usize);
            let bytes = bytes.ok_or_else(|| tile.damaged())?;
            let cuts = place * (sub_tiles + 1)..(place + 1) * (sub_tiles + 1);
            let decoded = if is_column(&list) {
                image.cuts[cuts].fill(COLUMN | column as u32);
                let codes = &mut image.columns[column * stride..][..stride];
                column += 1;
                decoder.decode(bytes, list.postings, tile.documents, |ids, tfs| {
                    for (&id, &tf) in ids.iter().zip(tfs) {
                        codes[id as usize] = code(id, tf);
                    }
                })
            } else {
                let start = image.postings.len();
                let postings = &mut image.postings;
                let decoded = decoder.decode(bytes, list.postings, tile.documents, |ids, tfs| {
                    let coded = ids.iter().zip(tfs);
                    postings.extend(coded.map(|(&id, &tf)| u32::from(code(id, tf)) << 16 | id));
                });
                cut(&mut image.cuts[cuts], &image.postings, start);
                decoded
            };
            decoded.ok_or_else(|| tile.damaged())?;
        }
        Ok(image)
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

    /// Where a term (its place in the set) lies in a sub-tile.
    #[inline(always)]
    pub(super) fn place(&self, term: u32, sub_tile: usize) -> Place {
        let cut = term as usize * (self.sub_tiles + 1) + sub_tile;
        let (start, end) = (self.cuts[cut], self.cuts[cut + 1]);
        if start & COLUMN == 0 {
            return Place::List(start as usize..end as usize);
        }
        Place::Column(((start ^ COLUMN) as usize * self.sub_tiles + sub_tile) * SUB_TILE)
    }

    /// What a term has in a sub-tile.
    #[inline(always)]
    pub(super) fn part(&self, term: u32, sub_tile: usize) -> Part<'_> {
        match self.place(term, sub_tile) {
            Place::List(list) => Part::List(&self.postings[list]),
            Place::Column(start) => Part::Column(start),
        }
    }

    /// The postings of all lists.
    pub(super) fn postings(&self) -> &[u32] {
        &self.postings
    }

    /// The codes of all columns.
    pub(super) fn columns(&self) -> &[u16] {
        &self.columns
    }

    /// `N` codes of a column; `start` is what [`Part::Column`] gives plus a multiple of N below [`SUB_TILE`].
    #[inline(always)]
    pub(super) fn column_codes<const N: usize>(&self, start: usize) -> &[u16; N] {
        self.columns[start..]
            .first_chunk()
            .expect("every column has SUB_TILE codes for each sub-tile")
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
