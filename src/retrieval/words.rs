//! Segmentation of text into words.
//!
//! A word is a segment of UAX #29 (Unicode word boundaries) that contains a letter or a digit. Finding them is cheap
//! in ASCII and expensive elsewhere. No word contains a blank, so a text is cut at blanks into stretches that are ASCII
//! throughout, which are scanned here, 64 bytes at a time as bits of a number, and stretches that are not, which go to
//! the crate `unicode-segmentation`.

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
    let mut emit = |start: usize, end: usize| {
        if bytes[start] != b'_' || bytes[start..end].iter().any(u8::is_ascii_alphanumeric) {
            visit(&text[start..end]);
        }
    };
    // The word that goes on behind the 64 bytes at hand began here.
    let mut open = None;
    for base in (0..bytes.len()).step_by(64) {
        let rest = &bytes[base..];
        let (mut inside, separators) = match rest.first_chunk() {
            Some(chunk) => inside_and_separators(chunk),
            None => {
                let mut chunk = [0; 64];
                chunk[..rest.len()].copy_from_slice(rest);
                inside_and_separators(&chunk)
            }
        };
        let before = u64::from(open.is_some());
        let behind = u64::from(class(base + 64) & (LETTER | DIGIT | UNDERSCORE) != 0);
        let mut joins = separators & (inside << 1 | before) & (inside >> 1 | behind << 63);
        while joins != 0 {
            let at = base + joins.trailing_zeros() as usize;
            if (class(at) >> 3) & class(at - 1) & class(at + 1) != 0 {
                inside |= joins & joins.wrapping_neg();
            }
            joins &= joins - 1;
        }
        // Where words begin and end, in turn.
        let mut edges = inside ^ (inside << 1 | before);
        let mut next_edge = || {
            let at = (edges != 0).then(|| base + edges.trailing_zeros() as usize);
            edges &= edges.wrapping_sub(1);
            at
        };
        if let Some(start) = open {
            match next_edge() {
                Some(end) => emit(start, end),
                None => continue,
            }
        }
        open = loop {
            let Some(start) = next_edge() else { break None };
            match next_edge() {
                Some(end) => emit(start, end),
                None => break Some(start),
            }
        };
    }
    if let Some(start) = open {
        emit(start, bytes.len());
    }
}

/// One bit for each of 64 ASCII bytes: letters, digits and `_`, and the five that may join two of them.
#[inline(always)]
fn inside_and_separators(chunk: &[u8; 64]) -> (u64, u64) {
    let (mut inside, mut separators) = (0, 0);
    for (number, eight) in chunk.as_chunks::<8>().0.iter().enumerate() {
        let is_inside = eight.map(|byte| {
            let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
            let digit = byte.wrapping_sub(b'0') < 10;
            u8::from(letter | digit | (byte == b'_'))
        });
        let is_separator = eight.map(|byte| {
            let comma_or_dot = (byte == b',') | (byte == b'.');
            let colons = (byte == b':') | (byte == b';');
            u8::from(comma_or_dot | colons | (byte == b'\''))
        });
        inside |= bits(is_inside) << (8 * number);
        separators |= bits(is_separator) << (8 * number);
    }
    (inside, separators)
}

/// Eight bytes of 0 or 1 as eight bits: the product moves byte i to bit 56 + i.
#[inline(always)]
fn bits(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56
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
            let text: String = (0..round % 200)
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
