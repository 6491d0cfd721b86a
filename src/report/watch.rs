//! Following a run on the terminal and in its log: notes and progress on stderr, rows into `metrics.jsonl` and the event
//! files beside it.

use std::io;
use std::path::Path;

use super::metrics_log::{self, MetricsLog, MetricsLogError};
use super::progress::Progress;
use super::tensorboard::EventFiles;
use crate::tlm::observer::{Observer, Unit};
use crate::tlm::outcome::MetricsRow;

/// Name of the directory of event files beside the log.
const TENSORBOARD: &str = "tensorboard";

/// The observer of the command line.
#[derive(Default)]
pub struct Watch {
    progress: Option<Progress>,
    log: Option<(MetricsLog, EventFiles)>,
}

impl Observer for Watch {
    fn note(&mut self, text: &str) {
        match &mut self.progress {
            Some(progress) => progress.note(text),
            None => eprintln!("{text}"),
        }
    }

    fn begin(&mut self, work: &str, total: u64, done: u64, unit: Unit) {
        self.end();
        let mut progress = Progress::new(work, total, unit);
        if done > 0 {
            progress.start_at(done);
        }
        self.progress = Some(progress);
    }

    fn advance(&mut self, position: u64, message: &str) {
        if let Some(progress) = &mut self.progress {
            if !message.is_empty() {
                progress.message(message);
            }
            progress.set(position);
        }
    }

    fn end(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }

    fn log_to(&mut self, path: &Path, places: Option<&[(u64, u8, u64)]>) -> io::Result<()> {
        let log = match places {
            Some(places) => MetricsLog::resume(path, places),
            None => MetricsLog::create(path),
        };
        let log = log.map_err(to_io)?;
        let rows = metrics_log::read(path).map_err(to_io)?;
        let events = EventFiles::create(&path.with_file_name(TENSORBOARD), &rows);
        self.log = Some((log, events.map_err(|error| to_io(error.into()))?));
        Ok(())
    }

    fn row(&mut self, row: &MetricsRow) -> io::Result<()> {
        let Some((log, events)) = &mut self.log else {
            return Ok(());
        };
        log.write(row).map_err(to_io)?;
        events.write(row).map_err(|error| to_io(error.into()))
    }
}

/// The error in the form of the [`Observer`], with the same words.
fn to_io(error: MetricsLogError) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_into_the_log_and_a_resume_drops_those_after_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let row = |step| MetricsRow {
            seed: 1,
            stage: 1,
            step,
            ..MetricsRow::default()
        };
        let mut watch = Watch::default();
        watch.row(&row(1)).unwrap(); // no log yet: nothing to write to
        watch.log_to(&path, None).unwrap();
        (1..=4).for_each(|step| watch.row(&row(step)).unwrap());
        Watch::default().log_to(&path, Some(&[(1, 1, 2)])).unwrap();
        let steps: Vec<u64> = super::super::metrics_log::read(&path)
            .unwrap()
            .iter()
            .map(|row| row.step)
            .collect();
        assert_eq!(steps, [1, 2]);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_an_error_with_its_path() {
        let error = Watch::default()
            .log_to(Path::new("/absent/metrics.jsonl"), None)
            .unwrap_err();
        assert!(error.to_string().contains("/absent/metrics.jsonl"), "{error}");
    }
}
