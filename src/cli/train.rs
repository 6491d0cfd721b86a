//! `tlm train`: selection and stage 1 alone.

use clap::Args;

use super::config_args::{ConfigArgs, RunDirectoryArgs};
use super::finish::finish;
use super::{CliError, GlobalArgs};
use crate::report::Watch;
use crate::tlm;

const EXAMPLES: &str = "\
Examples:
  tlm train chemprot.toml --out runs/joint
  tlm finetune chemprot.toml --out runs/joint          stage 2 from there
  tlm finetune scierc.toml --model runs/joint/model    stage 2 of another task";

/// Stage 1 alone: joint training from scratch; model and report are left in the run directory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    directory: RunDirectoryArgs,
}

pub(super) fn run(args: TrainArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let config = args.config.load_with_files()?;
    let options = args.directory.options(&config, global)?;

    let report = tlm::run::train(&config, &options, &mut Watch::default())?;

    finish(report, &options, global)
}
