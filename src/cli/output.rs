//! Results on stdout.

use std::io::Write;

use serde::Serialize;

use super::CliError;
use crate::report::format::bytes;
use crate::report::peak_rss_bytes;

/// A result with the memory that it took.
#[derive(Serialize)]
pub(super) struct WithMemory<'a, T> {
    #[serde(flatten)]
    result: &'a T,
    peak_rss_bytes: Option<u64>,
}

impl<'a, T: Serialize> WithMemory<'a, T> {
    /// `result` and the largest resident size of this process so far.
    pub(super) fn of(result: &'a T) -> Self {
        WithMemory {
            result,
            peak_rss_bytes: peak_rss_bytes(),
        }
    }

    /// The memory as the end of a sentence; empty where the system does not tell.
    pub(super) fn text(&self) -> String {
        let peak = self.peak_rss_bytes;
        peak.map_or(String::new(), |peak| format!(", {} of memory at the peak", bytes(peak)))
    }
}

/// Prints `text` as it is, or `value` as JSON where that is asked for.
pub(super) fn result(json: bool, value: &impl Serialize, text: &str) -> Result<(), CliError> {
    let out = if json {
        let document = serde_json::to_string_pretty(value)
            .map_err(|error| CliError::Failed(format!("cannot write the result as JSON: {error}")))?;
        document + "\n"
    } else {
        text.to_owned()
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(out.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| CliError::stdout(&error))
}
