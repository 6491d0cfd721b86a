//! What a repeat leaves in the run directory beside its weights.

use serde::{Deserialize, Serialize};

use crate::cost::profile::Profile;
use crate::tlm::outcome::{RepeatReport, Stage1Report};
use crate::train::loss_scale::LossScale;

/// What a checkpoint knows beside the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Seed of the repeat.
    pub seed: u64,
    /// Stage under way, 1 or 2.
    pub stage: u8,
    /// Steps done in it.
    pub step: u64,
    /// Tokens trained on in it.
    pub tokens: u64,
    /// Seconds spent in it.
    pub seconds: f64,
    /// FLOPs of both stages: needed, executed.
    pub flops: [f64; 2],
    /// MLM losses of the first steps of stage 1.
    pub first: Vec<f64>,
    /// MLM losses of the last steps.
    pub last: Vec<f64>,
    /// Stage 1's report: its development score once it is there, the rest when the stage is done.
    pub stage1: Stage1Report,
    /// Best development score and its step.
    pub best: Option<(f64, u64)>,
    /// Scale of the losses, where gradients are stored as binary16.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// A few steps of stage 1, kernel by kernel.
    #[serde(default)]
    pub profile: Option<Profile>,
}

/// A finished repeat, as it is kept in the run directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Scores and times.
    pub report: RepeatReport,
    /// FLOPs: needed, executed.
    pub flops: [f64; 2],
    /// A few steps of stage 1, kernel by kernel.
    #[serde(default)]
    pub profile: Option<Profile>,
}

/// The name of a seed's checkpoint.
pub fn checkpoint_name(seed: u64) -> String {
    format!("checkpoints/seed-{seed}.safetensors")
}

/// The name of a finished repeat's document.
pub fn finished_name(seed: u64) -> String {
    format!("checkpoints/seed-{seed}.json")
}
