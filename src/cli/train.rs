//! `tlm train`: selection and stage 1 alone.

use clap::Args;

use super::config_args::{ConfigArgs, RunDirectoryArgs};
use super::{CliError, GlobalArgs, output};
use crate::report::Watch;
use crate::report::format::{count, duration};
use crate::tlm;

const EXAMPLES: &str = "\
Examples:
  tlm train chemprot.toml --out runs/joint
  tlm finetune chemprot.toml --out runs/joint          stage 2 from there
  tlm finetune scierc.toml --model runs/joint/model    stage 2 of another task";

/// Stage 1 alone: joint training from scratch; the model is left in the run directory.
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

    let stage1 = tlm::run::train(&config, &options, &mut Watch::default())?;

    let text = format!(
        "{} steps, {} tokens in {}: {}\n",
        count(stage1.steps),
        count(stage1.tokens),
        duration(stage1.seconds),
        options.directory.join("model").display()
    );
    output::result(global.json, &stage1, &text)
}
