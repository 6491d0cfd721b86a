//! `tlm finetune`: stage 2 alone, also from somebody else's checkpoint.

use std::path::PathBuf;

use clap::Args;

use super::config_args::{ConfigArgs, RunDirectoryArgs};
use super::{CliError, GlobalArgs, output};
use crate::report::{self, METRICS_LOG, Watch, metrics_log};
use crate::tlm;

const EXAMPLES: &str = "\
Examples:
  tlm finetune chemprot.toml --out runs/joint             from the model of `tlm train`
  tlm finetune chemprot.toml --model bert-base-uncased/   from a Hugging Face checkpoint

The latter is the baseline of a pretrained language model. A checkpoint is a directory with
config.json, model.safetensors and tokenizer.json or vocab.txt of a BERT.";

/// Stage 2 alone: fine-tuning on the task's texts, then the test.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FinetuneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    directory: RunDirectoryArgs,
    /// Model directory to start from; model/ of the run directory by default.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

pub(super) fn run(args: FinetuneArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let config = args.config.load_with_files()?;
    let options = args.directory.options(&config, global)?;
    let model = args.model.unwrap_or_else(|| options.directory.join("model"));

    let mut report = tlm::run::finetune(&config, &model, &options, &mut Watch::default())?;
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
