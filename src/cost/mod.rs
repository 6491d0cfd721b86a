//! What training costs: floating-point operations, bytes, time. The one place that counts them; everything else asks here.
//!
//! | file | knows |
//! |---|---|
//! | `encoder` | sizes and parameters of an encoder |
//! | `convention` | six ways in which papers count the FLOPs of a training |
//! | `needed` | what the mathematics of one batch needs |
//! | `published`, `tasks` | trainings that papers report, with what they print |
//! | `table` | those under every convention, and their ratios |
//! | `ceilings` | what a device can do at most, measured on it |
//! | `bench` | measured kernels, and what moved between two measurings |
//! | `timeline` | steps as they were, launch by launch |
//! | `profile` | a timeline summed up |
//! | `trace` | a timeline in Chrome's trace format |
//!
//! What a launch costs says its kernel's own cost function ([`Kernel::cost`](crate::kernel::Kernel)); a multiply-add counts two.

pub mod bench;
pub mod ceilings;
pub mod convention;
mod encoder;
mod needed;
pub mod profile;
pub mod published;
pub mod table;
mod tasks;
pub mod timeline;
pub mod trace;

pub use ceilings::Ceilings;
pub use convention::Convention;
pub use encoder::Encoder;
pub use needed::{Counts, needed_flops, products};
pub use tasks::{Scale, TASKS, TaskSettings};
