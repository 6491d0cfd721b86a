//! An index on disk: a directory whose manifest names its files.
//!
//! ```text
//! INDEX/index.json              analyzer, sums, and the files below with their sizes; its own checksum
//! INDEX/segment-000001          see `segment`
//! INDEX/passages-000001         see `passages`: one file for each build or addition
//! INDEX/.lock                   held by the process that writes
//! ```
//!
//! Files get their names when they are complete and never change; the manifest is replaced last, in one step. A process
//! that dies on the way leaves the index as it was, and files that the manifest does not name, which the next one that
//! writes removes. Readers need no lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RetrievalError;
use super::bytes::checksum;
use crate::atomic::{self, WriteError};

/// The version of everything on disk.
const FORMAT: u32 = 3;

const MANIFEST: &str = "index.json";
const LOCK: &str = ".lock";
const SEGMENT: &str = "segment-";
const PASSAGES: &str = "passages-";

/// What the manifest says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) analyzer: String,
    /// Words per passage that documents were cut into; none: taken as they were.
    pub(super) passage_words: Option<u32>,
    pub(super) documents: u64,
    pub(super) total_length: u64,
    pub(super) segments: Vec<SegmentEntry>,
    pub(super) passages: Vec<PassagesEntry>,
}

/// A segment's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SegmentEntry {
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) documents: u32,
    pub(super) total_length: u64,
    pub(super) postings: u64,
    pub(super) terms: u32,
}

/// A file of passages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PassagesEntry {
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) documents: u32,
    pub(super) text_bytes: u64,
}

/// The file itself.
#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    format: u32,
    /// CRC-32 of `index` in its compact form.
    crc: u32,
    index: T,
}

impl Manifest {
    /// The manifest of the index in `directory`.
    pub(super) fn read(directory: &Path) -> Result<Manifest, RetrievalError> {
        let path = directory.join(MANIFEST);
        let no_index = |reason: &str| RetrievalError::NoIndex {
            path: directory.to_owned(),
            reason: reason.to_owned(),
        };
        if !directory.is_dir() {
            return Err(no_index("there is no such directory"));
        }
        if !path.exists() {
            return Err(no_index(
                "the directory has no index.json, as if a build had not come to its end",
            ));
        }
        let json = fs::read(&path).map_err(RetrievalError::read(&path))?;
        let broken = |reason: String| RetrievalError::damaged(&path, reason);
        let sealed: Sealed<serde_json::Value> =
            serde_json::from_slice(&json).map_err(|error| broken(error.to_string()))?;
        if sealed.format != FORMAT {
            return Err(RetrievalError::Format {
                path,
                found: sealed.format,
                expected: FORMAT,
            });
        }
        let crc = seal(&sealed.index);
        if crc != sealed.crc {
            return Err(broken(format!("its checksum is {crc} instead of {}", sealed.crc)));
        }
        serde_json::from_value(sealed.index).map_err(|error| broken(error.to_string()))
    }

    /// Makes this the manifest of the index in `directory`.
    pub(super) fn publish(&self, directory: &Path) -> Result<(), WriteError> {
        atomic::write_with(&directory.join(MANIFEST), |out| {
            let sealed = Sealed {
                format: FORMAT,
                crc: seal(self),
                index: self,
            };
            serde_json::to_writer_pretty(&mut *out, &sealed)?;
            out.write_all(b"\n")
        })
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        let segments = self.segments.iter().map(|entry| entry.file.as_str());
        segments.chain(self.passages.iter().map(|entry| entry.file.as_str()))
    }
}

/// The checksum of a manifest as it is written, white space aside.
fn seal(index: &impl Serialize) -> u32 {
    let json = serde_json::to_vec(index).expect("a manifest is numbers and texts, which JSON has");
    checksum(&json)
}

/// The name of a segment's file.
pub(super) fn segment_name(number: u32) -> String {
    format!("{SEGMENT}{number:06}")
}

/// The name of a file of passages.
pub(super) fn passages_name(number: u32) -> String {
    format!("{PASSAGES}{number:06}")
}

/// The right to write to an index, until it is dropped. Then whatever the manifest does not name is removed, and a
/// directory that was made for an index that did not come about.
#[derive(Debug)]
pub(super) struct WriteLock {
    directory: PathBuf,
    file: Option<File>,
    made_directory: bool,
}

impl WriteLock {
    /// Takes the lock of `directory`, which is made if need be.
    pub(super) fn take(directory: &Path) -> Result<WriteLock, RetrievalError> {
        let made_directory = !directory.exists();
        atomic::make_directory(directory)?;
        let path = directory.join(LOCK);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|source| WriteError::of(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(WriteLock {
                directory: directory.to_owned(),
                file: Some(file),
                made_directory,
            }),
            Err(fs::TryLockError::WouldBlock) => Err(RetrievalError::Busy {
                path: directory.to_owned(),
            }),
            Err(fs::TryLockError::Error(source)) => Err(WriteError::of(&path, source).into()),
        }
    }

    /// Removes the files of an index that the manifest does not name: what a writer that did not come to its end left.
    pub(super) fn tidy(&self) {
        match Manifest::read(&self.directory) {
            Ok(manifest) => self.remove_others(Some(&manifest)),
            Err(RetrievalError::NoIndex { .. }) => self.remove_others(None),
            // Nobody knows which files belong to a manifest that cannot be read.
            Err(_) => {}
        }
    }

    /// A number above those of all files of an index in the directory.
    pub(super) fn next_number(&self) -> u32 {
        let names = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let numbers = names.filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = [SEGMENT, PASSAGES]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix))?;
            number.parse::<u32>().ok()
        });
        numbers.max().unwrap_or(0) + 1
    }

    /// Removes the files of an index that `kept` does not name. What cannot be removed stays for the next time.
    fn remove_others(&self, kept: Option<&Manifest>) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_kept = kept.is_some_and(|manifest| manifest.files().any(|file| file == name));
            if is_part(&name) && !is_kept {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        self.tidy();
        self.file = None;
        if self.made_directory && !self.directory.join(MANIFEST).exists() {
            let _ = fs::remove_file(self.directory.join(LOCK));
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

/// Whether a file of this name is a part of an index, complete or not.
fn is_part(name: &str) -> bool {
    let unfinished = name.strip_prefix('.').filter(|name| name.ends_with(".tmp"));
    let stem = unfinished.unwrap_or(name);
    let manifest = unfinished.is_some() && stem.starts_with(MANIFEST);
    manifest || [SEGMENT, PASSAGES].iter().any(|prefix| stem.starts_with(prefix))
}

/// Whether a new index may be made in `directory`: it does not exist, is empty, or holds an index or parts of one.
pub(super) fn may_hold_index(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Err(_) => !directory.exists(),
        Ok(mut entries) => entries.all(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                is_part(&name) || name == MANIFEST || name == LOCK
            })
        }),
    }
}
