//! Records: the rows of `.jsonl`, `.csv`, `.tsv` and `.txt` files, one after the other, each with its place.
//!
//! ```text
//! task     {"text": "...", "label": "positive" | 3}
//! corpus   {"id": "...", "source": "...", "text": "..."}      id and source may be missing
//! .txt     one text a line
//! ```
//!
//! Other fields are ignored. JSON and text files are read line by line and CSV records by the `csv` crate, so a corpus
//! of any size streams. Nothing is skipped in silence: the first bad record ends the reading with its file and line.
//! Lines of white space between JSON objects are no records.

use super::error::DataError;
use super::files::{Format, Lines, OpenFile, open};
use super::table::Table;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The names of the fields (JSON) or columns (CSV, TSV).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// Identifier of a passage or query.
    pub id: String,
    /// Where a passage comes from.
    pub source: String,
    /// The text.
    pub text: String,
    /// The class of a task example.
    pub label: String,
}

impl Default for Fields {
    fn default() -> Self {
        Fields {
            id: "id".into(),
            source: "source".into(),
            text: "text".into(),
            label: "label".into(),
        }
    }
}

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Texts with an optional id and source: passages and queries. Labels are not looked at.
    Passages,
    /// Texts with a label. Ids and sources are not looked at.
    Examples,
}

/// One row of an input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The identifier, if there is one; integers in decimal.
    pub id: Option<String>,
    /// The source, if there is one.
    pub source: Option<String>,
    /// The text; may be empty.
    pub text: String,
    /// The label of an example, never blank; integers in decimal.
    pub label: Option<String>,
    /// Line on which the record starts, from 1.
    pub line: u64,
}

/// The records of several files, in order.
pub struct Records<'a> {
    paths: std::vec::IntoIter<PathBuf>,
    format: Option<Format>,
    contents: Contents,
    fields: Fields,
    current: Option<Current>,
    progress: Box<dyn FnMut(u64) + Send + 'a>,
    failed: bool,
}

struct Current {
    path: PathBuf,
    rows: Rows,
    records: u64,
    stored_read: Arc<AtomicU64>,
    stored_reported: u64,
}

enum Rows {
    Json(Lines),
    Text(Lines),
    Table(Box<Table>),
}

impl<'a> Records<'a> {
    /// Reads files one after the other. `progress` gets the number of stored (compressed) bytes read since its last
    /// call.
    #[must_use]
    pub fn open(paths: &[PathBuf], contents: Contents, fields: &Fields, progress: impl FnMut(u64) + Send + 'a) -> Self {
        let paths = paths.to_vec();
        Records {
            paths: paths.into_iter(),
            format: None,
            contents,
            fields: fields.clone(),
            current: None,
            progress: Box::new(progress),
            failed: false,
        }
    }

    /// Reads the files as `format`, whatever their names announce; names still tell how they are compressed.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Reads a stream, such as the standard input, under a name for error messages.
    ///
    /// # Errors
    /// A CSV or TSV header that is broken or lacks the text column.
    pub fn from_reader(
        name: &str,
        format: Format,
        bytes: Box<dyn Read + Send>,
        contents: Contents,
        fields: &Fields,
    ) -> Result<Self, DataError> {
        let file = OpenFile {
            path: name.into(),
            format,
            bytes,
            stored_read: Arc::default(),
        };
        let mut records = Records::open(&[], contents, fields, |_| {});
        records.current = Some(Current::new(file, contents, fields)?);
        Ok(records)
    }

    /// The file of the record read last, for messages about it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.current.as_ref().map_or(Path::new(""), |current| &current.path)
    }

    fn advance(&mut self) -> Result<Option<Record>, DataError> {
        loop {
            if let Some(current) = &mut self.current {
                let record = current.next(self.contents, &self.fields)?;
                let stored = current.stored_read.load(Ordering::Relaxed);
                if stored > current.stored_reported {
                    (self.progress)(stored - current.stored_reported);
                    current.stored_reported = stored;
                }
                if record.is_some() {
                    current.records += 1;
                    return Ok(record);
                }
                if current.records == 0 {
                    return Err(DataError::EmptyFile {
                        path: current.path.clone(),
                    });
                }
            }
            let Some(path) = self.paths.next() else {
                return Ok(None);
            };
            self.current = Some(Current::new(open(&path, self.format)?, self.contents, &self.fields)?);
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.advance().transpose();
        // Also after the end: the last file must not be asked again.
        self.failed = !matches!(record, Some(Ok(_)));
        record
    }
}

impl Current {
    fn new(file: OpenFile, contents: Contents, fields: &Fields) -> Result<Self, DataError> {
        if file.format == Format::Text && contents == Contents::Examples {
            return Err(DataError::TextHasNoLabels { path: file.path });
        }
        let table = |path: &Path, bytes, quoting| Table::new(path, bytes, quoting, contents, fields);
        let rows = match file.format {
            Format::Jsonl => Rows::Json(Lines::new(file.bytes)),
            Format::Text => Rows::Text(Lines::new(file.bytes)),
            Format::Csv => Rows::Table(Box::new(table(&file.path, file.bytes, true)?)),
            Format::Tsv => Rows::Table(Box::new(table(&file.path, file.bytes, false)?)),
        };
        Ok(Current {
            path: file.path,
            rows,
            records: 0,
            stored_read: file.stored_read,
            stored_reported: 0,
        })
    }

    fn next(&mut self, contents: Contents, fields: &Fields) -> Result<Option<Record>, DataError> {
        match &mut self.rows {
            Rows::Text(lines) => {
                let Some(text) = lines.next(&self.path)?.map(str::to_owned) else {
                    return Ok(None);
                };
                Ok(Some(Record {
                    id: None,
                    source: None,
                    text,
                    label: None,
                    line: lines.number,
                }))
            }
            Rows::Json(lines) => loop {
                let Some(line) = lines.next(&self.path)? else {
                    return Ok(None);
                };
                if !line.trim().is_empty() {
                    let object = parse_object(line);
                    let place = Place {
                        path: &self.path,
                        line: lines.number,
                    };
                    return object
                        .map_err(|error| place.json(&error))
                        .and_then(|object| place.record(object, contents, fields))
                        .map(Some);
                }
            },
            Rows::Table(table) => table.next(&self.path, fields),
        }
    }
}

fn parse_object(line: &str) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_str(line)
}

/// Where a JSON object stands, for its errors.
struct Place<'a> {
    path: &'a Path,
    line: u64,
}

impl Place<'_> {
    fn json(&self, error: &serde_json::Error) -> DataError {
        // The parser's own "at line 1 column 17" would contradict the file's line.
        let message = error.to_string();
        let reason = message.split(" at line ").next().unwrap_or(&message).to_owned();
        DataError::Json {
            path: self.path.to_owned(),
            line: self.line,
            column: error.column(),
            reason,
        }
    }

    fn record(&self, mut object: Map<String, Value>, contents: Contents, fields: &Fields) -> Result<Record, DataError> {
        let mut record = Record {
            id: None,
            source: None,
            text: String::new(),
            label: None,
            line: self.line,
        };
        let lacks = |object: &Map<String, Value>, field: &str| {
            missing(self.path, self.line, field, object.keys().map(String::as_str))
        };
        match contents {
            Contents::Passages => {
                record.id = self.text_or_integer(&mut object, &fields.id)?;
                record.source = self.text_or_integer(&mut object, &fields.source)?;
            }
            Contents::Examples => {
                let label = self.text_or_integer(&mut object, &fields.label)?;
                let label = label.ok_or_else(|| lacks(&object, &fields.label))?;
                record.label = Some(check_label(label, self.path, self.line, fields)?);
            }
        }
        match object.get_mut(&fields.text).map(Value::take) {
            Some(Value::String(text)) => record.text = text,
            Some(other) => return Err(self.wrong_type(&fields.text, &other, "a string")),
            None => return Err(lacks(&object, &fields.text)),
        }
        Ok(record)
    }

    fn text_or_integer(&self, object: &mut Map<String, Value>, field: &str) -> Result<Option<String>, DataError> {
        match object.get_mut(field).map(Value::take) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
            Some(other) => Err(self.wrong_type(field, &other, "a string or an integer")),
        }
    }

    fn wrong_type(&self, field: &str, value: &Value, expected: &'static str) -> DataError {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        DataError::FieldType {
            path: self.path.to_owned(),
            line: self.line,
            field: field.to_owned(),
            found,
            expected,
        }
    }
}

/// A label must say something: an empty cell is a missing label.
pub(super) fn check_label(label: String, path: &Path, line: u64, fields: &Fields) -> Result<String, DataError> {
    if !label.trim().is_empty() {
        return Ok(label);
    }
    Err(DataError::FieldType {
        path: path.to_owned(),
        line,
        field: fields.label.clone(),
        found: "blank",
        expected: "a label",
    })
}

/// The error of a record without a field it needs.
pub(super) fn missing<'a>(path: &Path, line: u64, field: &str, found: impl Iterator<Item = &'a str>) -> DataError {
    let found = found.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let found = if found.is_empty() {
        "no fields".to_owned()
    } else {
        found
    };
    DataError::MissingField {
        path: path.to_owned(),
        line,
        field: field.to_owned(),
        found,
    }
}
