//! The general corpus: passages `{"id", "source", "text"}` from `.jsonl`, `.csv`, `.tsv` or `.txt` files.
//!
//! A passage without an id gets `NAME#LINE` and one without a source gets `NAME`, where NAME is the file's name without
//! extensions. Passages whose text is white space alone are left out and counted.

use super::error::DataError;
use super::records::{Contents, Fields, Record, Records};
use std::path::{Path, PathBuf};

pub use crate::retrieval::Passage;

/// A stream of passages.
pub struct Passages<'a> {
    records: Records<'a>,
    empty: u64,
}

impl<'a> Passages<'a> {
    /// Reads files (see [`super::expand`]) one after the other; `progress` gets the stored bytes read since its last
    /// call.
    #[must_use]
    pub fn open(paths: &[PathBuf], fields: &Fields, progress: impl FnMut(u64) + Send + 'a) -> Self {
        Passages {
            records: Records::open(paths, Contents::Passages, fields, progress),
            empty: 0,
        }
    }

    /// How many empty passages have been left out so far.
    #[must_use]
    pub fn empty(&self) -> u64 {
        self.empty
    }
}

impl Iterator for Passages<'_> {
    type Item = Result<Passage, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            if !record.text.trim().is_empty() {
                return Some(Ok(passage(record, self.records.path())));
            }
            self.empty += 1;
        }
    }
}

fn passage(record: Record, path: &Path) -> Passage {
    let name = || {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        name.split('.').next().unwrap_or_default().to_owned()
    };
    Passage {
        id: record.id.unwrap_or_else(|| format!("{}#{}", name(), record.line)),
        source: record.source.unwrap_or_else(name),
        text: record.text,
    }
}
