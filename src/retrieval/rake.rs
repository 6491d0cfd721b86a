//! RAKE, rapid automatic keyword extraction, as the package rake-nltk 1.0.6 computes it (which the TLM code uses).
//!
//! ```text
//! sentence   --> tokens: runs of letters, digits and `_`, or runs of other signs; in lower case
//! phrase     = a longest run of tokens in which no stop word and no single punctuation mark stands
//! freq(w)    = how often w occurs in all phrases        degree(w) = sum over phrases of (how often w occurs in it) * (its length)
//! score(p)   = sum over its tokens of degree / freq
//! ```
//!
//! Phrases come by score, then text, both descending, and a repeated phrase comes as often as it occurs. Two marks
//! together, such as `--` or `."`, are no punctuation to rake-nltk and stay in a phrase, unless the sentence ends there.
//! rake-nltk finds sentence ends by Punkt; here a run of `.`, `!`, `?` and closing signs ends one where white space
//! follows. A single mark ends a phrase anyway, so that the two differ only in runs of marks and behind abbreviations.
//!
//! Source: Rose, Engel, Cramer, Cowley: Automatic Keyword Extraction from Individual Documents, 2010.

use std::collections::HashMap;

/// A key phrase.
#[derive(Debug, Clone, PartialEq)]
pub struct Phrase {
    /// Sum of degree / frequency of its tokens.
    pub score: f64,
    /// Its tokens in lower case, with blanks between them.
    pub text: String,
}

/// NLTK's English stop words, the 179 of the list before 2024.
pub const NLTK_STOP_WORDS: [&str; 179] = [
    "i",
    "me",
    "my",
    "myself",
    "we",
    "our",
    "ours",
    "ourselves",
    "you",
    "you're",
    "you've",
    "you'll",
    "you'd",
    "your",
    "yours",
    "yourself",
    "yourselves",
    "he",
    "him",
    "his",
    "himself",
    "she",
    "she's",
    "her",
    "hers",
    "herself",
    "it",
    "it's",
    "its",
    "itself",
    "they",
    "them",
    "their",
    "theirs",
    "themselves",
    "what",
    "which",
    "who",
    "whom",
    "this",
    "that",
    "that'll",
    "these",
    "those",
    "am",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "being",
    "have",
    "has",
    "had",
    "having",
    "do",
    "does",
    "did",
    "doing",
    "a",
    "an",
    "the",
    "and",
    "but",
    "if",
    "or",
    "because",
    "as",
    "until",
    "while",
    "of",
    "at",
    "by",
    "for",
    "with",
    "about",
    "against",
    "between",
    "into",
    "through",
    "during",
    "before",
    "after",
    "above",
    "below",
    "to",
    "from",
    "up",
    "down",
    "in",
    "out",
    "on",
    "off",
    "over",
    "under",
    "again",
    "further",
    "then",
    "once",
    "here",
    "there",
    "when",
    "where",
    "why",
    "how",
    "all",
    "any",
    "both",
    "each",
    "few",
    "more",
    "most",
    "other",
    "some",
    "such",
    "no",
    "nor",
    "not",
    "only",
    "own",
    "same",
    "so",
    "than",
    "too",
    "very",
    "s",
    "t",
    "can",
    "will",
    "just",
    "don",
    "don't",
    "should",
    "should've",
    "now",
    "d",
    "ll",
    "m",
    "o",
    "re",
    "ve",
    "y",
    "ain",
    "aren",
    "aren't",
    "couldn",
    "couldn't",
    "didn",
    "didn't",
    "doesn",
    "doesn't",
    "hadn",
    "hadn't",
    "hasn",
    "hasn't",
    "haven",
    "haven't",
    "isn",
    "isn't",
    "ma",
    "mightn",
    "mightn't",
    "mustn",
    "mustn't",
    "needn",
    "needn't",
    "shan",
    "shan't",
    "shouldn",
    "shouldn't",
    "wasn",
    "wasn't",
    "weren",
    "weren't",
    "won",
    "won't",
    "wouldn",
    "wouldn't",
];

/// The key phrases of a text, best first.
#[must_use]
pub fn rake_phrases(text: &str) -> Vec<Phrase> {
    let phrases = candidate_phrases(text);
    let mut words: HashMap<&str, (u32, u32)> = HashMap::new();
    for phrase in &phrases {
        for word in phrase {
            let (frequency, degree) = words.entry(word).or_default();
            *frequency += 1;
            *degree += phrase.len() as u32;
        }
    }
    let score = |phrase: &Vec<String>| {
        let scores = phrase.iter().map(|word| {
            let (frequency, degree) = words[word.as_str()];
            f64::from(degree) / f64::from(frequency)
        });
        Phrase {
            score: scores.sum(),
            text: phrase.join(" "),
        }
    };
    let mut scored: Vec<Phrase> = phrases.iter().map(score).collect();
    scored.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.text.cmp(&a.text)));
    scored
}

/// The phrases in the order of the text.
fn candidate_phrases(text: &str) -> Vec<Vec<String>> {
    let mut phrases = Vec::new();
    let mut phrase: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let is_word = is_word_sign(first);
        let len = rest.find(|sign: char| sign.is_whitespace() || is_word_sign(sign) != is_word);
        let (token, behind) = rest.split_at(len.unwrap_or(rest.len()));
        rest = behind;
        let token = token.to_lowercase();
        if is_ignored(&token) {
            phrases.extend((!phrase.is_empty()).then(|| std::mem::take(&mut phrase)));
            continue;
        }
        let ends_sentence = !is_word && ends_sentence(&token) && behind.starts_with(char::is_whitespace);
        phrase.push(token);
        if ends_sentence {
            phrases.push(std::mem::take(&mut phrase));
        }
    }
    phrases.extend((!phrase.is_empty()).then_some(phrase));
    phrases
}

/// `\w` of Python's regular expressions.
fn is_word_sign(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// Stop words, and Python's `string.punctuation`: single ASCII marks.
fn is_ignored(token: &str) -> bool {
    let mut bytes = token.bytes();
    let is_mark = matches!((bytes.next(), bytes.next()), (Some(mark), None) if mark.is_ascii_punctuation());
    is_mark || NLTK_STOP_WORDS.contains(&token)
}

/// Whether a run of marks ends a sentence: an end sign with closing signs behind it; not an ellipsis.
fn ends_sentence(marks: &str) -> bool {
    let ends = marks.trim_end_matches(['"', '\'', ')', ']', '}']);
    ends.ends_with(['!', '?']) || ends.ends_with('.') && !ends.ends_with("..")
}
