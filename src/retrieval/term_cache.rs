//! Terms as numbers: the cache that makes analysis fast.
//!
//! The term of a word never changes. [`TermCache`] maps a word as written to the number of its term, so that lower
//! case, stop words and stemming are paid once per distinct word, and the rest of a word's cost is one look-up. Words
//! of up to 16 bytes, nearly all, are keys in place: no pointer is followed.

use hashbrown::{DefaultHashBuilder, HashMap, HashTable, hash_table::Entry};
use std::hash::BuildHasher;

use super::analyzer::Analyzer;
use super::words::for_each_word;

/// Strings one after another in one allocation.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct TermList {
    text: String,
    ends: Vec<usize>,
}

impl TermList {
    pub(super) fn push(&mut self, term: &str) {
        self.text.push_str(term);
        self.ends.push(self.text.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    #[inline]
    pub(super) fn get(&self, number: usize) -> &str {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.text[start..self.ends[number]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|number| self.get(number))
    }

    /// Bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<usize>()
    }
}

/// Distinct strings, numbered in the order of their first occurrence.
#[derive(Default)]
pub(super) struct TermNumbers {
    pub(super) terms: TermList,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl TermNumbers {
    /// The number of `term`, a new one if it is new.
    pub(super) fn number(&mut self, term: &str) -> u32 {
        let Self { terms, table, hasher } = self;
        let equal = |&number: &u32| terms.get(number as usize) == term;
        let hash = |&number: &u32| hasher.hash_one(terms.get(number as usize));
        match table.entry(hasher.hash_one(term), equal, hash) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let number = u32::try_from(terms.len()).expect("a corpus has fewer than 2^32 distinct terms");
                entry.insert(number);
                terms.push(term);
                number
            }
        }
    }
}

/// The terms of a stream of texts, numbered in the order of their first occurrence.
pub(super) struct TermCache {
    analyzer: Analyzer,
    /// Word as written to number of its term, or [`STOP_WORD`]; words of up to 16 bytes.
    short_words: HashMap<(u64, u64), u32>,
    /// The same for longer words.
    long_words: HashMap<Box<str>, u32>,
    numbers: TermNumbers,
    /// With more words than these it forgets.
    most_words: usize,
}

/// The entry of a word without a term.
const STOP_WORD: u32 = u32::MAX;

/// Words worth remembering at most, and the bytes that a word takes, about.
pub(super) const MAX_CACHED_WORDS: usize = 1 << 20;
pub(super) const BYTES_PER_CACHED_WORD: usize = 64;

impl TermCache {
    /// A cache that [`TermCache::forget_if_large`] empties when it has more than `most_words` words.
    pub(super) fn new(analyzer: Analyzer, most_words: usize) -> Self {
        TermCache {
            analyzer,
            short_words: HashMap::new(),
            long_words: HashMap::new(),
            numbers: TermNumbers::default(),
            most_words,
        }
    }

    /// Calls `visit` with the number of every term of `text`, in order.
    pub(super) fn for_each_term(&mut self, text: &str, mut visit: impl FnMut(u32)) {
        for_each_word(text, |word| {
            let key = short_key(word.as_bytes());
            let known = match key {
                Some(key) => self.short_words.get(&key),
                None => self.long_words.get(word),
            };
            let number = match known {
                Some(&number) => number,
                None => self.learn(word, key),
            };
            if number != STOP_WORD {
                visit(number);
            }
        });
    }

    /// The terms seen so far, by number.
    pub(super) fn terms(&self) -> &TermList {
        &self.numbers.terms
    }

    /// Forgets everything if there is too much; numbers given before are void then.
    pub(super) fn forget_if_large(&mut self) {
        if self.short_words.len() + self.long_words.len() > self.most_words {
            *self = TermCache::new(self.analyzer, self.most_words);
        }
    }

    #[cold]
    fn learn(&mut self, word: &str, key: Option<(u64, u64)>) -> u32 {
        let number = self
            .analyzer
            .term(word)
            .map_or(STOP_WORD, |term| self.numbers.number(&term));
        match key {
            Some(key) => self.short_words.insert(key, number),
            None => self.long_words.insert(word.into(), number),
        };
        number
    }
}

/// A word of up to 16 bytes as a number, padded with zeros; words contain no zero byte, so none collide.
#[inline]
fn short_key(word: &[u8]) -> Option<(u64, u64)> {
    let len = word.len();
    // The second of two overlapping loads, without the bytes that the first has.
    match len {
        0..4 => Some((word.iter().rev().fold(0, |key, &byte| key << 8 | u64::from(byte)), 0)),
        4..=8 => {
            let first = u64::from(u32::from_le_bytes(*word.first_chunk()?));
            let last = u64::from(u32::from_le_bytes(*word.last_chunk()?));
            Some((first | last >> (8 * (8 - len)) << 32, 0))
        }
        9..=16 => {
            let first = u64::from_le_bytes(*word.first_chunk()?);
            let last = u64::from_le_bytes(*word.last_chunk()?);
            Some((first, last >> (8 * (16 - len))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_gives_the_terms_of_the_analyzer() {
        let text = "Running runs the runner RUNNING, the race; raced THE races";
        for analyzer in Analyzer::ALL {
            let mut cache = TermCache::new(analyzer, 100);
            let mut numbers = Vec::new();
            cache.for_each_term(text, |number| numbers.push(number));
            let terms: Vec<&str> = numbers
                .iter()
                .map(|&number| cache.terms().get(number as usize))
                .collect();
            assert_eq!(terms, analyzer.terms(text));
        }
    }

    #[test]
    fn short_keys_are_the_bytes_padded_with_zeros() {
        let word = b"abcdefghijklmnopq";
        for len in 0..=16 {
            let mut padded = [0; 16];
            padded[..len].copy_from_slice(&word[..len]);
            let (first, last) = short_key(&word[..len]).unwrap();
            assert_eq!([first.to_le_bytes(), last.to_le_bytes()].concat(), padded, "{len}");
        }
        assert_eq!(short_key(word), None);
    }
}
