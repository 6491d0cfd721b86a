//! Selection from an index on disk, and queries of a few words.

use std::path::PathBuf;

use tlm::data::Fields;
use tlm::retrieval::{Analyzer, Index, Search, SearchSettings};
use tlm::tlm::ErrorKind;
use tlm::tlm::config::{Query, SelectMethod};
use tlm::tlm::index::{IndexRequest, add, build};
use tlm::tlm::observer::Silent;
use tlm::tlm::search::{SearchRequest, search};
use tlm::tlm::select::{Corpus, SelectRequest, read_selected, select, select_external};

use super::{Place, TOP_K, ids};

/// The place's corpus as an index, in one build and an addition.
fn indexed(place: &Place, analyzer: Analyzer) -> PathBuf {
    let index = place.path("index");
    let request = |inputs: &str| IndexRequest {
        index: index.clone(),
        inputs: vec![place.path(inputs).display().to_string()],
        fields: Fields::default(),
        memory: 64 << 20,
    };
    build(&request("a.jsonl"), analyzer, None, &mut Silent).unwrap();
    let report = add(&request("b.jsonl.zst"), &mut Silent).unwrap();
    assert_eq!((report.summary.documents, report.summary.segments), (150, 2));
    index
}

#[test]
fn an_index_gives_the_selection_that_its_files_give() {
    let place = Place::new();
    let index = indexed(&place, Analyzer::Standard);
    for method in [SelectMethod::Bm25, SelectMethod::Random] {
        for query in [Query::Text, Query::Rake, Query::TfIdf(2)] {
            let mut from_files = place.request(method, "files.jsonl");
            from_files.settings.query = query;
            let from_index = SelectRequest {
                corpus: Corpus::Index(index.clone()),
                analyzer: None,
                out: place.path("index.jsonl"),
                ..from_files.clone()
            };
            let reports = [&from_files, &from_index].map(|request| select(request, &mut Silent).unwrap());
            assert_eq!(reports[0].selected, reports[1].selected);
            let written = ["files.jsonl", "index.jsonl"].map(|name| std::fs::read(place.path(name)).unwrap());
            assert!(
                !written[0].is_empty() && written[0] == written[1],
                "{method:?}, {query}"
            );
        }
    }
    // A run selects from it as well.
    let mut config = place.config(&[]);
    config.corpus.inputs.clear();
    config.corpus.index = Some(index);
    let run = select_external(&config, &place.queries, 1, &mut Silent).unwrap();
    assert_eq!(run.passages, place.select(&[], 1).passages);
}

#[test]
fn a_reduced_query_searches_with_its_best_terms_alone() {
    let mut place = Place::new();
    // A word of a few passages comes three times, three frequent ones once.
    let has = |text: &str, word: &str| text.split(' ').any(|other| other == word);
    let holders = |word: &str| {
        let passages = place.passages.iter().filter(|(_, text)| has(text, word));
        passages.map(|(id, _)| id.clone()).collect::<Vec<_>>()
    };
    let words = (0..60).map(|number| format!("word{number}"));
    let rare = words
        .rev()
        .find(|word| (1..TOP_K).contains(&holders(word).len()))
        .unwrap();
    let expected = holders(&rare);
    place.queries = vec![format!("word0 word1 {rare} {rare} word2 {rare}")];
    let selected = place.select(&["select.query=tfidf:1"], 1).passages;
    let mut found = ids(&selected);
    found.sort_unstable();
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);

    let line = serde_json::json!({ "text": place.queries[0] }).to_string();
    std::fs::write(place.path("train.jsonl"), line).unwrap();
    let mut request = place.request(SelectMethod::Bm25, "s.jsonl");
    request.settings.stop_words = ["word0", "WORD1", "word2"].map(str::to_owned).to_vec();
    select(&request, &mut Silent).unwrap();
    let stopped = read_selected(&place.path("s.jsonl")).unwrap();
    assert_eq!(ids(&stopped), ids(&selected));
}

#[test]
fn a_run_that_is_written_in_several_parts_is_the_run_of_one() {
    let place = Place::new();
    let index = indexed(&place, Analyzer::Standard);
    let run = |memory: u64| {
        let request = SearchRequest {
            index: index.clone(),
            queries: vec![place.path("train.jsonl").display().to_string()],
            fields: Fields::default(),
            settings: SearchSettings {
                memory,
                ..SearchSettings::new(TOP_K)
            },
            analyzer: None,
            tag: "tag".to_owned(),
            out: place.path("run.trec"),
        };
        let report = search(&request, &mut Silent).unwrap();
        assert_eq!(report.hits, (place.queries.len() * TOP_K) as u64);
        std::fs::read_to_string(&request.out).unwrap()
    };
    // 16 hits at a time, and all.
    let [parts, whole] = [16 << 10, 64 << 20].map(run);
    assert_eq!(parts, whole);

    let index = Index::open(&index).unwrap();
    let settings = SearchSettings::new(TOP_K);
    let search = Search::new(&index, &place.queries, &settings).unwrap();
    let found = search.collect(&|_, _| ()).unwrap().hits;
    let ids = (1..).zip(&found).flat_map(|(query, hits)| {
        let ids = hits.iter().map(|hit| &place.passages[hit.document as usize].0);
        (1..).zip(ids).map(move |(rank, id)| format!("{query} {id} {rank}"))
    });
    let columns = parts.lines().map(|line| {
        let columns: Vec<&str> = line.split(' ').collect();
        format!("{} {} {}", columns[0], columns[2], columns[3])
    });
    assert_eq!(columns.collect::<Vec<_>>(), ids.collect::<Vec<_>>());
}

#[test]
fn an_index_of_another_analyzer_is_refused_with_both_names() {
    let place = Place::new();
    let request = SelectRequest {
        corpus: Corpus::Index(indexed(&place, Analyzer::English)),
        ..place.request(SelectMethod::Bm25, "s.jsonl")
    };
    let error = select(&request, &mut Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput);
    let message = error.to_string();
    assert!(
        message.contains("analyzer english") && message.contains("standard"),
        "{message}"
    );
    assert!(!place.path("s.jsonl").exists());
}
