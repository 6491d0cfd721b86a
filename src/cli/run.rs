//! `tlm run`: the main job, from the corpus to the tested model and its report.

use clap::Args;

use super::config_args::{ConfigArgs, RunDirectoryArgs};
use super::{CliError, GlobalArgs, output};
use crate::report::{self, METRICS_LOG, Watch, metrics_log};
use crate::tlm;

const EXAMPLES: &str = "\
Examples:
  tlm run chemprot.toml
  tlm run chemprot.toml --out runs/rho1-19 --set stage1.rho1=19 --set run.seeds=3
  tlm run chemprot.toml --resume
  tlm run chemprot.toml --print-config > complete.toml

The run directory gets config.toml, selected.jsonl, model/, checkpoints/, metrics.jsonl,
report.json and report.html.
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

    let mut report = tlm::run::run(&config, &options, &mut Watch::default())?;
    report.memory.peak_rss_bytes = report::peak_rss_bytes();

    let rows = metrics_log::read(&options.directory.join(METRICS_LOG))?;
    report::write(&options.directory, &report, &rows)?;
    let text = format!(
        "{}{}\n",
        report::summary(&report),
        options.directory.join(report::REPORT_HTML).display()
    );
    output::result(global.json, &report, &text)
}
