//! Cutting long texts into passages of whole sentences.
//!
//! Retrieval works on passages, not documents: BM25 compares lengths, and what is selected should be about the query
//! throughout. Training works on sequences of at most `max_length` tokens. Both cut at sentence ends:
//!
//! ```text
//! sentences      s1 s2 s3 s4 s5 ...        with a length each, in words or in tokens
//! pieces         [s1 s2] [s3 s4 s5] ...    greedy, each at most `limit`
//! ```
//!
//! A sentence longer than the limit is cut at the limit. If the last piece would be tiny (below a quarter of the
//! limit), it takes sentences over from the piece before it as long as that one stays the longer. Nothing is lost or
//! repeated.

use super::corpus::Passage;
use super::sentences::sentences;
use std::num::NonZeroUsize;
use std::ops::Range;

/// Cuts a text into pieces of whole sentences with at most `max_words` white-space separated words each.
///
/// A text that fits is one piece, from its first to its last word; a text without words gives none. Within a piece the
/// text is unchanged.
#[must_use]
pub fn cut_by_words(text: &str, max_words: NonZeroUsize) -> Vec<&str> {
    let max_words = max_words.get();
    let units: Vec<Range<usize>> = sentences(text)
        .into_iter()
        .flat_map(|sentence| {
            let words: Vec<Range<usize>> = word_ranges(text, sentence).collect();
            cut_lengths(words.len(), max_words)
                .map(|part| words[part.start].start..words[part.end - 1].end)
                .collect::<Vec<_>>()
        })
        .collect();
    let lengths: Vec<usize> = units
        .iter()
        .map(|unit| word_ranges(text, unit.clone()).count())
        .collect();
    pack(&lengths, max_words)
        .map(|piece| &text[units[piece.start].start..units[piece.end - 1].end])
        .collect()
}

/// [`cut_by_words`] for a passage of the corpus: the pieces of a long passage get `.1`, `.2`, ... behind its id.
#[must_use]
pub fn cut_passage(passage: Passage, max_words: NonZeroUsize) -> Vec<Passage> {
    let pieces = cut_by_words(&passage.text, max_words);
    if pieces.len() < 2 {
        return vec![passage];
    }
    let piece = |(number, text): (usize, &str)| Passage {
        id: format!("{}.{}", passage.id, number + 1),
        source: passage.source.clone(),
        text: text.to_owned(),
    };
    pieces.into_iter().enumerate().map(piece).collect()
}

/// Cuts a tokenised text into pieces of at most `limit` (at least 1) tokens, as ranges of tokens, in order and without
/// gaps. `sentence_lengths` holds the number of tokens of each sentence.
pub(super) fn cut_by_tokens(sentence_lengths: &[usize], limit: usize) -> Vec<Range<usize>> {
    let units: Vec<usize> = sentence_lengths
        .iter()
        .flat_map(|&length| cut_lengths(length, limit).map(|part| part.len()))
        .collect();
    let mut start = 0;
    let piece = |units_of_piece: Range<usize>| {
        let end = start + units[units_of_piece].iter().sum::<usize>();
        std::mem::replace(&mut start, end)..end
    };
    pack(&units, limit).map(piece).collect()
}

fn word_ranges(text: &str, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let base = text.as_ptr() as usize;
    text[range].split_whitespace().map(move |word| {
        let start = word.as_ptr() as usize - base;
        start..start + word.len()
    })
}

/// Cuts `length` items into ranges of `limit`. A tiny rest shares evenly with the range before it.
fn cut_lengths(length: usize, limit: usize) -> impl Iterator<Item = Range<usize>> {
    let rest = length % limit;
    let shared = if length > limit && rest > 0 && is_tiny(rest, limit) {
        limit + rest
    } else {
        rest
    };
    let full = (length - shared) / limit;
    let halves = if shared > limit {
        [shared.div_ceil(2), shared / 2]
    } else {
        [shared, 0]
    };
    let lengths = std::iter::repeat_n(limit, full).chain(halves).filter(|&part| part > 0);
    lengths.scan(0, |start, part| {
        *start += part;
        Some(*start - part..*start)
    })
}

fn is_tiny(length: usize, limit: usize) -> bool {
    length < limit / 4
}

/// Packs consecutive units, none longer than `limit`, into pieces of at most `limit`; ranges of units.
fn pack(lengths: &[usize], limit: usize) -> impl Iterator<Item = Range<usize>> {
    let mut ends = Vec::new();
    let mut filled = 0;
    for (unit, &length) in lengths.iter().enumerate() {
        if unit > 0 && filled + length > limit {
            ends.push(unit);
            filled = 0;
        }
        filled += length;
    }
    let previous_start = if ends.len() > 1 { ends[ends.len() - 2] } else { 0 };
    if let Some(tail_start) = ends.last_mut() {
        let mut tail = filled;
        let mut previous: usize = lengths[previous_start..*tail_start].iter().sum();
        if is_tiny(tail, limit) {
            while *tail_start > previous_start + 1 {
                let moved = lengths[*tail_start - 1];
                if tail + moved > limit || previous - moved < tail + moved {
                    break;
                }
                tail += moved;
                previous -= moved;
                *tail_start -= 1;
            }
        }
    }
    if !lengths.is_empty() {
        ends.push(lengths.len());
    }
    ends.into_iter()
        .scan(0, |start, end| Some(std::mem::replace(start, end)..end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn words(limit: usize) -> NonZeroUsize {
        NonZeroUsize::new(limit).unwrap()
    }

    fn split(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn sentences_end_at_terminators_before_a_capital_or_a_digit() {
        assert_eq!(
            split("One is here. Two? Three! 4 is a digit."),
            ["One is here.", "Two?", "Three!", "4 is a digit."]
        );
        assert_eq!(
            split("He said \"Stop!\" \"Why?\" (Nobody knew.) End"),
            ["He said \"Stop!\"", "\"Why?\"", "(Nobody knew.)", "End"]
        );
        assert_eq!(
            split("Wait... Now it is “over.” Éric left… Then"),
            ["Wait...", "Now it is “over.”", "Éric left…", "Then"]
        );
        assert_eq!(
            split("a heading\n\nand the text\nof two lines"),
            ["a heading", "and the text\nof two lines"]
        );
        assert_eq!(split(" \n \n "), [""; 0]);
    }

    #[test]
    fn abbreviations_initials_and_decimals_end_no_sentence() {
        for text in [
            "See e.g. Smith et al. 2019 and Fig. 3, i.e. The upper part.",
            "Dr. Jones vs. Mr. J. R. Smith (cf. Table 2).",
            "It costs 3.5 million, version 2.0.1 of p.m. data.",
            "Pages in No. 5, pp. 12 to 14.",
            "it ended. and went on",
            "node.js. is a name",
        ] {
            assert_eq!(split(text), [text]);
        }
        assert_eq!(split("Is it Fig? No, al... Yes"), ["Is it Fig?", "No, al...", "Yes"]);
        assert_eq!(split("I say no. We go."), ["I say no.", "We go."]);
        assert_eq!(split("It grew, etc. The rest"), ["It grew, etc.", "The rest"]);
    }

    #[test]
    fn cutting_by_words_keeps_all_words_in_whole_sentences() {
        let text = "One two three. Four five. Six seven eight nine. Ten.";
        assert_eq!(
            cut_by_words(text, words(5)),
            ["One two three. Four five.", "Six seven eight nine. Ten."]
        );
        assert_eq!(cut_by_words(text, words(100)), [text]);
        assert_eq!(cut_by_words("a b c d e f g", words(3)), ["a b c", "d e f", "g"]);
        assert_eq!(cut_by_words("  \n ", words(3)), [""; 0]);
    }

    #[test]
    fn a_tiny_tail_takes_sentences_over() {
        assert_eq!(cut_by_tokens(&[10, 10, 10, 10, 3], 40), [0..30, 30..43]);
        assert_eq!(
            cut_by_tokens(&[40, 3], 40),
            [0..40, 40..43],
            "one sentence cannot be shared"
        );
        assert_eq!(
            cut_by_tokens(&[83], 40),
            [0..40, 40..62, 62..83],
            "a long sentence shares its end"
        );
        assert_eq!(cut_by_tokens(&[95], 40), [0..40, 40..80, 80..95]);
        assert!(cut_by_tokens(&[], 40).is_empty());
        assert_eq!(cut_by_tokens(&[0, 4, 0, 40], 40), [0..4, 4..44]);
    }

    #[test]
    fn pieces_cover_all_tokens_in_order_within_the_limit_for_any_lengths() {
        let mut draws = Stream::new(7, 1, 0);
        for _ in 0..2000 {
            let limit = 1 + draws.below(60) as usize;
            let lengths: Vec<usize> = (0..draws.below(20)).map(|_| draws.below(90) as usize).collect();
            let pieces = cut_by_tokens(&lengths, limit);
            let mut end = 0;
            for piece in &pieces {
                assert_eq!(piece.start, end);
                assert!(
                    piece.len() <= limit && !piece.is_empty(),
                    "{lengths:?} {limit} {pieces:?}"
                );
                end = piece.end;
            }
            assert_eq!(end, lengths.iter().sum::<usize>());
        }
    }

    #[test]
    fn words_are_neither_lost_nor_repeated_for_any_text() {
        let mut draws = Stream::new(8, 1, 0);
        let parts = [
            "a", "B", ".", ". ", "? ", "\n\n", " ", "\"", "é", "7", "\u{a0}", "Fig. ", "i",
        ];
        for _ in 0..2000 {
            let text: String = (0..draws.below(80))
                .map(|_| parts[draws.below(parts.len() as u32) as usize])
                .collect();
            let limit = 1 + draws.below(8) as usize;
            let pieces = cut_by_words(&text, words(limit));
            let kept: Vec<&str> = pieces.iter().flat_map(|piece| piece.split_whitespace()).collect();
            assert_eq!(kept, text.split_whitespace().collect::<Vec<_>>(), "{text:?}");
            assert!(
                pieces
                    .iter()
                    .all(|piece| (1..=limit).contains(&piece.split_whitespace().count())),
                "{text:?}"
            );
        }
    }

    #[test]
    fn pieces_of_a_passage_are_numbered_and_a_short_passage_stays() {
        let passage = |text: &str| Passage {
            id: "s/d#1".into(),
            source: "s".into(),
            text: text.into(),
        };
        let pieces = cut_passage(passage("One two. Three four."), words(2));
        let found: Vec<(&str, &str)> = pieces.iter().map(|piece| (&*piece.id, &*piece.text)).collect();
        assert_eq!(found, [("s/d#1.1", "One two."), ("s/d#1.2", "Three four.")]);
        assert!(pieces.iter().all(|piece| piece.source == "s"));
        assert_eq!(cut_passage(passage(" One two. "), words(2)), [passage(" One two. ")]);
    }
}
