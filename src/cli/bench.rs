//! `tlm bench`: every kernel at the shapes of several models, against what the device can do.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::{CliError, GlobalArgs, output};
use crate::atomic;
use crate::cost::bench::{Bench, Comparison};
use crate::device::choice::PrecisionChoice;
use crate::report::ceilings_text;
use crate::tlm::bench::{BenchRequest, bench, kept};
use crate::tlm::config::Preset;

const EXAMPLES: &str = "\
Examples:
  tlm bench                                  every kernel of tiny and mini
  tlm bench gemm attention.forward --preset base --device cuda
  tlm bench --out before.json
  tlm bench --against before.json            which kernels moved beyond noise

Shares of the ceiling are of rates measured in the same run; above 100 % a cache is faster than
the memory. The result is kept for each device, driver, precision and OP... in the user's cache
directory, or in --out.";

/// Time, GFLOP/s, GB/s and share of the measured ceiling of every kernel, shape and variant.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BenchArgs {
    /// Ops or kernels; all by default.
    #[arg(value_name = "OP")]
    ops: Vec<String>,
    /// Models whose steps have the shapes: tiny, mini, small, medium, base, large. Repeatable.
    #[arg(long = "preset", value_name = "NAME", default_values = ["tiny", "mini"], value_parser = presets())]
    presets: Vec<Preset>,
    /// Word pieces of the vocabulary.
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    vocab_size: u32,
    /// Runs of each launch, of which the median counts.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=1000))]
    rounds: u16,
    /// Where the measurements go, instead of the user's cache directory.
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
    /// An earlier file to compare with.
    #[arg(long, value_name = "FILE.json")]
    against: Option<PathBuf>,
}

fn presets() -> impl TypedValueParser<Value = Preset> {
    let all = [
        ("tiny", Preset::Tiny),
        ("mini", Preset::Mini),
        ("small", Preset::Small),
        ("medium", Preset::Medium),
        ("base", Preset::Base),
        ("large", Preset::Large),
    ];
    PossibleValuesParser::new(all.map(|(name, _)| name)).map(move |found| {
        let preset = all.iter().find(|(name, _)| *name == found);
        preset.map_or(Preset::Tiny, |(_, preset)| *preset)
    })
}

#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    bench: Bench,
    file: Option<PathBuf>,
    against: Option<Comparison>,
}

pub(super) fn run(args: BenchArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let before = args
        .against
        .as_deref()
        .map(Bench::read)
        .transpose()
        .map_err(CliError::BadInput)?;
    let request = BenchRequest {
        ops: args.ops,
        presets: args.presets,
        vocab_size: args.vocab_size as usize,
        rounds: usize::from(args.rounds),
        device: global.device(),
        precision: PrecisionChoice::Auto,
    };

    let bench = bench(&request, &mut |work| eprintln!("measuring {work}"))?;

    let file = args.out.or_else(|| kept(&bench, &request.ops));
    if let Some(file) = &file {
        if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            atomic::make_directory(directory)?;
        }
        atomic::write_with(file, |out| {
            serde_json::to_writer_pretty(&mut *out, &bench)?;
            out.write_all(b"\n")
        })?;
    }
    let against = before.map(|before| bench.against(&before));
    let mut text = format!(
        "{}{}\n{}\n\n{}",
        bench.device,
        if bench.hardware.is_empty() {
            String::new()
        } else {
            format!(", {}", bench.hardware)
        },
        ceilings_text(&bench.ceilings),
        bench.to_text()
    );
    if let Some(against) = &against {
        text += &format!("\n{}", against.to_text());
    }
    if let Some(file) = &file {
        text += &format!("\n{}\n", file.display());
    }
    output::result(global.json, &Measured { bench, file, against }, &text)
}
