//! `tlm flops`: what a configuration costs, and what published models cost beside TLM.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, GlobalArgs, output};
use crate::atomic;
use crate::cost::Convention;
use crate::cost::table::table;
use crate::report::flops::published_svg;
use crate::tlm::config::Config;
use crate::tlm::flops::cost;

const EXAMPLES: &str = "\
Examples:
  tlm flops chemprot.toml                       before a run: paper, needed, executed
  tlm flops chemprot.toml --set model.preset=base --convention exact
  tlm flops --table                             BERT, RoBERTa, TLM and others, every convention
  tlm flops --table --convention paper          one convention, task by task
  tlm flops --table --plot flops.svg            score against FLOPs

Conventions: paper, exact, palm, megatron, chinchilla, electra. Published figures for one model
differ by a factor of six between them.";

/// Training FLOPs of a configuration, or of published models.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FlopsArgs {
    /// The configuration.
    #[arg(
        value_name = "CONFIG.toml",
        required_unless_present = "table",
        conflicts_with = "table"
    )]
    config: Option<PathBuf>,
    /// Override a value of the configuration: --set stage1.steps=100000. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Published models instead of a configuration.
    #[arg(long)]
    table: bool,
    /// How to count: paper, exact, palm, megatron, chinchilla or electra; all of them by default.
    #[arg(long, value_name = "NAME")]
    convention: Option<Convention>,
    /// Also draw the published models, score against FLOPs, as SVG.
    #[arg(long, value_name = "FILE.svg", requires = "table")]
    plot: Option<PathBuf>,
}

pub(super) fn run(args: FlopsArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let Some(config) = args.config else {
        let table = table();
        if let Some(file) = &args.plot {
            let convention = args.convention.unwrap_or(Convention::Paper);
            atomic::write(file, published_svg(&table, convention).as_bytes())?;
        }
        return output::result(global.json, &table, &table.to_text(args.convention));
    };
    let config = Config::load(&config, &args.overrides)?;

    let cost = cost(&config)?;

    output::result(global.json, &cost, &cost.to_text(args.convention))
}
