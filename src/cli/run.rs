//! `tlm run`: the main job, from the corpus to the tested model and its report.

use clap::Args;

use super::config_args::{ConfigArgs, RunDirectoryArgs};
use super::finish::finish;
use super::{CliError, GlobalArgs, output};
use crate::report::Watch;
use crate::tlm;

const EXAMPLES: &str = "\
Examples:
  tlm run chemprot.toml
  tlm run chemprot.toml --out runs/rho1-19 --set stage1.rho1=19 --set run.seeds=3
  tlm run chemprot.toml --resume
  tlm run chemprot.toml --print-config > complete.toml

The run directory gets config.toml, selected.jsonl, model/, checkpoints/, metrics.jsonl,
tensorboard/ (`tensorboard --logdir runs`), report.json and report.html.
Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint and end with code 75.";

/// The whole job: select external data, train, fine-tune, test, report.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    directory: RunDirectoryArgs,
    /// Print the complete configuration with the meaning of every key, and run nothing.
    #[arg(long)]
    print_config: bool,
}

pub(super) fn run(args: RunArgs, global: &GlobalArgs) -> Result<(), CliError> {
    if args.print_config {
        let config = args.config.load()?;
        return output::result(global.json, &config, &config.to_toml());
    }
    let config = args.config.load_with_files()?;
    let options = args.directory.options(&config, global)?;

    let report = tlm::run::run(&config, &options, &mut Watch::default())?;

    finish(report, &options, global)
}
