//! Training: schedules, metrics, the feed that prepares steps, the trainer that drives a device, checkpoints.

pub mod checkpoint;
pub mod classifier;
mod error;
pub mod feed;
mod in_flight;
pub mod inputs;
pub mod loss_scale;
pub mod metrics;
pub mod schedule;
pub mod trainer;

pub use error::TrainError;
pub use in_flight::StepResult;
