//! The coding of a posting list, which is searched as it lies there.
//!
//! A tile's documents fall into sub-tiles of 4,096. A list of n postings in a tile of S sub-tiles:
//!
//! ```text
//! counts      u16 x S             postings in each sub-tile; only for n > 4 S
//! postings    u16 x n             document in its sub-tile | min(tf, 16) - 1 << 12, ascending by document
//! sub-tiles   4 bits x n          that of each posting, the lower half of a byte first; only for n <= 4 S
//! long tfs    varint, varint each distance from the long posting before (the first: its place), tf - 16
//! ```
//!
//! So a posting with its sub-tile's number is a place in a table of (tf, document), and that table holds its code. n is not
//! part of the code. A varint has seven bits a byte, the lowest first; the top bit says that another byte follows. A
//! posting takes 2 to 2.5 bytes, one alone 3.

/// Documents of a sub-tile, whose scores are computed together.
pub(super) const SUB_TILE: usize = 4096;

/// Sub-tiles of a tile, at most: their numbers have four bits.
pub(super) const MAX_SUB_TILES: usize = 16;

/// Frequencies that a posting cannot hold begin here.
pub(super) const LONG_TF: u32 = 16;

/// A posting of a frequency of [`LONG_TF`] or more is this or above.
pub(super) const LONG: u16 = (LONG_TF as u16 - 1) * SUB_TILE as u16;

/// Appends a number in seven bits a byte.
#[inline]
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The number at `at`, which moves behind it; `None` if the bytes end or it has more than 32 bits.
#[inline]
pub(super) fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let first = *bytes.get(*at)?;
    *at += 1;
    if first < 0x80 {
        return Some(u32::from(first));
    }
    let mut value = u32::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (shift < 28 || byte < 0x10).then_some(value);
        }
    }
    None
}

/// How many sub-tiles so many documents have.
pub(super) fn sub_tiles(documents: u32) -> usize {
    (documents as usize).div_ceil(SUB_TILE)
}

/// Bytes of a list's counts; none where it has the numbers of its postings' sub-tiles instead.
fn counts_bytes(postings: usize, sub_tiles: usize) -> usize {
    match postings > 4 * sub_tiles {
        true => size_of::<u16>() * sub_tiles,
        false => 0,
    }
}

/// Bytes of a list without its long tfs.
pub(super) fn list_bytes(postings: usize, sub_tiles: usize) -> usize {
    let places = match counts_bytes(postings, sub_tiles) {
        0 => postings.div_ceil(2),
        counts => counts,
    };
    places + size_of::<u16>() * postings
}

/// Appends a list of (local id, tf), ids ascending, tf 1 or more, of a tile with so many sub-tiles.
pub(super) fn encode(list: impl ExactSizeIterator<Item = (u16, u32)>, sub_tiles: usize, out: &mut Vec<u8>) {
    let (start, len) = (out.len(), list.len());
    out.resize(start + list_bytes(len, sub_tiles), 0);
    let (counts, rest) = out[start..].split_at_mut(counts_bytes(len, sub_tiles));
    let (postings, numbers) = rest.split_at_mut(size_of::<u16>() * len);
    let mut in_sub_tile = [0_u16; MAX_SUB_TILES];
    let mut long_tfs = Vec::new();
    for (place, ((id, tf), posting)) in list.zip(postings.as_chunks_mut().0).enumerate() {
        let sub_tile = id / SUB_TILE as u16;
        let held = tf.min(LONG_TF) as u16 - 1;
        *posting = (id % SUB_TILE as u16 + held * SUB_TILE as u16).to_le_bytes();
        match counts.is_empty() {
            false => in_sub_tile[usize::from(sub_tile)] += 1,
            true => numbers[place / 2] |= (sub_tile as u8) << (4 * (place % 2)),
        }
        if tf >= LONG_TF {
            long_tfs.push((place as u32, tf - LONG_TF));
        }
    }
    for (count, in_sub_tile) in counts.as_chunks_mut().0.iter_mut().zip(in_sub_tile) {
        *count = in_sub_tile.to_le_bytes();
    }
    let mut last = 0;
    for (place, tf) in long_tfs {
        write_varint(out, place - last);
        write_varint(out, tf);
        last = place;
    }
}

/// A list that can be read.
#[derive(Clone, Copy)]
pub(super) struct PostingList<'a> {
    /// Where each sub-tile's postings begin, and behind the last where they end.
    pub(super) cuts: [u32; MAX_SUB_TILES + 1],
    /// Where the postings begin in the list's bytes.
    pub(super) start: usize,
    /// The postings; see [`posting`].
    postings: &'a [[u8; 2]],
    long_tfs: &'a [u8],
}

/// The document in its sub-tile | min(tf, 16) - 1 << 12.
#[inline(always)]
pub(super) fn posting(bytes: [u8; 2]) -> u16 {
    u16::from_le_bytes(bytes)
}

impl<'a> PostingList<'a> {
    /// The list of so many postings, as far as it can be told without looking at them; `None` if `bytes` is none.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], postings: u32, sub_tiles: usize) -> Option<Self> {
        let len = postings as usize;
        let (head, long_tfs) = bytes.split_at_checked(list_bytes(len, sub_tiles))?;
        let start = counts_bytes(len, sub_tiles);
        let (counts, rest) = head.split_at(start);
        let (coded, numbers) = rest.split_at(size_of::<u16>() * len);
        let mut cuts = [0; MAX_SUB_TILES + 1];
        if !counts.is_empty() {
            let mut end = 0;
            for (cut, &count) in cuts[1..=sub_tiles].iter_mut().zip(counts.as_chunks().0) {
                end += u32::from(u16::from_le_bytes(count));
                *cut = end;
            }
        } else {
            // First how many of each sub-tile, then how many up to each.
            let mut last = 0;
            for place in 0..len {
                let sub_tile = usize::from(numbers[place / 2] >> (4 * (place % 2)) & 0xf);
                if sub_tile < last || sub_tile >= sub_tiles {
                    return None;
                }
                cuts[sub_tile + 1] += 1;
                last = sub_tile;
            }
            for sub_tile in 0..sub_tiles {
                cuts[sub_tile + 1] += cuts[sub_tile];
            }
        }
        (cuts[sub_tiles] == postings).then_some(PostingList {
            cuts,
            start,
            postings: coded.as_chunks().0,
            long_tfs,
        })
    }

    /// The postings of a sub-tile.
    #[inline]
    pub(super) fn of_sub_tile(&self, sub_tile: usize) -> &'a [[u8; 2]] {
        &self.postings[self.cuts[sub_tile] as usize..self.cuts[sub_tile + 1] as usize]
    }

    /// Whether a posting has a frequency that it cannot hold.
    #[inline]
    pub(super) fn has_long_tfs(&self) -> bool {
        !self.long_tfs.is_empty()
    }

    /// Calls `visit` with the place, the local id and the tf of every posting of [`LONG_TF`] or more. `None` if they are not as
    /// [`encode`] makes them, as far as it can be told without looking at the others.
    pub(super) fn for_each_long(&self, mut visit: impl FnMut(u32, u16, u32)) -> Option<()> {
        let (mut at, mut place, mut sub_tile) = (0, 0_u32, 0);
        while at < self.long_tfs.len() {
            place = place.checked_add(read_varint(self.long_tfs, &mut at)?)?;
            let tf = read_varint(self.long_tfs, &mut at)?.checked_add(LONG_TF)?;
            let posting = posting(*self.postings.get(place as usize)?);
            while self.cuts[sub_tile + 1] <= place {
                sub_tile += 1;
            }
            visit(place, (sub_tile * SUB_TILE) as u16 + posting % SUB_TILE as u16, tf);
        }
        Some(())
    }

    /// Calls `visit` with the local id and the tf of every posting. `None` if the list is not as [`encode`] makes them or
    /// an id reaches `documents`; some postings may have been visited then.
    pub(super) fn for_each(&self, documents: u32, mut visit: impl FnMut(u32, u32)) -> Option<()> {
        let (mut next, mut at, mut place, mut last) = (0, 0, 0, 0);
        for sub_tile in 0..sub_tiles(documents) {
            for posting in self.of_sub_tile(sub_tile).iter().map(|&bytes| posting(bytes)) {
                let id = (sub_tile * SUB_TILE + usize::from(posting) % SUB_TILE) as u32;
                if id < next || id >= documents {
                    return None;
                }
                next = id + 1;
                let tf = if posting < LONG {
                    u32::from(posting) / SUB_TILE as u32 + 1
                } else if read_varint(self.long_tfs, &mut at)? == place - last {
                    last = place;
                    read_varint(self.long_tfs, &mut at)?.checked_add(LONG_TF)?
                } else {
                    return None;
                };
                place += 1;
                visit(id, tf);
            }
        }
        (at == self.long_tfs.len()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(postings: &[(u16, u32)], documents: u32) -> Option<Vec<(u16, u32)>> {
        let mut bytes = Vec::new();
        encode(postings.iter().copied(), sub_tiles(documents), &mut bytes);
        decode(&bytes, postings.len() as u32, documents)
    }

    fn decode(bytes: &[u8], count: u32, documents: u32) -> Option<Vec<(u16, u32)>> {
        let mut found = Vec::new();
        let list = PostingList::new(bytes, count, sub_tiles(documents))?;
        list.for_each(documents, |id, tf| found.push((id as u16, tf)))?;
        let mut long = Vec::new();
        list.for_each_long(|_, id, tf| long.push((id, tf)))
            .expect("as many long tfs as for_each has found");
        assert!(long.iter().eq(found.iter().filter(|(_, tf)| *tf >= LONG_TF)));
        assert_eq!(list.has_long_tfs(), !long.is_empty());
        Some(found)
    }

    #[test]
    fn lists_of_every_length_and_density_come_back() {
        for documents in [65_536, 4096, 5000] {
            for gap in [1_u32, 2, 3, 17, 200] {
                for count in (0..300).chain([1000, documents as usize / gap as usize]) {
                    let postings: Vec<(u16, u32)> = (0..count as u32)
                        .map(|i| (i * gap + (i % 7 + gap / 2) % gap, 1 + (i * 7919 % 13) * (i % 3)))
                        .take_while(|&(id, _)| id < documents)
                        .map(|(id, tf)| (id as u16, tf))
                        .collect();
                    assert_eq!(
                        round_trip(&postings, documents).unwrap(),
                        postings,
                        "gap {gap}, {count}"
                    );
                }
            }
        }
    }

    #[test]
    fn extreme_ids_and_frequencies_come_back() {
        let mut postings = vec![(0, u32::MAX), (1, 1), (4095, 15), (4096, 16), (65_535, 300)];
        assert_eq!(round_trip(&postings, 65_536).unwrap(), postings);
        postings = (0..128)
            .map(|i| (if i < 127 { i } else { 65_535 }, u32::MAX - u32::from(i)))
            .collect();
        assert_eq!(round_trip(&postings, 65_536).unwrap(), postings);
        assert_eq!(round_trip(&postings, 65_535), None);
    }

    #[test]
    fn the_bytes_of_a_list_are_those_of_the_description() {
        let mut bytes = Vec::new();
        encode([(5, 1), (4097, 3), (8191, 20)].into_iter(), 2, &mut bytes);
        assert_eq!(bytes, [0x05, 0x00, 0x01, 0x20, 0xff, 0xff, 0x10, 0x01, 2, 4]);
        bytes.clear();
        let list = (0..9).map(|i| (if i < 7 { i } else { 4096 + i }, 2));
        encode(list, 2, &mut bytes);
        assert_eq!(bytes[..6], [7, 0, 2, 0, 0x00, 0x10]);
        assert_eq!(bytes[20..], [0x08, 0x10]);
    }

    #[test]
    fn bytes_that_are_no_list_are_refused_without_a_panic() {
        for count in [400_u32, 3] {
            let postings: Vec<(u16, u32)> = (0..count as u16).map(|i| (i * 13, 1 + u32::from(i % 20))).collect();
            let mut good = Vec::new();
            encode(postings.iter().copied(), 2, &mut good);
            for len in 0..good.len() {
                assert_eq!(decode(&good[..len], count, 5200), None, "{len}");
            }
            assert_eq!(decode(&good, count - 1, 5200), None);
            assert_eq!(decode(&good, count + 1, 5200), None);
            for at in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[at] ^= 1 << bit;
                    // Whatever comes out lies within the documents.
                    let found = decode(&bad, count, 5200).unwrap_or_default();
                    assert!(found.iter().all(|&(id, _)| id < 5200));
                }
            }
        }
    }

    #[test]
    fn varints_come_back_and_those_above_32_bits_are_refused() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 1 << 28, u32::MAX] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            let mut at = 0;
            assert_eq!((read_varint(&bytes, &mut at), at), (Some(value), bytes.len()));
        }
        assert_eq!(read_varint(&[0xff, 0xff, 0xff, 0xff, 0x10], &mut 0), None);
        assert_eq!(read_varint(&[0x80], &mut 0), None);
    }
}
