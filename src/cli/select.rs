//! `tlm select`: external data for a task, without training.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::index::passage_words;
use super::search_args::SettingsArgs;
use super::{CliError, GlobalArgs, heap, output};
use crate::report::Watch;
use crate::report::format::{count, duration};
use crate::retrieval::{Analyzer, EngineSettings};
use crate::tlm::config::{PassageWords, SelectMethod};
use crate::tlm::select::{Corpus, SelectRequest, select};

const EXAMPLES: &str = "\
Examples:
  tlm select --corpus 'corpus/*.jsonl.zst' --queries train.jsonl --top-k 50 --out selected.jsonl
  tlm select --index corpus.index --queries train.jsonl --top-k 50 --out selected.jsonl
  tlm select --engine http://localhost:9200/corpus --queries train.jsonl --top-k 50 --out s.jsonl
  tlm select --corpus c.jsonl --queries train.jsonl --top-k 50 --method random --out random.jsonl

Each line of the result is {\"id\", \"source\", \"text\", \"rank\", \"score\"}: every passage once, with its
smallest 0-based rank over all queries, in the order of first hits. A run uses it with
--set select.file=selected.jsonl (relative to the configuration).";

/// Select external data: the best passages of a corpus for each text of a task.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("from").required(true).args(["index", "corpus", "engine"])))]
pub(super) struct SelectArgs {
    /// An index made by `tlm index build`, instead of a corpus.
    #[arg(long, value_name = "INDEX")]
    index: Option<PathBuf>,
    /// Files or patterns of passages or documents. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    corpus: Vec<String>,
    /// An index of OpenSearch or Elasticsearch, which ranks by its own settings: http://HOST:PORT/INDEX or https://...
    /// Credentials: TLM_ENGINE_USER and TLM_ENGINE_PASSWORD, or TLM_ENGINE_API_KEY.
    #[arg(long, value_name = "URL", conflicts_with_all = [
        "passage_words", "analyzer", "variant", "k1", "b", "length", "stop_words", "memory",
    ])]
    engine: Option<String>,
    /// Terms of a query that the engine takes; longer ones search with their best terms by tf x idf, and are counted.
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "engine",
        value_parser = clap::value_parser!(u32).range(1..))]
    engine_terms: u32,
    /// Words per passage of whole sentences that longer texts of the corpus are cut into: a number, auto (96, which
    /// fills the default length of 128 tokens) or as_given.
    #[arg(long, default_value = "auto", value_name = "N", value_parser = passage_words, conflicts_with = "index")]
    passage_words: PassageWords,
    /// Column or JSON field of the corpus' text.
    #[arg(long, value_name = "NAME", default_value = "text", conflicts_with = "index")]
    corpus_text_column: String,
    /// Files or patterns of texts to search with: the task's training texts. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    queries: Vec<String>,
    /// Column or JSON field of the queries' text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Where to write the selection.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// bm25, or random: as many passages as bm25 would select, at random.
    #[arg(long, default_value = "bm25", value_parser = selecting_method)]
    method: SelectMethod,
    /// Seed of a random selection.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// english (stop words, Porter stemmer) or standard (words in lower case). Default: the index's own, else english.
    #[arg(long)]
    analyzer: Option<Analyzer>,
    #[command(flatten)]
    settings: SettingsArgs,
}

fn selecting_method(name: &str) -> Result<SelectMethod, String> {
    match name {
        "bm25" => Ok(SelectMethod::Bm25),
        "random" => Ok(SelectMethod::Random),
        _ => Err("use bm25 or random".to_owned()),
    }
}

pub(super) fn run(args: SelectArgs, global: &GlobalArgs) -> Result<(), CliError> {
    heap::return_large_blocks();
    let request = SelectRequest {
        settings: args.settings.settings(global)?,
        corpus: match (args.engine, args.index) {
            (Some(url), _) => Corpus::Engine(EngineSettings {
                text_field: args.corpus_text_column.clone(),
                most_terms: args.engine_terms as usize,
                ..EngineSettings::new(&url)
            }),
            (None, Some(index)) => Corpus::Index(index),
            (None, None) => Corpus::Files(args.corpus),
        },
        passage_words: args.passage_words,
        corpus_text_column: args.corpus_text_column,
        queries: args.queries,
        text_column: args.text_column,
        method: args.method,
        seed: args.seed,
        analyzer: args.analyzer,
        out: args.out,
    };

    let selected = select(&request, &mut Watch::default())?;

    let text = format!(
        "{} of {} passages for {} queries in {}: {}\n",
        count(selected.selected),
        count(selected.documents),
        count(selected.queries),
        duration(selected.seconds),
        request.out.display()
    );
    output::result(global.json, &selected, &text)
}
