//! Analyzers: from a text to its terms.
//!
//! | analyzer | steps | reproduces |
//! |---|---|---|
//! | `standard` | words, lower case | Elasticsearch's `standard`, the analyzer of the TLM paper |
//! | `english` | words, possessive `'s` off, lower case, 33 stop words off, Porter stem | Lucene's `EnglishAnalyzer` |
//!
//! A word is a segment of UAX #29 (Unicode word boundaries) that contains a letter or a digit ([`for_each_word`]).

use std::fmt;
use std::str::FromStr;

use super::RetrievalError;
use super::porter;
use super::words::for_each_word;

/// How a text becomes terms. Passages and queries must go through the same analyzer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Analyzer {
    /// Words in lower case; neither stop words nor stemming (Elasticsearch's default, used by the TLM paper).
    Standard,
    /// Words without `'s`, in lower case, without 33 stop words, stemmed by Porter's algorithm (Lucene's English).
    #[default]
    English,
}

/// Lucene's English stop words.
pub const STOP_WORDS: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of",
    "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
];

impl Analyzer {
    /// All analyzers, in the order in which they are offered.
    pub const ALL: [Analyzer; 2] = [Analyzer::Standard, Analyzer::English];

    /// The name in configurations and reports: `standard` or `english`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Analyzer::Standard => "standard",
            Analyzer::English => "english",
        }
    }

    /// The terms of a text, in order, repeated as often as they occur.
    #[must_use]
    pub fn terms(self, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        for_each_word(text, |word| terms.extend(self.term(word)));
        terms
    }

    /// The term of one word; `None` for a stop word.
    pub(super) fn term(self, word: &str) -> Option<String> {
        match self {
            Analyzer::Standard => Some(lower_case(word)),
            Analyzer::English => {
                let word = lower_case(without_possessive(word));
                let is_stop_word = STOP_WORDS.binary_search(&word.as_str()).is_ok();
                (!is_stop_word).then(|| porter::stem(&word))
            }
        }
    }
}

impl fmt::Display for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Analyzer {
    type Err = RetrievalError;

    fn from_str(name: &str) -> Result<Self, RetrievalError> {
        Analyzer::ALL
            .into_iter()
            .find(|analyzer| analyzer.name() == name)
            .ok_or_else(|| RetrievalError::UnknownName {
                setting: "analyzer",
                found: name.to_owned(),
                expected: "standard, english",
            })
    }
}

/// Lower case, character by character (a word's context does not count, as in Lucene).
fn lower_case(word: &str) -> String {
    if word.is_ascii() {
        word.to_ascii_lowercase()
    } else {
        word.chars().flat_map(char::to_lowercase).collect()
    }
}

/// The word without a final `'s`, whichever of the three apostrophes and either case.
fn without_possessive(word: &str) -> &str {
    match word.strip_suffix(['s', 'S']) {
        Some(owner) => owner.strip_suffix(['\'', '\u{2019}', '\u{ff07}']).unwrap_or(word),
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_keeps_stop_words_and_forms() {
        let terms = Analyzer::Standard.terms("The 3.14 Dogs' o'clock café's U.S.A. foo_bar _ -- x:y");
        assert_eq!(
            terms,
            ["the", "3.14", "dogs", "o'clock", "café's", "u.s.a", "foo_bar", "x:y"]
        );
    }

    #[test]
    fn english_drops_possessives_and_stop_words_and_stems() {
        let terms = Analyzer::English.terms("The child’s toys AND the parents' relational IT'S Naïve");
        assert_eq!(terms, ["child", "toi", "parent", "relat", "naïv"]);
    }

    #[test]
    fn stop_words_are_sorted_for_the_binary_search() {
        assert!(STOP_WORDS.is_sorted());
    }
}
