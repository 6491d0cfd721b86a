//! What can be wrong with data: each error says where (file:line), what was found, what was expected, and what to do.

use crate::atomic::WriteError;
use std::path::PathBuf;

/// An error of the data layer.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A glob or a path names no file.
    #[error("no file matches `{pattern}`; check the path (a relative one counts from the configuration file)")]
    NoMatch {
        /// The pattern as given.
        pattern: String,
    },
    /// A glob that cannot be parsed.
    #[error("bad glob `{pattern}`: {reason}; use `*`, `?`, `[a-z]` and `**` only")]
    BadGlob {
        /// The pattern as given.
        pattern: String,
        /// What the glob parser says.
        reason: String,
    },
    /// The file name does not end in a format that is read.
    #[error(
        "{}: unknown file type; name it .jsonl, .csv, .tsv or .txt, each also with .gz or .zst behind",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be opened.
    #[error("{}: cannot open: {source}; check that it exists and may be read", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Reading stopped: a system error, or a broken or truncated compressed file.
    #[error(
        "{}:{line}: cannot read on: {source}; if the file is compressed, it may be cut off: fetch or pack it again",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The line that was being read, from 1.
        line: u64,
        /// The system's or the decompressor's answer.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A line that is not UTF-8.
    #[error(
        "{}:{line}: invalid UTF-8 at {place}; convert the file, e.g. `iconv -f LATIN1 -t UTF-8`",
        path.display()
    )]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The byte, from 1, and what it is counted in.
        place: String,
    },
    /// A line that is not a JSON object.
    #[error(
        "{}:{line}: broken JSON at column {column}: {reason}; each line is one object such as {{\"text\": \"...\"}}",
        path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: usize,
        /// What the parser expected and found.
        reason: String,
    },
    /// A record that breaks the CSV format.
    #[error("{}:{line}: broken record: {reason}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// Line on which the record starts, from 1.
        line: u64,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A record (or a CSV header) without a field that is needed.
    #[error(
        "{}:{line}: field `{field}` is missing (found: {found}); add it, or name the field that holds it",
        path.display()
    )]
    MissingField {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The field that was looked for.
        field: String,
        /// The fields that are there.
        found: String,
    },
    /// A field that holds another kind of value than expected.
    #[error("{}:{line}: field `{field}` is {found}, expected {expected}", path.display())]
    FieldType {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The field.
        field: String,
        /// The kind that was found.
        found: &'static str,
        /// The kinds that are allowed.
        expected: &'static str,
    },
    /// A file without a single record.
    #[error("{}:1: the file holds no records; remove it from the inputs or check how it was made", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// All texts of a split are empty.
    #[error("{}: all {empty} texts are empty; check which field holds the text", path.display())]
    OnlyEmptyTexts {
        /// The (first) file of the split.
        path: PathBuf,
        /// How many empty texts were found.
        empty: usize,
    },
    /// A plain text file where labels are needed.
    #[error("{}: a .txt file has no labels; give the task as .jsonl, .csv or .tsv", path.display())]
    TextHasNoLabels {
        /// The file.
        path: PathBuf,
    },
    /// A label in dev or test that no training example has.
    #[error(
        "{}:{line}: label `{label}` does not occur in the training data, whose labels are {known}; \
         correct it, or add training examples with it",
        path.display()
    )]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The label that was found.
        label: String,
        /// The training labels.
        known: String,
    },
    /// A training set with a single label.
    #[error(
        "{}: every training example has the label `{label}`; a classifier needs at least two labels",
        path.display()
    )]
    OneLabel {
        /// The (first) training file.
        path: PathBuf,
        /// The only label.
        label: String,
    },
    /// A tokenizer file or vocabulary that cannot be used.
    #[error("{}: not a usable tokenizer: {reason}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A vocabulary that cannot be trained with these settings.
    #[error("cannot train a vocabulary of {vocab_size} tokens: {reason}")]
    Vocabulary {
        /// The size asked for.
        vocab_size: usize,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The tokenizer failed on a text.
    #[error("cannot tokenise the text that starts with `{start}`: {reason}")]
    Encode {
        /// The first characters of the text.
        start: String,
        /// What the tokenizer says.
        reason: String,
    },
    /// A setting of batches, masking or tokenisation out of its range.
    #[error("{what} is {found}, expected {expected}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// A batch that does not fit its plan.
    #[error(
        "batch {batch} needs {needed} {what}, but the plan holds {capacity}; \
         sequences are longer than the plan's maximum length"
    )]
    Capacity {
        /// Index of the batch.
        batch: u64,
        /// `tokens` or `sequences`.
        what: &'static str,
        /// What the batch needs.
        needed: usize,
        /// What the plan holds.
        capacity: usize,
    },
}
