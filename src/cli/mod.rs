//! The command line: one file per subcommand, which parses, calls the library and prints.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed at run time |
//! | 2 | bad usage, configuration or data |
//! | 75 | interrupted, and saved: go on with `--resume` |
//!
//! Results go to stdout, with `--json` as one JSON document; notes, progress and errors go to stderr.

mod bench;
mod config_args;
mod devices;
mod error;
mod eval;
mod finetune;
mod finish;
mod flops;
mod heap;
mod index;
mod output;
mod plan;
mod predict;
mod profile;
mod run;
mod search;
mod search_args;
mod select;
mod stop;
mod train;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::device::choice::DeviceChoice;
pub use error::CliError;

const OVERVIEW: &str = "\
Examples:
  tlm run chemprot.toml                        select, train, fine-tune, test, report
  tlm run chemprot.toml --set stage1.rho1=19   the same with another value
  tlm run chemprot.toml --resume               go on after an interruption
  tlm predict --model runs/chemprot/model new.jsonl

`tlm COMMAND --help` shows each command with an example.";

/// Text classifiers trained from scratch, without a pretrained language model (TLM, Yao et al. 2022).
#[derive(Debug, Parser)]
#[command(name = "tlm", version, after_help = OVERVIEW, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct GlobalArgs {
    /// Print the result as one JSON document on stdout.
    #[arg(long, global = true)]
    json: bool,
    /// Where to compute: auto, cpu, wgpu, wgpu:N, cuda, cuda:N or null (nothing runs). auto takes CUDA, else a
    /// hardware GPU through wgpu, else the CPU, and says why. Without this flag: cpu for search and select, else auto.
    #[arg(long, global = true, env = "TLM_DEVICE", value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// CPU threads; all cores by default. Results do not depend on it.
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

impl GlobalArgs {
    /// The device named, else `auto`.
    fn device(&self) -> DeviceChoice {
        self.device.unwrap_or_default()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Train(train::TrainArgs),
    Finetune(finetune::FinetuneArgs),
    Index(index::IndexArgs),
    Search(search::SearchArgs),
    Select(select::SelectArgs),
    Eval(eval::EvalArgs),
    Predict(predict::PredictArgs),
    Plan(plan::PlanArgs),
    Flops(flops::FlopsArgs),
    Profile(profile::ProfileArgs),
    Bench(bench::BenchArgs),
    Devices(devices::DevicesArgs),
}

/// Parses the process' arguments, runs the command, prints its error if it has one.
pub fn main() -> ExitCode {
    // Help and version end the process with 0, bad usage with 2.
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = error.message() {
                eprintln!("tlm: {message}");
            }
            ExitCode::from(error.code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), CliError> {
    let global = &cli.global;
    if let Some(threads) = global.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()
            .map_err(|error| CliError::Failed(format!("cannot start {threads} threads: {error}")))?;
    }
    match cli.command {
        Command::Run(args) => run::run(args, global),
        Command::Train(args) => train::run(args, global),
        Command::Finetune(args) => finetune::run(args, global),
        Command::Index(args) => index::run(args, global),
        Command::Search(args) => search::run(args, global),
        Command::Select(args) => select::run(args, global),
        Command::Eval(args) => eval::run(args, global),
        Command::Predict(args) => predict::run(args, global),
        Command::Plan(args) => plan::run(args, global),
        Command::Flops(args) => flops::run(args, global),
        Command::Profile(args) => profile::run(args, global),
        Command::Bench(args) => bench::run(args, global),
        Command::Devices(args) => devices::run(args, global),
    }
}

#[cfg(test)]
mod tests;
