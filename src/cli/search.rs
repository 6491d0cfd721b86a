//! `tlm search`: ranked lists of an index.

use std::path::PathBuf;

use clap::Args;

use super::output::WithMemory;
use super::search_args::SettingsArgs;
use super::{CliError, GlobalArgs, heap, output};
use crate::data::Fields;
use crate::report::Watch;
use crate::report::format::{count, duration, short};
use crate::retrieval::Analyzer;
use crate::tlm::search::{SearchRequest, search};

const EXAMPLES: &str = "\
Examples:
  tlm search --index corpus.index --queries queries.jsonl --top-k 1000 --out run.trec
  tlm search --index corpus.index --queries q.jsonl --top-k 100 --out run.trec --k1 0.9 --b 0.4

Queries are {\"id\", \"text\"}; those without an id are numbered from 1. The run has a line
`query Q0 passage rank score tag` for each hit, as trec_eval reads it; white space in an id is
written as %20 (%09 for a tab, ...), so write judgements for such ids alike.";

/// Search an index: the best passages for each query, as a TREC run.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SearchArgs {
    /// The index.
    #[arg(long, value_name = "INDEX")]
    index: PathBuf,
    /// Files or patterns of queries. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    queries: Vec<String>,
    /// Column or JSON field of the queries' text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Column or JSON field of the queries' names.
    #[arg(long, value_name = "NAME", default_value = "id")]
    id_column: String,
    /// Where to write the run.
    #[arg(long, value_name = "RUN.trec")]
    out: PathBuf,
    /// The last column of the run.
    #[arg(long, value_name = "NAME", default_value = "tlm", value_parser = tag)]
    tag: String,
    /// The analyzer that the index must have been made by.
    #[arg(long)]
    analyzer: Option<Analyzer>,
    #[command(flatten)]
    settings: SettingsArgs,
}

fn tag(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => Err("use a name without white space".to_owned()),
        false => Ok(text.to_owned()),
    }
}

pub(super) fn run(args: SearchArgs, global: &GlobalArgs) -> Result<(), CliError> {
    heap::return_large_blocks();
    let request = SearchRequest {
        settings: args.settings.settings(global)?,
        index: args.index,
        queries: args.queries,
        fields: Fields {
            id: args.id_column,
            text: args.text_column,
            ..Fields::default()
        },
        analyzer: args.analyzer,
        tag: args.tag,
        out: args.out,
    };

    let report = search(&request, &mut Watch::default())?;

    let measured = WithMemory::of(&report);
    let text = format!(
        "{} hits for {} queries among {} passages in {} ({} queries/s, {} analyzer{}): {}\n",
        count(report.hits),
        count(report.queries),
        count(report.documents),
        duration(report.seconds),
        short(report.queries as f64 / report.search_seconds.max(1e-9)),
        report.analyzer,
        measured.text(),
        request.out.display()
    );
    output::result(global.json, &measured, &text)
}
