//! The task: labelled texts in three splits.
//!
//! The training split defines the labels: sorted, by value if all of them are integers, else by code point. A label of
//! dev or test that training lacks is an error, because no classifier could ever be right about it. Examples with an
//! empty text are dropped together with their labels and counted. Test texts that also stand in the training data are
//! listed, so that a score without them can be reported next to the plain one.

use super::error::DataError;
use super::files::expand;
use super::records::{Contents, Fields, Records};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// A labelled text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The text; never only white space.
    pub text: String,
    /// Index into [`Task::labels`].
    pub label: u32,
}

/// Files of a task: paths or globs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskFiles {
    /// Training files.
    pub train: Vec<String>,
    /// Development files; may be none.
    pub dev: Vec<String>,
    /// Test files; may be none.
    pub test: Vec<String>,
}

/// A task with all its splits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Label names; an example's label is an index into them.
    pub labels: Vec<String>,
    /// Training examples in file order.
    pub train: Vec<Example>,
    /// Development examples in file order.
    pub dev: Vec<Example>,
    /// Test examples in file order.
    pub test: Vec<Example>,
    /// Examples dropped for an empty text: of train, dev and test.
    pub empty: [usize; 3],
    /// Indices of the test examples whose text also is a training text, up to case and white space.
    pub test_in_train: Vec<u32>,
}

impl Task {
    /// Reads the three splits.
    ///
    /// # Errors
    /// Everything in [`DataError`] that concerns files, records and labels.
    pub fn read(files: &TaskFiles, fields: &Fields) -> Result<Task, DataError> {
        let (train, train_empty) = read_labelled(&files.train, fields)?;
        let Some(first) = train.first() else {
            return Err(DataError::NoMatch {
                pattern: files.train.join(", "),
            });
        };
        let labels = sorted_labels(&train);
        if labels.len() < 2 {
            return Err(DataError::OneLabel {
                path: first.path.clone(),
                label: first.label.clone(),
            });
        }
        let train = with_indices(train, &labels)?;
        let (dev, dev_empty) = read_examples(&files.dev, fields, &labels)?;
        let (test, test_empty) = read_examples(&files.test, fields, &labels)?;
        let test_in_train = shared_texts(&train, &test);
        Ok(Task {
            labels,
            train,
            dev,
            test,
            empty: [train_empty, dev_empty, test_empty],
            test_in_train,
        })
    }
}

/// Reads examples whose labels are known, and the number of those dropped for an empty text.
///
/// # Errors
/// Everything in [`DataError`] that concerns files, records and labels.
pub fn read_examples(
    patterns: &[String],
    fields: &Fields,
    labels: &[String],
) -> Result<(Vec<Example>, usize), DataError> {
    let (read, empty) = read_labelled(patterns, fields)?;
    Ok((with_indices(read, labels)?, empty))
}

/// Indices of the texts of `test` that equal a text of `train` up to case and white space.
#[must_use]
pub fn shared_texts(train: &[Example], test: &[Example]) -> Vec<u32> {
    let folded = |text: &str| {
        text.split_whitespace()
            .map(str::to_lowercase)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let known: HashSet<String> = train.iter().map(|example| folded(&example.text)).collect();
    (0_u32..)
        .zip(test)
        .filter(|(_, example)| known.contains(&folded(&example.text)))
        .map(|(index, _)| index)
        .collect()
}

struct Labelled {
    path: PathBuf,
    line: u64,
    text: String,
    label: String,
}

fn read_labelled(patterns: &[String], fields: &Fields) -> Result<(Vec<Labelled>, usize), DataError> {
    let mut examples = Vec::new();
    let mut empty = 0;
    let paths = expand(patterns)?;
    let mut records = Records::open(&paths, Contents::Examples, fields, |_| {});
    while let Some(record) = records.next() {
        let record = record?;
        if record.text.trim().is_empty() {
            empty += 1;
            continue;
        }
        let path = records.path().to_owned();
        let Some(label) = record.label else {
            return Err(DataError::TextHasNoLabels { path });
        };
        examples.push(Labelled {
            path,
            line: record.line,
            text: record.text,
            label,
        });
    }
    match paths.first() {
        Some(path) if examples.is_empty() => Err(DataError::OnlyEmptyTexts {
            path: path.clone(),
            empty,
        }),
        _ => Ok((examples, empty)),
    }
}

fn sorted_labels(examples: &[Labelled]) -> Vec<String> {
    let distinct: HashSet<&str> = examples.iter().map(|example| example.label.as_str()).collect();
    let mut labels: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
    labels.sort_unstable();
    if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
        labels.sort_by_key(|label| label.parse::<i64>().unwrap_or_default());
    }
    labels
}

fn with_indices(examples: Vec<Labelled>, labels: &[String]) -> Result<Vec<Example>, DataError> {
    let index: HashMap<&str, u32> = labels.iter().map(String::as_str).zip(0..).collect();
    let find = |example: Labelled| match index.get(example.label.as_str()) {
        Some(&label) => Ok(Example {
            text: example.text,
            label,
        }),
        None => Err(DataError::UnknownLabel {
            path: example.path,
            line: example.line,
            label: example.label,
            known: labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    };
    examples.into_iter().map(find).collect()
}
