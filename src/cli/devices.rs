//! `tlm devices`: where this machine can compute.

use clap::Args;

use super::{CliError, GlobalArgs, output};
use crate::device::survey;
use crate::kernel::Kernel;
use crate::ops::REGISTRY;

const EXAMPLES: &str = "\
Examples:
  tlm devices
  tlm devices --json
  tlm run chemprot.toml --device wgpu:0

With --json: auto, cpu {instruction_set, threads, kernels}, wgpu {kernels, adapters [{index, name,
kind, ...}], remedy}, cuda {kernels, gpus [{index, name, architecture, memory, driver}],
no_gpu, nvrtc {version, path}, no_nvrtc, purpose}, null. Lists of what is missing are empty;
remedy, no_gpu and no_nvrtc then say why and what to do, and are null otherwise.";

/// Backends and adapters: what each can do, what is missing for the others, what auto would take.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DevicesArgs {}

pub(super) fn run(_: DevicesArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let kernels: Vec<&'static Kernel> = REGISTRY.iter().flat_map(|op| op.kernels).copied().collect();
    let survey = survey(&kernels);
    output::result(global.json, &survey, &survey.to_string())
}
