//! Stage 0 from files to the selection file, on a corpus made up here, against BM25 in f64 by the textbook.

#[path = "select/index.rs"]
mod index;

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tlm::retrieval::{Analyzer, SearchSettings};
use tlm::tlm::config::{Config, PassageWords, SelectMethod};
use tlm::tlm::observer::{Observer, Silent, Unit};
use tlm::tlm::outcome::{MetricsRow, SelectedPassage};
use tlm::tlm::select::{Corpus, External, SelectRequest, read_selected, select, select_external, write_selected};
use tlm::tlm::{ErrorKind, TlmError};

const TOP_K: usize = 6;

/// Words of an endless sequence of numbers, rare ones rarer than common ones.
struct Words(u64);

impl Words {
    fn number(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }

    fn text(&mut self, words: u64) -> String {
        let words: Vec<String> = (0..words)
            .map(|_| {
                let below = 1 + self.number(60);
                format!("word{}", self.number(below))
            })
            .collect();
        words.join(" ")
    }
}

/// 150 passages in two files and a task of 7 texts.
struct Place {
    directory: TempDir,
    passages: Vec<(String, String)>,
    queries: Vec<String>,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let mut words = Words(5);
        let passages: Vec<(String, String)> = (0..150)
            .map(|i| {
                let length = 5 + words.number(30);
                (format!("doc/{i}"), words.text(length))
            })
            .collect();
        let queries: Vec<String> = (0..7).map(|_| words.text(8)).collect();
        let line = |(i, (id, text)): (usize, &(String, String))| {
            let source = if i % 3 == 0 { "wiki" } else { "news" };
            serde_json::json!({ "id": id, "source": source, "text": text }).to_string() + "\n"
        };
        let lines: Vec<String> = passages.iter().enumerate().map(line).collect();
        // A passage without words is left out, whatever its place.
        let first = lines[..40].concat() + "{\"id\": \"empty\", \"text\": \" \"}\n" + &lines[40..70].concat();
        std::fs::write(directory.path().join("a.jsonl"), first).unwrap();
        let compressed = zstd::encode_all(lines[70..].concat().as_bytes(), 1).unwrap();
        std::fs::write(directory.path().join("b.jsonl.zst"), compressed).unwrap();
        let queries_file: String = queries
            .iter()
            .map(|text| serde_json::json!({ "text": text, "label": 1 }).to_string() + "\n")
            .collect();
        std::fs::write(directory.path().join("train.jsonl"), queries_file).unwrap();
        Place {
            directory,
            passages,
            queries,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, overrides: &[&str]) -> Config {
        let text = format!(
            "[task]\ntrain = \"train.jsonl\"\ndev = \"dev.jsonl\"\ntest = \"test.jsonl\"\n[corpus]\n\
             inputs = [\"[a-c].jsonl*\"]\npassage_words = \"as_given\"\n[select]\nanalyzer = \"standard\"\ntop_k = {TOP_K}\n"
        );
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        Config::parse(&text, &self.path("run.toml"), &overrides).unwrap()
    }

    fn select(&self, overrides: &[&str], seed: u64) -> External {
        select_external(&self.config(overrides), &self.queries, seed, &mut Silent).unwrap()
    }

    fn request(&self, method: SelectMethod, out: &str) -> SelectRequest {
        SelectRequest {
            corpus: Corpus::Files(vec![self.path("[a-c].jsonl*").display().to_string()]),
            queries: vec![self.path("train.jsonl").display().to_string()],
            passage_words: PassageWords::AsGiven,
            corpus_text_column: "text".into(),
            text_column: "text".into(),
            settings: SearchSettings {
                memory: 64 << 20,
                ..SearchSettings::new(TOP_K)
            },
            method,
            seed: 4,
            analyzer: Some(Analyzer::Standard),
            out: self.path(out),
        }
    }

    /// The union of the best passages of all queries in first-hit order: ordinal -> (rank, score). By definition:
    /// score(d, q) = sum over the words of q of ln(1 + (N - df + 0.5) / (df + 0.5)) tf / (tf + 1.2 (0.25 + 0.75 l / L)).
    fn expected(&self) -> Vec<(usize, u32, f64)> {
        let documents: Vec<HashMap<&str, f64>> = self
            .passages
            .iter()
            .map(|(_, text)| {
                let mut counts = HashMap::new();
                text.split(' ')
                    .for_each(|word| *counts.entry(word).or_insert(0.0) += 1.0);
                counts
            })
            .collect();
        let lengths: Vec<f64> = documents.iter().map(|counts| counts.values().sum()).collect();
        let (count, average) = (lengths.len() as f64, lengths.iter().sum::<f64>() / lengths.len() as f64);
        let mut union: Vec<(usize, u32, f64)> = Vec::new();
        for query in &self.queries {
            let mut scores = vec![0.0; documents.len()];
            for word in query.split(' ') {
                let df = documents.iter().filter(|counts| counts.contains_key(word)).count() as f64;
                let idf = (1.0 + (count - df + 0.5) / (df + 0.5)).ln();
                for (score, (counts, length)) in scores.iter_mut().zip(documents.iter().zip(&lengths)) {
                    let tf = counts.get(word).copied().unwrap_or(0.0);
                    *score += idf * tf / (tf + 1.2 * (0.25 + 0.75 * length / average));
                }
            }
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            for pair in order[..TOP_K + 1].windows(2) {
                let (a, b) = (scores[pair[0]], scores[pair[1]]);
                assert!(
                    a == b || a > b * 1.0001,
                    "{a} and {b} are too close: choose another seed for the words"
                );
            }
            for (&document, rank) in order[..TOP_K].iter().zip(0..) {
                let found = (document, rank, scores[document]);
                match union.iter_mut().find(|(known, _, _)| *known == document) {
                    None => union.push(found),
                    Some(known) if rank < known.1 => *known = found,
                    Some(_) => {}
                }
            }
        }
        union
    }
}

fn ids(passages: &[SelectedPassage]) -> Vec<&str> {
    passages.iter().map(|passage| passage.id.as_str()).collect()
}

#[test]
fn the_selection_is_the_union_of_the_best_by_textbook_bm25_with_minimum_ranks() {
    let place = Place::new();
    let expected = place.expected();
    let External { passages, report } = place.select(&[], 1);
    assert!(
        expected.len() < TOP_K * place.queries.len(),
        "no passage is found twice: minimum ranks are not tested"
    );
    assert_eq!(passages.len(), expected.len());
    for (passage, (document, rank, score)) in passages.iter().zip(&expected) {
        let (id, text) = &place.passages[*document];
        assert_eq!((&passage.id, &passage.text, passage.rank), (id, text, *rank));
        assert_eq!(passage.source, if document % 3 == 0 { "wiki" } else { "news" });
        let found = passage.score.unwrap();
        // The constant factor k1 + 1 of some forms of BM25 is none of Lucene's.
        assert!((found / score - 1.0).abs() < 1e-3, "{found} for {score}");
    }
    assert_eq!(
        (report.documents, report.queries, report.queries_without_terms),
        (150, 7, 0)
    );
    assert_eq!(
        (report.method.as_str(), report.selected),
        ("bm25", expected.len() as u64)
    );
    let wiki = expected.iter().filter(|(document, _, _)| document % 3 == 0).count() as u64;
    let mut by_source: Vec<(&str, u64)> = report
        .by_source
        .iter()
        .map(|source| (source.source.as_str(), source.count))
        .collect();
    assert!(by_source[0].1 >= by_source[1].1);
    by_source.sort_unstable();
    assert_eq!(by_source, [("news", expected.len() as u64 - wiki), ("wiki", wiki)]);
    assert_eq!(ids(&report.examples), ids(&passages)[..5]);
}

#[test]
fn a_rank_cut_keeps_the_passages_below_it_in_their_order() {
    let place = Place::new();
    let all = place.select(&[], 1).passages;
    let cut = place.select(&["select.rank_cut=2"], 1).passages;
    let expected: Vec<SelectedPassage> = all.iter().filter(|passage| passage.rank < 2).cloned().collect();
    assert!(!expected.is_empty() && expected.len() < all.len());
    assert_eq!(cut, expected);
}

#[test]
fn random_takes_as_many_different_passages_as_bm25_and_the_seed_decides_which() {
    let place = Place::new();
    let bm25 = place.select(&[], 1).passages;
    let random = |seed| place.select(&["select.method=random"], seed);
    let first = random(1);
    assert_eq!(first.report.method, "random");
    assert_eq!(first.passages.len(), bm25.len());
    let distinct: BTreeSet<&str> = ids(&first.passages).into_iter().collect();
    assert_eq!(distinct.len(), bm25.len());
    assert!(first.passages.iter().all(|passage| passage.score.is_none()));
    assert_eq!(random(1).passages, first.passages);
    assert_ne!(random(2).passages, first.passages);
    assert_ne!(distinct, ids(&bm25).into_iter().collect());
    for passage in &first.passages {
        let document: usize = passage.id.strip_prefix("doc/").unwrap().parse().unwrap();
        assert_eq!(passage.text, place.passages[document].1);
    }
}

#[test]
fn none_selects_nothing_and_reads_no_corpus() {
    let place = Place::new();
    std::fs::remove_file(place.path("a.jsonl")).unwrap();
    std::fs::remove_file(place.path("b.jsonl.zst")).unwrap();
    let external = place.select(&["select.method=none"], 1);
    assert_eq!((external.passages.len(), external.report.method.as_str()), (0, "none"));
}

#[test]
fn long_documents_are_cut_into_passages_before_the_search() {
    let place = Place::new();
    let selected = place.select(&["corpus.passage_words=10"], 1).passages;
    let cut = selected.iter().filter(|passage| passage.id.contains('.')).count();
    assert!(cut > 0);
    for passage in &selected {
        assert!(passage.text.split(' ').count() <= 10);
        let document = passage.id.split('.').next().unwrap();
        let (_, text) = place.passages.iter().find(|(id, _)| id == document).unwrap();
        assert!(text.contains(&passage.text));
    }
}

/// Keeps what a run says.
#[derive(Default)]
struct Listener {
    notes: Vec<String>,
    work: Vec<(String, Unit, u64, u64)>,
    open: bool,
}

impl Observer for Listener {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn begin(&mut self, work: &str, total: u64, _: u64, unit: Unit) {
        assert!(!self.open);
        self.open = true;
        self.work.push((work.to_owned(), unit, total, 0));
    }

    fn advance(&mut self, position: u64, _: &str) {
        let last = self.work.last_mut().unwrap();
        assert!(
            self.open && position >= last.3 && position <= last.2,
            "{last:?} -> {position}"
        );
        last.3 = position;
    }

    fn end(&mut self) {
        assert!(self.open);
        self.open = false;
    }

    fn log_to(&mut self, _: &Path, _: Option<&[(u64, u8, u64)]>) -> std::io::Result<()> {
        Ok(())
    }

    fn row(&mut self, _: &MetricsRow) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn empty_passages_and_queries_without_terms_are_told_and_progress_reaches_its_total() {
    let mut place = Place::new();
    place.queries.push("nowhere to be found".into());
    let mut listener = Listener::default();
    let external = select_external(&place.config(&[]), &place.queries, 1, &mut listener).unwrap();
    assert_eq!(external.report.queries_without_terms, 1);
    let notes = listener.notes.join("\n");
    assert!(
        notes.contains("1 empty passages") && notes.contains("1 of 8 queries have no term"),
        "{notes}"
    );
    assert!(notes.contains("standard analyzer"), "{notes}");
    let bytes = ["a.jsonl", "b.jsonl.zst"]
        .map(|name| place.path(name).metadata().unwrap().len())
        .iter()
        .sum();
    let expected = [("indexing", Unit::Bytes, bytes), ("searching", Unit::Texts, 8)];
    for ((work, unit, total, reached), expected) in listener.work.iter().zip(expected) {
        assert_eq!((work.as_str(), *unit, *total), expected);
        assert_eq!(reached, total, "{work}");
    }
    assert_eq!(listener.work.len(), 3);
}

#[test]
fn a_selection_file_gives_a_run_the_same_external_data() {
    let place = Place::new();
    let selected = place.select(&[], 1).passages;
    write_selected(&place.path("s.jsonl"), &selected).unwrap();
    assert_eq!(read_selected(&place.path("s.jsonl")).unwrap(), selected);
    let again = place.select(&["select.file=s.jsonl", "select.top_k=1"], 1);
    assert_eq!(again.passages, selected);
    assert_eq!(
        (again.report.method.as_str(), again.report.selected),
        ("file", selected.len() as u64)
    );
    let cut = place.select(&["select.file=s.jsonl", "select.rank_cut=1"], 1).passages;
    assert!(!cut.is_empty() && cut.iter().all(|passage| passage.rank == 0));
    let mut file = std::fs::File::options()
        .append(true)
        .open(place.path("s.jsonl"))
        .unwrap();
    file.write_all(b"{\"id\": \"x\", \"source\": \"y\", \"text\": \"z\"}\n")
        .unwrap();
    let message = read_selected(&place.path("s.jsonl")).unwrap_err().to_string();
    let line = format!("s.jsonl:{}: ", selected.len() + 1);
    assert!(message.contains(&line) && message.contains("rank"), "{message}");
}

#[test]
fn the_command_writes_what_a_run_selects_one_passage_a_line() {
    let place = Place::new();
    let report = select(&place.request(SelectMethod::Bm25, "s.jsonl"), &mut Silent).unwrap();
    let expected = place.select(&[], 1).passages;
    let written = std::fs::read_to_string(place.path("s.jsonl")).unwrap();
    assert_eq!(
        (report.selected, written.lines().count()),
        (expected.len() as u64, expected.len())
    );
    for (line, passage) in written.lines().zip(&expected) {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        assert_eq!(
            object.keys().collect::<Vec<_>>(),
            ["id", "source", "text", "rank", "score"]
        );
        assert_eq!(
            (&object["id"], &object["rank"]),
            (&passage.id.clone().into(), &passage.rank.into())
        );
    }
    select(&place.request(SelectMethod::Random, "r.jsonl"), &mut Silent).unwrap();
    assert_eq!(
        read_selected(&place.path("r.jsonl")).unwrap(),
        place.select(&["select.method=random"], 4).passages
    );
}

#[test]
fn the_command_cuts_documents_as_a_run_does() {
    let place = Place::new();
    // One document of 240 words beside the passages, which are shorter.
    let long = Words(9).text(240);
    let line = serde_json::json!({ "id": "long", "source": "wiki", "text": long }).to_string() + "\n";
    std::fs::write(place.path("c.jsonl"), line).unwrap();
    for (words, set) in [
        (PassageWords::Auto, "corpus.passage_words=auto"),
        (PassageWords::AsGiven, "corpus.passage_words=as_given"),
        (PassageWords::Words(20), "corpus.passage_words=20"),
    ] {
        let request = SelectRequest {
            passage_words: words,
            ..place.request(SelectMethod::Bm25, "s.jsonl")
        };
        let report = select(&request, &mut Silent).unwrap();
        let run = place.select(&[set], 1);
        assert_eq!(read_selected(&place.path("s.jsonl")).unwrap(), run.passages, "{set}");
        assert_eq!(report.documents, run.report.documents, "{set}");
        let pieces = 240_u64.div_ceil(words.words(128).unwrap_or(240) as u64);
        assert!(report.documents >= 150 + pieces, "{set}: {}", report.documents);
    }
}

#[test]
fn what_cannot_be_selected_is_refused_and_the_old_file_stays() {
    let place = Place::new();
    std::fs::write(place.path("s.jsonl"), "old").unwrap();
    let good = || place.request(SelectMethod::Bm25, "s.jsonl");
    let index = SelectRequest {
        corpus: Corpus::Index(place.path("index")),
        ..good()
    };
    std::fs::write(place.path("c.jsonl"), "{\"text\": \"a\"}\n{\"text\": }\n").unwrap();
    for (request, part) in [(index, "tlm index build --out"), (good(), "c.jsonl:2: broken JSON")] {
        let error: TlmError = select(&request, &mut Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(std::fs::read_to_string(place.path("s.jsonl")).unwrap(), "old");
    let names = || {
        std::fs::read_dir(place.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
    };
    assert!(names().all(|name| !name.to_string_lossy().ends_with(".tmp")));
}
