//! `tlm select`: external data for a task, without training.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::{CliError, GlobalArgs, output};
use crate::report::Watch;
use crate::report::format::{count, duration};
use crate::retrieval::{Analyzer, Bm25, DocumentLength, Variant};
use crate::tlm::config::{PassageWords, Query, SelectMethod};
use crate::tlm::select::{Corpus, SelectRequest, select};

const EXAMPLES: &str = "\
Examples:
  tlm select --corpus 'corpus/*.jsonl.zst' --queries train.jsonl --top-k 50 --out selected.jsonl
  tlm select --corpus c.jsonl --queries train.jsonl --top-k 50 --method random --out random.jsonl

Each line of the result is {\"id\", \"source\", \"text\", \"rank\", \"score\"}: every passage once, with its
smallest 0-based rank over all queries, in the order of first hits. A run uses it with
--set select.file=selected.jsonl (relative to the configuration).";

/// Select external data: the best passages of a corpus for each text of a task.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("from").required(true).args(["index", "corpus"])))]
pub(super) struct SelectArgs {
    /// A built index instead of a corpus; this version builds none and refuses it.
    #[arg(long, value_name = "INDEX")]
    index: Option<PathBuf>,
    /// Files or patterns of passages or documents. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    corpus: Vec<String>,
    /// Words per passage of whole sentences that longer texts of the corpus are cut into: a number, auto (96, which
    /// fills the default length of 128 tokens) or as_given.
    #[arg(long, default_value = "auto", value_name = "N", value_parser = passage_words)]
    passage_words: PassageWords,
    /// Column or JSON field of the corpus' text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    corpus_text_column: String,
    /// Files or patterns of texts to search with: the task's training texts. Repeatable.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    queries: Vec<String>,
    /// Column or JSON field of the queries' text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Passages per query.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Where to write the selection.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// What of a text is the query: text, the whole of it. (rake and tfidf:N are refused in this version.)
    #[arg(long, default_value = "text")]
    query: Query,
    /// bm25, or random: as many passages as bm25 would select, at random.
    #[arg(long, default_value = "bm25", value_parser = selecting_method)]
    method: SelectMethod,
    /// Seed of a random selection.
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// english (stop words, Porter stemmer) or standard (words in lower case). Default: the index's own, else english.
    #[arg(long)]
    analyzer: Option<Analyzer>,
    /// lucene, robertson, atire, bm25l or bm25+.
    #[arg(long, default_value = "lucene")]
    variant: Variant,
    /// BM25's saturation of the term frequency.
    #[arg(long, default_value_t = 1.2, value_name = "X")]
    k1: f64,
    /// BM25's strength of the length normalisation.
    #[arg(long, default_value_t = 0.75, value_name = "Y")]
    b: f64,
    /// Document length: exact, or lucene (rounded to one byte).
    #[arg(long, default_value = "exact")]
    length: DocumentLength,
}

fn passage_words(text: &str) -> Result<PassageWords, String> {
    text.parse()
}

fn selecting_method(name: &str) -> Result<SelectMethod, String> {
    match name {
        "bm25" => Ok(SelectMethod::Bm25),
        "random" => Ok(SelectMethod::Random),
        _ => Err("use bm25 or random".to_owned()),
    }
}

pub(super) fn run(args: SelectArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let bm25 = Bm25 {
        variant: args.variant,
        k1: args.k1,
        b: args.b,
        length: args.length,
    };
    bm25.validate().map_err(|error| CliError::BadInput(error.to_string()))?;
    let request = SelectRequest {
        corpus: args.index.map_or(Corpus::Files(args.corpus), Corpus::Index),
        passage_words: args.passage_words,
        corpus_text_column: args.corpus_text_column,
        queries: args.queries,
        text_column: args.text_column,
        top_k: args.top_k,
        query: args.query,
        method: args.method,
        seed: args.seed,
        analyzer: args.analyzer,
        bm25,
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
