//! The method.

pub mod classifier;
pub mod config;
mod error;
pub mod evaluate;
pub mod objective;
pub mod observer;
pub mod outcome;
pub mod select;

pub use error::{ErrorKind, TlmError};
