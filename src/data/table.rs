//! Tables: `.csv` and `.tsv` files with a header line.
//!
//! CSV follows RFC 4180: a field in double quotes may hold separators, line ends and doubled quotes. TSV knows no
//! quoting (IANA text/tab-separated-values). Every row must have as many fields as the header. A quote that is never
//! closed would swallow the rest of the file without a complaint from the parser, so quotes are counted.

use super::error::DataError;
use super::files::count_quotes;
use super::records::{Contents, Fields, Record, check_label, missing};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The rows of one table.
pub(super) struct Table {
    reader: csv::Reader<Box<dyn Read + Send>>,
    quotes: Arc<AtomicU64>,
    quoting: bool,
    columns: Columns,
    row: csv::ByteRecord,
    start: u64,
}

/// Where the fields stand in a row; `None` for those that are not there or not looked at.
struct Columns {
    id: Option<usize>,
    source: Option<usize>,
    text: usize,
    label: Option<usize>,
}

impl Table {
    /// Reads the header of a table of comma-separated (`quoting`) or tab-separated fields.
    pub fn new(
        path: &Path,
        bytes: Box<dyn Read + Send>,
        quoting: bool,
        contents: Contents,
        fields: &Fields,
    ) -> Result<Self, DataError> {
        let (bytes, quotes) = count_quotes(bytes);
        let delimiter = if quoting { b',' } else { b'\t' };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .quoting(quoting)
            .from_reader(bytes);
        let header = reader
            .byte_headers()
            .map_err(|error| csv_error(path, &error, 1))?
            .clone();
        let mut names = Vec::with_capacity(header.len());
        for name in &header {
            names.push(utf8(path, 1, "header", name)?.trim_start_matches('\u{feff}').trim());
        }
        if names.is_empty() {
            return Err(DataError::EmptyFile { path: path.to_owned() });
        }
        let column = |field: &str| names.iter().position(|&name| name == field);
        let needed = |field: &str| column(field).ok_or_else(|| missing(path, 1, field, names.iter().copied()));
        let text = needed(&fields.text)?;
        let columns = match contents {
            Contents::Passages => Columns {
                id: column(&fields.id),
                source: column(&fields.source),
                text,
                label: None,
            },
            Contents::Examples => Columns {
                id: None,
                source: None,
                text,
                label: Some(needed(&fields.label)?),
            },
        };
        Ok(Table {
            reader,
            quotes,
            quoting,
            columns,
            row: csv::ByteRecord::new(),
            start: 1,
        })
    }

    /// The next row, or `None` at the end.
    pub fn next(&mut self, path: &Path, fields: &Fields) -> Result<Option<Record>, DataError> {
        let more = self.reader.read_byte_record(&mut self.row);
        if !more.map_err(|error| csv_error(path, &error, self.reader.position().line()))? {
            let several_lines = self.reader.position().line() > self.start + 1;
            if self.quoting && several_lines && self.quotes.load(Ordering::Relaxed) % 2 == 1 {
                let reason = "a quote that opens here is never closed; close it, or double the quotes inside a field";
                return Err(DataError::Csv {
                    path: path.to_owned(),
                    line: self.start,
                    reason: reason.into(),
                });
            }
            return Ok(None);
        }
        self.start = self.row.position().map_or(self.start, csv::Position::line);
        let line = self.start;
        let field = |column: Option<usize>, name: &str| match column {
            None => Ok(None),
            Some(column) => utf8(path, line, name, &self.row[column]).map(|value| Some(value.to_owned())),
        };
        let label = field(self.columns.label, &fields.label)?;
        Ok(Some(Record {
            id: field(self.columns.id, &fields.id)?,
            source: field(self.columns.source, &fields.source)?,
            text: utf8(path, line, &fields.text, &self.row[self.columns.text])?.to_owned(),
            label: label.map(|label| check_label(label, path, line, fields)).transpose()?,
            line,
        }))
    }
}

fn utf8<'a>(path: &Path, line: u64, field: &str, bytes: &'a [u8]) -> Result<&'a str, DataError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = line + before.iter().filter(|&&byte| byte == b'\n').count() as u64;
        DataError::Utf8 {
            path: path.to_owned(),
            line,
            place: format!("byte {} of `{field}`", before.len() + 1),
        }
    })
}

fn csv_error(path: &Path, error: &csv::Error, line: u64) -> DataError {
    let path = path.to_owned();
    let line = error.position().map_or(line, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::Io(io) => {
            let source = std::io::Error::new(io.kind(), io.to_string());
            DataError::Read { path, line, source }
        }
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let reason = format!(
                "{len} fields, expected {expected_len} as in the header; quote a field that holds the separator"
            );
            DataError::Csv { path, line, reason }
        }
        _ => DataError::Csv {
            path,
            line,
            reason: error.to_string(),
        },
    }
}
