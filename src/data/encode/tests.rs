//! Encoding against the crate `tokenizers` on whole texts, and what becomes of long texts.

use super::*;
use crate::data::{Fields, Passages, VocabularySettings, WordCounts};
use std::path::Path;

const TEXTS: [&str; 12] = [
    "One word. Two words here! Is it three words now? Four and more words stand here.",
    "<< Aspirin >> inhibits [[ COX-1 ]], Ünïcödé and naïve\tcafés\r\nof 10,000 µg.",
    "a\u{b}b vertical tab, \u{85}next line, no\u{a0}break, zero\u{200b}width, \u{2028}line separator",
    "e\u{301} combining, \u{301}first, Å Å ﬁ ligature İstanbul ẞ ΣΑΣ",
    "中文字 and 日本語テキスト mixed한국어 𠀀",
    "literal [MASK] and [SEP] and [UNK]s [ MASK ]",
    "emoji 👩‍👩‍👧 flags 🇩🇪 \u{fffd} \0 nul",
    "",
    "   \n\t ",
    "\u{200b}\u{200b}",
    "word",
    "many words in one long sentence without any end that goes on and on and on until it is far too long to fit",
];

fn tokenizer() -> Tokenizer {
    let mut words = WordCounts::default();
    words.add(&TEXTS);
    let settings = VocabularySettings {
        vocab_size: 400,
        min_frequency: 1,
        ..VocabularySettings::default()
    };
    Tokenizer::train(&words, &settings).unwrap()
}

/// The ids that the crate gives for a whole text.
fn whole(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.inner.encode(text, true).unwrap().get_ids().to_vec()
}

fn assert_equal_to_whole_texts<T: AsRef<str> + Sync>(tokenizer: &Tokenizer, texts: &[T]) {
    let (sequences, report) = tokenizer.encode(texts, 1 << 20, LongTexts::Truncate).unwrap();
    assert_eq!((sequences.len(), report.truncated), (texts.len(), 0));
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(
            sequences.ids(index),
            whole(tokenizer, text.as_ref()),
            "{:?}",
            text.as_ref()
        );
    }
    assert_eq!(sequences.tokens(), report.tokens + 2 * texts.len());
}

#[test]
fn word_by_word_gives_the_ids_of_whole_texts() {
    let tokenizer = tokenizer();
    assert!(tokenizer.by_word);
    assert_equal_to_whole_texts(&tokenizer, &TEXTS);
    // Twice, so that remembered words are used as well.
    assert_equal_to_whole_texts(&tokenizer, &[TEXTS, TEXTS].concat());
}

#[test]
fn word_by_word_gives_the_ids_of_whole_texts_on_the_quickstart_corpus() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/quickstart/corpus.jsonl.zst");
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return;
    }
    let passages = Passages::open(&[path], &Fields::default(), |_| {});
    let texts: Vec<String> = passages.take(1500).map(|passage| passage.unwrap().text).collect();
    let mut words = WordCounts::default();
    words.add(&texts);
    let tokenizer = Tokenizer::train(&words, &VocabularySettings::default()).unwrap();
    assert_equal_to_whole_texts(&tokenizer, &texts);
}

#[test]
fn truncation_keeps_the_first_tokens_and_the_frame() {
    let tokenizer = tokenizer();
    let (sequences, report) = tokenizer.encode(&TEXTS, 8, LongTexts::Truncate).unwrap();
    assert_eq!((sequences.len(), report.texts, sequences.longest()), (12, 12, 8));
    let mut truncated = 0;
    for (index, text) in TEXTS.iter().enumerate() {
        let mut expected = whole(&tokenizer, text);
        if expected.len() > 8 {
            truncated += 1;
            expected.truncate(7);
            expected.push(tokenizer.special().sep);
        }
        assert_eq!(sequences.ids(index), expected);
    }
    assert_eq!((report.truncated, report.cut, report.empty), (truncated, 0, 3));
}

#[test]
fn cut_texts_lose_no_token_and_texts_without_tokens_give_no_sequence() {
    let tokenizer = tokenizer();
    let special = tokenizer.special();
    for max_length in [3, 8, 20, 128] {
        let (sequences, report) = tokenizer.encode(&TEXTS, max_length, LongTexts::Cut).unwrap();
        let mut tokens = Vec::new();
        for sequence in 0..sequences.len() {
            let ids = sequences.ids(sequence);
            assert!((3..=max_length).contains(&ids.len()));
            assert_eq!((ids[0], ids[ids.len() - 1]), (special.cls, special.sep));
            tokens.extend_from_slice(&ids[1..ids.len() - 1]);
        }
        let expected: Vec<u32> = TEXTS
            .iter()
            .flat_map(|text| {
                let ids = whole(&tokenizer, text);
                ids[1..ids.len() - 1].to_vec()
            })
            .collect();
        assert_eq!(tokens, expected, "max_length {max_length}");
        assert_eq!((report.tokens, report.empty, report.truncated), (expected.len(), 3, 0));
    }
}

#[test]
fn a_cut_text_ends_its_pieces_with_sentences() {
    let tokenizer = tokenizer();
    let counts: Vec<usize> = [
        "One word. Two words here!",
        "Is it three words now?",
        "Four and more words stand here.",
    ]
    .iter()
    .map(|text| whole(&tokenizer, text).len())
    .collect();
    let (sequences, report) = tokenizer
        .encode(&TEXTS[..1], counts[0].max(counts[2]), LongTexts::Cut)
        .unwrap();
    let lengths: Vec<usize> = (0..sequences.len())
        .map(|sequence| sequences.ids(sequence).len())
        .collect();
    assert_eq!(lengths, counts);
    assert_eq!(report.cut, 1);
}

#[test]
fn unknown_words_are_counted() {
    let tokenizer = tokenizer();
    let (sequences, report) = tokenizer.encode(&["word ☃☃ word ж"], 20, LongTexts::Truncate).unwrap();
    assert_eq!(report.unknown, 2);
    assert_eq!(
        sequences
            .ids(0)
            .iter()
            .filter(|&&id| id == tokenizer.special().unk)
            .count(),
        2
    );
}

#[test]
fn encoding_is_the_same_for_any_number_of_threads() {
    let tokenizer = tokenizer();
    let texts: Vec<String> = (0..3000)
        .map(|i| format!("{} {i} {}", TEXTS[i % 12], TEXTS[i * 7 % 12]))
        .collect();
    let encode = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| tokenizer.encode(&texts, 16, LongTexts::Cut).unwrap())
    };
    let expected = encode(1);
    assert_eq!(encode(2), expected);
    assert_eq!(encode(5), expected);
}

#[test]
fn labels_follow_their_examples() {
    let tokenizer = tokenizer();
    let examples: Vec<Example> = TEXTS
        .iter()
        .zip(0..)
        .map(|(&text, label)| Example {
            text: text.to_owned(),
            label,
        })
        .collect();
    let (sequences, _) = tokenizer.encode_examples(&examples, 8, &|_| ()).unwrap();
    assert_eq!(sequences.labels(), (0..12).collect::<Vec<u32>>());
    let error = Sequences::clone(&sequences)
        .set_labels(vec![0])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the number of labels is 1, expected one for each of the 12 sequences"
    );
    assert!(
        tokenizer
            .encode(&TEXTS, 2, LongTexts::Cut)
            .unwrap_err()
            .to_string()
            .contains("3 or more")
    );
}
