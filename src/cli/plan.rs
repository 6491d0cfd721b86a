//! `tlm plan`: what a run would launch, hold and cost, before anything runs.

use clap::Args;

use super::config_args::ConfigArgs;
use super::{CliError, GlobalArgs, output};
use crate::tlm;

const EXAMPLES: &str = "\
Examples:
  tlm plan chemprot.toml
  tlm plan chemprot.toml --set model.preset=base --set stage1.batch=256 --device null
  tlm plan chemprot.toml --launches";

/// Launches, memory and FLOPs of a configuration; nothing is allocated or run.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// List every launch with shape, FLOPs, bytes and arena offset.
    #[arg(long)]
    launches: bool,
}

pub(super) fn run(args: PlanArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let config = args.config.load()?;

    let plans = tlm::plan::plan(&config, global.device())?;

    output::result(global.json, &plans, &plans.to_text(args.launches))
}
