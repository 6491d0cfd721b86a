//! Training: schedules, metrics, the feed that prepares steps, the trainer that drives a device, checkpoints.

pub mod checkpoint;
pub mod classifier;
mod error;
pub mod feed;
pub mod flops;
pub mod inputs;
pub mod metrics;
pub mod schedule;
pub mod trainer;

pub use error::TrainError;
