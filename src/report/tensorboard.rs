//! `tensorboard/`: the figures of `metrics.jsonl` as event files, which TensorBoard draws while a run is under way.
//!
//! ```text
//! tensorboard/seed-42/events.out.tfevents.tlm       a run of TensorBoard for each repeat
//! file    record record ...                          TFRecord
//! record  u64 length | u32 masked CRC-32C of the length | data | u32 masked CRC-32C of the data      little-endian
//! data    Event    { 1: double wall_time, 2: int64 step, 3: string file_version | 5: Summary }        protobuf
//!         Summary  { 1: Value, 1: Value, ... }
//!         Value    { 1: string tag, 2: float simple_value }
//! masked(c) = (c rotated right by 15) + 0xa282ead8
//! ```
//!
//! The step counts within a stage, so the tags begin with it: `stage1/task_loss`, `stage2/task_loss`. Every row of the log
//! is one record, appended by one write. The files hold nothing that the log does not: a run that goes on makes them anew
//! from its log, so that they lack no step and have none twice.
//!
//! These five messages are written by hand; a protobuf library with its code generator would be larger than this file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISCSI, Crc};

use crate::atomic::{self, WriteError};
use crate::tlm::objective::StepKind;
use crate::tlm::outcome::MetricsRow;

/// TensorBoard takes every file with `tfevents` in its name.
const FILE: &str = "events.out.tfevents.tlm";
/// What the first record of an event file says.
const VERSION: &str = "brain.Event:2";

static CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The event files of a run.
#[derive(Debug)]
pub struct EventFiles {
    directory: PathBuf,
    /// The repeat under way.
    open: Option<(u64, PathBuf, File)>,
}

impl EventFiles {
    /// Makes the event files of `directory` such that they hold exactly `rows`; later rows are appended.
    ///
    /// # Errors
    /// [`WriteError`] with the path.
    pub fn create(directory: &Path, rows: &[MetricsRow]) -> Result<EventFiles, WriteError> {
        let mut of_seed: BTreeMap<u64, Vec<&MetricsRow>> = BTreeMap::new();
        for row in rows {
            of_seed.entry(row.seed).or_default().push(row);
        }
        let files = EventFiles {
            directory: directory.to_path_buf(),
            open: None,
        };
        atomic::make_directory(directory)?;
        let at = |source| WriteError::of(directory, source);
        for entry in fs::read_dir(directory).map_err(at)? {
            let stale = entry.map_err(at)?.path().join(FILE);
            if stale.is_file() {
                fs::remove_file(&stale).map_err(|source| WriteError::of(&stale, source))?;
            }
        }
        for (seed, rows) in of_seed {
            let mut bytes = header(rows[0].time);
            rows.iter().for_each(|row| bytes.extend(record(&event(row))));
            atomic::write(&files.file(seed)?, &bytes)?;
        }
        Ok(files)
    }

    /// Appends the figures of a row.
    ///
    /// # Errors
    /// [`WriteError`], for example when the disk is full.
    pub fn write(&mut self, row: &MetricsRow) -> Result<(), WriteError> {
        if self.open.as_ref().is_none_or(|(seed, ..)| *seed != row.seed) {
            let path = self.file(row.seed)?;
            if !path.is_file() {
                atomic::write(&path, &header(row.time))?;
            }
            let file = OpenOptions::new().append(true).open(&path);
            let file = file.map_err(|source| WriteError::of(&path, source))?;
            self.open = Some((row.seed, path, file));
        }
        match &mut self.open {
            Some((_, path, file)) => file
                .write_all(&record(&event(row)))
                .map_err(|source| WriteError::of(path, source)),
            None => Ok(()),
        }
    }

    /// The file of a repeat, its directory made.
    fn file(&self, seed: u64) -> Result<PathBuf, WriteError> {
        let directory = self.directory.join(format!("seed-{seed}"));
        atomic::make_directory(&directory)?;
        Ok(directory.join(FILE))
    }
}

/// What TensorBoard shows of a row, by tag.
fn scalars(row: &MetricsRow) -> impl Iterator<Item = (String, f64)> {
    let mlm_loss = match row.kind {
        Some(StepKind::External) => "mlm_loss_external",
        Some(StepKind::Internal) => "mlm_loss_internal",
        None => "mlm_loss",
    };
    let stage = row.stage;
    [
        (mlm_loss, row.mlm_loss),
        ("task_loss", row.task_loss),
        ("learning_rate", row.learning_rate),
        ("gradient_norm", row.gradient_norm),
        ("tokens_per_second", row.tokens_per_second),
        ("mfu", row.mfu),
        ("speed_of_light", row.speed_of_light),
        ("packing_efficiency", row.packing_efficiency),
        ("dev_score", row.dev_score),
        ("dev_loss", row.dev_loss),
    ]
    .into_iter()
    .filter_map(move |(name, value)| value.map(|value| (format!("stage{stage}/{name}"), value)))
}

/// The record that an event file begins with.
fn header(time: f64) -> Vec<u8> {
    let mut event = double(1, time);
    event.extend(bytes(3, VERSION.as_bytes()));
    record(&event)
}

fn event(row: &MetricsRow) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars(row) {
        let mut message = bytes(1, tag.as_bytes());
        message.extend(float(2, value as f32));
        summary.extend(bytes(1, &message));
    }
    let mut event = double(1, row.time);
    event.extend(key(2, 0));
    event.extend(varint(row.step));
    event.extend(bytes(5, &summary));
    event
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

fn masked_crc(data: &[u8]) -> u32 {
    CRC_32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A field's number and wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
fn key(field: u8, wire_type: u8) -> [u8; 1] {
    [field << 3 | wire_type]
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [&key(field, 1)[..], &value.to_le_bytes()].concat()
}

fn float(field: u8, value: f32) -> Vec<u8> {
    [&key(field, 5)[..], &value.to_le_bytes()].concat()
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [&key(field, 2)[..], &varint(value.len() as u64), value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seed: u64, stage: u8, step: u64) -> MetricsRow {
        MetricsRow {
            seed,
            stage,
            step,
            task_loss: Some(step as f64 / 4.0),
            time: 1.5e9 + step as f64,
            ..MetricsRow::default()
        }
    }

    fn stored(directory: &Path, seed: u64) -> Vec<u8> {
        fs::read(directory.join(format!("seed-{seed}/{FILE}"))).unwrap()
    }

    // CRC-32C of "123456789" is 0xe3069283 (RFC 3720's polynomial, check value of the CRC catalogue).
    #[test]
    fn the_checksum_is_the_masked_crc_32c() {
        // Rotated right by 15: 0x2507c60d; plus the constant, by hand.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
        // Every event file of TensorFlow begins so: 24 bytes of data, and the checksum of that length.
        assert_eq!(header(0.0)[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    // By hand from the encoding of protocol buffers: field << 3 | wire type, then the value.
    #[test]
    fn an_event_has_the_bytes_of_its_message() {
        let event = event(&MetricsRow {
            task_loss: Some(1.0),
            ..row(1, 2, 300)
        });
        let mut expected = vec![0x09];
        expected.extend((1.5e9 + 300.0_f64).to_le_bytes());
        expected.extend([0x10, 0xac, 0x02]); // step 300
        expected.extend([0x2a, 25, 0x0a, 23, 0x0a, 16]);
        expected.extend(b"stage2/task_loss");
        expected.extend([0x15, 0, 0, 0x80, 0x3f]); // 1.0
        assert_eq!(event, expected);
    }

    #[test]
    fn a_resumed_run_has_the_files_of_an_unbroken_one() {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let rows = [
            row(1, 1, 10),
            row(1, 2, 10),
            row(2, 1, 10),
            row(2, 1, 20),
            row(3, 1, 10),
        ];
        let write = |directory: &Path, before: &[MetricsRow], rows: &[MetricsRow]| {
            let mut files = EventFiles::create(directory, before).unwrap();
            rows.iter().for_each(|row| files.write(row).unwrap());
        };
        write(whole.path(), &[], &rows);
        // Stopped within a record of the third repeat; the checkpoint is from before it and before step 20.
        write(broken.path(), &[], &rows);
        let torn = broken.path().join("seed-3").join(FILE);
        let length = fs::metadata(&torn).unwrap().len();
        File::options()
            .write(true)
            .open(&torn)
            .unwrap()
            .set_len(length - 3)
            .unwrap();
        write(broken.path(), &rows[..3], &rows[3..]);
        for seed in 1..=3 {
            assert_eq!(stored(whole.path(), seed), stored(broken.path(), seed), "seed {seed}");
        }
    }
}
