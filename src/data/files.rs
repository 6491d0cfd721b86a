//! Input files: globs, compression, and lines with their numbers.
//!
//! ```text
//! NAME.jsonl | NAME.csv | NAME.tsv | NAME.txt       format by the (last but one) extension
//! NAME.jsonl.gz, NAME.jsonl.zst, ...                 compressed: gzip (also of several members), Zstandard
//! ```
//!
//! Files are read as streams; memory holds one record. Progress is measured in bytes of the file as stored, because
//! that is the only total known beforehand.

use super::error::DataError;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the records of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated with a header line; fields may be quoted (RFC 4180).
    Csv,
    /// Tab-separated with a header line; no quoting (IANA text/tab-separated-values).
    Tsv,
    /// One text a line.
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Format {
    /// The format that a file name announces, with or without `.gz` or `.zst`.
    ///
    /// # Errors
    /// [`DataError::UnknownFormat`] for any other name.
    pub fn of(path: &Path) -> Result<Format, DataError> {
        let format = format_and_compression(path).0;
        format.ok_or_else(|| DataError::UnknownFormat { path: path.to_owned() })
    }
}

fn format_and_compression(path: &Path) -> (Option<Format>, Compression) {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    let (stem, compression) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Compression::Gzip),
        Some((stem, "zst")) => (stem, Compression::Zstd),
        _ => (name.as_str(), Compression::None),
    };
    let format = match stem.rsplit_once('.') {
        Some((_, "jsonl")) => Some(Format::Jsonl),
        Some((_, "csv")) => Some(Format::Csv),
        Some((_, "tsv")) => Some(Format::Tsv),
        Some((_, "txt")) => Some(Format::Text),
        _ => None,
    };
    (format, compression)
}

/// The files that patterns name, in the order of the patterns and by name within one; a file named twice comes once.
///
/// A pattern is the path of a file or a glob.
///
/// # Errors
/// [`DataError::NoMatch`] if a pattern names no file, [`DataError::BadGlob`] if it cannot be parsed.
pub fn expand(patterns: &[String]) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for pattern in patterns {
        let found = if Path::new(pattern).is_file() {
            vec![PathBuf::from(pattern)]
        } else {
            matches(pattern)?
        };
        if found.is_empty() {
            return Err(DataError::NoMatch {
                pattern: pattern.clone(),
            });
        }
        for path in found {
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

fn matches(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let paths = glob::glob(pattern).map_err(|error| DataError::BadGlob {
        pattern: pattern.to_owned(),
        reason: error.to_string(),
    })?;
    let mut found = Vec::new();
    for path in paths {
        let path = path.map_err(|error| DataError::Open {
            path: error.path().to_owned(),
            source: error.into(),
        })?;
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Stored bytes of all files together: the total of the progress reported while reading them.
///
/// # Errors
/// [`DataError::Open`] if a file cannot be found.
pub fn stored_bytes(paths: &[PathBuf]) -> Result<u64, DataError> {
    let mut bytes = 0;
    for path in paths {
        bytes += path
            .metadata()
            .map_err(|source| DataError::Open {
                path: path.clone(),
                source,
            })?
            .len();
    }
    Ok(bytes)
}

/// Counts the bytes that pass, for progress and for the balance of quotes.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
    of: Option<u8>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let counted = match self.of {
            None => read,
            Some(byte) => buffer[..read].iter().filter(|&&b| b == byte).count(),
        };
        self.count.fetch_add(counted as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// An open file: its decompressed bytes, and a counter of the stored bytes read so far.
pub(super) struct OpenFile {
    pub path: PathBuf,
    pub format: Format,
    pub bytes: Box<dyn Read + Send>,
    pub stored_read: Arc<AtomicU64>,
}

/// Opens a file by the compression that its name announces, and the format, where none is given.
pub(super) fn open(path: &Path, format: Option<Format>) -> Result<OpenFile, DataError> {
    let (announced, compression) = format_and_compression(path);
    let format = format.or(announced);
    let format = format.ok_or_else(|| DataError::UnknownFormat { path: path.to_owned() })?;
    let failed = |source| DataError::Open {
        path: path.to_owned(),
        source,
    };
    let stored_read = Arc::new(AtomicU64::new(0));
    let file = Counted {
        inner: File::open(path).map_err(failed)?,
        count: stored_read.clone(),
        of: None,
    };
    let stored = BufReader::with_capacity(1 << 16, file);
    let bytes: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(stored),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(stored).map_err(failed)?),
    };
    Ok(OpenFile {
        path: path.to_owned(),
        format,
        bytes,
        stored_read,
    })
}

/// Counts the double quotes of a stream; a CSV file without an open quote has an even number.
pub(super) fn count_quotes(bytes: Box<dyn Read + Send>) -> (Box<dyn Read + Send>, Arc<AtomicU64>) {
    let quotes = Arc::new(AtomicU64::new(0));
    (
        Box::new(Counted {
            inner: bytes,
            count: quotes.clone(),
            of: Some(b'"'),
        }),
        quotes,
    )
}

/// Lines of a stream with their numbers, without `\n`, `\r\n` and a leading byte order mark.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    buffer: Vec<u8>,
    /// Number of the line read last, from 1.
    pub number: u64,
}

impl Lines {
    pub fn new(bytes: Box<dyn Read + Send>) -> Self {
        Lines {
            reader: BufReader::with_capacity(1 << 16, bytes),
            buffer: Vec::new(),
            number: 0,
        }
    }

    /// The next line, or `None` at the end.
    pub fn next(&mut self, path: &Path) -> Result<Option<&str>, DataError> {
        self.buffer.clear();
        self.number += 1;
        let read = self.reader.read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|source| DataError::Read {
            path: path.to_owned(),
            line: self.number,
            source,
        })?;
        if read == 0 {
            return Ok(None);
        }
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.number == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        let number = self.number;
        std::str::from_utf8(line).map(Some).map_err(|error| DataError::Utf8 {
            path: path.to_owned(),
            line: number,
            place: format!("byte {} of the line", error.valid_up_to() + 1),
        })
    }
}
