//! Against real Lucene: the runs of Anserini 0.22.1 (Lucene 9.5) on CACM and Cranfield, 100 hits a query, one-byte
//! lengths, and the statistics and quality that Anserini publishes for CACM.
//!
//! Lucene drops documents without terms, adds up in 32-bit floats, and breaks ties by the identifier as a string; its
//! scores are printed with four decimals. The collections lie under `../shared`; without them these tests say so and
//! pass.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::NO_PROGRESS;
use super::reference::{Corpus, length_to_lucene_byte, lucene_byte_to_length};
use tlm::retrieval::*;
use unicode_segmentation::UnicodeSegmentation;

struct Collection {
    folder: PathBuf,
    ids: Vec<String>,
    texts: Vec<String>,
    query_ids: Vec<String>,
    queries: Vec<String>,
}

impl Collection {
    /// The collection of this name, documents in the order of their identifiers as strings.
    fn read(name: &str) -> Option<Collection> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../shared/data/ir")
            .join(name);
        if !folder.exists() {
            println!("skipped: {} is absent", folder.display());
            return None;
        }
        let records = |file: &str| -> Vec<(String, String)> {
            let lines = std::fs::read_to_string(folder.join(file)).unwrap();
            let records = lines.lines().map(|line| {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                let field = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
                (field("_id"), format!("{} {}", field("title"), field("text")))
            });
            records.collect()
        };
        let mut documents = records("corpus.jsonl");
        documents.sort_unstable();
        let (ids, texts) = documents.into_iter().unzip();
        let (query_ids, queries) = records("queries.jsonl").into_iter().unzip();
        Some(Collection {
            folder,
            ids,
            texts,
            query_ids,
            queries,
        })
    }

    /// A tab-separated file of the collection, perhaps compressed, as rows of fields.
    fn table(&self, file: &str) -> Vec<Vec<String>> {
        let mut text = String::new();
        let reader = std::fs::File::open(self.folder.join(file)).unwrap();
        if file.ends_with(".gz") {
            flate2::read::GzDecoder::new(reader).read_to_string(&mut text).unwrap();
        } else {
            text = std::io::read_to_string(reader).unwrap();
        }
        text.lines()
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect()
    }

    /// Without the documents that have no terms.
    fn without_empty_documents(mut self, analyzer: Analyzer) -> Self {
        let kept: Vec<bool> = self.texts.iter().map(|text| !analyzer.terms(text).is_empty()).collect();
        let mut flags = kept.iter();
        self.ids.retain(|_| *flags.next().unwrap());
        let mut flags = kept.iter();
        self.texts.retain(|_| *flags.next().unwrap());
        self
    }
}

/// The words of a text without a final `'s`: what Anserini does even where it does not stem.
fn without_possessives(text: &str) -> String {
    let words = text.unicode_words().map(|word| {
        let owner = word
            .strip_suffix(['s', 'S'])
            .and_then(|owner| owner.strip_suffix(['\'', '\u{2019}', '\u{ff07}']));
        owner.unwrap_or(word)
    });
    words.collect::<Vec<_>>().join(" ")
}

fn bm25(k1: f64, b: f64) -> Bm25 {
    Bm25 {
        variant: Variant::Lucene,
        k1,
        b,
        length: DocumentLength::Lucene,
    }
}

#[test]
fn scores_and_rankings_agree_with_lucenes_runs() {
    for name in ["cacm", "cranfield"] {
        for (short, analyzer) in [("en", Analyzer::English), ("std", Analyzer::Standard)] {
            let Some(mut collection) = Collection::read(name) else {
                return;
            };
            if analyzer == Analyzer::Standard {
                for text in collection.texts.iter_mut().chain(&mut collection.queries) {
                    *text = without_possessives(text);
                }
            }
            let collection = collection.without_empty_documents(analyzer);
            for (k1, b) in [(0.9, 0.4), (1.2, 0.75)] {
                let run = collection.table(&format!("lucene_runs/{short}_k1{k1}_b{b}_norm1byte.tsv.gz"));
                compare_with_run(&collection, analyzer, &bm25(k1, b), &run);
            }
        }
    }
}

fn compare_with_run(collection: &Collection, analyzer: Analyzer, bm25: &Bm25, run: &[Vec<String>]) {
    let numbers: HashMap<&String, u32> = collection.ids.iter().zip(0..).collect();
    let terms: Vec<Vec<String>> = collection.texts.iter().map(|text| analyzer.terms(text)).collect();
    let corpus = Corpus::new(&terms);
    let index = Index::build(&collection.texts, analyzer, NO_PROGRESS).unwrap();
    let found = search(&index, &collection.queries, 100, bm25, NO_PROGRESS).unwrap();

    let mut in_place = 0;
    let lists: Vec<&[Vec<String>]> = run.chunk_by(|a, b| a[0] == b[0]).collect();
    assert_eq!(lists.len(), collection.queries.len());
    for list in lists {
        let query = collection.query_ids.iter().position(|id| *id == list[0][0]).unwrap();
        assert_eq!(found.hits[query].len(), list.len());
        let scores = corpus.score(&analyzer.terms(&collection.queries[query]), bm25);
        for (row, hit) in list.iter().zip(&found.hits[query]) {
            let document = numbers[&row[1]];
            let score: f64 = row[3].parse().unwrap();
            // Half of the last decimal, and 32-bit sums.
            let distance = (scores.exact[document as usize] - score).abs();
            assert!(distance < 5e-5 + 5e-6, "query {}, {}: {distance:e} off", row[0], row[1]);
            // Where another document stands in this place, the two scores are nearly equal.
            let ours = hit.document as usize;
            let near_tie = scores.unit * (scores.bound[ours] + scores.bound[document as usize]) + 1e-5;
            let distance = (scores.exact[ours] - scores.exact[document as usize]).abs();
            assert!(
                hit.document == document || distance < near_tie,
                "query {}, {}: {distance:e}",
                row[0],
                row[1]
            );
            in_place += usize::from(hit.document == document);
        }
    }
    println!(
        "{analyzer} {bm25:?}: {in_place} of {} hits in Lucene's place",
        run.len()
    );
    assert!(in_place * 100 >= run.len() * 99);
}

#[test]
fn cacm_has_the_published_statistics_and_quality() {
    let Some(collection) = Collection::read("cacm") else {
        return;
    };
    let index = Index::build(&collection.texts, Analyzer::English, NO_PROGRESS).unwrap();
    assert_eq!(
        (index.documents(), index.total_length(), index.summary().unwrap().terms),
        (3204, 320_968, 14_363)
    );

    let mut relevant: HashMap<String, Vec<String>> = HashMap::new();
    for row in collection.table("qrels.tsv").into_iter().skip(1) {
        relevant.entry(row[0].clone()).or_default().push(row[1].clone());
    }
    let found = search(&index, &collection.queries, 1000, &bm25(0.9, 0.4), NO_PROGRESS).unwrap();
    let (mut average_precision, mut precision_at_30) = (0.0, 0.0);
    for (hits, query) in found.hits.iter().zip(&collection.query_ids) {
        let Some(relevant) = relevant.get(query) else { continue };
        let mut hits_so_far = 0;
        for (rank, hit) in (1..).zip(hits) {
            if relevant.contains(&collection.ids[hit.document as usize]) {
                hits_so_far += 1;
                average_precision += f64::from(hits_so_far) / f64::from(rank) / relevant.len() as f64;
                precision_at_30 += if rank <= 30 { 1.0 / 30.0 } else { 0.0 };
            }
        }
    }
    let queries = relevant.len() as f64;
    let (map, p30) = (average_precision / queries, precision_at_30 / queries);
    println!("CACM: MAP {map:.5}, P30 {p30:.5}");
    assert_eq!(
        (format!("{map:.4}"), format!("{p30:.4}")),
        ("0.3123".to_owned(), "0.1942".to_owned())
    );
}

/// Snowball's `porter` follows the paper, ours Martin Porter's program; the program's three departures show in words
/// of two letters and in words with `bl` or `log` before a suffix.
#[test]
fn stems_equal_snowballs_porter_but_for_the_known_departures() {
    let snowball = frostem::Stemmer::new(frostem::Algorithm::Porter);
    for name in ["cacm", "cranfield"] {
        let Some(collection) = Collection::read(name) else {
            return;
        };
        let mut words: Vec<String> = collection
            .texts
            .iter()
            .flat_map(|text| Analyzer::Standard.terms(text))
            .collect();
        words.sort_unstable();
        words.dedup();
        let differing: Vec<&String> = words.iter().filter(|word| stem(word) != snowball.stem(word)).collect();
        let known = |word: &str| word.chars().count() <= 2 || ["bl", "log"].iter().any(|part| word.contains(part));
        assert!(differing.iter().all(|word| known(word)), "{differing:?}");
        println!("{name}: {} of {} words differ", differing.len(), words.len());
    }
}

#[test]
fn lucene_lengths_equal_lucenes_byte_coding_and_decoding() {
    for length in (0..100_000).chain([1 << 20, (1 << 30) - 1, i32::MAX as u32]) {
        assert_eq!(
            lucene_length(length),
            lucene_byte_to_length(length_to_lucene_byte(length)),
            "{length}"
        );
    }
    assert_eq!([39, 40, 41, 1000].map(lucene_length), [39, 40, 40, 984]);
}
