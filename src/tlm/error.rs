//! What can go wrong in a run, and what kind of failure it is.

use std::io;
use std::path::PathBuf;

use super::config::ConfigError;
use crate::atomic::WriteError;
use crate::data::DataError;
use crate::device::DeviceError;
use crate::hub::HubError;
use crate::plan::PlanError;
use crate::retrieval::RetrievalError;
use crate::train::TrainError;

/// What a failure means to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Usage, configuration or data: nothing was written.
    BadInput,
    /// Something failed while running.
    Failed,
    /// A signal came; the state is saved in this run directory.
    Interrupted(PathBuf),
}

/// Why a command of the library failed.
#[derive(Debug, thiserror::Error)]
pub enum TlmError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The texts.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The selection.
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
    /// A model directory.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A plan that cannot be recorded: sizes that an op does not support.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Writing.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A checkpoint that cannot be written.
    #[error("{0}; the checkpoint before it, if there is one, is whole, and --resume goes on from it")]
    Unsaved(HubError),
    /// Reading or logging.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// A request that does not fit what is there: an occupied run directory, a checkpoint of another configuration.
    #[error("{0}")]
    Refused(String),
    /// A signal came; everything is saved.
    #[error("interrupted; saved in {}", .0.display())]
    Interrupted(PathBuf),
}

impl TlmError {
    /// An input or output failure with what was attempted.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> TlmError {
        let what = what.into();
        move |source| TlmError::Io { what, source }
    }

    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TlmError::Data(DataError::Write(_)) | TlmError::Hub(HubError::Write(_)) => ErrorKind::Failed,
            TlmError::Retrieval(
                RetrievalError::Write(_)
                | RetrievalError::Busy { .. }
                | RetrievalError::Engine { .. }
                | RetrievalError::NoMemory { .. },
            ) => ErrorKind::Failed,
            TlmError::Config(_) | TlmError::Data(_) | TlmError::Retrieval(_) | TlmError::Refused(_) => {
                ErrorKind::BadInput
            }
            TlmError::Hub(_) | TlmError::Plan(_) | TlmError::Train(TrainError::Plan(_)) => ErrorKind::BadInput,
            TlmError::Interrupted(directory) => ErrorKind::Interrupted(directory.clone()),
            TlmError::Device(_)
            | TlmError::Train(_)
            | TlmError::Write(_)
            | TlmError::Unsaved(_)
            | TlmError::Io { .. } => ErrorKind::Failed,
        }
    }
}
