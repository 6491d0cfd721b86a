//! `tlm index`: an index of a corpus on disk.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::WithMemory;
use super::search_args::memory;
use super::{CliError, GlobalArgs, heap, output};
use crate::data::Fields;
use crate::report::Watch;
use crate::report::format::{bytes, count, duration};
use crate::retrieval::{Analyzer, IndexSummary};
use crate::tlm::config::{Config, PassageWords};
use crate::tlm::index::{self, IndexReport, IndexRequest};

const EXAMPLES: &str = "\
Examples:
  tlm index build --out corpus.index 'corpus/*.jsonl.zst'
  tlm index add corpus.index more.jsonl.gz
  tlm index info corpus.index
  tlm index verify corpus.index
  tlm select --index corpus.index --queries train.jsonl --top-k 50 --out selected.jsonl

An index stays as it is until a build or an addition is complete, whatever happens on the way.";

/// Build, extend, describe and check an index of a corpus on disk.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct IndexArgs {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    /// Make a new index, in place of one that is there.
    Build(BuildArgs),
    /// Add passages to an index, by its own analyzer.
    Add(AddArgs),
    /// Sizes of an index.
    Info(PlaceArgs),
    /// Read every byte of an index and compare every checksum and count.
    Verify(PlaceArgs),
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The directory of the index.
    #[arg(long, value_name = "INDEX")]
    out: PathBuf,
    #[command(flatten)]
    corpus: CorpusArgs,
    /// Files or patterns of passages: .jsonl, .csv, .tsv, .txt, also with .gz or .zst.
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<String>,
    /// english (stop words, Porter stemmer) or standard (words in lower case).
    #[arg(long, default_value = "english")]
    analyzer: Analyzer,
    /// Words per passage of whole sentences that longer texts are cut into: a number, auto (96, which fills the default
    /// length of 128 tokens) or as_given.
    #[arg(long, default_value = "as_given", value_name = "N", value_parser = passage_words)]
    passage_words: PassageWords,
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The directory of the index; without this flag the first argument.
    #[arg(long, value_name = "INDEX", visible_alias = "out")]
    index: Option<PathBuf>,
    #[command(flatten)]
    corpus: CorpusArgs,
    /// The index, unless --index names it, and files or patterns of passages.
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<String>,
}

#[derive(Debug, Args)]
struct CorpusArgs {
    /// Column or JSON field of the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Column or JSON field of the passage's name.
    #[arg(long, value_name = "NAME", default_value = "id")]
    id_column: String,
    /// Column or JSON field of the collection that the passage is from.
    #[arg(long, value_name = "NAME", default_value = "source")]
    source_column: String,
    /// Memory that the work keeps to, at least 64M: 256M, 2G.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory)]
    memory: u64,
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// The directory of the index.
    #[arg(long, value_name = "INDEX", conflicts_with = "place")]
    index: Option<PathBuf>,
    /// The directory of the index.
    #[arg(value_name = "INDEX", required_unless_present = "index")]
    place: Option<PathBuf>,
}

pub(super) fn passage_words(text: &str) -> Result<PassageWords, String> {
    text.parse()
}

impl CorpusArgs {
    fn request(self, index: PathBuf, inputs: Vec<String>) -> IndexRequest {
        IndexRequest {
            index,
            inputs,
            fields: Fields {
                id: self.id_column,
                source: self.source_column,
                text: self.text_column,
                ..Fields::default()
            },
            memory: self.memory,
        }
    }
}

impl PlaceArgs {
    fn directory(self) -> PathBuf {
        self.index.or(self.place).unwrap_or_default()
    }
}

pub(super) fn run(args: IndexArgs, global: &GlobalArgs) -> Result<(), CliError> {
    heap::return_large_blocks();
    let mut watch = Watch::default();
    match args.command {
        IndexCommand::Build(args) => {
            let words = args.passage_words.words(Config::default().external_length());
            let words = words.and_then(std::num::NonZeroUsize::new);
            let request = args.corpus.request(args.out, args.inputs);
            let report = index::build(&request, args.analyzer, words, &mut watch)?;
            finished(&report, global)
        }
        IndexCommand::Add(args) => {
            let mut inputs = args.inputs;
            let place = args.index.unwrap_or_else(|| PathBuf::from(inputs.remove(0)));
            if inputs.is_empty() {
                return Err(CliError::BadInput(
                    "what is to be added is missing: tlm index add INDEX INPUT...".to_owned(),
                ));
            }
            let report = index::add(&args.corpus.request(place, inputs), &mut watch)?;
            finished(&report, global)
        }
        IndexCommand::Info(args) => {
            let summary = index::info(&args.directory())?;
            output::result(global.json, &summary, &described(&summary))
        }
        IndexCommand::Verify(args) => {
            let directory = args.directory();
            let summary = index::verify(&directory, &mut watch)?;
            let text = format!(
                "{}: whole, {} passages\n",
                directory.display(),
                count(summary.documents.into())
            );
            output::result(global.json, &summary, &text)
        }
    }
}

fn finished(report: &IndexReport, global: &GlobalArgs) -> Result<(), CliError> {
    let rate = report.text_bytes as f64 / report.seconds.max(1e-9) / 1e6;
    let measured = WithMemory::of(report);
    let text = format!(
        "{} passages added in {}: {:.1} MB of text, {rate:.1} MB/s{}\n{}",
        count(report.added),
        duration(report.seconds),
        report.text_bytes as f64 / 1e6,
        measured.text(),
        described(&report.summary)
    );
    output::result(global.json, &measured, &text)
}

fn described(summary: &IndexSummary) -> String {
    let words = match summary.passage_words {
        Some(words) => format!("cut into at most {words} words"),
        None => "as given".to_owned(),
    };
    let rows = [
        ("analyzer", summary.analyzer.clone()),
        ("passages", format!("{}, {words}", count(summary.documents.into()))),
        (
            "terms",
            format!(
                "{}, {} distinct, {:.1} a passage",
                count(summary.total_length),
                count(summary.terms),
                summary.average_length
            ),
        ),
        ("postings", count(summary.postings)),
        ("segments", format!("{}, {} tiles", summary.segments, summary.tiles)),
        (
            "on disk",
            format!(
                "{} index, {} passages",
                bytes(summary.index_bytes),
                bytes(summary.passage_bytes)
            ),
        ),
    ];
    let lines = rows.map(|(name, value)| format!("{name:<9} {value}\n"));
    lines.concat()
}
