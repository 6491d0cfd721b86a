//! The vocabulary of a segment: its distinct terms, sorted by their bytes, with their frequencies.
//!
//! ```text
//! blocks of 16 terms   u32 offset of each block in what follows
//! term                 shared u8-varint, rest varint, rest bytes, df varint, cf varint low, cf varint high
//! ```
//!
//! A term's number is its place. `shared` counts the bytes that it has in common with the term before it, 0 for the first
//! of a block; so a block is read without those before it, and a term is found by bisection over the blocks. On prose a
//! term takes about 8 bytes.

use super::bytes::read_u32;
use super::codec::{read_varint, write_varint};

/// Terms of a block.
const BLOCK: u32 = 16;

/// What is known of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TermEntry {
    /// Its place among the terms.
    pub(super) number: u32,
    /// Document frequency: in how many documents it occurs.
    pub(super) df: u32,
    /// Collection frequency: how often it occurs in all documents together.
    pub(super) cf: u64,
}

/// Codes a vocabulary, term by term.
#[derive(Default)]
pub(super) struct VocabularyWriter {
    offsets: Vec<u8>,
    entries: Vec<u8>,
    terms: u32,
    last: String,
}

impl VocabularyWriter {
    /// Appends a term that sorts behind the last one.
    pub(super) fn push(&mut self, term: &str, df: u32, cf: u64) {
        let mut shared = 0;
        if self.terms.is_multiple_of(BLOCK) {
            self.offsets.extend((self.entries.len() as u32).to_le_bytes());
        } else {
            let both = self.last.bytes().zip(term.bytes());
            shared = both.take_while(|(a, b)| a == b).count();
        }
        let rest = &term.as_bytes()[shared..];
        write_varint(&mut self.entries, shared as u32);
        write_varint(&mut self.entries, rest.len() as u32);
        self.entries.extend(rest);
        write_varint(&mut self.entries, df);
        write_varint(&mut self.entries, cf as u32);
        write_varint(&mut self.entries, (cf >> 32) as u32);
        self.terms += 1;
        term.clone_into(&mut self.last);
    }

    /// The two parts of the code.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.offsets, &self.entries]
    }

    /// How many terms there are.
    pub(super) fn terms(&self) -> u32 {
        self.terms
    }
}

/// Reads a vocabulary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vocabulary<'a> {
    offsets: &'a [u8],
    entries: &'a [u8],
    terms: u32,
}

impl<'a> Vocabulary<'a> {
    /// The `terms` terms coded in `bytes`; `None` if there are fewer bytes than offsets.
    pub(super) fn new(bytes: &'a [u8], terms: u32) -> Option<Self> {
        let (offsets, entries) = bytes.split_at_checked(terms.div_ceil(BLOCK) as usize * size_of::<u32>())?;
        Some(Vocabulary {
            offsets,
            entries,
            terms,
        })
    }

    /// The terms from the first one on.
    pub(super) fn cursor(self) -> Cursor<'a> {
        Cursor {
            vocabulary: self,
            at: self.offset(0),
            next: 0,
            term: Vec::new(),
        }
    }

    fn offset(self, block: u32) -> usize {
        read_u32(self.offsets, block as usize * size_of::<u32>()).map_or(self.entries.len(), |offset| offset as usize)
    }

    /// The first term of a block; empty where the code is broken, which [`Cursor`] reports.
    fn head(self, block: u32) -> &'a [u8] {
        let mut at = self.offset(block);
        let mut number = || read_varint(self.entries, &mut at);
        match (number(), number()) {
            (Some(0), Some(len)) => self.entries.get(at..at + len as usize).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The entry of a term, if it is there.
    pub(super) fn find(self, term: &str) -> Option<TermEntry> {
        self.find_in(self.block_of(term.as_bytes(), 0), term.as_bytes())
    }

    /// The entry of each of ascending terms, if it is there.
    pub(super) fn find_all<'t>(self, terms: impl Iterator<Item = &'t str>) -> impl Iterator<Item = Option<TermEntry>> {
        let mut block = 0;
        terms.map(move |term| {
            block = self.block_of(term.as_bytes(), block);
            self.find_in(block, term.as_bytes())
        })
    }

    /// The last block whose first term is not behind the one sought, which is in the block `low` or behind it.
    fn block_of(self, term: &[u8], mut low: u32) -> u32 {
        let blocks = self.terms.div_ceil(BLOCK);
        // First in doubling steps, since the blocks of terms in order are near each other.
        let mut step = 1;
        while low + step < blocks && self.head(low + step) <= term {
            low += step;
            step *= 2;
        }
        let mut high = blocks.min(low + step);
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.head(middle) <= term {
                true => low = middle,
                false => high = middle,
            }
        }
        low
    }

    /// The entry of a term, if the block has it.
    fn find_in(self, block: u32, term: &[u8]) -> Option<TermEntry> {
        let bytes = self.entries;
        let mut at = self.offset(block);
        // How many bytes the last entry has, and how many of them are the beginning of the term. It came before the term.
        let (mut len, mut matched) = (0, 0);
        let first = block * BLOCK;
        for number in first..self.terms.min(first + BLOCK) {
            let Coded { shared, rest, df, cf } = Coded::read(bytes, &mut at)?;
            if shared > len || shared < matched {
                // No vocabulary, or behind the term: where the last entry was like the term, this one is larger.
                return None;
            }
            len = shared + rest.len();
            if shared == matched {
                let wanted = &term[matched..];
                let common = rest.iter().zip(wanted).take_while(|(a, b)| a == b).count();
                matched += common;
                match (rest.get(common), wanted.get(common)) {
                    (None, None) => return Some(TermEntry { number, df, cf }),
                    (Some(next), wanted) if wanted.is_none_or(|wanted| next > wanted) => return None,
                    _ => {}
                }
            }
        }
        None
    }
}

/// A term as it is coded.
struct Coded<'a> {
    /// How many bytes it has in common with the term before it, and the others.
    shared: usize,
    rest: &'a [u8],
    df: u32,
    cf: u64,
}

impl<'a> Coded<'a> {
    /// The one at `at`, which moves behind it; `None` if the bytes end before.
    #[inline]
    fn read(bytes: &'a [u8], at: &mut usize) -> Option<Self> {
        let shared = read_varint(bytes, at)? as usize;
        let len = read_varint(bytes, at)? as usize;
        let rest = bytes.get(*at..at.checked_add(len)?)?;
        *at += len;
        let df = read_varint(bytes, at)?;
        let [low, high] = [read_varint(bytes, at)?, read_varint(bytes, at)?];
        let cf = u64::from(high) << 32 | u64::from(low);
        Some(Coded { shared, rest, df, cf })
    }
}

/// A place in a vocabulary.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    vocabulary: Vocabulary<'a>,
    at: usize,
    next: u32,
    term: Vec<u8>,
}

impl Cursor<'_> {
    /// Goes to the next term. `None` at the end; `Some(None)` if the bytes are no vocabulary.
    pub(super) fn advance(&mut self) -> Option<Option<TermEntry>> {
        if self.next == self.vocabulary.terms {
            return None;
        }
        Some(self.entry())
    }

    fn entry(&mut self) -> Option<TermEntry> {
        let Coded { shared, rest, df, cf } = Coded::read(self.vocabulary.entries, &mut self.at)?;
        let first_of_block = self.next.is_multiple_of(BLOCK);
        if shared > self.term.len() || first_of_block && shared > 0 {
            return None;
        }
        self.term.truncate(shared);
        self.term.extend(rest);
        let number = self.next;
        self.next += 1;
        Some(TermEntry { number, df, cf })
    }

    /// The term of the last entry.
    pub(super) fn term(&self) -> &[u8] {
        &self.term
    }

    /// Whether all bytes have been read.
    pub(super) fn is_at_end(&self) -> bool {
        self.next == self.vocabulary.terms && self.at == self.vocabulary.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_found_with_their_number_and_frequencies_and_others_are_not() {
        let mut terms: Vec<String> = (0..1000_u32).map(|i| format!("t{:x}", i * i * 7 % 65_537)).collect();
        terms.extend(["", "a", "zé", "漢字", "t"].map(str::to_owned));
        terms.sort_unstable();
        terms.dedup();
        let mut writer = VocabularyWriter::default();
        for (number, term) in (0..).zip(&terms) {
            writer.push(term, number * 3, u64::from(number) << 30);
        }
        let bytes = writer.parts().concat();
        let vocabulary = Vocabulary::new(&bytes, writer.terms()).unwrap();
        for (number, term) in (0..).zip(&terms) {
            let expected = TermEntry {
                number,
                df: number * 3,
                cf: u64::from(number) << 30,
            };
            assert_eq!(vocabulary.find(term), Some(expected), "{term:?}");
            let other = format!("{term}~");
            let next = terms.get(number as usize + 1 + number as usize % 90).unwrap_or(&other);
            let entries = vocabulary.find_all([term.as_str(), next.as_str()].into_iter());
            let found: Vec<Option<u32>> = entries.map(|entry| entry.map(|entry| entry.number)).collect();
            assert_eq!(
                found,
                [term, next].map(|term| terms.binary_search(term).ok().map(|place| place as u32))
            );
            assert_eq!(vocabulary.find(&other), None, "{other:?}");
        }
        let mut cursor = vocabulary.cursor();
        for term in &terms {
            cursor.advance().unwrap().unwrap();
            assert_eq!(cursor.term(), term.as_bytes());
        }
        assert!(cursor.advance().is_none() && cursor.is_at_end());
        assert_eq!(Vocabulary::new(&[], 0).unwrap().find("a"), None);
    }

    #[test]
    fn broken_bytes_give_an_error_and_no_panic() {
        let mut writer = VocabularyWriter::default();
        for number in 0..40 {
            writer.push(&format!("term{number:02}"), 1, 1 << 40);
        }
        let good = writer.parts().concat();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x84;
            let vocabulary = Vocabulary::new(&bad, 40).unwrap();
            let _ = vocabulary.find("term20");
            let mut cursor = vocabulary.cursor();
            while let Some(Some(_)) = cursor.advance() {}
        }
    }
}
