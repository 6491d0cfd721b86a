//! Segmentation of text into words.
//!
//! A word is a segment of UAX #29 (Unicode word boundaries) that contains a letter or a digit. Finding them is cheap
//! in ASCII and expensive elsewhere. No word contains a blank, so a text is cut at blanks into stretches that are ASCII
//! throughout, which are scanned here, and stretches that are not, which go to the crate `unicode-segmentation`.

use unicode_segmentation::UnicodeSegmentation;

/// Calls `visit` for every word of `text`, in order.
///
/// Equal to `text.unicode_words()`, but pays the price of Unicode only where the text is not ASCII.
pub fn for_each_word<'a>(text: &'a str, mut visit: impl FnMut(&'a str)) {
    let bytes = text.as_bytes();
    // Before a blank no word goes on. What follows must be visible ASCII: a combining mark would join the blank, and
    // with it all blanks before.
    let may_cut = |at: &usize| bytes[*at] == b' ' && bytes.get(at + 1).is_some_and(u8::is_ascii_graphic);
    let mut start = 0;
    while start < bytes.len() {
        let non_ascii = start + ascii_prefix_len(&bytes[start..]);
        let mut cut = non_ascii;
        if non_ascii < bytes.len() {
            cut = (start..non_ascii).rev().find(may_cut).unwrap_or(start);
        }
        for_each_ascii_word(&text[start..cut], &mut visit);
        start = (non_ascii..bytes.len()).find(may_cut).unwrap_or(bytes.len());
        text[cut..start].unicode_words().for_each(&mut visit);
    }
}

/// How many of the first bytes are ASCII.
fn ascii_prefix_len(bytes: &[u8]) -> usize {
    let whole: usize = bytes
        .chunks(32)
        .take_while(|chunk| chunk.is_ascii())
        .map(<[u8]>::len)
        .sum();
    whole + bytes[whole..].iter().take_while(|byte| byte.is_ascii()).count()
}

// What a byte can be in a word: a set of these flags. A separator stands `>> 3` for what it joins.
const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const UNDERSCORE: u8 = 4;
const BETWEEN_LETTERS: u8 = LETTER << 3;
const BETWEEN_DIGITS: u8 = DIGIT << 3;

/// The flags of every byte.
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        class[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => DIGIT,
            b'_' => UNDERSCORE,
            b'.' | b'\'' => BETWEEN_LETTERS | BETWEEN_DIGITS,
            b':' => BETWEEN_LETTERS,
            b',' | b';' => BETWEEN_DIGITS,
            _ => 0,
        };
        byte += 1;
    }
    class
};

/// The words of an ASCII text: runs of letters, digits and `_` with at least one letter or digit, which may contain
/// `.` and `'` between two letters or two digits, `:` between two letters, `,` and `;` between two digits (rules WB5
/// to WB13b of UAX #29, restricted to ASCII).
fn for_each_ascii_word<'a>(text: &'a str, visit: &mut impl FnMut(&'a str)) {
    let bytes = text.as_bytes();
    let class = |at: usize| bytes.get(at).map_or(0, |&byte| CLASS[usize::from(byte)]);
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let mut seen = 0;
        loop {
            let here = class(at);
            if here & (LETTER | DIGIT | UNDERSCORE) != 0 {
                seen |= here;
            } else if seen == 0 || (here >> 3) & class(at - 1) & class(at + 1) == 0 {
                break;
            }
            at += 1;
        }
        if seen & (LETTER | DIGIT) != 0 {
            visit(&text[start..at]);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word));
        words
    }

    #[test]
    fn words_equal_those_of_the_unicode_reference_on_random_strings() {
        let alphabet: Vec<char> = "aZé9_.,;:'’ -\n\t\r\u{345}\u{200d}\u{3000}👍🇩漢ß\u{5d0}\"٣"
            .chars()
            .collect();
        let mut state = 1_u64;
        for round in 0..60_000 {
            let letters = if round % 2 == 0 { alphabet.len() } else { 15 };
            let text: String = (0..round % 40)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    alphabet[(state >> 33) as usize % letters]
                })
                .collect();
            assert_eq!(words(&text), text.unicode_words().collect::<Vec<_>>(), "{text:?}");
        }
    }
}
