//! Results on stdout.

use std::io::Write;

use serde::Serialize;

use super::CliError;

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
