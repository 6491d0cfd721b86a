//! Why training stops.

use std::path::PathBuf;

use crate::data::DataError;
use crate::device::DeviceError;
use crate::plan::PlanError;

/// What can go wrong while training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A plan that cannot be recorded.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The prefetch thread could not be started.
    #[error("cannot start the thread that prepares batches: {0}")]
    Thread(std::io::Error),
    /// The loss or the gradient is not a number.
    #[error(
        "step {step} of stage {stage}: the {what} is {value}; {place}; the weights are as they were before this step \
         (lower the learning rate, or set clip = 1.0)"
    )]
    NotFinite {
        /// Stage, 1 or 2.
        stage: u8,
        /// Step, 0-based.
        step: u64,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f32,
        /// Where the largest or first broken gradient stands.
        place: String,
    },
    /// A checkpoint that cannot be used.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// File or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
}
