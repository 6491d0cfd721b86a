//! Training a WordPiece vocabulary, the same bit for bit whenever the texts are the same.
//!
//! ```text
//! texts -> counts of words as written -> counts of normalised words -> BPE merges -> vocabulary
//! ids: [PAD] [UNK] [CLS] [SEP] [MASK], then characters a, b, ..., then continuations ##a, ##b, ..., then merges
//! ```
//!
//! The merges are those of the crate `tokenizers`, whose result depends on the order of its hash maps: it numbers the
//! continuations in the order in which it meets them and breaks ties between pairs by those numbers. Here the whole
//! alphabet is sorted and handed over beforehand, so that every tie has one answer.
//!
//! Normalising is slow and most words are frequent, so words are counted first and each distinct one is normalised
//! once. See [`pieces`] for why that gives the same as normalising whole texts.

use super::error::DataError;
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// The special tokens in the order of their ids in a trained vocabulary.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// What marks a token that continues a word.
pub(super) const CONTINUATION: &str = "##";

/// Longer words become `[UNK]` as a whole (characters).
pub(super) const MAX_WORD_CHARS: usize = 100;

/// Splits a text into pieces that the tokenizer treats one by one: at blanks, and around each ASCII punctuation
/// character.
///
/// The normaliser maps characters one by one and the pre-tokeniser splits at the same places, so the words of the
/// pieces are those of the text. Only blanks that the normaliser keeps may split: vertical tab, for one, it removes.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.bytes().position(|byte| !blank(byte))?;
        rest = &rest[start..];
        let end = match rest.bytes().position(|byte| blank(byte) || byte.is_ascii_punctuation()) {
            Some(0) => 1,
            Some(end) => end,
            None => rest.len(),
        };
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece)
    })
}

/// How a vocabulary is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VocabularySettings {
    /// Tokens, at most; fewer if the texts do not give as many.
    pub vocab_size: usize,
    /// A pair that occurs more rarely is not merged.
    pub min_frequency: u64,
    /// Distinct characters, at most: all ASCII ones that occur, then the most frequent. Words with another are `[UNK]`.
    pub alphabet: usize,
    /// Whether texts are lower-cased and stripped of accents.
    pub lowercase: bool,
}

impl Default for VocabularySettings {
    fn default() -> Self {
        VocabularySettings {
            vocab_size: 8192,
            min_frequency: 2,
            alphabet: 1000,
            lowercase: true,
        }
    }
}

/// The normaliser of BERT.
pub(super) fn normalizer(lowercase: bool) -> BertNormalizer {
    BertNormalizer::new(true, true, None, lowercase)
}

/// How often each word, as written, occurs in the texts added so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WordCounts {
    counts: HashMap<String, u64>,
}

impl WordCounts {
    /// Adds the words of texts; in parallel.
    pub fn add<T: AsRef<str> + Sync>(&mut self, texts: &[T]) {
        let added = texts
            .par_chunks(1024)
            .fold(HashMap::new, |mut counts: HashMap<&str, u64>, texts| {
                for text in texts {
                    for word in pieces(text.as_ref()) {
                        *counts.entry(word).or_default() += 1;
                    }
                }
                counts
            })
            .reduce(HashMap::new, |a, b| {
                let (mut large, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
                for (word, count) in small {
                    *large.entry(word).or_default() += count;
                }
                large
            });
        for (word, count) in added {
            match self.counts.get_mut(word) {
                Some(sum) => *sum += count,
                None => {
                    self.counts.insert(word.to_owned(), count);
                }
            }
        }
    }

    /// Counts of the words that the tokenizer will see: normalised, and split at punctuation.
    fn normalized(&self, lowercase: bool) -> Result<BTreeMap<String, u64>, tokenizers::Error> {
        let normalizer = normalizer(lowercase);
        let raw: Vec<(&String, &u64)> = self.counts.iter().collect();
        let parts = raw
            .par_chunks(4096)
            .map(|words| {
                let mut counts: HashMap<String, u64> = HashMap::new();
                for &(word, count) in words {
                    let mut normalized = NormalizedString::from(word.as_str());
                    normalizer.normalize(&mut normalized)?;
                    let mut split = PreTokenizedString::from(normalized);
                    BertPreTokenizer.pre_tokenize(&mut split)?;
                    for (part, _, _) in split.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                        *counts.entry(part.to_owned()).or_default() += count;
                    }
                }
                Ok(counts)
            })
            .collect::<Result<Vec<_>, tokenizers::Error>>()?;
        let mut counts = BTreeMap::new();
        for (word, count) in parts.into_iter().flatten() {
            *counts.entry(word).or_default() += count;
        }
        Ok(counts)
    }
}

/// Trains a vocabulary: its tokens in the order of their ids.
///
/// # Errors
/// [`DataError::Vocabulary`] if there are no words, or if the alphabet alone does not fit `vocab_size`.
pub fn train_vocabulary(words: &WordCounts, settings: &VocabularySettings) -> Result<Vec<String>, DataError> {
    let failed = |reason: String| DataError::Vocabulary {
        vocab_size: settings.vocab_size,
        reason,
    };
    let mut counts = words
        .normalized(settings.lowercase)
        .map_err(|error| failed(error.to_string()))?;
    if counts.is_empty() {
        return Err(failed("the texts hold no words; check the inputs".into()));
    }
    // Words that will be [UNK] whatever is learnt teach nothing.
    let alphabet = alphabet(&counts, settings.alphabet);
    counts.retain(|word, _| word.chars().all(|c| alphabet.contains(&c)) && word.chars().count() <= MAX_WORD_CHARS);
    let start: BTreeSet<char> = counts.keys().flat_map(|word| word.chars()).collect();
    let inside: BTreeSet<char> = counts.keys().flat_map(|word| word.chars().skip(1)).collect();
    let fixed: Vec<String> = SPECIAL_TOKENS
        .iter()
        .map(|&token| token.to_owned())
        .chain(start.iter().map(char::to_string))
        .chain(inside.iter().map(|c| format!("{CONTINUATION}{c}")))
        .collect();
    if fixed.len() > settings.vocab_size {
        return Err(failed(format!(
            "{} characters alone take {} tokens; raise the vocabulary's size or lower the size of the alphabet",
            start.len(),
            fixed.len()
        )));
    }

    // The trainer sums pairs in i32; counts are halved until even the sum of all pairs fits.
    let pairs: u64 = counts
        .iter()
        .map(|(word, &count)| count * word.chars().count() as u64)
        .sum();
    let halvings = (u64::BITS - pairs.leading_zeros()).saturating_sub(31);
    let counts = counts
        .iter()
        .map(|(word, &count)| (word.as_str().into(), count >> halvings))
        .collect();
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(settings.vocab_size)
        .min_frequency((settings.min_frequency >> halvings).max(1))
        .continuing_subword_prefix(CONTINUATION.to_owned())
        .special_tokens(fixed.into_iter().map(|token| AddedToken::from(token, true)).collect())
        .build();
    let mut merged = BPE::default();
    trainer
        .do_train(&counts, &mut merged)
        .map_err(|error| failed(error.to_string()))?;
    let mut vocabulary: Vec<(String, u32)> = merged.get_vocab().into_iter().collect();
    vocabulary.sort_unstable_by_key(|&(_, id)| id);
    Ok(vocabulary.into_iter().map(|(token, _)| token).collect())
}

/// The characters that are kept: ASCII, then by falling count, then by code point.
fn alphabet(counts: &BTreeMap<String, u64>, limit: usize) -> HashSet<char> {
    let mut characters: BTreeMap<char, u64> = BTreeMap::new();
    for (word, &count) in counts {
        for c in word.chars() {
            *characters.entry(c).or_default() += count;
        }
    }
    let mut characters: Vec<(char, u64)> = characters.into_iter().collect();
    characters.sort_by_key(|&(c, count)| (!c.is_ascii(), Reverse(count), c));
    characters.truncate(limit);
    characters.into_iter().map(|(c, _)| c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] = [
        "The quick brown fox jumps over the lazy dogs, and the quicker foxes jump over lazier dogs.",
        "<< Aspirin >> inhibits [[ COX-1 ]] and [[ COX-2 ]]; inhibition by << Aspirin >> is irreversible.",
        "Inhibitors inhibiting inhibition are inhibitory; naïve café owners inhibited the foxes.",
        "the the the of of and and and in in in in to to a a a is is are are",
    ];

    fn counted(texts: &[&str]) -> WordCounts {
        let mut words = WordCounts::default();
        words.add(texts);
        words
    }

    fn settings(vocab_size: usize) -> VocabularySettings {
        VocabularySettings {
            vocab_size,
            ..VocabularySettings::default()
        }
    }

    /// Byte-pair encoding as in the textbook: recount all pairs after each merge; the most frequent pair wins, of equal
    /// ones the one with the smallest ids.
    fn naive_vocabulary(texts: &[&str], vocab_size: usize, min_frequency: u64) -> Vec<String> {
        let mut words: BTreeMap<String, u64> = BTreeMap::new();
        for text in texts {
            let plain: String = text.to_lowercase().replace('ï', "i").replace('é', "e");
            let spaced: String = plain
                .chars()
                .map(|c| {
                    if c.is_ascii_punctuation() {
                        format!(" {c} ")
                    } else {
                        c.to_string()
                    }
                })
                .collect();
            for word in spaced.split_whitespace() {
                *words.entry(word.to_owned()).or_default() += 1;
            }
        }
        let alphabet: BTreeSet<String> = words
            .keys()
            .flat_map(|word| word.chars().map(|c| c.to_string()))
            .collect();
        let inside: BTreeSet<String> = words
            .keys()
            .flat_map(|word| word.chars().skip(1).map(|c| format!("##{c}")))
            .collect();
        let mut vocabulary: Vec<String> = SPECIAL_TOKENS.iter().map(|&token| token.to_owned()).collect();
        vocabulary.extend(alphabet);
        vocabulary.extend(inside);
        let id = |vocabulary: &[String], token: &str| vocabulary.iter().position(|known| known == token).unwrap();
        let mut split: Vec<(Vec<usize>, u64)> = words
            .iter()
            .map(|(word, &count)| {
                let tokens = word
                    .chars()
                    .enumerate()
                    .map(|(i, c)| if i == 0 { c.to_string() } else { format!("##{c}") });
                (tokens.map(|token| id(&vocabulary, &token)).collect(), count)
            })
            .collect();
        while vocabulary.len() < vocab_size {
            let mut pairs: BTreeMap<(usize, usize), u64> = BTreeMap::new();
            for (tokens, count) in &split {
                for pair in tokens.windows(2) {
                    *pairs.entry((pair[0], pair[1])).or_default() += count;
                }
            }
            let Some((&pair, &count)) = pairs.iter().max_by_key(|&(&pair, &count)| (count, Reverse(pair))) else {
                break;
            };
            if count < min_frequency {
                break;
            }
            let merged = format!("{}{}", vocabulary[pair.0], vocabulary[pair.1].trim_start_matches("##"));
            if !vocabulary.contains(&merged) {
                vocabulary.push(merged.clone());
            }
            let merged = id(&vocabulary, &merged);
            for (tokens, _) in &mut split {
                while let Some(at) = tokens.windows(2).position(|window| (window[0], window[1]) == pair) {
                    tokens.splice(at..at + 2, [merged]);
                }
            }
        }
        vocabulary
    }

    #[test]
    fn the_vocabulary_is_that_of_textbook_byte_pair_encoding() {
        for (vocab_size, min_frequency) in [(100, 2), (110, 1), (150, 1), (1000, 2), (1000, 1)] {
            let settings = VocabularySettings {
                min_frequency,
                ..settings(vocab_size)
            };
            let trained = train_vocabulary(&counted(&TEXTS), &settings).unwrap();
            assert_eq!(
                trained,
                naive_vocabulary(&TEXTS, vocab_size, min_frequency),
                "{vocab_size} {min_frequency}"
            );
            assert!(trained.len() <= vocab_size);
        }
    }

    #[test]
    fn special_tokens_come_first_and_ascii_survives_a_full_alphabet() {
        // 1,200 ideographs, twice as frequent as the markers.
        let rare: String = ('\u{4e00}'..'\u{52b0}').flat_map(|c| [c, ' ', c, ' ']).collect();
        let vocabulary = train_vocabulary(&counted(&[&rare, "<< x >> [[ y ]]"]), &settings(3000)).unwrap();
        assert_eq!(vocabulary[..5], SPECIAL_TOKENS);
        for marker in ["<", ">", "[", "]"] {
            assert!(vocabulary.iter().any(|token| token == marker), "{marker}");
        }
        assert_eq!(
            vocabulary
                .iter()
                .filter(|token| token.chars().all(|c| c >= '\u{4e00}'))
                .count(),
            1000 - 6
        );
    }

    #[test]
    fn counts_beyond_i32_are_halved_and_keep_their_order() {
        let mut words = counted(&["ab ab", "cd"]);
        for count in words.counts.values_mut() {
            *count *= 3_000_000_000;
        }
        let vocabulary = train_vocabulary(&words, &settings(100)).unwrap();
        assert_eq!(vocabulary[5..], ["a", "b", "c", "d", "##b", "##d", "ab", "cd"]);
    }

    #[test]
    fn too_small_a_size_and_texts_without_words_are_errors() {
        let error = train_vocabulary(&counted(&TEXTS), &settings(20))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot train a vocabulary of 20 tokens") && error.contains("raise"),
            "{error}"
        );
        let error = train_vocabulary(&counted(&["", " \n "]), &settings(20))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no words"), "{error}");
    }
}
