//! A small search engine: one index, the five requests that `tlm` sends, answers as OpenSearch and Elasticsearch write
//! them, and faults on demand. It ranks by the crate's own index, so that what comes back can be compared.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tlm::retrieval::*;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What goes wrong next.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The next request to a path that contains this gets this status and body.
    Answer(&'static str, u16, Value),
    /// In the next `_msearch`, the query at this place gets this answer.
    Query(usize, Value),
    /// The next request's connection is closed without an answer.
    HangUp,
}

pub struct Cluster {
    pub url: String,
    pub requests: Arc<Mutex<Vec<Request>>>,
    pub faults: Arc<Mutex<VecDeque<Fault>>>,
}

struct Shelf {
    passages: Vec<Passage>,
    index: Index,
    most_clauses: usize,
    /// What `Authorization` must say.
    key: Option<String>,
}

impl Cluster {
    /// A cluster with an index `corpus`, whose queries have at most so many terms.
    pub fn start(passages: &[Passage], most_clauses: usize, key: Option<&str>) -> Cluster {
        let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
        let shelf = Shelf {
            index: Index::build(&texts, Analyzer::Standard, &|_, _| ()).unwrap(),
            passages: passages.to_vec(),
            most_clauses,
            key: key.map(str::to_owned),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/corpus", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let faults = Arc::new(Mutex::new(VecDeque::new()));
        let (seen, due) = (Arc::clone(&requests), Arc::clone(&faults));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that goes away is none of the cluster's business.
                let _ = stream.map(|stream| shelf.serve(stream, &seen, &due));
            }
        });
        Cluster { url, requests, faults }
    }

    pub fn will(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// The requests to paths that contain `part`.
    pub fn asked(&self, part: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.path.contains(part))
            .cloned()
            .collect()
    }
}

impl Shelf {
    /// One request of a connection, which is closed then.
    fn serve(
        &self,
        mut stream: TcpStream,
        seen: &Mutex<Vec<Request>>,
        due: &Mutex<VecDeque<Fault>>,
    ) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let len = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
        let mut body = vec![0; len];
        reader.read_exact(&mut body)?;
        let request = Request {
            path,
            headers,
            body: String::from_utf8(body).unwrap(),
        };
        seen.lock().unwrap().push(request.clone());
        let (status, answer) = match self.fault(&request, due) {
            Some(Fault::HangUp) => return Ok(()),
            Some(Fault::Answer(_, status, answer)) => (status, answer),
            Some(Fault::Query(place, answer)) => {
                let (status, mut answers) = self.answer(&request);
                answers["responses"][place] = answer;
                (status, answers)
            }
            None => self.answer(&request),
        };
        let answer = answer.to_string();
        write!(
            stream,
            "HTTP/1.1 {status} Something\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        )
    }

    fn fault(&self, request: &Request, due: &Mutex<VecDeque<Fault>>) -> Option<Fault> {
        let mut due = due.lock().unwrap();
        let strikes = match due.front()? {
            Fault::HangUp => true,
            Fault::Answer(part, ..) => request.path.contains(part),
            Fault::Query(..) => request.path.contains("_msearch"),
        };
        strikes.then(|| due.pop_front()).flatten()
    }

    fn answer(&self, request: &Request) -> (u16, Value) {
        if self.key.is_some() && request.headers.get("authorization") != self.key.as_ref() {
            return (401, json!({ "error": { "type": "security_exception" }, "status": 401 }));
        }
        let body = || serde_json::from_str::<Value>(&request.body).unwrap();
        match request.path.split('?').next().unwrap() {
            "/corpus/_count" => (
                200,
                json!({ "count": self.passages.len(), "_shards": { "total": 1, "failed": 0 } }),
            ),
            "/corpus/_settings" => (
                200,
                json!({ "corpus": {
                    "settings": { "index.number_of_shards": "1" },
                    "defaults": { "index.max_result_window": "10000" },
                } }),
            ),
            "/_msearch" => {
                let lines: Vec<Value> = request
                    .body
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
                let answers: Vec<Value> = lines.chunks(2).map(|pair| self.search(&pair[0], &pair[1])).collect();
                (200, json!({ "took": 1, "responses": answers }))
            }
            "/corpus/_mtermvectors" => {
                let documents = body()["docs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|ask| self.best_terms(ask))
                    .collect::<Vec<_>>();
                (200, json!({ "docs": documents }))
            }
            "/corpus/_mget" => {
                let ids = body()["ids"].as_array().unwrap().clone();
                let document = |id: &Value| match self.passages.iter().find(|passage| passage.id == *id) {
                    Some(passage) => json!({ "_index": "corpus", "_id": id, "found": true,
                        "_source": { "text": passage.text, "source": passage.source } }),
                    None => json!({ "_index": "corpus", "_id": id, "found": false }),
                };
                (200, json!({ "docs": ids.iter().map(document).collect::<Vec<_>>() }))
            }
            _ => (
                404,
                json!({ "error": { "type": "index_not_found_exception" }, "status": 404 }),
            ),
        }
    }

    fn search(&self, head: &Value, search: &Value) -> Value {
        assert_eq!(
            (&head["index"], &head["search_type"]),
            (&"corpus".into(), &"dfs_query_then_fetch".into())
        );
        assert_eq!(search["_source"], false);
        let query = &search["query"];
        let text = match (query.get("match"), query.get("bool")) {
            (Some(matching), _) => matching["text"]["query"].as_str().unwrap().to_owned(),
            (_, Some(bool)) => {
                let clauses = bool["should"].as_array().unwrap().iter();
                let words = clauses.flat_map(|clause| {
                    let term = &clause["term"]["text"];
                    std::iter::repeat_n(
                        term["value"].as_str().unwrap(),
                        term["boost"].as_u64().unwrap() as usize,
                    )
                });
                words.collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        };
        let mut terms = Analyzer::Standard.terms(&text);
        terms.sort_unstable();
        terms.dedup();
        if terms.len() > self.most_clauses {
            let reason = format!("maxClauseCount is set to {}", self.most_clauses);
            return json!({ "error": { "type": "search_phase_execution_exception",
                "caused_by": { "type": "too_many_clauses", "reason": reason } }, "status": 400 });
        }
        let k = search["size"].as_u64().unwrap() as usize;
        let found = tlm::retrieval::search(&self.index, &[text], k, &Bm25::default(), &|_, _| ()).unwrap();
        let hits: Vec<Value> = found.hits[0]
            .iter()
            .map(|&hit| {
                let id = &self.passages[hit.document as usize].id;
                json!({ "_index": "corpus", "_id": id, "_score": found.bm25(0, hit) })
            })
            .collect();
        json!({ "took": 1, "timed_out": false, "_shards": { "total": 1, "successful": 1, "skipped": 0, "failed": 0 },
            "hits": { "max_score": null, "hits": hits }, "status": 200 })
    }

    fn best_terms(&self, ask: &Value) -> Value {
        assert_eq!(
            (&ask["fields"][0], &ask["term_statistics"]),
            (&"text".into(), &true.into())
        );
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for term in Analyzer::Standard.terms(ask["doc"]["text"].as_str().unwrap()) {
            *counts.entry(term).or_insert(0) += 1;
        }
        let documents = u64::from(self.index.documents());
        let score = |(term, tf): (String, u64)| {
            let df = u64::from(self.index.frequencies(&term).0);
            (df > 0).then(|| (tf as f64 * Bm25::default().idf(documents, df), term, tf))
        };
        let mut terms: Vec<(f64, String, u64)> = counts.into_iter().filter_map(score).collect();
        terms.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        terms.truncate(ask["filter"]["max_num_terms"].as_u64().unwrap() as usize);
        let terms: serde_json::Map<String, Value> = terms
            .into_iter()
            .map(|(score, term, tf)| (term, json!({ "term_freq": tf, "score": score })))
            .collect();
        json!({ "_index": "corpus", "found": true, "term_vectors": { "text": { "terms": terms } } })
    }
}
