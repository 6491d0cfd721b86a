//! Speed of retrieval: building an index on disk and searching it with whole texts.
//!
//! ```text
//! cargo bench --bench retrieval                            the quickstart's corpus
//! cargo bench --bench retrieval -- 'corpus/*.jsonl.zst'    another; every copy of it is indexed 1, 3 and 10 times
//! ```
//!
//! Queries are 60 passages of the corpus, whole, evenly spaced, once 600, and once 1 to 15 of them, with and without codes that
//! the open index keeps. Every time is on all threads of the machine:
//! the best of nine searches, of three builds in memory, which begin with texts and keep none, and of one build on disk. That
//! one and the peaks of memory are of `tlm index build` and `tlm search`, each a process of its own, as they report them: the
//! largest resident size, mapped pages included.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use tlm::data::expand;
use tlm::retrieval::{Analyzer, Bm25, Index, Search, SearchSettings};
use tlm::rng::{Stream, purpose};

const SEARCHES: usize = 9;
const BUILDS: usize = 3;
const QUERIES: usize = 60;
const MANY_QUERIES: usize = 600;
const FEW_QUERIES: [usize; 3] = [1, 4, 15];
const MEMORY: u64 = 256 << 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let given: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quickstart/corpus.jsonl.zst");
    let patterns = if given.is_empty() {
        vec![quickstart.to_owned()]
    } else {
        given
    };
    let place = directory.path().join("index");

    println!(
        "{}, {} threads, {} MiB of memory",
        patterns.join(" "),
        rayon::current_num_threads(),
        MEMORY >> 20
    );
    println!(
        "\n| analyzer | build MB/s | peak MB | in memory MB/s | index MB | texts MB | K = 50 queries/s | 500 | 5000 | 600 queries, K = 50 | peak MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for analyzer in [Analyzer::Standard, Analyzer::English] {
        let (rate, peak) = build(&place, &patterns, analyzer, 1)?;
        let index = Index::open(&place)?;
        let many = rate_of(&index, &queries(&index, MANY_QUERIES)?, 50)?;
        let in_memory = rate_in_memory(&index)?;
        let queries = queries(&index, QUERIES)?;
        let texts = (index.stored_bytes() - index.bytes()) as f64 / 1e6;
        let size = index.bytes() as f64 / 1e6;
        let rates = [50, 500, 5000].map(|k| rate_of(&index, &queries, k));
        let [k50, k500, k5000] = rates;
        let search_peak = peak_of_search(directory.path(), &place, &queries)?;
        println!(
            "| {analyzer} | {rate:.0} | {peak:.0} | {in_memory:.0} | {size:.1} | {texts:.1} | {:.0} | {:.0} | {:.0} | {many:.0} | {:.0} |",
            k50?, k500?, k5000?, search_peak
        );
    }

    small_searches(&place)?;

    println!(
        "\n| copies | passages | build MB/s | peak MB | ms a query, K = 50 | 5000 | peak MB |\n|---|---|---|---|---|---|---|"
    );
    for copies in [1, 3, 10] {
        let (rate, peak) = build(&place, &patterns, Analyzer::Standard, copies)?;
        let index = Index::open(&place)?;
        let queries = queries(&index, QUERIES)?;
        let [few, many] = [50, 5000].map(|k| rate_of(&index, &queries, k));
        println!(
            "| {copies} | {} | {rate:.0} | {peak:.0} | {:.2} | {:.2} | {:.0} |",
            index.documents(),
            1e3 / few?,
            1e3 / many?,
            peak_of_search(directory.path(), &place, &queries)?
        );
    }

    build(&place, &patterns, Analyzer::Standard, 1)?;
    let index = Index::open(&place)?;
    let whole = queries(&index, QUERIES)?;
    println!("\n| words of a query | postings a query | ms a query, K = 50 | ns a posting |\n|---|---|---|---|");
    for words in [10, 30, 100, 300] {
        let cut: Vec<String> = long_queries(&whole, words);
        let postings = postings_per_query(&index, &cut);
        let seconds = 1.0 / rate_of(&index, &cut, 50)?;
        println!(
            "| {words} | {postings:.0} | {:.3} | {:.2} |",
            1e3 * seconds,
            1e9 * seconds / postings
        );
    }
    println!("\n| K | ms a query |\n|---|---|");
    for k in [1, 10, 100, 1000, 10_000] {
        println!("| {k} | {:.2} |", 1e3 / rate_of(&index, &whole, k)?);
    }
    Ok(())
}

/// Searches of a few queries, with and without codes that the index keeps.
fn small_searches(place: &Path) -> Outcome<()> {
    let mut index = Index::open(place)?;
    let all = queries(&index, QUERIES)?;
    let milliseconds = |index: &Index, count: usize| -> Outcome<f64> {
        let queries: Vec<String> = all.iter().step_by(QUERIES / count).cloned().collect();
        Ok(1e3 * queries.len() as f64 / rate_of(index, &queries, 50)?)
    };
    let coded = FEW_QUERIES.map(|count| milliseconds(&index, count));
    let started = Instant::now();
    index.keep_codes(&Bm25::default())?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "\n| {} queries of a search | ms, K = 50 | ms, with codes kept ({:.0} MB, made in {seconds:.2} s) |\n|---|---|---|",
        index.analyzer(),
        index.code_bytes() as f64 / 1e6
    );
    for (count, coded) in FEW_QUERIES.into_iter().zip(coded) {
        println!("| {count} | {:.2} | {:.2} |", coded?, milliseconds(&index, count)?);
    }
    Ok(())
}

/// Builds an index of so many copies of a corpus. MB of text a second, and the peak of the memory in MB.
fn build(place: &Path, patterns: &[String], analyzer: Analyzer, copies: usize) -> Outcome<(f64, f64)> {
    // A file that is named twice is read once, so the copies are links.
    let links = tempfile::tempdir()?;
    let mut inputs: Vec<PathBuf> = Vec::new();
    for copy in 0..copies {
        for file in expand(patterns)? {
            let name = file.file_name().ok_or("a file without a name")?.to_string_lossy();
            let link = links.path().join(format!("{copy}-{name}"));
            std::os::unix::fs::symlink(std::path::absolute(&file)?, &link)?;
            inputs.push(link);
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlm"));
    command.args(["index", "build", "--analyzer", analyzer.name(), "--out"]);
    let report = json_of(command.arg(place).args(&inputs), MEMORY)?;
    let number = |key: &str| report[key].as_f64().ok_or("the report lacks a number");
    let rate = number("text_bytes")? / number("seconds")?;
    Ok((rate / 1e6, number("peak_rss_bytes")? / 1e6))
}

/// MB of text a second of a build from texts in memory to an index in memory.
fn rate_in_memory(index: &Index) -> Outcome<f64> {
    let all: Vec<u32> = (0..index.documents()).collect();
    let texts: Vec<String> = index.passages(&all)?.into_iter().map(|passage| passage.text).collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let seconds = best_of(BUILDS, || {
        Index::build(&texts, index.analyzer(), &|_, _| ())?;
        Ok(())
    })?;
    Ok(bytes as f64 / seconds / 1e6)
}

/// The shortest of so many times, in seconds.
fn best_of(runs: usize, mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let started = Instant::now();
        work()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// The peak of the memory of a search for 5000 hits, in MB.
fn peak_of_search(directory: &Path, place: &Path, queries: &[String]) -> Outcome<f64> {
    let file = directory.join("queries.jsonl");
    let lines = queries
        .iter()
        .map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
    std::fs::write(&file, lines.collect::<String>())?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlm"));
    command.args(["search", "--top-k", "5000", "--index"]).arg(place);
    command
        .arg("--queries")
        .arg(file)
        .arg("--out")
        .arg(directory.join("run.trec"));
    let report = json_of(&mut command, MEMORY)?;
    Ok(report["peak_rss_bytes"].as_f64().ok_or("the report lacks its memory")? / 1e6)
}

/// What a command with so many bytes of memory reports.
fn json_of(command: &mut Command, memory: u64) -> Outcome<Value> {
    let memory = memory >> 20;
    let output = command.args(["--json", "--memory", &format!("{memory}M")]).output()?;
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}

/// Passages evenly spaced over the corpus.
fn queries(index: &Index, count: usize) -> Outcome<Vec<String>> {
    let documents: Vec<u32> = (0..count as u64)
        .map(|i| (i * u64::from(index.documents()) / count as u64) as u32)
        .collect();
    Ok(index
        .passages(&documents)?
        .into_iter()
        .map(|passage| passage.text)
        .collect())
}

/// Texts of `words` words drawn from the queries.
fn long_queries(queries: &[String], words: usize) -> Vec<String> {
    let all: Vec<&str> = queries.iter().flat_map(|query| query.split_whitespace()).collect();
    let mut stream = Stream::new(1, purpose::SYNTHETIC, words as u64);
    let mut word = || all[stream.below(all.len() as u32) as usize];
    (0..QUERIES)
        .map(|_| (0..words).map(|_| word()).collect::<Vec<_>>().join(" "))
        .collect()
}

/// Queries a second: analysis, images of the tiles and search together.
fn rate_of(index: &Index, queries: &[String], k: usize) -> Outcome<f64> {
    let settings = SearchSettings {
        memory: MEMORY,
        ..SearchSettings::new(k)
    };
    let seconds = best_of(SEARCHES, || {
        Search::new(index, queries, &settings)?.collect(&|_, _| ())?;
        Ok(())
    })?;
    Ok(queries.len() as f64 / seconds)
}

/// The mean over queries of the summed document frequencies of their distinct terms: the work of a search.
fn postings_per_query(index: &Index, queries: &[String]) -> f64 {
    let mut postings = 0;
    for query in queries {
        let mut terms = index.analyzer().terms(query);
        terms.sort_unstable();
        terms.dedup();
        postings += terms
            .iter()
            .map(|term| u64::from(index.frequencies(term).0))
            .sum::<u64>();
    }
    postings as f64 / queries.len() as f64
}
