//! What can go wrong in the retrieval layer.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::atomic::WriteError;
use crate::device::DeviceError;
use crate::plan::PlanError;

/// Why a request to the retrieval layer failed.
#[derive(Debug, Error)]
pub enum RetrievalError {
    /// The device that should compute is not there, or fails.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A search does not fit the device.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A name that is none of the choices.
    #[error("{setting}: unknown name {found:?}; choose one of {expected}")]
    UnknownName {
        /// The setting, for example `analyzer`.
        setting: &'static str,
        /// The name given.
        found: String,
        /// The names there are.
        expected: &'static str,
    },
    /// A number outside its range.
    #[error("{setting} is {found}; it must be {expected}")]
    OutOfRange {
        /// The setting, for example `k1`.
        setting: &'static str,
        /// The value given.
        found: String,
        /// The range in words.
        expected: &'static str,
    },
    /// A query of more distinct terms than 32-bit sums allow.
    #[error("query {query} has {terms} distinct terms; the limit is {limit}: cut the text")]
    TooManyTerms {
        /// The query's place in the list, from 0.
        query: usize,
        /// Its distinct terms in the index.
        terms: usize,
        /// The largest number of terms.
        limit: usize,
    },
    /// More passages than 32-bit ordinals can number.
    #[error("the corpus has more than {limit} passages; split it and select from each part")]
    TooManyPassages {
        /// The largest number of passages.
        limit: u32,
    },
    /// A directory without a complete index.
    #[error("{}: no index: {reason}; build one with `tlm index build --out {} INPUT...`", path.display(), path.display())]
    NoIndex {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// An index that was written by another version of the program.
    #[error("{}: index format {found}, this program reads {expected}; build the index again", path.display())]
    Format {
        /// The manifest.
        path: PathBuf,
        /// The format of the file.
        found: u32,
        /// The format of this program.
        expected: u32,
    },
    /// A file of an index that is not as it was written.
    #[error(
        "{}: damaged: {reason}; restore the file from a copy, or build the index again (`tlm index verify` looks at every byte)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        reason: String,
    },
    /// A file of an index that cannot be opened or read.
    #[error("{}: cannot read: {source}; check that it exists and may be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An index that another process is writing to.
    #[error("{}: another process is writing to this index; wait until it is done", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The system has no memory for the codes of an index.
    #[error("no memory for {bytes} bytes of codes: {source}; search without keeping them")]
    NoMemory {
        /// The bytes asked for.
        bytes: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// A request that does not fit the index.
    #[error("{0}")]
    Mismatch(String),
    /// A search engine that refuses, fails or cannot be reached.
    #[error("{url}: {reason}")]
    Engine {
        /// The engine.
        url: String,
        /// Its words, and what to do.
        reason: String,
    },
    /// Writing.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl RetrievalError {
    /// A file that is not as it was written.
    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> RetrievalError {
        RetrievalError::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// A failure of reading `path`.
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> RetrievalError + '_ {
        move |source| RetrievalError::Read {
            path: path.to_owned(),
            source,
        }
    }
}
