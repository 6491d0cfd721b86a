//! `tlm predict`: a label for each text, streaming.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

use super::{CliError, GlobalArgs};
use crate::data::Format;
use crate::report::Watch;
use crate::tlm::evaluate::{Prediction, PredictionRequest, predict};

const EXAMPLES: &str = "\
Examples:
  tlm predict --model runs/chemprot/model new.jsonl > labels.jsonl
  tlm predict --model runs/chemprot/model texts.csv.gz --text-column sentence
  echo 'Aspirin inhibits COX-1.' | tlm predict --model runs/chemprot/model

Each input text gives one line {\"label\": ..., \"scores\": {label: probability, ...}}, in input order.";

/// Label texts with a trained model, one JSON line for each.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PredictArgs {
    /// Model directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Texts: .jsonl, .csv, .tsv or .txt, also .gz or .zst; - reads stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Format, where the name does not tell: jsonl, csv, tsv or txt. Of stdin the first line tells: JSON objects, or
    /// else one text a line.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
    /// Column or JSON field of the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
}

fn format(name: &str) -> Result<Format, String> {
    match name {
        "jsonl" => Ok(Format::Jsonl),
        "csv" => Ok(Format::Csv),
        "tsv" => Ok(Format::Tsv),
        "txt" => Ok(Format::Text),
        _ => Err("use jsonl, csv, tsv or txt".to_owned()),
    }
}

pub(super) fn run(args: PredictArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let request = PredictionRequest {
        model: args.model,
        input: args.input,
        format: args.format,
        text_column: args.text_column,
        device: global.device(),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    // The library stops at the first error of writing and hands it back here.
    let mut failed = None;
    let write = |predictions: &[Prediction]| {
        let written = predictions
            .iter()
            .try_for_each(|prediction| {
                serde_json::to_writer(&mut out, prediction)?;
                out.write_all(b"\n")
            })
            .and_then(|()| out.flush());
        failed = written.err();
        failed.is_none()
    };

    let outcome = predict(&request, write, &mut Watch::default());

    match failed {
        Some(error) => Err(CliError::stdout(&error)),
        None => Ok(outcome?),
    }
}
