//! Tiles: a tile is a complete small index of consecutive documents, at most 65,536.
//!
//! ```text
//! body        documents x u32 lengths, then the posting lists in the order of the directory      see `codec`
//! directory   skips: (first term u32, entry u32, list u32) for every 16 entries
//!             entries: term varint (distance from the one before, 0 for the first of 16), 2 x postings + 1 varint and the
//!             bytes of the long tfs varint, or 2 x postings varint where there are none
//! ```
//!
//! Terms are numbers of the segment's vocabulary and ascend. A tile is complete as soon as its documents are read; only
//! the numbers of its terms are not known before the segment ends, and since the lists lie in the order of the terms'
//! bytes, nothing but the directory has to wait for them.

use super::block::Block;
use super::bytes::read_u32;
use super::codec::{MAX_SUB_TILES, SUB_TILE, encode, list_bytes, read_varint, sub_tiles, write_varint};
use super::term_cache::{TermList, TermNumbers};
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Local ids have 16 bits.
pub(super) const MAX_DOCUMENTS: u32 = (MAX_SUB_TILES * SUB_TILE) as u32;

/// Entries for which a directory has one skip.
const SKIP: u32 = 16;

/// Bytes of a skip.
const SKIP_BYTES: usize = 3 * size_of::<u32>();

/// Documents of a block that belong to one tile.
pub(super) struct BlockPart {
    pub(super) block: Arc<Block>,
    pub(super) documents: Range<usize>,
}

/// A tile that no segment has yet.
pub(super) struct TileDraft {
    pub(super) documents: u32,
    pub(super) postings: u64,
    pub(super) total_length: u64,
    /// The body.
    pub(super) lengths: Vec<u8>,
    pub(super) lists: Vec<u8>,
    /// Distinct terms, sorted; the lists come in this order.
    pub(super) terms: TermList,
    /// (postings, bytes of the list, occurrences) of each term.
    pub(super) entries: Vec<(u32, u32, u64)>,
}

/// A posting during the counting sort: local id, and the tf if it is below [`LONG_TF`].
#[derive(Clone, Copy, Default)]
struct Sorted {
    id: u16,
    tf: u16,
}

/// Stands for a frequency that is kept beside.
const LONG_TF: u16 = u16::MAX;

impl TileDraft {
    /// The parts of blocks, in order, as a tile.
    pub(super) fn assemble(parts: &[BlockPart]) -> TileDraft {
        let mut all = TermNumbers::default();
        // By the tile's term numbers: postings and occurrences.
        let mut counts: Vec<(u32, u64)> = Vec::new();
        let caches = 2 * rayon::current_num_threads();
        let mut known: HashMap<u64, Vec<u32>> = HashMap::new();
        let numbers: Vec<Vec<u32>> = parts
            .iter()
            .map(|part| {
                // Caches that have forgotten get another identity: what was known of the old one is of no use.
                if known.len() >= caches && !known.contains_key(&part.block.cache) {
                    known.clear();
                }
                let known: &mut Vec<u32> = known.entry(part.block.cache).or_default();
                number_terms(part, known, &mut all, &mut counts)
            })
            .collect();
        drop(known);
        let order = sorted_order(&all.terms);

        // Counting sort of the postings by term; documents come in order.
        let mut starts = vec![0_u32; order.len()];
        let mut total = 0;
        for &number in &order {
            starts[number as usize] = total;
            total += counts[number as usize].0;
        }
        let mut sorted = vec![Sorted::default(); total as usize];
        let mut long_tfs: Vec<(u32, u32)> = Vec::new();
        let (mut lengths, mut total_length) = (Vec::new(), 0);
        let mut id = 0_u32;
        for (part, numbers) in parts.iter().zip(&numbers) {
            for &length in &part.block.lengths[part.documents.clone()] {
                lengths.extend(length.to_le_bytes());
                total_length += u64::from(length);
            }
            for document in documents(part) {
                for &(term, tf) in document {
                    let place = &mut starts[numbers[term as usize] as usize];
                    if tf >= u32::from(LONG_TF) {
                        long_tfs.push((*place, tf));
                    }
                    sorted[*place as usize] = Sorted {
                        id: id as u16,
                        tf: tf.min(u32::from(LONG_TF)) as u16,
                    };
                    *place += 1;
                }
                id += 1;
            }
        }
        long_tfs.sort_unstable();

        let sub_tiles = sub_tiles(id);
        let bytes = counts
            .iter()
            .map(|&(count, _)| list_bytes(count as usize, sub_tiles))
            .sum();
        let mut draft = TileDraft {
            documents: id,
            postings: u64::from(total),
            total_length,
            lengths,
            lists: Vec::with_capacity(bytes),
            terms: TermList::default(),
            entries: Vec::with_capacity(order.len()),
        };
        let mut end = 0_u32;
        for &number in &order {
            let (count, occurrences) = counts[number as usize];
            let first = end;
            end += count;
            let bytes_before = draft.lists.len();
            let list = sorted[first as usize..end as usize].iter().enumerate();
            let list = list.map(|(place, posting)| match posting.tf {
                LONG_TF => (posting.id, long_tf(&long_tfs, first + place as u32)),
                tf => (posting.id, u32::from(tf)),
            });
            encode(list, sub_tiles, &mut draft.lists);
            draft
                .entries
                .push((count, (draft.lists.len() - bytes_before) as u32, occurrences));
            draft.terms.push(all.terms.get(number as usize));
        }
        draft
    }
}

fn documents(part: &BlockPart) -> impl Iterator<Item = &[(u32, u32)]> {
    let all = part.block.by_document();
    all.skip(part.documents.start).take(part.documents.len())
}

/// The tile's number of each of the block's terms that the part has; adds its postings and occurrences to `counts`.
/// `known` has the tile's numbers by those of the block's cache, or [`UNKNOWN`], so that a term is looked up by its
/// text once for each cache.
fn number_terms(
    part: &BlockPart,
    known: &mut Vec<u32>,
    all: &mut TermNumbers,
    counts: &mut Vec<(u32, u64)>,
) -> Vec<u32> {
    let mut local = vec![(0_u32, 0_u64); part.block.terms.len()];
    for document in documents(part) {
        for &(term, tf) in document {
            let (postings, occurrences) = &mut local[term as usize];
            *postings += 1;
            *occurrences += u64::from(tf);
        }
    }
    let most = part.block.numbers.iter().max().map_or(0, |&most| most as usize + 1);
    if known.len() < most {
        known.resize(most, UNKNOWN);
    }
    let terms = part.block.terms.iter().zip(&part.block.numbers).zip(local);
    let number = |((term, &cached), (postings, occurrences)): ((&str, &u32), (u32, u64))| {
        if postings == 0 {
            return UNKNOWN;
        }
        let number = &mut known[cached as usize];
        if *number == UNKNOWN {
            *number = all.number(term);
        }
        if *number as usize == counts.len() {
            counts.push((0, 0));
        }
        let count = &mut counts[*number as usize];
        *count = (count.0 + postings, count.1 + occurrences);
        *number
    };
    terms.map(number).collect()
}

/// No number of a term.
const UNKNOWN: u32 = u32::MAX;

#[cold]
fn long_tf(long_tfs: &[(u32, u32)], place: u32) -> u32 {
    let found = long_tfs.binary_search_by_key(&place, |&(place, _)| place);
    found.map_or(u32::from(LONG_TF), |found| long_tfs[found].1)
}

/// The numbers of the terms in the order of the terms' bytes.
pub(super) fn sorted_order(terms: &TermList) -> Vec<u32> {
    let mut order = in_first_order(terms);
    order.sort_unstable_by(|&a, &b| compare(terms, a, b));
    order.into_iter().map(|(_, number)| number).collect()
}

/// [`sorted_order`] by all threads.
pub(super) fn sorted_order_in_parallel(terms: &TermList) -> Vec<u32> {
    let mut order = in_first_order(terms);
    order.par_sort_unstable_by(|&a, &b| compare(terms, a, b));
    order.into_iter().map(|(_, number)| number).collect()
}

/// (first eight bytes, number) of the terms by number. As a number the bytes sort as they do by themselves, and spare most
/// comparisons of strings.
fn in_first_order(terms: &TermList) -> Vec<(u64, u32)> {
    let first_bytes = |term: &str| {
        let mut bytes = [0; 8];
        let len = term.len().min(8);
        bytes[..len].copy_from_slice(&term.as_bytes()[..len]);
        u64::from_be_bytes(bytes)
    };
    terms.iter().map(first_bytes).zip(0..).collect()
}

fn compare(terms: &TermList, (bytes, number): (u64, u32), (other_bytes, other): (u64, u32)) -> Ordering {
    let by_text = || terms.get(number as usize).cmp(terms.get(other as usize));
    bytes.cmp(&other_bytes).then_with(by_text)
}

/// Codes a directory, entry by entry.
#[derive(Default)]
pub(super) struct DirectoryWriter {
    sub_tiles: usize,
    skips: Vec<u8>,
    entries: Vec<u8>,
    count: u32,
    last: u32,
    lists: u32,
}

impl DirectoryWriter {
    /// Of a tile with so many sub-tiles.
    pub(super) fn new(sub_tiles: usize) -> Self {
        DirectoryWriter {
            sub_tiles,
            ..Self::default()
        }
    }

    /// Appends a term above the last one, whose list has `postings` postings in `bytes` bytes.
    pub(super) fn push(&mut self, term: u32, postings: u32, bytes: u32) {
        let long = bytes - list_bytes(postings as usize, self.sub_tiles) as u32;
        if self.count.is_multiple_of(SKIP) {
            for value in [term, self.entries.len() as u32, self.lists] {
                self.skips.extend(value.to_le_bytes());
            }
            self.last = term;
        }
        write_varint(&mut self.entries, term - self.last);
        write_varint(&mut self.entries, postings << 1 | u32::from(long > 0));
        if long > 0 {
            write_varint(&mut self.entries, long);
        }
        (self.last, self.lists, self.count) = (term, self.lists + bytes, self.count + 1);
    }

    /// The two parts of the code.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.skips, &self.entries]
    }
}

/// Where the postings of a term lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListPlace {
    pub(super) term: u32,
    pub(super) postings: u32,
    /// The list's bytes, counted from the first list.
    pub(super) start: u32,
    pub(super) bytes: u32,
}

/// Reads a directory.
#[derive(Clone, Copy)]
pub(super) struct Directory<'a> {
    skips: &'a [u8],
    entries: &'a [u8],
    count: u32,
    sub_tiles: usize,
}

impl<'a> Directory<'a> {
    /// The `count` entries coded in `bytes`, of a tile with so many sub-tiles; `None` if there are fewer bytes than skips.
    pub(super) fn new(bytes: &'a [u8], count: u32, sub_tiles: usize) -> Option<Self> {
        let (skips, entries) = bytes.split_at_checked(count.div_ceil(SKIP) as usize * SKIP_BYTES)?;
        Some(Directory {
            skips,
            entries,
            count,
            sub_tiles,
        })
    }

    /// Calls `visit` with the place among `terms` and the list of every one of `terms` that the tile has. `terms` is
    /// ascending. `None` if the bytes are no directory.
    pub(super) fn find(self, terms: &[u32], mut visit: impl FnMut(usize, ListPlace)) -> Option<()> {
        let blocks = self.count.div_ceil(SKIP);
        let (mut place, mut block) = (0, 0);
        while place < terms.len() && block < blocks {
            // The last block that begins at or before the term, found from here by doubling steps.
            let mut step = 1;
            while block + step < blocks && self.first_term(block + step)? <= terms[place] {
                block += step;
                step *= 2;
            }
            while step > 0 {
                if block + step < blocks && self.first_term(block + step)? <= terms[place] {
                    block += step;
                } else {
                    step /= 2;
                }
            }
            let end = if block + 1 < blocks {
                self.first_term(block + 1)?
            } else {
                u32::MAX
            };
            self.block(block, |entry| {
                while place < terms.len() && terms[place] < entry.term {
                    place += 1;
                }
                if place < terms.len() && terms[place] == entry.term {
                    visit(place, entry);
                    place += 1;
                }
                match terms.get(place) {
                    Some(&next) if next < end => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            })?;
            while place < terms.len() && terms[place] < end {
                place += 1;
            }
            block += 1;
        }
        Some(())
    }

    /// Calls `visit` with every entry. `None` if the bytes are no directory.
    pub(super) fn for_each(self, mut visit: impl FnMut(ListPlace)) -> Option<()> {
        let mut end = 0;
        for block in 0..self.count.div_ceil(SKIP) {
            (self.skip(block)?.1 as usize == end).then_some(())?;
            end = self.block(block, |list| {
                visit(list);
                ControlFlow::Continue(())
            })?;
        }
        (end == self.entries.len()).then_some(())
    }

    fn first_term(self, block: u32) -> Option<u32> {
        read_u32(self.skips, block as usize * SKIP_BYTES)
    }

    /// First term, offset of the entries, offset of the lists.
    fn skip(self, block: u32) -> Option<(u32, u32, u32)> {
        let at = block as usize * SKIP_BYTES;
        let value = |number| read_u32(self.skips, at + number * size_of::<u32>());
        Some((value(0)?, value(1)?, value(2)?))
    }

    /// Calls `visit` with the block's entries until it breaks off. Where those end that it has been called with.
    fn block(self, block: u32, mut visit: impl FnMut(ListPlace) -> ControlFlow<()>) -> Option<usize> {
        let (mut term, at, mut start) = self.skip(block)?;
        let mut at = at as usize;
        for _ in 0..SKIP.min(self.count - block * SKIP) {
            // Most numbers have one byte.
            let (distance, coded) = match self.entries.get(at..at + 2) {
                Some(&[distance, coded]) if distance < 0x80 && coded < 0x80 => {
                    at += 2;
                    (distance.into(), coded.into())
                }
                _ => (read_varint(self.entries, &mut at)?, read_varint(self.entries, &mut at)?),
            };
            term = term.checked_add(distance)?;
            let postings = coded >> 1;
            let long = match coded & 1 {
                0 => 0,
                _ => read_varint(self.entries, &mut at)?,
            };
            let bytes = u32::try_from(list_bytes(postings as usize, self.sub_tiles)).ok()?;
            let bytes = bytes.checked_add(long)?;
            let list = ListPlace {
                term,
                postings,
                start,
                bytes,
            };
            if visit(list).is_break() {
                break;
            }
            start = start.checked_add(bytes)?;
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_finds_any_subset_of_its_terms() {
        for (count, gap) in [(0_u32, 1), (1, 5), (SKIP, 1), (SKIP + 1, 3), (1000, 7)] {
            let mut writer = DirectoryWriter::new(2);
            let mut expected = Vec::new();
            let mut start = 0;
            for i in 0..count {
                let place = ListPlace {
                    term: i * gap + i % gap,
                    postings: i + 1,
                    start,
                    bytes: list_bytes(i as usize + 1, 2) as u32 + i % 3 * 100,
                };
                writer.push(place.term, place.postings, place.bytes);
                start += place.bytes;
                expected.push(place);
            }
            let bytes = writer.parts().concat();
            let directory = Directory::new(&bytes, count, 2).unwrap();
            let mut all = Vec::new();
            directory.for_each(|entry| all.push(entry)).unwrap();
            assert_eq!(all, expected);
            for stride in [1, 2, 13, 200, 5000] {
                let terms: Vec<u32> = (0..count * gap + 50).step_by(stride).collect();
                let mut found = Vec::new();
                directory
                    .find(&terms, |place, entry| {
                        assert_eq!(terms[place], entry.term);
                        found.push(entry);
                    })
                    .unwrap();
                let sought = expected.iter().filter(|entry| terms.binary_search(&entry.term).is_ok());
                assert_eq!(
                    found,
                    sought.copied().collect::<Vec<_>>(),
                    "{count} entries, stride {stride}"
                );
            }
        }
    }
}
