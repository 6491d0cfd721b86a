//! Sentence ends by rule, for cutting long texts where a reader would.
//!
//! A sentence ends behind a run of `.`, `!`, `?` or `…` and any closing quotes or brackets, if white space follows and
//! then (behind any opening quotes or brackets) a capital letter or a digit; or at an empty line. A single period does
//! not end a sentence behind an abbreviation (`e.g.`, `Fig.`, `et al.`, `Dr.`) or an initial (`J. Smith`). In doubt the
//! rule does not split: two sentences in one cost a little room in a passage, half a sentence costs its meaning.

use std::ops::Range;

/// Abbreviations that never end a sentence, in lower case without the last period.
const ABBREVIATIONS: [&str; 37] = [
    "al", "approx", "ca", "cf", "col", "dept", "dr", "e.g", "ed", "eds", "eq", "eqs", "esp", "fig", "figs", "gen",
    "i.e", "jr", "lt", "mr", "mrs", "ms", "messrs", "prof", "ref", "refs", "rev", "resp", "sec", "sect", "sgt", "st",
    "tab", "v", "vol", "vs", "viz",
];

/// Words that are abbreviations in front of a number only (`No. 5`, `p. 12`).
const BEFORE_NUMBERS: [&str; 7] = ["art", "ch", "chap", "no", "nos", "p", "pp"];

/// Byte ranges of the sentences of a text: in order, trimmed, none empty. Everything outside them is white space.
#[must_use]
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let end = match c {
            '\n' if blank_line_follows(&text[at + 1..]) => at,
            '.' | '!' | '?' | '…' => {
                let mut end = at + c.len_utf8();
                while let Some((next, c)) = rest.next_if(|&(_, c)| is_terminator(c)) {
                    end = next + c.len_utf8();
                }
                let single_period = &text[at..end] == ".";
                while let Some((next, c)) = rest.next_if(|&(_, c)| is_closer(c)) {
                    end = next + c.len_utf8();
                }
                match start_of_next(&text[end..]) {
                    Some(first) if !(single_period && is_abbreviation(&text[start..at], first)) => end,
                    _ => continue,
                }
            }
            _ => continue,
        };
        push_trimmed(text, start..end, &mut found);
        start = end;
    }
    push_trimmed(text, start..text.len(), &mut found);
    found
}

fn push_trimmed(text: &str, range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let sentence = &text[range.clone()];
    let start = range.start + (sentence.len() - sentence.trim_start().len());
    let end = range.start + sentence.trim_end().len();
    if start < end {
        found.push(start..end);
    }
}

fn is_terminator(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…')
}

fn is_closer(c: char) -> bool {
    matches!(c, '"' | '\'' | '”' | '’' | '»' | ')' | ']')
}

fn is_opener(c: char) -> bool {
    matches!(c, '"' | '\'' | '“' | '‘' | '«' | '(' | '[')
}

/// Whether the text behind a newline starts with a line of white space alone.
fn blank_line_follows(rest: &str) -> bool {
    rest.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\n')
}

/// The capital letter or digit that starts a sentence behind white space, if one does.
fn start_of_next(rest: &str) -> Option<char> {
    let trimmed = rest.trim_start();
    if trimmed.len() == rest.len() {
        return None;
    }
    let first = trimmed.chars().find(|&c| !is_opener(c))?;
    (first.is_uppercase() || first.is_numeric()).then_some(first)
}

/// Whether the word in front of a period abbreviates, given the first character of what follows.
fn is_abbreviation(before: &str, first: char) -> bool {
    let word = before
        .rsplit(char::is_whitespace)
        .next()
        .unwrap_or_default()
        .trim_start_matches(is_opener);
    let mut letters = word.chars();
    let initial = letters.next().is_some_and(char::is_uppercase) && letters.next().is_none();
    let word = word.to_lowercase();
    initial || ABBREVIATIONS.contains(&word.as_str()) || (first.is_numeric() && BEFORE_NUMBERS.contains(&word.as_str()))
}
