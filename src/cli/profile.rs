//! `tlm profile`: where the time of real steps goes, kernel by kernel and layer by layer.

use std::path::PathBuf;

use clap::Args;

use super::config_args::ConfigArgs;
use super::{CliError, GlobalArgs, output};
use crate::atomic;
use crate::cost::trace;
use crate::report::{Watch, profile_page, profile_text};
use crate::tlm::run::{ProfileRequest, profile};

const EXAMPLES: &str = "\
Examples:
  tlm profile chemprot.toml
  tlm profile chemprot.toml --steps 10 --trace trace.json --html profile.html
  tlm profile chemprot.toml --stage 2 --set model.preset=small --json

The trace opens in https://ui.perfetto.dev and in chrome://tracing. Times are the device's own
(timestamps on GPUs); the same steps run before and after without profiling, for comparison.";

/// Time, FLOPs and bytes of every kernel and layer in real training steps.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ProfileArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Steps to profile.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    steps: u64,
    /// Steps before them.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=10_000))]
    warmup: u64,
    /// Which stage.
    #[arg(long, value_name = "1|2", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    stage: u8,
    /// Write every slice as a Chrome trace.
    #[arg(long, value_name = "TRACE.json")]
    trace: Option<PathBuf>,
    /// Write tables and the picture of the step as a page.
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: ProfileArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let config = args.config.load_with_files()?;
    let files = [&args.trace, &args.html];
    for directory in files.into_iter().flatten().filter_map(|file| file.parent()) {
        if !directory.as_os_str().is_empty() {
            atomic::check_writable(directory)?;
        }
    }
    let request = ProfileRequest {
        stage: args.stage,
        steps: args.steps,
        warmup: args.warmup,
        device: global.device(),
    };

    let (report, timeline) = profile(&config, &request, &mut Watch::default())?;

    if let Some(file) = &args.trace {
        atomic::write_with(file, |mut out| {
            trace::write(&timeline, &report.profile.device, &mut out)
        })?;
    }
    if let Some(file) = &args.html {
        atomic::write(file, profile_page(&config.task.name, &report).as_bytes())?;
    }
    output::result(global.json, &report, &profile_text(&report))
}
