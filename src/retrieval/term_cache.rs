//! Terms as numbers: the cache that makes analysis fast.
//!
//! The term of a word never changes. [`TermCache`] maps a word as written to the number of its term, so that lower
//! case, stop words and stemming are paid once per distinct word, and the rest of a word's cost is one look-up:
//!
//! ```text
//! hot words     8,192 slots of 24 bytes, one for each hash: nearly nine words of ten, in the second-level cache
//! short words   all words of up to 16 bytes, keys in place; asked for as soon as a word is seen not to be hot
//! long words    the others
//! ```
//!
//! A slot belongs to the word that is met there most often: each hit is a vote for it, each other word takes one away,
//! and the word that finds none left moves in.

use hashbrown::{DefaultHashBuilder, HashMap, HashTable, hash_table::Entry};
use std::hash::BuildHasher;
use std::ops::Range;
use std::slice::from_ref;
use std::sync::atomic::{AtomicU64, Ordering};

use super::analyzer::Analyzer;
use super::fetch::fetch;
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

    /// Gives back memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
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
    /// Half of the hash, which spares nearly all comparisons of other strings, and the number.
    table: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
}

impl TermNumbers {
    /// The number of `term`, a new one if it is new.
    pub(super) fn number(&mut self, term: &str) -> u32 {
        let Self { terms, table, hasher } = self;
        let half = (hasher.hash_one(term) >> 32) as u32;
        let equal = |&(other, number): &(u32, u32)| other == half && terms.get(number as usize) == term;
        match table.entry(spread(half), equal, |&(half, _)| spread(half)) {
            Entry::Occupied(entry) => entry.get().1,
            Entry::Vacant(entry) => {
                let number = u32::try_from(terms.len()).expect("a corpus has fewer than 2^32 distinct terms");
                entry.insert((half, number));
                terms.push(term);
                number
            }
        }
    }
}

/// The tables take the place from the low bits of a hash and a tag from the high ones.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(MIX)
}

/// An odd number with bits all over: 2^64 divided by the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A word of up to 16 bytes, padded with zeros; words contain no zero byte, so none collide.
type ShortWord = (u64, u64);

/// The terms of a stream of texts, numbered in the order of their first occurrence.
pub(super) struct TermCache {
    analyzer: Analyzer,
    /// No other cache of the process has this one, nor has this one after it has forgotten.
    identity: u64,
    hot_words: Box<[HotWord; HOT_WORDS]>,
    short_words: ShortWords,
    /// Word as written, number of its term or [`STOP_WORD`].
    long_words: HashMap<Box<str>, u32>,
    /// Words of a text that are not hot and have no number yet.
    cold: Vec<ColdWord>,
    numbers: TermNumbers,
    /// With more words than these it forgets.
    most_words: usize,
}

/// A word that is met often.
#[derive(Clone, Copy, Default)]
struct HotWord {
    word: ShortWord,
    number: u32,
    votes: u32,
}

/// A word that is not hot.
struct ColdWord {
    word: ShortWord,
    hash: u64,
    /// Its place among the words of the text.
    number: usize,
    /// Where it lies in the text.
    bytes: Range<usize>,
}

/// Slots of hot words: 192 KB.
const HOT_WORDS: usize = 1 << 13;

/// Votes that a word can save up.
const MOST_VOTES: u32 = 64;

/// Words that are looked up together.
const MOST_COLD: usize = 64;

/// The entry of a word without a term.
const STOP_WORD: u32 = u32::MAX;

/// Words worth remembering at most, and the bytes that a word takes, about.
pub(super) const MAX_CACHED_WORDS: usize = 1 << 20;
pub(super) const BYTES_PER_CACHED_WORD: usize = 64;

impl TermCache {
    /// A cache that [`TermCache::forget_if_large`] empties when it has more than `most_words` words.
    pub(super) fn new(analyzer: Analyzer, most_words: usize) -> Self {
        static IDENTITIES: AtomicU64 = AtomicU64::new(0);
        TermCache {
            analyzer,
            identity: IDENTITIES.fetch_add(1, Ordering::Relaxed),
            hot_words: Box::new([HotWord::default(); HOT_WORDS]),
            short_words: ShortWords::default(),
            long_words: HashMap::new(),
            cold: Vec::new(),
            numbers: TermNumbers::default(),
            most_words,
        }
    }

    /// Makes `numbers` those of the terms of `text`, in order.
    pub(super) fn number_terms(&mut self, text: &str, numbers: &mut Vec<u32>) {
        numbers.clear();
        for_each_word(text, |word| {
            let number = match short_word(text, word) {
                Some(short) => {
                    let hash = hash(short);
                    self.number_of_hot(short, hash).unwrap_or_else(|| {
                        self.short_words.fetch(hash);
                        let start = place_in(text, word);
                        self.cold.push(ColdWord {
                            word: short,
                            hash,
                            number: numbers.len(),
                            bytes: start..start + word.len(),
                        });
                        STOP_WORD
                    })
                }
                None => match self.long_words.get(word) {
                    Some(&number) => number,
                    None => self.learn_long(word),
                },
            };
            numbers.push(number);
            if self.cold.len() == MOST_COLD {
                self.number_cold(text, numbers);
            }
        });
        self.number_cold(text, numbers);
        numbers.retain(|&number| number != STOP_WORD);
    }

    /// Two blocks of the same identity have the same numbers for the same terms.
    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    /// The terms seen so far, by number.
    pub(super) fn terms(&self) -> &TermList {
        &self.numbers.terms
    }

    /// Forgets everything if there is too much; numbers given before are void then.
    pub(super) fn forget_if_large(&mut self) {
        if self.short_words.len + self.long_words.len() > self.most_words {
            *self = TermCache::new(self.analyzer, self.most_words);
        }
    }

    #[inline(always)]
    fn number_of_hot(&mut self, short: ShortWord, hash: u64) -> Option<u32> {
        let slot = &mut self.hot_words[(hash >> 32) as usize % HOT_WORDS];
        (slot.word == short).then(|| {
            slot.votes += u32::from(slot.votes < MOST_VOTES);
            slot.number
        })
    }

    /// Fills in the numbers of the words that were not hot.
    fn number_cold(&mut self, text: &str, numbers: &mut [u32]) {
        let mut cold = std::mem::take(&mut self.cold);
        for ColdWord {
            word,
            hash,
            number,
            bytes,
        } in cold.drain(..)
        {
            numbers[number] = self.number_of_cold(word, hash, &text[bytes]);
        }
        self.cold = cold;
    }

    #[inline]
    fn number_of_cold(&mut self, short: ShortWord, hash: u64, word: &str) -> u32 {
        let number = match self.short_words.find(short, hash) {
            Some(number) => number,
            None => self.learn_short(short, hash, word),
        };
        let slot = &mut self.hot_words[(hash >> 32) as usize % HOT_WORDS];
        match slot.votes {
            0 => {
                *slot = HotWord {
                    word: short,
                    number,
                    votes: 1,
                }
            }
            _ => slot.votes -= 1,
        }
        number
    }

    #[cold]
    fn learn_short(&mut self, short: ShortWord, hash: u64, word: &str) -> u32 {
        let number = self.learn(word);
        self.short_words.insert(short, hash, number);
        number
    }

    #[cold]
    fn learn_long(&mut self, word: &str) -> u32 {
        let number = self.learn(word);
        self.long_words.insert(word.into(), number);
        number
    }

    fn learn(&mut self, word: &str) -> u32 {
        self.analyzer
            .term(word)
            .map_or(STOP_WORD, |term| self.numbers.number(&term))
    }
}

/// Words of up to 16 bytes as written, with the number of their term or [`STOP_WORD`]. A word's place is known from its
/// hash, unlike in other tables, so that it can be asked for ahead.
#[derive(Default)]
struct ShortWords {
    /// A power of two of them, or none; the word of a free one is 0. A word is in the first that was free from its place on.
    slots: Vec<(ShortWord, u32)>,
    len: usize,
}

impl ShortWords {
    /// Asks for the place of a word.
    #[inline(always)]
    fn fetch(&self, hash: u64) {
        if let Some(slot) = self.slots.get(self.place(hash)) {
            fetch(from_ref(slot));
        }
    }

    fn place(&self, hash: u64) -> usize {
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    #[inline(always)]
    fn find(&self, word: ShortWord, hash: u64) -> Option<u32> {
        let (before, from) = self.slots.split_at_checked(self.place(hash))?;
        for &(other, number) in from.iter().chain(before) {
            if other == word {
                return Some(number);
            }
            if other == (0, 0) {
                return None;
            }
        }
        None
    }

    /// Adds a word that is not there.
    fn insert(&mut self, word: ShortWord, hash: u64, number: u32) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            let more = (2 * self.slots.len()).max(1 << 10);
            let slots = std::mem::replace(&mut self.slots, vec![((0, 0), 0); more]);
            for (word, number) in slots.into_iter().filter(|(word, _)| *word != (0, 0)) {
                self.put(word, self::hash(word), number);
            }
        }
        self.put(word, hash, number);
        self.len += 1;
    }

    fn put(&mut self, word: ShortWord, hash: u64, number: u32) {
        let place = self.place(hash);
        let (before, from) = self.slots.split_at_mut(place);
        let free = from.iter_mut().chain(before).find(|(other, _)| *other == (0, 0));
        *free.expect("a quarter of the slots is free") = (word, number);
    }
}

/// A product of 128 bits, folded: every bit of the word reaches every bit of the hash.
#[inline(always)]
fn hash((first, last): ShortWord) -> u64 {
    let product = u128::from(first ^ MIX) * u128::from(last ^ MIX.rotate_left(32));
    (product as u64 ^ (product >> 64) as u64).wrapping_mul(MIX)
}

/// Where a word begins in the text that it lies in.
#[inline(always)]
fn place_in(text: &str, word: &str) -> usize {
    word.as_ptr() as usize - text.as_ptr() as usize
}

/// The key of a word of up to 16 bytes, which lies in `text`.
#[inline(always)]
fn short_word(text: &str, word: &str) -> Option<ShortWord> {
    let len = word.len();
    if len > 16 {
        return None;
    }
    // One load of 16 bytes, of which those behind the word are taken off; near the end of the text a copy.
    let start = place_in(text, word);
    let bytes = match text.as_bytes().get(start..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => *bytes,
        None => {
            let mut bytes = [0; 16];
            bytes[..len].copy_from_slice(word.as_bytes());
            bytes
        }
    };
    let key = u128::from_le_bytes(bytes) & MASKS[len];
    Some((key as u64, (key >> 64) as u64))
}

/// The first so many bytes.
const MASKS: [u128; 17] = {
    let mut masks = [0; 17];
    let mut len = 1;
    while len <= 16 {
        masks[len] = u128::MAX >> (128 - 8 * len);
        len += 1;
    }
    masks
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_gives_the_terms_of_the_analyzer() {
        let text = "Running runs the runner RUNNING, the race; raced THE races";
        for analyzer in Analyzer::ALL {
            let mut cache = TermCache::new(analyzer, 100);
            let mut numbers = Vec::new();
            cache.number_terms(text, &mut numbers);
            let terms: Vec<&str> = numbers
                .iter()
                .map(|&number| cache.terms().get(number as usize))
                .collect();
            assert_eq!(terms, analyzer.terms(text));
        }
    }

    #[test]
    fn short_words_are_their_bytes_padded_with_zeros_wherever_they_stand() {
        let text = "abcdefghijklmnopq-abcdefghijklmnop";
        for start in [0, 18] {
            for len in 0..=16 {
                let mut padded = [0; 16];
                padded[..len].copy_from_slice(&text.as_bytes()[start..start + len]);
                let (first, last) = short_word(text, &text[start..start + len]).unwrap();
                assert_eq!([first.to_le_bytes(), last.to_le_bytes()].concat(), padded, "{len}");
            }
        }
        assert_eq!(short_word(text, &text[..17]), None);
    }

    #[test]
    fn words_that_share_the_slot_of_a_hot_word_keep_their_numbers() {
        // Four times as many words as slots, in two orders, so that they take each other's places again and again.
        let words: Vec<String> = (0..4 * HOT_WORDS).map(|i| format!("w{i}")).collect();
        let mut cache = TermCache::new(Analyzer::Standard, usize::MAX);
        let mut numbers = Vec::new();
        cache.number_terms(&words.join(" "), &mut numbers);
        assert!(numbers.iter().copied().eq(0..words.len() as u32));
        for stride in [1, 3, 4097] {
            let order = || (0..3 * words.len()).map(|i| i * stride % words.len());
            let text: Vec<&str> = order().map(|i| words[i].as_str()).collect();
            cache.number_terms(&text.join(" "), &mut numbers);
            assert!(numbers.iter().map(|&number| number as usize).eq(order()), "{stride}");
        }
    }
}
