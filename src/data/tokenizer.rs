//! The tokenizer: BERT's WordPiece, trained or loaded, kept as Hugging Face's `tokenizer.json`.
//!
//! ```text
//! text -> BertNormalizer (clean, lower case, no accents) -> BertPreTokenizer (blanks, punctuation one by one)
//!      -> WordPiece (longest match first) -> [CLS] tokens [SEP]
//! ```
//!
//! Punctuation is split one by one and every ASCII character of the training texts is in the vocabulary, so entity
//! markers such as `<<` and `]]` reach the model as two tokens each, never as `[UNK]`.

use super::error::DataError;
use super::wordpiece::{
    CONTINUATION, MAX_WORD_CHARS, SPECIAL_TOKENS, VocabularySettings, WordCounts, normalizer, train_vocabulary,
};
use crate::atomic;
use serde_json::{Map, Value, json};
use std::path::Path;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// Ids of the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// `[PAD]`: its embedding row starts at 0; packed batches never hold it.
    pub pad: u32,
    /// `[UNK]`
    pub unk: u32,
    /// `[CLS]`: first token of a sequence.
    pub cls: u32,
    /// `[SEP]`: last token of a sequence.
    pub sep: u32,
    /// `[MASK]`
    pub mask: u32,
}

impl SpecialIds {
    /// Whether an id is one of the five; those are never masked.
    #[inline]
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        id == self.pad || id == self.unk || id == self.cls || id == self.sep || id == self.mask
    }
}

/// A BERT tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) special: SpecialIds,
    vocab_size: usize,
    /// Whether a text without any of `added` may be tokenised word by word.
    pub(super) by_word: bool,
    /// Tokens that are looked for in the raw text.
    pub(super) added: Vec<String>,
}

impl Tokenizer {
    /// Trains a WordPiece vocabulary on counted words. Equal counts and settings give equal tokenizers, bit for bit,
    /// for any number of threads.
    ///
    /// # Errors
    /// [`DataError::Vocabulary`] if there are no words or the alphabet does not fit.
    pub fn train(words: &WordCounts, settings: &VocabularySettings) -> Result<Self, DataError> {
        let vocabulary = train_vocabulary(words, settings)?;
        let failed = |reason| DataError::Vocabulary {
            vocab_size: settings.vocab_size,
            reason,
        };
        from_vocabulary(&vocabulary, settings.lowercase).map_err(failed)
    }

    /// Loads `tokenizer.json` (any name in .json) or a `vocab.txt` (.txt) in the style of bert-base-uncased.
    ///
    /// # Errors
    /// [`DataError::Open`], or [`DataError::TokenizerFile`] if the file is broken or lacks a special token.
    pub fn load(path: &Path) -> Result<Self, DataError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("txt") => Tokenizer::load_vocabulary(path, true),
            Some("json") => {
                let bytes = std::fs::read(path).map_err(|source| DataError::Open {
                    path: path.to_owned(),
                    source,
                })?;
                let failed = |reason| DataError::TokenizerFile {
                    path: path.to_owned(),
                    reason,
                };
                let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| failed(error.to_string()))?;
                wrap(inner).map_err(failed)
            }
            _ => Err(DataError::TokenizerFile {
                path: path.to_owned(),
                reason: "expected tokenizer.json, or a vocabulary such as vocab.txt".into(),
            }),
        }
    }

    /// Loads a vocabulary with one token a line, in the order of the ids.
    ///
    /// # Errors
    /// [`DataError::Open`], [`DataError::Utf8`], or [`DataError::TokenizerFile`] for a token that stands twice or a
    /// missing special token.
    pub fn load_vocabulary(path: &Path, lowercase: bool) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(|source| DataError::Open {
            path: path.to_owned(),
            source,
        })?;
        let mut vocabulary = Vec::new();
        let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|&byte| byte == b'\n');
        for (line, token) in (1_u64..).zip(lines) {
            let token = std::str::from_utf8(token).map_err(|error| DataError::Utf8 {
                path: path.to_owned(),
                line,
                place: format!("byte {} of the line", error.valid_up_to() + 1),
            })?;
            vocabulary.push(token.trim_end().to_owned());
        }
        let failed = |reason| DataError::TokenizerFile {
            path: path.to_owned(),
            reason,
        };
        from_vocabulary(&vocabulary, lowercase).map_err(failed)
    }

    /// Writes `tokenizer.json`; whole or not at all.
    ///
    /// # Errors
    /// [`DataError::Write`], or [`DataError::TokenizerFile`] if the tokenizer has no JSON form.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        let json = self.inner.to_string(true).map_err(|error| DataError::TokenizerFile {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(atomic::write(path, json.as_bytes())?)
    }

    /// Ids are below this number; the number of rows of the word embedding.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Ids of the special tokens.
    #[must_use]
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// The token of an id, if there is one.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, if there is one.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

fn from_vocabulary(vocabulary: &[String], lowercase: bool) -> Result<Tokenizer, String> {
    let mut ids = Map::new();
    for (id, token) in vocabulary.iter().enumerate() {
        if let Some(other) = ids.insert(token.clone(), Value::from(id)) {
            return Err(format!(
                "token `{token}` stands on lines {} and {}; remove one",
                other.as_u64().unwrap_or_default() + 1,
                id + 1
            ));
        }
    }
    let model = json!({
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": CONTINUATION,
        "max_input_chars_per_word": MAX_WORD_CHARS,
        "vocab": ids,
    });
    let model = WordPiece::from_bytes(model.to_string()).map_err(|error| error.to_string())?;
    let mut inner = tokenizers::Tokenizer::new(model);
    inner
        .with_normalizer(Some(normalizer(lowercase)))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_decoder(Some(WordPieceDecoder::new(CONTINUATION.to_owned(), true)));
    let special = special_ids(&inner)?;
    inner.with_post_processor(Some(BertProcessing::new(
        ("[SEP]".to_owned(), special.sep),
        ("[CLS]".to_owned(), special.cls),
    )));
    inner.add_special_tokens(&SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)));
    wrap(inner)
}

fn special_ids(inner: &tokenizers::Tokenizer) -> Result<SpecialIds, String> {
    let id = |token: &str| {
        let missing = || format!("it has no `{token}`; give a BERT WordPiece tokenizer, which has {SPECIAL_TOKENS:?}");
        inner.token_to_id(token).ok_or_else(missing)
    };
    Ok(SpecialIds {
        pad: id("[PAD]")?,
        unk: id("[UNK]")?,
        cls: id("[CLS]")?,
        sep: id("[SEP]")?,
        mask: id("[MASK]")?,
    })
}

fn wrap(mut inner: tokenizers::Tokenizer) -> Result<Tokenizer, String> {
    let special = special_ids(&inner)?;
    // Lengths are the caller's business; a stored truncation or padding must not interfere.
    inner
        .with_padding(None)
        .with_truncation(None)
        .map_err(|error| error.to_string())?;
    let mut added: Vec<_> = inner
        .get_added_vocabulary()
        .get_added_tokens_decoder()
        .values()
        .cloned()
        .collect();
    added.sort_by(|a, b| a.content.cmp(&b.content));
    let by_word = matches!(inner.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)))
        && matches!(
            inner.get_pre_tokenizer(),
            Some(PreTokenizerWrapper::BertPreTokenizer(_))
        )
        && matches!(inner.get_model(), ModelWrapper::WordPiece(_))
        && added.iter().all(|token| !token.normalized);
    let added = added.into_iter().map(|token| token.content).collect();
    // One more than the largest id: a vocabulary may have holes.
    let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
    Ok(Tokenizer {
        inner,
        special,
        vocab_size,
        by_word,
        added,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A vocabulary with the example of Devlin et al.'s tokenization_test.py.
    const VOCABULARY: &str =
        "[UNK]\n[CLS]\n[SEP]\nwant\n##want\n##ed\nwa\nun\nrunn\n##ing\n,\nlow\nlowest\n[PAD]\n[MASK]\n<\n";

    fn file(folder: &tempfile::TempDir, name: &str, contents: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.inner.encode(text, true).unwrap().get_ids().to_vec()
    }

    fn trained() -> Tokenizer {
        let mut words = WordCounts::default();
        words.add(&[
            "low lower lowest",
            "new newer newest",
            "<< gene >> wide [[ drug ]]; the widest newest lowest",
        ]);
        let settings = VocabularySettings {
            vocab_size: 80,
            ..VocabularySettings::default()
        };
        Tokenizer::train(&words, &settings).unwrap()
    }

    #[test]
    fn a_vocabulary_file_gives_the_known_word_pieces() {
        let folder = tempfile::tempdir().unwrap();
        for contents in [VOCABULARY.to_owned(), VOCABULARY.replace('\n', "\r\n")] {
            let tokenizer = Tokenizer::load(&file(&folder, "vocab.txt", contents.as_bytes())).unwrap();
            assert_eq!(ids(&tokenizer, "UNwanted,\u{7}running"), [1, 7, 4, 5, 10, 8, 9, 2]);
            assert_eq!(ids(&tokenizer, "unwantedX lówest <<"), [1, 0, 12, 15, 15, 2]);
            assert_eq!(
                tokenizer.special(),
                SpecialIds {
                    pad: 13,
                    unk: 0,
                    cls: 1,
                    sep: 2,
                    mask: 14
                }
            );
            assert_eq!(tokenizer.vocab_size(), 16);
            assert_eq!(
                (tokenizer.token(3).as_deref(), tokenizer.id("lowest")),
                (Some("want"), Some(12))
            );
        }
        let cased = Tokenizer::load_vocabulary(&file(&folder, "vocab.txt", VOCABULARY.as_bytes()), false).unwrap();
        assert_eq!(ids(&cased, "Want want"), [1, 0, 3, 2]);
    }

    #[test]
    fn a_saved_tokenizer_loads_as_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("tokenizer.json"), folder.path().join("again.json"));
        let tokenizer = trained();
        tokenizer.save(&first).unwrap();
        let loaded = Tokenizer::load(&first).unwrap();
        loaded.save(&second).unwrap();
        assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
        assert_eq!(
            (loaded.special(), loaded.vocab_size()),
            (tokenizer.special(), tokenizer.vocab_size())
        );
        assert!(loaded.by_word);
        let text = "<< lowest >> [MASK] newer";
        assert_eq!(ids(&loaded, text), ids(&tokenizer, text));
    }

    #[test]
    fn training_gives_the_same_bits_for_any_number_of_threads_and_any_order_of_texts() {
        let mut texts: Vec<String> = (0..3000_u32)
            .map(|i| format!("w{} lower{} newest{}x ünder{}", i % 97, i % 31, i * i % 1009, i % 7))
            .collect();
        let json = |texts: &[String], threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let train = || {
                let mut words = WordCounts::default();
                words.add(texts);
                let settings = VocabularySettings {
                    vocab_size: 600,
                    ..VocabularySettings::default()
                };
                Tokenizer::train(&words, &settings)
                    .unwrap()
                    .inner
                    .to_string(false)
                    .unwrap()
            };
            pool.install(train)
        };
        let expected = json(&texts, 1);
        for round in 0..12 {
            assert_eq!(json(&texts, 1 + round % 4), expected);
        }
        texts.reverse();
        assert_eq!(json(&texts, 2), expected);
    }

    #[test]
    fn entity_markers_are_tokens_and_never_unknown() {
        let tokenizer = trained();
        let tokens = tokenizer.inner.encode("<< widest >> and [[ newest ]]", false).unwrap();
        let tokens = tokens.get_tokens();
        assert_eq!(tokens[..2], ["<", "<"]);
        assert_eq!(tokens[tokens.len() - 2..], ["]", "]"]);
        for marker in ["<", ">", "[", "]"] {
            assert_eq!(tokens.iter().filter(|&token| token == marker).count(), 2, "{tokens:?}");
        }
    }

    #[test]
    fn unusable_files_are_named_with_their_fault() {
        let folder = tempfile::tempdir().unwrap();
        let message =
            |name: &str, contents: &[u8]| Tokenizer::load(&file(&folder, name, contents)).unwrap_err().to_string();
        let twice = message("twice.txt", format!("{VOCABULARY}want\n").as_bytes());
        assert!(
            twice.contains("twice.txt") && twice.contains("`want` stands on lines 4 and 17"),
            "{twice}"
        );
        let no_mask = message("no_mask.txt", VOCABULARY.replace("[MASK]", "x").as_bytes());
        assert!(
            no_mask.contains("no `[MASK]`") && no_mask.contains("BERT WordPiece"),
            "{no_mask}"
        );
        let latin = message("latin.txt", b"[PAD]\n[UNK]\nna\xefve\n");
        assert!(latin.contains("latin.txt:3: invalid UTF-8 at byte 3"), "{latin}");
        assert!(message("broken.json", b"{\"version\": ").contains("broken.json: not a usable tokenizer"));
        assert!(message("tokenizer.bin", b"").contains("expected tokenizer.json"));
        let missing = Tokenizer::load(&folder.path().join("none.json"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("none.json: cannot open"), "{missing}");
    }
}
