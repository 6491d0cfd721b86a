//! `tlm eval`: scores of a trained model on labelled texts.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use super::{CliError, GlobalArgs, output};
use crate::report::Watch;
use crate::report::format::{count, metric_name, percent};
use crate::tlm::evaluate::{Evaluation, EvaluationRequest, evaluate};
use crate::train::metrics::Metric;

const EXAMPLES: &str = "\
Examples:
  tlm eval --model runs/chemprot/model --data test.jsonl
  tlm eval --model runs/chemprot/model --data 'more/*.csv.gz' --text-column sentence --json";

/// Score a trained model on labelled texts.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EvalArgs {
    /// Model directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Files or patterns of labelled texts. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    data: Vec<String>,
    /// Column or JSON field of the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Column or JSON field of the label.
    #[arg(long, value_name = "NAME", default_value = "label")]
    label_column: String,
    /// The score called "value" in the JSON document: micro_f1, macro_f1 or accuracy. All three are reported.
    #[arg(long, default_value = "macro_f1")]
    metric: Metric,
}

pub(super) fn run(args: EvalArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let request = EvaluationRequest {
        model: args.model,
        data: args.data,
        text_column: args.text_column,
        label_column: args.label_column,
        metric: args.metric,
        device: global.device(),
    };

    let evaluation = evaluate(&request, &mut Watch::default())?;

    output::result(global.json, &evaluation, &table(&evaluation))
}

fn table(evaluation: &Evaluation) -> String {
    let test = &evaluation.test;
    let mut out = format!("{} texts\n", count(test.examples));
    let scores = [
        ("accuracy", test.accuracy),
        ("micro_f1", test.micro_f1),
        ("macro_f1", test.macro_f1),
    ];
    for (name, score) in scores {
        // Writing into a String cannot fail, here and below.
        let _ = writeln!(out, "{:<10} {:>6}", metric_name(name), percent(score));
    }
    let width = evaluation
        .labels
        .iter()
        .map(|label| label.chars().count())
        .max()
        .unwrap_or(0)
        .max(5);
    let _ = writeln!(
        out,
        "\n{:<width$} {:>9} {:>7} {:>7} {:>8}",
        "class", "precision", "recall", "F1", "texts"
    );
    for (label, class) in evaluation.labels.iter().zip(&test.classes) {
        let (precision, recall, f1) = (percent(class.precision), percent(class.recall), percent(class.f1));
        let _ = writeln!(
            out,
            "{label:<width$} {precision:>9} {recall:>7} {f1:>7} {:>8}",
            count(class.support)
        );
    }
    out
}
