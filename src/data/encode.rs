//! From texts to token sequences, kept flat.
//!
//! ```text
//! ids      [CLS] t t t [SEP] [CLS] t t [SEP] ...      u32, tokens of all sequences
//! offsets  0         5               9       ...      sequences + 1
//! labels   one class a sequence, or none at all
//! ```
//!
//! Task texts are truncated to `max_length`, one sequence a text. External passages that are too long are cut at
//! sentence ends into several sequences, so that nothing selected is lost.
//!
//! Encoding takes rounds of texts: first each distinct word of a round is tokenised once, then the texts are put
//! together from these, both in parallel. That is several times faster than whole texts; a text with a special token
//! written out goes the long way.

use super::error::DataError;
use super::passages::cut_by_tokens;
use super::sentences::sentences;
use super::task::Example;
use super::tokenizer::Tokenizer;
use super::wordpiece::pieces;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Texts per parallel job.
const CHUNK: usize = 256;

/// Texts per round; bounds the memory for distinct words.
const ROUND: usize = 1 << 16;

/// Token sequences, each `[CLS] ... [SEP]`, in one flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    ids: Vec<u32>,
    offsets: Vec<usize>,
    labels: Vec<u32>,
    longest: usize,
}

impl Default for Sequences {
    fn default() -> Self {
        Sequences {
            ids: Vec::new(),
            offsets: vec![0],
            labels: Vec::new(),
            longest: 0,
        }
    }
}

impl Sequences {
    /// Number of sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no sequence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all sequences together, `[CLS]` and `[SEP]` included.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Tokens of the longest sequence.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The token ids of a sequence.
    #[inline]
    #[must_use]
    pub fn ids(&self, sequence: usize) -> &[u32] {
        &self.ids[self.offsets[sequence]..self.offsets[sequence + 1]]
    }

    /// The classes of all sequences; empty for unlabelled ones.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Adds an unlabelled sequence as it stands.
    pub fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.offsets.push(self.ids.len());
        self.longest = self.longest.max(ids.len());
    }

    /// Sets the classes of all sequences.
    ///
    /// # Errors
    /// [`DataError::Setting`] unless there is one label a sequence.
    pub fn set_labels(&mut self, labels: Vec<u32>) -> Result<(), DataError> {
        if labels.len() != self.len() {
            return Err(DataError::Setting {
                what: "the number of labels",
                found: labels.len().to_string(),
                expected: format!("one for each of the {} sequences", self.len()),
            });
        }
        self.labels = labels;
        Ok(())
    }
}

/// What becomes of a text with more than `max_length` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongTexts {
    /// Its end is left out: one sequence a text.
    Truncate,
    /// It is cut at sentence ends into several sequences; a text without any token gives none.
    Cut,
}

/// What happened while encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodingReport {
    /// Texts read.
    pub texts: usize,
    /// Texts without any token (they hold control characters only).
    pub empty: usize,
    /// Texts that were truncated.
    pub truncated: usize,
    /// Texts that were cut into several sequences.
    pub cut: usize,
    /// Tokens of all texts before truncation, without `[CLS]` and `[SEP]`.
    pub tokens: usize,
    /// How many of them are `[UNK]`.
    pub unknown: usize,
}

impl EncodingReport {
    fn add(&mut self, other: &EncodingReport) {
        self.texts += other.texts;
        self.empty += other.empty;
        self.truncated += other.truncated;
        self.cut += other.cut;
        self.tokens += other.tokens;
        self.unknown += other.unknown;
    }
}

impl Tokenizer {
    /// Encodes texts in order, in parallel, to sequences of at most `max_length` tokens (3 or more, `[CLS]` and `[SEP]`
    /// included).
    ///
    /// # Errors
    /// [`DataError::Setting`] for a `max_length` below 3, [`DataError::Encode`] if the tokenizer fails on a text.
    pub fn encode<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        max_length: usize,
        long_texts: LongTexts,
    ) -> Result<(Sequences, EncodingReport), DataError> {
        self.encode_watched(texts, max_length, long_texts, &|_| ())
    }

    /// As [`Tokenizer::encode`]; `progress` is told, from any thread, how many more texts are done.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_watched<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        max_length: usize,
        long_texts: LongTexts,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(Sequences, EncodingReport), DataError> {
        if max_length < 3 {
            return Err(DataError::Setting {
                what: "max_length",
                found: max_length.to_string(),
                expected: "3 or more: [CLS], a token, [SEP]".into(),
            });
        }
        let mut sequences = Sequences::default();
        let mut report = EncodingReport::default();
        for round in texts.chunks(ROUND) {
            let words = self.encode_words(round)?;
            let parts = round
                .par_chunks(CHUNK)
                .map(|chunk| {
                    let part = self.encode_chunk(chunk, max_length, long_texts, &words);
                    progress(chunk.len());
                    part
                })
                .collect::<Result<Vec<_>, _>>()?;
            for (part, part_report) in parts {
                for sequence in 0..part.len() {
                    sequences.push(part.ids(sequence));
                }
                report.add(&part_report);
            }
        }
        Ok((sequences, report))
    }

    /// Encodes labelled examples, truncated, with their labels; `progress` as in [`Tokenizer::encode_watched`].
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_examples(
        &self,
        examples: &[Example],
        max_length: usize,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(Sequences, EncodingReport), DataError> {
        let texts: Vec<&str> = examples.iter().map(|example| example.text.as_str()).collect();
        let (mut sequences, report) = self.encode_watched(&texts, max_length, LongTexts::Truncate, progress)?;
        sequences.set_labels(examples.iter().map(|example| example.label).collect())?;
        Ok((sequences, report))
    }

    fn encode_chunk<T: AsRef<str>>(
        &self,
        texts: &[T],
        max_length: usize,
        long_texts: LongTexts,
        words: &Words,
    ) -> Result<(Sequences, EncodingReport), DataError> {
        let limit = max_length - 2;
        let mut sequences = Sequences::default();
        let mut report = EncodingReport {
            texts: texts.len(),
            ..EncodingReport::default()
        };
        let (mut tokens, mut framed) = (Vec::new(), Vec::new());
        let mut push = |tokens: &[u32]| {
            framed.clear();
            framed.push(self.special.cls);
            framed.extend_from_slice(tokens);
            framed.push(self.special.sep);
            sequences.push(&framed);
        };
        for text in texts {
            let text = text.as_ref();
            tokens.clear();
            self.append_tokens(text, words, &mut tokens)?;
            report.tokens += tokens.len();
            report.unknown += tokens.iter().filter(|&&id| id == self.special.unk).count();
            report.empty += usize::from(tokens.is_empty());
            let long = tokens.len() > limit;
            match long_texts {
                LongTexts::Truncate => {
                    report.truncated += usize::from(long);
                    push(&tokens[..tokens.len().min(limit)]);
                }
                LongTexts::Cut if !long => {
                    if !tokens.is_empty() {
                        push(&tokens);
                    }
                }
                LongTexts::Cut => {
                    report.cut += 1;
                    tokens.clear();
                    let mut lengths = Vec::new();
                    for sentence in sentences(text) {
                        let before = tokens.len();
                        self.append_tokens(&text[sentence], words, &mut tokens)?;
                        lengths.push(tokens.len() - before);
                    }
                    for piece in cut_by_tokens(&lengths, limit) {
                        push(&tokens[piece]);
                    }
                }
            }
        }
        Ok((sequences, report))
    }

    /// Whether a text's pieces can be tokenised one by one: if no added token is written out in it.
    fn is_plain(&self, text: &str) -> bool {
        self.by_word && !self.added.iter().any(|token| text.contains(token.as_str()))
    }

    /// Tokenises the distinct pieces of plain texts.
    fn encode_words<'a, T: AsRef<str> + Sync>(&self, texts: &'a [T]) -> Result<Words<'a>, DataError> {
        let distinct = texts
            .par_chunks(CHUNK)
            .fold(HashSet::new, |mut distinct, texts| {
                for text in texts.iter().map(AsRef::as_ref).filter(|text| self.is_plain(text)) {
                    distinct.extend(pieces(text));
                }
                distinct
            })
            .reduce(HashSet::new, |a, b| {
                let (mut large, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
                large.extend(small);
                large
            });
        let distinct: Vec<&str> = distinct.into_iter().collect();
        let encode = |&word: &&'a str| Ok((word, self.encode_text(word)?.get_ids().into()));
        distinct.par_iter().with_min_len(CHUNK).map(encode).collect()
    }

    /// Appends the tokens of a text, without `[CLS]` and `[SEP]`.
    fn append_tokens(&self, text: &str, words: &Words, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        if !self.is_plain(text) {
            tokens.extend_from_slice(self.encode_text(text)?.get_ids());
            return Ok(());
        }
        for word in pieces(text) {
            match words.get(word) {
                Some(known) => tokens.extend_from_slice(known),
                // A plain sentence of a text that is not.
                None => tokens.extend_from_slice(self.encode_text(word)?.get_ids()),
            }
        }
        Ok(())
    }

    fn encode_text(&self, text: &str) -> Result<tokenizers::Encoding, DataError> {
        self.inner.encode_fast(text, false).map_err(|error| DataError::Encode {
            start: text.chars().take(40).collect(),
            reason: error.to_string(),
        })
    }
}

/// The tokens of each distinct piece.
type Words<'a> = HashMap<&'a str, Box<[u32]>>;

#[cfg(test)]
mod tests;
