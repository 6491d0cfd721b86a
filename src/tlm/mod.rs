//! The method.

pub mod config;
mod error;
pub mod objective;
pub mod observer;
pub mod outcome;
pub mod plan;
pub mod sizes;

pub use error::{ErrorKind, TlmError};
