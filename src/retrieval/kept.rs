//! The codes of all postings of an index, kept for one ranking function.
//!
//! A search codes the postings that its queries use, once for all of them. With few queries that is a third of the work or
//! more; where one such search follows another, an index that keeps its codes spares it. With many queries it is less work to
//! code the postings again than to fetch twice as many bytes from memory.
//!
//! ```text
//! lists of a tile    bytes; a posting has two of them
//! codes of a tile    u32 code << 16 | document in its sub-tile; that of the posting at byte b is number b / 2
//! ```
//!
//! So the lists' own places lead to the codes as well. Lists may begin at odd bytes: they do not overlap, so their codes do
//! not either. What else lies between their postings (counts, long frequencies) leaves gaps.

use std::ops::Range;

use memmap2::MmapMut;
use rayon::prelude::*;

use super::RetrievalError;
use super::bm25::{Bm25, CodeTable};
use super::codec::{SUB_TILE, sub_tiles};
use super::coder::Coder;
use super::index::{Index, TileRef};
use super::segment::TileData;

/// The codes of all postings.
#[derive(Debug)]
pub(super) struct KeptCodes {
    bm25: Bm25,
    /// Of one tile after another; in large pages where the system has them, since lists are looked at everywhere.
    codes: MmapMut,
    /// Where the codes of each tile are.
    tiles: Vec<Range<usize>>,
}

impl KeptCodes {
    pub(super) fn new(index: &Index, bm25: &Bm25) -> Result<KeptCodes, RetrievalError> {
        let table = index.code_table(bm25);
        let mut end = 0;
        let tiles = index.tiles().iter().map(|&tile| {
            let start = end;
            end += index.codes_of(tile);
            start..end
        });
        let tiles: Vec<Range<usize>> = tiles.collect();
        let bytes = end * size_of::<u32>();
        // A map of no bytes is refused.
        let codes = MmapMut::map_anon(bytes.max(1));
        let mut codes = codes.map_err(|source| RetrievalError::NoMemory {
            bytes: bytes as u64,
            source,
        })?;
        #[cfg(target_os = "linux")]
        let _ = codes.advise(memmap2::Advice::HugePage); // it only gets slower without
        let mut rest: &mut [u32] = bytemuck::cast_slice_mut(&mut codes[..bytes]);
        let mut parts = Vec::new();
        for range in &tiles {
            let (part, others) = rest.split_at_mut(range.len());
            parts.push(part);
            rest = others;
        }
        let parts = index.tiles().par_iter().zip(parts);
        parts.try_for_each(|(&tile, codes)| code_tile(&index.tile(tile)?, &table, codes))?;
        Ok(KeptCodes {
            bm25: *bm25,
            codes,
            tiles,
        })
    }

    /// What they were made with.
    pub(super) fn bm25(&self) -> &Bm25 {
        &self.bm25
    }

    /// The codes of a tile.
    pub(super) fn of_tile(&self, tile: TileRef) -> &[u32] {
        let Range { start, end } = self.tiles[tile.ordinal];
        bytemuck::cast_slice(&self.codes[start * size_of::<u32>()..end * size_of::<u32>()])
    }
}

/// Where the codes are of the postings from byte `start` to byte `end` of a tile's lists.
#[inline(always)]
pub(super) fn kept_range(start: u32, end: u32) -> Range<usize> {
    let first = (start / 2) as usize;
    first..first + ((end - start) / 2) as usize
}

/// Codes all lists of a tile into `codes`, which are half as many as the lists have bytes.
fn code_tile(tile: &TileData, table: &CodeTable, codes: &mut [u32]) -> Result<(), RetrievalError> {
    // Of each sub-tile, about.
    let postings = tile.lists.len() / size_of::<u16>() / sub_tiles(tile.documents).max(1);
    let coders: Vec<Coder> = tile
        .lengths
        .chunks(SUB_TILE)
        .map(|lengths| {
            let mut coder = Coder::default();
            coder.fill(lengths, table, postings);
            coder
        })
        .collect();
    let (mut good, mut end) = (true, 0);
    let complete = tile.directory.for_each(|place| {
        // Lists that overlap would have each other's codes.
        good &= place.start == end;
        end = place.start.saturating_add(place.bytes);
        let Some(list) = tile.list(&place) else {
            good = false;
            return;
        };
        let start = (place.start as usize + list.start) / 2;
        let codes = &mut codes[start..start + place.postings as usize];
        for (number, coder) in coders.iter().enumerate() {
            let cuts = list.cuts[number] as usize..list.cuts[number + 1] as usize;
            coder.code_all(list.of_sub_tile(number), &mut codes[cuts]);
        }
        let longs = list.for_each_long(|place, id, tf| {
            let document = u32::from(id) % SUB_TILE as u32;
            codes[place as usize] = tile.code(table, id, tf) << 16 | document;
        });
        good &= longs.is_some();
    });
    match complete.is_some() && good && end as usize == tile.lists.len() {
        true => Ok(()),
        false => Err(tile.damaged()),
    }
}
