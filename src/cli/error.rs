//! How a command ends when it does not succeed: the message for stderr and the exit code.

use std::io;
use std::path::PathBuf;

use crate::atomic::WriteError;
use crate::report::MetricsLogError;
use crate::tlm::config::ConfigError;
use crate::tlm::{ErrorKind, TlmError};

/// Why a command did not succeed.
#[derive(Debug)]
pub enum CliError {
    /// Bad usage, configuration or data: nothing was written. Exit code 2.
    BadInput(String),
    /// Something failed while running. Exit code 1.
    Failed(String),
    /// A signal came; the state was saved in this run directory. Exit code 75.
    Interrupted(PathBuf),
    /// The reader of stdout went away, as `head` does: no fault, exit code 0 without a message.
    ReaderGone,
}

impl CliError {
    /// The process' exit code.
    pub fn code(&self) -> u8 {
        match self {
            CliError::BadInput(_) => 2,
            CliError::Failed(_) => 1,
            CliError::Interrupted(_) => 75,
            CliError::ReaderGone => 0,
        }
    }

    /// What to tell the user, if anything.
    pub fn message(&self) -> Option<String> {
        match self {
            CliError::BadInput(message) | CliError::Failed(message) => Some(message.clone()),
            CliError::Interrupted(directory) => {
                let directory = directory.display();
                Some(format!(
                    "interrupted; saved in {directory}: go on with the same command and --resume"
                ))
            }
            CliError::ReaderGone => None,
        }
    }

    /// An error of writing to stdout.
    pub fn stdout(error: &io::Error) -> CliError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::ReaderGone,
            _ => CliError::Failed(format!("cannot write to stdout: {error}")),
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> CliError {
        CliError::BadInput(error.to_string())
    }
}

impl From<WriteError> for CliError {
    fn from(error: WriteError) -> CliError {
        CliError::Failed(error.to_string())
    }
}

impl From<MetricsLogError> for CliError {
    fn from(error: MetricsLogError) -> CliError {
        CliError::Failed(error.to_string())
    }
}

impl From<TlmError> for CliError {
    fn from(error: TlmError) -> CliError {
        match error.kind() {
            ErrorKind::BadInput => CliError::BadInput(error.to_string()),
            ErrorKind::Failed => CliError::Failed(error.to_string()),
            ErrorKind::Interrupted(directory) => CliError::Interrupted(directory),
        }
    }
}
