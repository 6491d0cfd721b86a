//! What a run tells while it works: decisions, progress, measured steps.
//!
//! The method knows nothing of terminals and files of figures; it tells an [`Observer`]. The report's shows bars and
//! keeps `metrics.jsonl`, [`Silent`] listens to nothing.

use std::io;
use std::path::Path;

use super::outcome::MetricsRow;

/// What a piece of work counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Optimiser steps.
    Steps,
    /// Bytes of input as stored.
    Bytes,
    /// Texts, passages or queries.
    Texts,
}

/// Someone who follows a run.
pub trait Observer {
    /// A decision, or a fact that the reader of the results should know.
    fn note(&mut self, text: &str);

    /// A piece of work begins: `total` units in all (0: not known), of which an earlier process did `done`.
    fn begin(&mut self, work: &str, total: u64, done: u64, unit: Unit);

    /// `position` units of the current work are done; `message` is a short text such as the loss, or empty.
    fn advance(&mut self, position: u64, message: &str);

    /// The current work is done.
    fn end(&mut self);

    /// From now on rows belong to the log `path`: a new one, or for a resumed run the old one with the rows up to
    /// `places`, the (seed, stage, steps done) that each repeat goes on from; rows of other repeats are dropped.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn log_to(&mut self, path: &Path, places: Option<&[(u64, u8, u64)]>) -> io::Result<()>;

    /// A logged step or an evaluation.
    ///
    /// # Errors
    /// If the log cannot be written.
    fn row(&mut self, row: &MetricsRow) -> io::Result<()>;
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn note(&mut self, _: &str) {}

    fn begin(&mut self, _: &str, _: u64, _: u64, _: Unit) {}

    fn advance(&mut self, _: u64, _: &str) {}

    fn end(&mut self) {}

    fn log_to(&mut self, _: &Path, _: Option<&[(u64, u8, u64)]>) -> io::Result<()> {
        Ok(())
    }

    fn row(&mut self, _: &MetricsRow) -> io::Result<()> {
        Ok(())
    }
}
