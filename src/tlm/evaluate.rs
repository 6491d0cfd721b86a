//! A trained model at work: its scores on labelled texts, its answers on new ones.
//!
//! [`evaluate`] leaves out labelled texts that are empty and says how many, as training does. [`predict`] answers every
//! record, in order, so that answers can be put beside their texts: an empty text is `[CLS] [SEP]` to the model. (Lines
//! of white space between JSON objects are no records; those of a `.txt` file are.)
//!
//! Texts go through the model some dozens at a time; memory does not grow with the input.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::{Map, Value};

use super::TlmError;
use super::classifier::Classifier;
use super::observer::{Observer, Unit};
use super::outcome::TestReport;
use crate::data::{Contents, DataError, Fields, Format, Record, Records, read_examples, stored_bytes};
use crate::device::choice::DeviceChoice;
use crate::train::classifier::{predictions, scores};
use crate::train::metrics::{Confusion, Metric};

/// Texts that go through the model at a time.
const BATCH: usize = 32;
/// Name of the standard input as a file, and in messages.
const STDIN: &str = "-";

/// What `tlm eval` is asked for.
#[derive(Clone, Debug)]
pub struct EvaluationRequest {
    /// Model directory.
    pub model: PathBuf,
    /// Files or patterns of labelled texts.
    pub data: Vec<String>,
    /// Column or JSON field of the text.
    pub text_column: String,
    /// Column or JSON field of the label.
    pub label_column: String,
    /// The score to be named `value`.
    pub metric: Metric,
    /// Where to compute.
    pub device: DeviceChoice,
}

/// Scores of a model on labelled texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The classes by index.
    pub labels: Vec<String>,
    /// The scores.
    #[serde(flatten)]
    pub test: TestReport,
}

/// What `tlm predict` is asked for.
#[derive(Clone, Debug)]
pub struct PredictionRequest {
    /// Model directory.
    pub model: PathBuf,
    /// File of texts; `-`: the standard input.
    pub input: PathBuf,
    /// How the texts are written; none: as the file's name says, or as the standard input's first byte does.
    pub format: Option<Format>,
    /// Column or JSON field of the text.
    pub text_column: String,
    /// Where to compute.
    pub device: DeviceChoice,
}

/// The model's answer to one text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The most probable class, the first of equally probable ones.
    pub label: String,
    /// The probability of each class, in the order of the classes.
    pub scores: Map<String, Value>,
}

/// Scores a model on labelled texts.
///
/// # Errors
/// [`TlmError::Data`] for files that cannot be read and labels that the model does not know, and those of
/// [`Classifier::open`].
pub fn evaluate(request: &EvaluationRequest, observer: &mut dyn Observer) -> Result<Evaluation, TlmError> {
    let mut classifier = open(&request.model, request.device, observer)?;
    let labels = classifier.labels().to_vec();
    let fields = Fields {
        text: request.text_column.clone(),
        label: request.label_column.clone(),
        ..Fields::default()
    };
    let (examples, empty) = read_examples(&request.data, &fields, &labels)?;
    if empty > 0 {
        observer.note(&format!("{empty} empty texts are left out"));
    }
    let (mut truth, mut predicted) = (Vec::new(), Vec::new());
    observer.begin("evaluating", examples.len() as u64, 0, Unit::Texts);
    for batch in examples.chunks(BATCH) {
        let texts: Vec<&str> = batch.iter().map(|example| example.text.as_str()).collect();
        predicted.extend(predictions(&classifier.logits(&texts)?, labels.len()));
        truth.extend(batch.iter().map(|example| example.label));
        observer.advance(truth.len() as u64, "");
    }
    observer.end();
    let confusion = Confusion::count(&truth, &predicted, labels.len())
        .expect("there is a prediction for each example, and both are classes of the model");
    let test = TestReport::of(&confusion, request.metric);
    Ok(Evaluation { labels, test })
}

/// Labels texts as they come: `write` gets the predictions in the order of the records, some at a time, and stops the
/// work by returning false. Where a record is bad, the answers to all records before it are written first.
///
/// # Errors
/// As [`evaluate`].
pub fn predict(
    request: &PredictionRequest,
    mut write: impl FnMut(&[Prediction]) -> bool,
    observer: &mut dyn Observer,
) -> Result<(), TlmError> {
    let fields = Fields {
        text: request.text_column.clone(),
        ..Fields::default()
    };
    let bytes_read = Arc::new(AtomicU64::new(0));
    let from_stdin = request.input == Path::new(STDIN);
    let mut classifier = open(&request.model, request.device, observer)?;
    let mut records = if from_stdin {
        stdin(io::stdin(), request.format, &fields)?
    } else {
        let counter = Arc::clone(&bytes_read);
        let count = move |bytes| {
            counter.fetch_add(bytes, Ordering::Relaxed);
        };
        let records = Records::open(std::slice::from_ref(&request.input), Contents::Passages, &fields, count);
        match request.format {
            Some(format) => records.with_format(format),
            None => records,
        }
    };
    let (total, unit) = match from_stdin {
        true => (0, Unit::Texts),
        false => (stored_bytes(std::slice::from_ref(&request.input))?, Unit::Bytes),
    };
    observer.begin("predicting", total, 0, unit);
    let (mut texts, mut done, mut empty) = (Vec::with_capacity(BATCH), 0, 0);
    loop {
        let end = fill(&mut records, &mut texts);
        empty += texts.iter().filter(|text| text.trim().is_empty()).count();
        done += texts.len() as u64;
        let go_on = texts.is_empty() || write(&answers(&mut classifier, &texts)?);
        let position = if from_stdin {
            done
        } else {
            bytes_read.load(Ordering::Relaxed)
        };
        observer.advance(position, "");
        if !go_on || end? {
            break;
        }
    }
    observer.end();
    if empty > 0 {
        observer.note(&format!(
            "{empty} of {done} texts are empty; they are answered like the others"
        ));
    }
    Ok(())
}

/// Refills `texts` with the next [`BATCH`] texts. True at the end of the records; whatever ends them, the texts before
/// it are there.
fn fill(records: &mut Records, texts: &mut Vec<String>) -> Result<bool, DataError> {
    texts.clear();
    while texts.len() < BATCH {
        match records.next() {
            Some(record) => texts.push(record.map(|record: Record| record.text)?),
            None => return Ok(true),
        }
    }
    Ok(false)
}

fn answers(classifier: &mut Classifier, texts: &[String]) -> Result<Vec<Prediction>, TlmError> {
    let logits = classifier.logits(texts)?;
    let labels = classifier.labels();
    let answer = |(logits, class): (&[f32], u32)| {
        let scores = scores(logits).into_iter().map(Value::from);
        Prediction {
            label: labels[class as usize].clone(),
            scores: labels.iter().cloned().zip(scores).collect(),
        }
    };
    let classes = predictions(&logits, labels.len());
    Ok(logits.chunks_exact(labels.len()).zip(classes).map(answer).collect())
}

fn open(model: &Path, device: DeviceChoice, observer: &mut dyn Observer) -> Result<Classifier, TlmError> {
    let classifier = Classifier::open(model, device, BATCH)?;
    observer.note(&format!("device: {}", classifier.decision()));
    Ok(classifier)
}

/// The records of a stream. Without a format, a stream whose first character besides white space is `{` holds JSON
/// objects, any other a text a line.
fn stdin(
    mut stream: impl Read + Send + 'static,
    format: Option<Format>,
    fields: &Fields,
) -> Result<Records<'static>, TlmError> {
    let mut start = Vec::new();
    let format = match format {
        Some(format) => format,
        None => {
            let white = |byte: &u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
            let mut byte = [0];
            while start.last().is_none_or(white) {
                let read = stream
                    .read(&mut byte)
                    .map_err(TlmError::io("cannot read the standard input"))?;
                if read == 0 {
                    break;
                }
                start.extend_from_slice(&byte);
            }
            if start.last() == Some(&b'{') {
                Format::Jsonl
            } else {
                Format::Text
            }
        }
    };
    let bytes = Box::new(Cursor::new(start).chain(stream));
    Ok(Records::from_reader(STDIN, format, bytes, Contents::Passages, fields)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(input: &'static str, format: Option<Format>) -> Vec<String> {
        let records = stdin(Cursor::new(input), format, &Fields::default()).unwrap();
        records.map(|record| record.unwrap().text).collect()
    }

    #[test]
    fn the_first_character_of_the_standard_input_tells_json_from_text() {
        assert_eq!(texts("\n  {\"text\": \"a\"}\n{\"text\": \"b\"}\n", None), ["a", "b"]);
        assert_eq!(texts("\u{feff}{\"text\": \"a\"}\n", None), ["a"]);
        assert_eq!(texts("\nfirst\n{second\n", None), ["", "first", "{second"]);
        assert_eq!(texts("text,label\na,1\n", Some(Format::Csv)), ["a"]);
        assert_eq!(texts("{\"text\": 1}\n", Some(Format::Text)), ["{\"text\": 1}"]);
    }

    #[test]
    fn a_bad_record_leaves_the_texts_before_it() {
        let input = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"no\": 1}\n";
        let mut records = stdin(Cursor::new(input), None, &Fields::default()).unwrap();
        let mut kept = Vec::new();
        let error = fill(&mut records, &mut kept).unwrap_err().to_string();
        assert_eq!(kept, ["a", "b"]);
        assert!(error.contains("-:3: field `text` is missing"), "{error}");
    }
}
