//! An OpenSearch or Elasticsearch cluster as the retrieval: the paper's own engine, for those who have one.
//!
//! ```text
//! GET  INDEX/_settings             index.max_result_window
//! POST _msearch                    many queries a request: match on the text field, no sources, global frequencies (dfs)
//! POST INDEX/_mtermvectors         the best terms of a text by tf-idf, where it has more than the engine's clauses allow
//! POST INDEX/_mget                 the selected passages
//! ```
//!
//! The ranking is the engine's: its analyzer, its similarity, its order among equal scores. Whatever it refuses is an
//! error: a query that fails, a shard that fails, a search that is cut off by a time limit. Nothing is skipped.

mod http;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::RetrievalError;
use super::analyzer::Analyzer;
use super::passages::Passage;
use super::query::{Query, rake_query};
use http::{Body, Http, engine_error, is_passing};

/// Queries of a request.
const QUERIES_TOGETHER: usize = 32;

/// Passages fetched by a request.
const PASSAGES_TOGETHER: usize = 500;

/// The window of an engine that names none.
const DEFAULT_WINDOW: u64 = 10_000;

/// How an engine is used.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// `http://HOST:PORT/INDEX` or `https://...`.
    pub url: String,
    /// The field that is searched and that holds the passages.
    pub text_field: String,
    /// The field that holds where a passage is from.
    pub source_field: String,
    /// Terms of a query that the engine takes: 1,024 unless it was set up otherwise.
    pub most_terms: usize,
    /// The pause before a request is tried again; it doubles each time.
    pub pause: Duration,
}

impl EngineSettings {
    /// The usual settings for the index at `url`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        EngineSettings {
            url: url.to_owned(),
            text_field: "text".to_owned(),
            source_field: "source".to_owned(),
            most_terms: 1024,
            pause: Duration::from_millis(500),
        }
    }
}

/// An index of an engine.
pub struct Engine {
    settings: EngineSettings,
    http: Http,
    index: String,
    documents: u64,
    window: u64,
}

/// A passage that the engine found.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineHit {
    /// Its id in the engine.
    pub id: String,
    /// The engine's score.
    pub score: f64,
}

/// What an engine found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineResults {
    /// For each query at most K hits, in the engine's order.
    pub hits: Vec<Vec<EngineHit>>,
    /// Queries that were cut to their best terms because they have too many.
    pub cut: u64,
}

impl Engine {
    /// Asks the engine for the size of the index and what it allows.
    ///
    /// # Errors
    /// [`RetrievalError::Engine`] for a URL without an index or with credentials in it, and for an engine that does not
    /// answer or has no such index.
    pub fn connect(settings: EngineSettings) -> Result<Engine, RetrievalError> {
        let url = settings.url.trim_end_matches('/');
        let wrong = |reason: &str| engine_error(url, format!("{reason}; give http://HOST:PORT/INDEX or https://..."));
        let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"));
        let rest = rest.ok_or_else(|| wrong("not a URL of http or https"))?;
        let (_, index) = url.rsplit_once('/').ok_or_else(|| wrong("no index is named"))?;
        if !rest.contains('/') || index.is_empty() || index.starts_with('_') || index.contains(['?', '#', '*', ',']) {
            return Err(wrong("no index is named"));
        }
        if rest.split('/').next().is_some_and(|host| host.contains('@')) {
            let reason = "credentials do not belong into a URL, which others can see: set TLM_ENGINE_USER and \
                          TLM_ENGINE_PASSWORD, or TLM_ENGINE_API_KEY";
            // The URL is not repeated here.
            return Err(engine_error("the engine's URL", reason));
        }
        let http = Http::new(url[..url.len() - index.len() - 1].to_owned(), settings.pause)?;
        let index = index.to_owned();
        let count = http.call(&format!("/{index}/_count"), &Body::None)?;
        let documents = count["count"].as_u64();
        let documents = documents.ok_or_else(|| http.error("the answer to _count has no count: no search engine?"))?;
        let path = format!("/{index}/_settings?flat_settings=true&include_defaults=true");
        let answer = http.call(&path, &Body::None)?;
        let of_index = answer.as_object().and_then(|indices| indices.values().next());
        let window = of_index.and_then(|found| {
            let value = ["settings", "defaults"]
                .iter()
                .find_map(|part| found[*part].get("index.max_result_window"))?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok())
        });
        Ok(Engine {
            settings,
            http,
            index,
            documents,
            window: window.unwrap_or(DEFAULT_WINDOW),
        })
    }

    /// How many documents the index has.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Finds the `k` best passages for each query. `progress` counts queries.
    ///
    /// # Errors
    /// [`RetrievalError::Engine`] for more hits than the index gives, and for whatever the engine refuses.
    pub fn search<S: AsRef<str>>(
        &self,
        queries: &[S],
        k: usize,
        query: Query,
        progress: super::Progress,
    ) -> Result<EngineResults, RetrievalError> {
        if k as u64 > self.window {
            return Err(self.http.error(format!(
                "{k} hits of a query are asked for and the index gives {}: ask for fewer, or raise its \
                 index.max_result_window",
                self.window
            )));
        }
        let mut results = EngineResults::default();
        for texts in queries.chunks(QUERIES_TOGETHER) {
            let (bodies, cut) = self.bodies(texts, query)?;
            results.cut += cut;
            results.hits.extend(self.search_together(&bodies, k)?);
            progress(results.hits.len() as u64, queries.len() as u64);
        }
        Ok(results)
    }

    /// The queries in the engine's language, and how many were cut.
    fn bodies<S: AsRef<str>>(&self, texts: &[S], query: Query) -> Result<(Vec<Value>, u64), RetrievalError> {
        let field = &self.settings.text_field;
        let texts: Vec<String> = texts
            .iter()
            .map(|text| match query {
                Query::Rake => rake_query(text.as_ref()),
                Query::Text | Query::TfIdf(_) => text.as_ref().to_owned(),
            })
            .collect();
        let most = match query {
            Query::TfIdf(terms) => terms.min(self.settings.most_terms),
            Query::Text | Query::Rake => self.settings.most_terms,
        };
        let distinct = |text: &String| Analyzer::Standard.terms(text).into_iter().collect::<HashSet<_>>().len();
        let too_long: Vec<usize> = (0..texts.len())
            .filter(|&place| distinct(&texts[place]) > most)
            .collect();
        let matching = |text: &String| match text.trim().is_empty() {
            true => json!({ "match_none": {} }),
            false => json!({ "match": { field: { "query": text } } }),
        };
        let mut bodies: Vec<Value> = texts.iter().map(matching).collect();
        if !too_long.is_empty() {
            let long: Vec<&str> = too_long.iter().map(|&place| texts[place].as_str()).collect();
            for (&place, body) in too_long.iter().zip(self.best_terms(&long, most)?) {
                bodies[place] = body;
            }
        }
        let cut = if query == Query::Text || query == Query::Rake {
            too_long.len()
        } else {
            0
        };
        Ok((bodies, cut as u64))
    }

    /// Queries of the `most` terms with the largest tf x idf of each text, by the engine's own analyzer and frequencies.
    fn best_terms(&self, texts: &[&str], most: usize) -> Result<Vec<Value>, RetrievalError> {
        let field = &self.settings.text_field;
        let ask = |text: &&str| {
            json!({
                "doc": { field: text },
                "fields": [field],
                "term_statistics": true, "field_statistics": true, "positions": false, "offsets": false,
                "filter": { "max_num_terms": most, "min_term_freq": 1, "min_doc_freq": 1 },
            })
        };
        let asked = json!({ "docs": texts.iter().map(ask).collect::<Vec<_>>() });
        let answer = self
            .http
            .call(&format!("/{}/_mtermvectors", self.index), &Body::Json(&asked))?;
        let documents = answer["docs"]
            .as_array()
            .filter(|documents| documents.len() == texts.len());
        let documents =
            documents.ok_or_else(|| self.http.error("_mtermvectors answers for another number of texts"))?;
        let body = |document: &Value| {
            if let Some(error) = document.get("error") {
                return Err(self.http.error(format!("_mtermvectors: {error}")));
            }
            let terms = document["term_vectors"][field]["terms"].as_object();
            let clauses = terms.into_iter().flatten().map(|(term, found)| {
                let boost = found["term_freq"].as_u64().unwrap_or(1);
                json!({ "term": { field: { "value": term, "boost": boost } } })
            });
            Ok(json!({ "bool": { "should": clauses.collect::<Vec<_>>() } }))
        };
        documents.iter().map(body).collect()
    }

    /// The hits of a batch of queries; those that the engine was too busy for are sent again.
    fn search_together(&self, bodies: &[Value], k: usize) -> Result<Vec<Vec<EngineHit>>, RetrievalError> {
        let mut found: Vec<Option<Vec<EngineHit>>> = vec![None; bodies.len()];
        let mut left: Vec<usize> = (0..bodies.len()).collect();
        let mut attempt = 0;
        while !left.is_empty() {
            attempt += 1;
            let mut lines = String::new();
            for &place in &left {
                let head = json!({ "index": self.index, "search_type": "dfs_query_then_fetch" });
                let search = json!({ "size": k, "_source": false, "track_total_hits": false, "query": bodies[place] });
                lines += &format!("{head}\n{search}\n");
            }
            let answer = self.http.call("/_msearch", &Body::Lines(lines))?;
            let answers = answer["responses"]
                .as_array()
                .filter(|answers| answers.len() == left.len());
            let answers = answers.ok_or_else(|| self.http.error("_msearch answers for another number of queries"))?;
            let (mut again, mut reason) = (Vec::new(), String::new());
            for (&place, answer) in left.iter().zip(answers) {
                match self.hits(answer)? {
                    Ok(hits) => found[place] = Some(hits),
                    Err(busy) => {
                        again.push(place);
                        reason = busy;
                    }
                }
            }
            left = again;
            if !left.is_empty() {
                self.http.wait(attempt, &reason)?;
            }
        }
        Ok(found.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The hits of one answer, or why the engine was too busy for it.
    fn hits(&self, answer: &Value) -> Result<Result<Vec<EngineHit>, String>, RetrievalError> {
        if let Some(error) = answer.get("error") {
            let status = answer["status"].as_u64().unwrap_or(0);
            let reason = format!("a query: status {status}: {error}");
            return if is_passing(status) {
                Ok(Err(reason))
            } else {
                Err(self.http.error(reason))
            };
        }
        if answer["timed_out"].as_bool() == Some(true) {
            return Err(self
                .http
                .error("a query was cut off by the engine's time limit: its hits would be some of them"));
        }
        if answer["_shards"]["failed"].as_u64().unwrap_or(0) > 0 {
            return Ok(Err(format!("shards failed: {}", answer["_shards"])));
        }
        let hits = answer["hits"]["hits"].as_array();
        let hits = hits.ok_or_else(|| self.http.error(format!("an answer without hits: {answer}")))?;
        let hit = |hit: &Value| {
            let broken = || self.http.error(format!("a hit without id or score: {hit}"));
            Ok(EngineHit {
                id: hit["_id"].as_str().ok_or_else(broken)?.to_owned(),
                score: hit["_score"].as_f64().ok_or_else(broken)?,
            })
        };
        Ok(Ok(hits.iter().map(hit).collect::<Result<_, RetrievalError>>()?))
    }

    /// The passages with these ids, in their order.
    ///
    /// # Errors
    /// [`RetrievalError::Engine`], also for a passage that is gone or has no text.
    pub fn passages(&self, ids: &[&str]) -> Result<Vec<Passage>, RetrievalError> {
        let EngineSettings {
            text_field,
            source_field,
            ..
        } = &self.settings;
        let mut passages = Vec::with_capacity(ids.len());
        let path = format!("/{}/_mget?_source_includes={text_field},{source_field}", self.index);
        for ids in ids.chunks(PASSAGES_TOGETHER) {
            let answer = self.http.call(&path, &Body::Json(&json!({ "ids": ids })))?;
            let documents = answer["docs"]
                .as_array()
                .filter(|documents| documents.len() == ids.len());
            let documents = documents.ok_or_else(|| self.http.error("_mget answers for another number of passages"))?;
            for (id, document) in ids.iter().zip(documents) {
                let text = document["_source"][text_field].as_str();
                let missing = || {
                    self.http
                        .error(format!("the passage {id:?} has no field {text_field:?}: {document}"))
                };
                passages.push(Passage {
                    id: (*id).to_owned(),
                    source: document["_source"][source_field]
                        .as_str()
                        .unwrap_or(&self.index)
                        .to_owned(),
                    text: text.ok_or_else(missing)?.to_owned(),
                });
            }
        }
        Ok(passages)
    }
}
