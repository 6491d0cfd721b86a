//! `tlm finetune`: stage 2 alone, also from somebody else's checkpoint.

use std::path::PathBuf;

use clap::Args;

use super::config_args::{ConfigArgs, RunDirectoryArgs};
use super::finish::finish;
use super::{CliError, GlobalArgs};
use crate::report::Watch;
use crate::tlm;

const EXAMPLES: &str = "\
Examples:
  tlm finetune chemprot.toml --out runs/joint             go on after `tlm train --out runs/joint`
  tlm finetune scierc.toml --model runs/joint/model       stage 2 of another task
  tlm finetune chemprot.toml --model bert-base-uncased/   from a Hugging Face checkpoint

The last is the baseline of a pretrained language model. A checkpoint is a directory with
config.json, model.safetensors and tokenizer.json or vocab.txt of a BERT; the encoder's sizes are
then the model's, whatever [model] says.";

/// Stage 2 alone: fine-tuning on the task's texts, then the test.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FinetuneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    directory: RunDirectoryArgs,
    /// Model directory to start from, in a run directory of its own. Without it, the run directory's stage 1 is gone on
    /// with.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

pub(super) fn run(args: FinetuneArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let config = args.config.load_with_files()?;
    let options = args.directory.options(&config, global)?;

    let report = tlm::run::finetune(&config, args.model.as_deref(), &options, &mut Watch::default())?;

    finish(report, &options, global)
}
