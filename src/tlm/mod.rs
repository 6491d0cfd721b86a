//! The method: what task-driven language modeling does with texts, and the commands that carry it out.
//!
//! [`run`] is the whole job; [`select`] its stage 0 (with [`index`] and [`search`] beside it), [`repeat`] its two training stages for one seed. [`objective`] holds
//! the schedule of external and internal batches and the joint loss, [`config`] every setting, [`sizes`] what they mean
//! for plans, [`model`] how parameters come and go, [`directory`] where results lie.

pub mod bench;
pub mod classifier;
pub mod config;
mod corpus;
pub mod directory;
mod error;
pub mod evaluate;
pub mod flops;
pub mod index;
pub mod model;
pub mod objective;
pub mod observer;
pub mod outcome;
pub mod plan;
pub mod repeat;
pub mod run;
pub mod search;
pub mod select;
pub mod sizes;
mod watched;

pub use error::{ErrorKind, TlmError};
