//! Retrieval by an existing search engine, against a small one that speaks the protocol, limits and failures included.

#[path = "engine/cluster.rs"]
mod cluster;
#[path = "retrieval/random.rs"]
mod random;

use std::io::{Read, Write};
use std::time::Duration;

use cluster::{Cluster, Fault};
use random::Random;
use serde_json::json;
use tlm::retrieval::*;

const NO_PROGRESS: Progress = &|_, _| ();

fn passages() -> Vec<Passage> {
    let mut random = Random(1);
    (0..200)
        .map(|i| {
            let words = 5 + random.below(30);
            Passage {
                id: format!("p{i}"),
                source: "news".to_owned(),
                text: random.text(words, 90),
            }
        })
        .collect()
}

fn queries(passages: &[Passage]) -> Vec<String> {
    passages.iter().step_by(5).map(|passage| passage.text.clone()).collect()
}

fn settings(cluster: &Cluster) -> EngineSettings {
    EngineSettings {
        pause: Duration::from_millis(1),
        ..EngineSettings::new(&cluster.url)
    }
}

fn ids(results: &EngineResults) -> Vec<Vec<&str>> {
    let lists = results.hits.iter();
    lists
        .map(|hits| hits.iter().map(|hit| hit.id.as_str()).collect())
        .collect()
}

/// What a search of the same passages in memory finds.
fn local(passages: &[Passage], queries: &[String], k: usize, query: Query) -> Vec<Vec<String>> {
    let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
    let index = Index::build(&texts, Analyzer::Standard, NO_PROGRESS).unwrap();
    let settings = SearchSettings {
        query,
        ..SearchSettings::new(k)
    };
    let found = Search::new(&index, queries, &settings)
        .unwrap()
        .collect(NO_PROGRESS)
        .unwrap();
    let lists = found.hits.iter();
    lists
        .map(|hits| {
            hits.iter()
                .map(|hit| passages[hit.document as usize].id.clone())
                .collect()
        })
        .collect()
}

#[test]
fn hits_and_passages_come_in_batches_with_global_frequencies_and_without_sources() {
    let passages = passages();
    let mut queries = queries(&passages);
    queries.push(" ".to_owned());
    let cluster = Cluster::start(&passages, 1024, None);
    let engine = Engine::connect(settings(&cluster)).unwrap();
    assert_eq!(engine.documents(), 200);
    let found = engine.search(&queries, 7, Query::Text, NO_PROGRESS).unwrap();
    assert_eq!(ids(&found), local(&passages, &queries, 7, Query::Text));
    assert_eq!((found.cut, found.hits[40].len()), (0, 0));
    // 41 queries in two requests; the cluster itself checks the search type and the sources.
    let asked = cluster.asked("_msearch");
    assert_eq!(
        asked
            .iter()
            .map(|request| request.body.lines().count())
            .collect::<Vec<_>>(),
        [64, 18]
    );
    assert_eq!(asked[0].headers["content-type"], "application/x-ndjson");

    let wanted: Vec<&str> = passages.iter().rev().map(|passage| passage.id.as_str()).collect();
    let fetched = engine.passages(&wanted).unwrap();
    assert!(fetched.iter().eq(passages.iter().rev()));
    let error = engine.passages(&["p1", "gone"]).unwrap_err().to_string();
    assert!(error.contains("\"gone\"") && error.contains("\"text\""), "{error}");
}

#[test]
fn queries_beyond_the_engines_clauses_are_cut_to_their_best_terms_and_counted() {
    let passages = passages();
    let queries = queries(&passages);
    let cluster = Cluster::start(&passages, 10, None);
    let engine = |most_terms| {
        Engine::connect(EngineSettings {
            most_terms,
            ..settings(&cluster)
        })
        .unwrap()
    };
    // Sent whole, the engine refuses, and that is an error.
    let error = engine(1024)
        .search(&queries, 5, Query::Text, NO_PROGRESS)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("too_many_clauses") && error.contains("status 400"),
        "{error}"
    );
    let found = engine(10).search(&queries, 5, Query::Text, NO_PROGRESS).unwrap();
    assert_eq!(ids(&found), local(&passages, &queries, 5, Query::TfIdf(10)));
    let long = |text: &&String| {
        let mut terms = Analyzer::Standard.terms(text);
        terms.sort_unstable();
        terms.dedup();
        terms.len() > 10
    };
    assert_eq!(found.cut, queries.iter().filter(long).count() as u64);
    assert!(found.cut > 5 && found.cut < 40, "{}", found.cut);
    for query in [Query::TfIdf(3), Query::Rake] {
        let found = engine(10).search(&queries, 5, query, NO_PROGRESS).unwrap();
        assert_eq!(found.hits.len(), 40);
        if query == Query::TfIdf(3) {
            assert_eq!(
                (ids(&found), found.cut),
                (
                    local(&passages, &queries, 5, query)
                        .iter()
                        .map(|list| list.iter().map(String::as_str).collect())
                        .collect(),
                    0
                )
            );
        }
    }
}

#[test]
fn a_busy_engine_is_asked_again_and_only_for_what_is_missing() {
    let passages = passages();
    let queries = queries(&passages);
    let cluster = Cluster::start(&passages, 1024, None);
    let busy = || json!({ "error": { "type": "es_rejected_execution_exception" }, "status": 429 });
    let partial = json!({ "timed_out": false, "_shards": { "total": 2, "failed": 1 }, "hits": { "hits": [] } });
    cluster.will([
        Fault::Answer("_count", 503, json!({ "error": "starting" })),
        Fault::Answer("_msearch", 429, busy()),
        Fault::HangUp,
        Fault::Query(3, busy()),
        Fault::Query(0, partial),
    ]);
    let engine = Engine::connect(settings(&cluster)).unwrap();
    let found = engine.search(&queries, 7, Query::Text, NO_PROGRESS).unwrap();
    assert_eq!(ids(&found), local(&passages, &queries, 7, Query::Text));
    let lines: Vec<usize> = cluster
        .asked("_msearch")
        .iter()
        .map(|request| request.body.lines().count())
        .collect();
    // Refused, broken off, one query missing, that one with a failed shard, that one; then the second batch.
    assert_eq!(lines, [64, 64, 64, 2, 2, 16]);
}

#[test]
fn what_an_engine_refuses_is_an_error_with_its_words() {
    let passages = passages();
    let cluster = Cluster::start(&passages, 1024, None);
    let engine = Engine::connect(settings(&cluster)).unwrap();
    let error = |faults: Vec<Fault>, k: usize| {
        cluster.will(faults);
        let error = engine.search(&["w1 w2"], k, Query::Text, NO_PROGRESS).unwrap_err();
        assert!(matches!(error, RetrievalError::Engine { .. }));
        error.to_string()
    };
    let always = || Fault::Answer("_msearch", 503, json!({ "error": "no master" }));
    let message = error(vec![always(); 6], 5);
    assert!(
        message.contains("given up after 6 attempts") && message.contains("no master"),
        "{message}"
    );
    let message = error(vec![Fault::Answer("_msearch", 403, json!({ "error": "not yours" }))], 5);
    assert!(
        message.contains("status 403") && message.contains("not yours"),
        "{message}"
    );
    let message = error(
        vec![Fault::Query(0, json!({ "timed_out": true, "hits": { "hits": [] } }))],
        5,
    );
    assert!(message.contains("time limit"), "{message}");
    let message = error(vec![Fault::Query(0, json!({ "hits": {} }))], 5);
    assert!(message.contains("without hits"), "{message}");
    let message = error(vec![Fault::Answer("_msearch", 200, json!({ "responses": [] }))], 5);
    assert!(message.contains("another number of queries"), "{message}");
    assert!(error(vec![], 10_001).contains("index.max_result_window"));
    // Nothing was asked for more hits than there are.
    assert_eq!(cluster.asked("_msearch").len(), 6 + 4);
}

#[test]
fn a_url_that_names_no_index_or_shows_a_password_is_refused_and_so_is_an_absent_engine() {
    let message = |url: &str| {
        let settings = EngineSettings {
            pause: Duration::from_millis(1),
            ..EngineSettings::new(url)
        };
        Engine::connect(settings).err().unwrap().to_string()
    };
    for url in [
        "http://localhost:9200",
        "http://localhost:9200/",
        "http://localhost:9200/_search",
        "http://h/a*",
    ] {
        assert!(message(url).contains("no index is named"), "{url}");
    }
    assert!(message("ftp://localhost/corpus").contains("http://HOST:PORT/INDEX"));
    let secret = message("https://me:secret@localhost/corpus");
    assert!(
        secret.contains("TLM_ENGINE_PASSWORD") && !secret.contains("me:secret"),
        "{secret}"
    );
    let cluster = Cluster::start(&passages(), 1024, None);
    assert!(message(&cluster.url.replace("corpus", "other")).contains("index_not_found_exception"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    assert!(message(&format!("http://{free}/corpus")).contains("given up after 6 attempts"));
}

#[test]
fn an_engine_that_wants_credentials_says_so() {
    let cluster = Cluster::start(&passages(), 1024, Some("ApiKey abc"));
    let message = Engine::connect(settings(&cluster)).err().unwrap().to_string();
    assert!(
        message.contains("status 401") && message.contains("security_exception"),
        "{message}"
    );
}

/// `tlm select` against an engine with these variables set, and what it said.
fn select(cluster: &Cluster, variables: &[(&str, &str)]) -> (bool, String) {
    let place = tempfile::tempdir().unwrap();
    let queries = place.path().join("q.jsonl");
    std::fs::write(&queries, "{\"text\": \"w1 w2\"}\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tlm"))
        .args(["select", "--top-k", "3", "--engine", &cluster.url, "--queries"])
        .arg(&queries)
        .arg("--out")
        .arg(place.path().join("s.jsonl"))
        .env_remove("TLM_ENGINE_USER")
        .env_remove("TLM_ENGINE_PASSWORD")
        .env_remove("TLM_ENGINE_API_KEY")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let written = place.path().join("s.jsonl").exists();
    assert_eq!(output.status.success(), written);
    (written, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn credentials_of_the_environment_open_an_engine_and_others_do_not() {
    // "me:pass word" in base 64.
    let by_name = Cluster::start(&passages(), 1024, Some("Basic bWU6cGFzcyB3b3Jk"));
    let name = ("TLM_ENGINE_USER", "me");
    let (selected, message) = select(&by_name, &[name, ("TLM_ENGINE_PASSWORD", "pass word")]);
    assert!(selected, "{message}");
    let (selected, message) = select(&by_name, &[name, ("TLM_ENGINE_PASSWORD", "other")]);
    assert!(!selected && message.contains("status 401"), "{message}");
    assert!(!message.contains("other"), "{message}");
    let (selected, message) = select(&by_name, &[name]);
    assert!(!selected && message.contains("TLM_ENGINE_PASSWORD"), "{message}");

    let by_key = Cluster::start(&passages(), 1024, Some("ApiKey abc"));
    let (selected, message) = select(&by_key, &[("TLM_ENGINE_API_KEY", "abc")]);
    assert!(selected, "{message}");
}

#[test]
fn a_server_without_tls_behind_a_url_of_https_is_an_error_that_says_so() {
    let cluster = Cluster::start(&passages(), 1024, None);
    let settings = EngineSettings {
        pause: Duration::from_millis(1),
        ..EngineSettings::new(&cluster.url.replace("http://", "https://"))
    };
    let message = Engine::connect(settings).err().unwrap().to_string();
    assert!(
        message.contains("https://127.0.0.1") && message.to_lowercase().contains("tls"),
        "{message}"
    );
    assert!(cluster.asked("").is_empty());
}

#[test]
fn a_handshake_that_fails_is_not_tried_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/corpus", listener.local_addr().unwrap());
    let plain = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 512];
        assert!(stream.read(&mut hello).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // From now on further attempts are refused at once.
    });
    let settings = EngineSettings {
        pause: Duration::from_millis(1),
        ..EngineSettings::new(&url)
    };
    let message = Engine::connect(settings).err().unwrap().to_string();
    assert!(
        message.contains("is there TLS") && !message.contains("attempts"),
        "{message}"
    );
    plain.join().unwrap();
}
