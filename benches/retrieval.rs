//! Speed of the retrieval layer: building an index and searching it with whole texts.
//!
//! Run with `cargo bench --bench retrieval`. It uses the quickstart corpus and the training texts of its task where
//! `../shared/data/quickstart` exists, and otherwise a generated corpus of the same size whose words follow Zipf's law.
//! Every figure is the best of three runs on all threads of the machine.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use tlm::retrieval::{Analyzer, Bm25, Index, search};
use tlm::rng::{Stream, purpose};

const RUNS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/quickstart");
    let (name, passages, queries) = if quickstart.exists() {
        let passages = texts(&quickstart.join("corpus.jsonl.zst"))?;
        let queries = texts(&quickstart.join("tasks/rct_ei_small/train.jsonl.zst"))?;
        ("quickstart", passages, queries)
    } else {
        ("generated (Zipf)", zipf_texts(18_309, 165, 0), zipf_texts(5_997, 23, 1))
    };
    let megabytes = passages.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    println!(
        "corpus: {name}, {} passages, {megabytes:.1} MB; {} queries; {} threads",
        passages.len(),
        queries.len(),
        rayon::current_num_threads()
    );
    println!("| analyzer | build MB/s | index MB | postings/passage | K | queries/s | postings/query |");
    println!("|---|---|---|---|---|---|---|");
    for analyzer in Analyzer::ALL {
        let (seconds, index) = best_of(|| Index::build(&passages, analyzer, &|_, _| ()))?;
        let index_megabytes = index.bytes() as f64 / 1e6;
        let per_passage = index.postings() as f64 / passages.len() as f64;
        let per_query = postings_per_query(&index, &queries);
        for k in [50, 500] {
            let (search_seconds, _) = best_of(|| search(&index, &queries, k, &Bm25::default(), &|_, _| ()))?;
            println!(
                "| {analyzer} | {:.0} | {index_megabytes:.1} | {per_passage:.1} | {k} | {:.0} | {per_query:.0} |",
                megabytes / seconds,
                queries.len() as f64 / search_seconds
            );
        }
    }
    Ok(())
}

/// The shortest time of [`RUNS`] calls, in seconds, and the last result.
fn best_of<T, E>(mut run: impl FnMut() -> Result<T, E>) -> Result<(f64, T), E> {
    let mut best = f64::INFINITY;
    for _ in 1..RUNS {
        let start = Instant::now();
        drop(run()?);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    let result = run()?;
    Ok((best.min(start.elapsed().as_secs_f64()), result))
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

/// The `text` fields of a compressed JSON-lines file.
fn texts(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let lines = String::from_utf8(zstd::decode_all(std::fs::File::open(path)?)?)?;
    let mut texts = Vec::new();
    for line in lines.lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let text = record["text"]
            .as_str()
            .ok_or_else(|| format!("{}: a record without text", path.display()))?;
        texts.push(text.to_owned());
    }
    Ok(texts)
}

/// `count` texts of `words` words from a vocabulary of 60,000, word r with probability proportional to 1 / r.
fn zipf_texts(count: usize, words: usize, stream: u64) -> Vec<String> {
    const VOCABULARY: f32 = 60_000.0;
    let mut stream = Stream::new(1, purpose::SYNTHETIC, stream);
    // The rank's logarithm is uniform.
    let mut word = || format!("w{:05}", VOCABULARY.powf(stream.unit_f32()) as u32);
    (0..count)
        .map(|_| (0..words).map(|_| word()).collect::<Vec<_>>().join(" "))
        .collect()
}
