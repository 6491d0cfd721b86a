//! The Porter stemmer, with the extensions of its author.
//!
//! M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, as Martin Porter's own C program has it and
//! Lucene's `PorterStemFilter` after him. The program departs from the paper in three points, which Snowball's
//! `porter` leaves out: words of one or two letters stay as they are, step 2 maps `bli` to `ble` (the paper: `abli` to
//! `able`) and has the further rule `logi` to `log`. Published BM25 baselines are made with Lucene, hence this one.
//!
//! A word is `[C](VC)^m[V]`, C and V being runs of consonants and vowels; m is its *measure*. The vowels are a, e, i,
//! o, u, and y after a consonant. Every other character, of whatever script, is a consonant.

/// The stem of a lower-case word.
///
/// Works on characters, so words of any script pass safely; only English suffixes are removed.
#[must_use]
pub fn stem(word: &str) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    if letters.len() > 2 {
        plurals_and_participles(&mut letters);
        terminal_y(&mut letters);
        replace_suffix(&mut letters, STEP_2);
        replace_suffix(&mut letters, STEP_3);
        long_suffixes(&mut letters);
        terminal_e_and_ll(&mut letters);
    }
    letters.into_iter().collect()
}

/// Step 2: suffix, replacement; applied if the measure of what precedes the suffix is above 0. Of two suffixes that
/// both match, the longer stands first.
const STEP_2: &[(&str, &str)] = &[
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
];

/// Step 3, under the same condition.
const STEP_3: &[(&str, &str)] = &[
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Step 4: removed if the measure of what precedes is above 1; `ion` only after s or t.
const STEP_4: &[&str] = &[
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
];

/// Step 1a and 1b: `-s`, `-eed`, `-ed`, `-ing`.
fn plurals_and_participles(word: &mut Vec<char>) {
    if ends_with(word, "sses") || ends_with(word, "ies") {
        word.truncate(word.len() - 2);
    } else if ends_with(word, "s") && !ends_with(word, "ss") {
        word.pop();
    }
    if ends_with(word, "eed") {
        if measure(&word[..word.len() - 3]) > 0 {
            word.pop();
        }
        return;
    }
    let Some(suffix) = ["ed", "ing"].into_iter().find(|suffix| ends_with(word, suffix)) else {
        return;
    };
    let stem_len = word.len() - suffix.len();
    if !has_vowel(&word[..stem_len]) {
        return;
    }
    word.truncate(stem_len);
    if ["at", "bl", "iz"].into_iter().any(|end| ends_with(word, end)) {
        word.push('e');
    } else if ends_with_double_consonant(word) {
        if !matches!(word.last(), Some('l' | 's' | 'z')) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_cvc(word) {
        word.push('e');
    }
}

/// Step 1c: `y` becomes `i` if a vowel precedes it.
fn terminal_y(word: &mut [char]) {
    let last = word.len() - 1;
    if word[last] == 'y' && has_vowel(&word[..last]) {
        word[last] = 'i';
    }
}

/// Steps 2 and 3: replaces the first suffix of `rules` that matches, if the measure of what precedes it is above 0.
fn replace_suffix(word: &mut Vec<char>, rules: &[(&str, &str)]) {
    if let Some((suffix, replacement)) = rules.iter().find(|(suffix, _)| ends_with(word, suffix)) {
        let stem_len = word.len() - suffix.len();
        if measure(&word[..stem_len]) > 0 {
            word.truncate(stem_len);
            word.extend(replacement.chars());
        }
    }
}

/// Step 4.
fn long_suffixes(word: &mut Vec<char>) {
    for suffix in STEP_4 {
        if !ends_with(word, suffix) {
            continue;
        }
        let stem_len = word.len() - suffix.len();
        if *suffix == "ion" && !matches!(word[..stem_len].last(), Some('s' | 't')) {
            continue;
        }
        if measure(&word[..stem_len]) > 1 {
            word.truncate(stem_len);
        }
        return;
    }
}

/// Step 5: a final `e`, then `ll`.
fn terminal_e_and_ll(word: &mut Vec<char>) {
    if word.last() == Some(&'e') {
        let rest = &word[..word.len() - 1];
        let m = measure(rest);
        if m > 1 || m == 1 && !ends_cvc(rest) {
            word.pop();
        }
    }
    if word.last() == Some(&'l') && ends_with_double_consonant(word) && measure(word) > 1 {
        word.pop();
    }
}

/// Whether `word` ends with `suffix` (ASCII).
fn ends_with(word: &[char], suffix: &str) -> bool {
    // From the end, where most differ at once.
    let mut ends = word.iter().rev().zip(suffix.bytes().rev());
    word.len() >= suffix.len() && ends.all(|(&letter, byte)| letter == char::from(byte))
}

/// For each letter whether it is a consonant: a y is one at the start of the word and after a vowel.
fn consonants(word: &[char]) -> impl Iterator<Item = bool> {
    word.iter().scan(false, |after_consonant, letter| {
        *after_consonant = match letter {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => !*after_consonant,
            _ => true,
        };
        Some(*after_consonant)
    })
}

/// m of `[C](VC)^m[V]`: how often a consonant follows a vowel.
fn measure(word: &[char]) -> usize {
    let mut m = 0;
    let mut after_vowel = false;
    for consonant in consonants(word) {
        m += usize::from(consonant && after_vowel);
        after_vowel = !consonant;
    }
    m
}

/// Whether the word has a vowel.
fn has_vowel(word: &[char]) -> bool {
    consonants(word).any(|consonant| !consonant)
}

/// Whether the last two letters are the same consonant.
fn ends_with_double_consonant(word: &[char]) -> bool {
    let n = word.len();
    n >= 2 && word[n - 1] == word[n - 2] && consonants(word).last() == Some(true)
}

/// Whether the word ends consonant, vowel, consonant, the last not being w, x or y: a short syllable, which takes
/// back its e (`hop` + e).
fn ends_cvc(word: &[char]) -> bool {
    let n = word.len();
    n >= 3 && consonants(word).skip(n - 3).eq([true, false, true]) && !matches!(word[n - 1], 'w' | 'x' | 'y')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples printed in the 1980 paper, taken through the whole algorithm.
    #[test]
    fn words_of_the_paper_get_their_stems() {
        let pairs = [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("ties", "ti"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("bled", "bled"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("troubled", "troubl"),
            ("sized", "size"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("hissing", "hiss"),
            ("fizzed", "fizz"),
            ("failing", "fail"),
            ("filing", "file"),
            ("happy", "happi"),
            ("sky", "sky"),
            ("relational", "relat"),
            ("conditional", "condit"),
            ("rational", "ration"),
            ("digitizer", "digit"),
            ("vietnamization", "vietnam"),
            ("callousness", "callous"),
            ("triplicate", "triplic"),
            ("formalize", "formal"),
            ("hopefulness", "hope"),
            ("revival", "reviv"),
            ("replacement", "replac"),
            ("adoption", "adopt"),
            ("homologou", "homolog"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("cease", "ceas"),
            ("controll", "control"),
            ("roll", "roll"),
            ("generalizations", "gener"),
            ("oscillators", "oscil"),
        ];
        for (word, expected) in pairs {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn the_three_departures_of_the_program_are_in() {
        assert_eq!(stem("possibly"), "possibl"); // bli -> ble; the paper gives possibli
        assert_eq!(stem("archaeology"), "archaeolog"); // logi -> log; the paper gives archaeologi
        assert_eq!(stem("is"), "is"); // two letters; the paper gives i
    }

    #[test]
    fn words_of_other_scripts_pass_without_panic() {
        assert_eq!(stem("naïve"), "naïv");
        assert_eq!(stem("мир"), "мир");
        assert_eq!(stem("𐑐𐑐ing"), "𐑐𐑐ing"); // no vowel before -ing
        assert_eq!(stem("a𐑐𐑐ing"), "a𐑐"); // a double consonant loses one letter, not one byte
    }
}
