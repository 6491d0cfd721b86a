//! `metrics.jsonl`: one JSON object per logged step, appended and flushed line by line, so that a run can be watched
//! with `tail -f` and a crash loses at most the line being written.
//!
//! A run that goes on from a checkpoint repeats the steps after it. Their lines, and a line that a crash tore, are
//! dropped first: every step stands in the file once.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::atomic::{self, WriteError};
use crate::tlm::outcome::MetricsRow;

/// Why the log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MetricsLogError {
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Reading failed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The log.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line that is not a row.
    #[error("{}:{line}: not a line of metrics ({message}); remove it", path.display())]
    BadLine {
        /// The log.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// The JSON parser's words.
        message: String,
    },
}

/// An open `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Starts an empty log; one that is there is replaced.
    ///
    /// # Errors
    /// [`MetricsLogError`] with the path.
    pub fn create(path: &Path) -> Result<MetricsLog, MetricsLogError> {
        atomic::write(path, b"")?;
        MetricsLog::append_to(path)
    }

    /// Goes on with a log from checkpoints: `places` are the (seed, stage, steps done) that they hold. Lines after them,
    /// and those of seeds without one, are dropped; a log that is not there starts empty.
    ///
    /// # Errors
    /// [`MetricsLogError`] with the path and, for a broken line, its number.
    pub fn resume(path: &Path, places: &[(u64, u8, u64)]) -> Result<MetricsLog, MetricsLogError> {
        if !path.exists() {
            return MetricsLog::create(path);
        }
        let rows = read(path)?;
        let known = |row: &MetricsRow| places.iter().any(|place| place.0 == row.seed && row.place() <= *place);
        atomic::write_with(path, |out| {
            for row in rows.iter().filter(|row| known(row)) {
                writeln!(out, "{}", serde_json::to_string(row)?)?;
            }
            Ok(())
        })?;
        MetricsLog::append_to(path)
    }

    /// Appends one line and hands it to the operating system.
    ///
    /// # Errors
    /// [`MetricsLogError::Write`], for example when the disk is full.
    pub fn write(&mut self, row: &MetricsRow) -> Result<(), MetricsLogError> {
        let failed = |source| WriteError::of(&self.path, source);
        let line = serde_json::to_string(row).map_err(|error| failed(error.into()))? + "\n";
        Ok(self.file.write_all(line.as_bytes()).map_err(failed)?)
    }

    fn append_to(path: &Path) -> Result<MetricsLog, MetricsLogError> {
        let file = OpenOptions::new().append(true).open(path);
        let file = file.map_err(|source| WriteError::of(path, source))?;
        Ok(MetricsLog {
            path: path.to_path_buf(),
            file,
        })
    }
}

/// All lines of a log. A last line without its line break, torn by a crash, is left out.
///
/// # Errors
/// [`MetricsLogError`] with the path and, for a broken line, its number.
pub fn read(path: &Path) -> Result<Vec<MetricsRow>, MetricsLogError> {
    let text = std::fs::read_to_string(path).map_err(|source| MetricsLogError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete
        .lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| MetricsLogError::BadLine {
                path: path.to_path_buf(),
                line: index + 1,
                message: error.to_string(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seed: u64, stage: u8, step: u64) -> MetricsRow {
        MetricsRow {
            seed,
            stage,
            step,
            mlm_loss: Some(step as f64 / 3.0),
            ..MetricsRow::default()
        }
    }

    fn write_all(log: &mut MetricsLog, rows: &[MetricsRow]) {
        rows.iter().for_each(|row| log.write(row).unwrap());
    }

    #[test]
    fn a_resumed_log_equals_the_log_of_an_unbroken_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let all: Vec<MetricsRow> = (10..60)
            .step_by(10)
            .map(|s| row(1, 1, s))
            .chain((10..60).step_by(10).map(|s| row(1, 2, s)))
            .collect();
        // The checkpoint holds stage 1, step 30; lines up to step 50 had been written, the last one only half.
        let mut log = MetricsLog::create(&path).unwrap();
        write_all(&mut log, &all[..4]);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"seed\":1,\"st")
            .unwrap();
        let mut log = MetricsLog::resume(&path, &[(1, 1, 30)]).unwrap();
        assert_eq!(read(&path).unwrap(), all[..3]);
        write_all(&mut log, &all[3..]);
        let resumed = std::fs::read(&path).unwrap();
        let mut log = MetricsLog::create(&path).unwrap();
        write_all(&mut log, &all);
        assert_eq!(std::fs::read(&path).unwrap(), resumed);
    }

    #[test]
    fn a_resume_keeps_of_each_seed_what_its_checkpoint_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let rows = [
            row(1, 1, 90),
            row(1, 2, 90),
            row(2, 1, 90),
            row(2, 2, 10),
            row(2, 2, 20),
            row(3, 1, 10),
        ];
        write_all(&mut MetricsLog::create(&path).unwrap(), &rows);
        MetricsLog::resume(&path, &[(1, 2, u64::MAX), (2, 2, 10)]).unwrap();
        assert_eq!(read(&path).unwrap(), rows[..4]);
    }

    #[test]
    fn a_log_that_is_not_there_starts_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        write_all(&mut MetricsLog::resume(&path, &[(1, 1, 5)]).unwrap(), &[row(1, 1, 6)]);
        assert_eq!(read(&path).unwrap().len(), 1);
    }

    #[test]
    fn a_broken_line_in_the_middle_is_named_with_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"seed\":1,\"stage\":1,\"step\":1,\"seconds\":0}\nnonsense\n").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl:2:"), "{message}");
        let message = MetricsLog::resume(&path, &[(1, 1, 1)]).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl:2:"), "{message}");
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_written_as_null_and_read_as_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let broken = MetricsRow {
            mlm_loss: Some(f64::NAN),
            ..row(1, 1, 1)
        };
        write_all(&mut MetricsLog::create(&path).unwrap(), &[broken]);
        assert_eq!(read(&path).unwrap()[0].mlm_loss, None);
    }
}
