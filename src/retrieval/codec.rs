//! The coding of a posting list: local ids, ascending, and term frequencies.
//!
//! ```text
//! block of 128   id bits u8, tf bits u8, gaps - 1 in id bits each, tf - 1 in tf bits each        crate `bitpacking`
//! the rest       varint of (gap - 1) * 2 + (tf > 1), and behind it varint of tf - 2 where tf > 1
//! ```
//!
//! A gap is the distance from the id before; the first id's is from -1. Blocks follow each other; fewer than 128 postings
//! are left over for the rest. The number of postings is not part of the code. A varint has seven bits a byte, the
//! lowest first; the top bit says that another byte follows. On prose a posting takes 1.6 bytes.

use bitpacking::{BitPacker, BitPacker4x};

/// Postings that are packed together.
pub(super) const BLOCK: usize = BitPacker4x::BLOCK_LEN;

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

/// Writes posting lists.
pub(super) struct ListEncoder {
    packer: BitPacker4x,
    ids: [u32; BLOCK],
    tfs: [u32; BLOCK],
}

impl ListEncoder {
    pub(super) fn new() -> Self {
        ListEncoder {
            packer: BitPacker4x::new(),
            ids: [0; BLOCK],
            tfs: [0; BLOCK],
        }
    }

    /// Appends a list of (local id, tf), ids ascending, tf 1 or more.
    pub(super) fn encode(&mut self, mut postings: impl ExactSizeIterator<Item = (u16, u32)>, out: &mut Vec<u8>) {
        let mut last: Option<u32> = None;
        while postings.len() >= BLOCK {
            for (place, (id, tf)) in postings.by_ref().take(BLOCK).enumerate() {
                self.ids[place] = u32::from(id);
                self.tfs[place] = tf - 1;
            }
            let id_bits = self.packer.num_bits_strictly_sorted(last, &self.ids);
            let tf_bits = self.packer.num_bits(&self.tfs);
            out.extend([id_bits, tf_bits]);
            let start = out.len();
            let id_bytes = BitPacker4x::compressed_block_size(id_bits);
            out.resize(start + id_bytes + BitPacker4x::compressed_block_size(tf_bits), 0);
            let (ids, tfs) = out[start..].split_at_mut(id_bytes);
            self.packer.compress_strictly_sorted(last, &self.ids, ids, id_bits);
            self.packer.compress(&self.tfs, tfs, tf_bits);
            last = Some(self.ids[BLOCK - 1]);
        }
        for (id, tf) in postings {
            let id = u32::from(id);
            let gap = last.map_or(id, |last| id - last - 1);
            write_varint(out, gap << 1 | u32::from(tf > 1));
            if tf > 1 {
                write_varint(out, tf - 2);
            }
            last = Some(id);
        }
    }
}

/// Reads posting lists.
pub(super) struct ListDecoder {
    packer: BitPacker4x,
    ids: [u32; BLOCK],
    tfs: [u32; BLOCK],
}

impl ListDecoder {
    pub(super) fn new() -> Self {
        ListDecoder {
            packer: BitPacker4x::new(),
            ids: [0; BLOCK],
            tfs: [0; BLOCK],
        }
    }

    /// Hands the `count` postings coded in `bytes` to `visit` in slices of ids and of tf - 1. `None` if `bytes` is no
    /// such list, or an id reaches `documents`; some postings may have been visited then.
    #[inline]
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        count: u32,
        documents: u32,
        mut visit: impl FnMut(&[u32], &[u32]),
    ) -> Option<()> {
        let (mut at, mut last) = (0, None);
        let mut left = count as usize;
        while left >= BLOCK {
            let (id_bits, tf_bits) = (*bytes.get(at)?, *bytes.get(at + 1)?);
            if id_bits > 16 || tf_bits > 32 {
                return None;
            }
            at += 2;
            let ids = bytes.get(at..at + BitPacker4x::compressed_block_size(id_bits))?;
            at += ids.len();
            let tfs = bytes.get(at..at + BitPacker4x::compressed_block_size(tf_bits))?;
            at += tfs.len();
            self.packer
                .decompress_strictly_sorted(last, ids, &mut self.ids, id_bits);
            self.packer.decompress(tfs, &mut self.tfs, tf_bits);
            // Gaps of at most 16 bits add up without overflow, so the last id is the largest.
            if self.ids[BLOCK - 1] >= documents {
                return None;
            }
            last = Some(self.ids[BLOCK - 1]);
            visit(&self.ids, &self.tfs);
            left -= BLOCK;
        }
        for place in 0..left {
            let code = read_varint(bytes, &mut at)?;
            let id = last.map_or(0, |last| last + 1).checked_add(code >> 1)?;
            self.tfs[place] = match code & 1 {
                0 => 0,
                _ => read_varint(bytes, &mut at)?.checked_add(1)?,
            };
            if id >= documents {
                return None;
            }
            self.ids[place] = id;
            last = Some(id);
        }
        if left > 0 {
            visit(&self.ids[..left], &self.tfs[..left]);
        }
        (at == bytes.len()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(postings: &[(u16, u32)], documents: u32) -> Option<Vec<(u16, u32)>> {
        let mut bytes = Vec::new();
        ListEncoder::new().encode(postings.iter().copied(), &mut bytes);
        decode(&bytes, postings.len() as u32, documents)
    }

    fn decode(bytes: &[u8], count: u32, documents: u32) -> Option<Vec<(u16, u32)>> {
        let mut found = Vec::new();
        ListDecoder::new().decode(bytes, count, documents, |ids, tfs| {
            found.extend(ids.iter().zip(tfs).map(|(&id, &tf)| (id as u16, tf + 1)));
        })?;
        Some(found)
    }

    #[test]
    fn lists_of_every_length_and_density_come_back() {
        for gap in [1_u32, 2, 3, 17, 200] {
            for count in (0..300).chain([1000, 65_535 / gap as usize]) {
                let postings: Vec<(u16, u32)> = (0..count as u32)
                    .map(|i| (i * gap + (i % 7 + gap / 2) % gap, 1 + (i * 7919 % 13) * (i % 3)))
                    .take_while(|&(id, _)| id < 65_536)
                    .map(|(id, tf)| (id as u16, tf))
                    .collect();
                assert_eq!(round_trip(&postings, 65_536).unwrap(), postings, "gap {gap}, {count}");
            }
        }
    }

    #[test]
    fn extreme_ids_and_frequencies_come_back() {
        let mut postings = vec![(0, u32::MAX), (1, 1), (65_535, 300)];
        assert_eq!(round_trip(&postings, 65_536).unwrap(), postings);
        postings = (0..128)
            .map(|i| (if i < 127 { i } else { 65_535 }, u32::MAX - u32::from(i)))
            .collect();
        assert_eq!(round_trip(&postings, 65_536).unwrap(), postings);
        assert_eq!(round_trip(&postings, 65_535), None);
    }

    #[test]
    fn bytes_that_are_no_list_are_refused_without_a_panic() {
        let postings: Vec<(u16, u32)> = (0..400).map(|i| (i * 3, 1 + u32::from(i % 5))).collect();
        let mut good = Vec::new();
        ListEncoder::new().encode(postings.iter().copied(), &mut good);
        for len in 0..good.len() {
            assert_eq!(decode(&good[..len], 400, 1200), None, "{len}");
        }
        assert_eq!(decode(&good, 399, 1200), None);
        assert_eq!(decode(&good, 401, 1200), None);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                // Whatever comes out lies within the documents.
                let found = decode(&bad, 400, 1200).unwrap_or_default();
                assert!(found.iter().all(|&(id, _)| id < 1200));
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
