//! Selection by a search engine: the same union of the best passages, found and kept elsewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::External;
use crate::retrieval::{Engine, EngineResults, EngineSettings, Query};
use crate::tlm::TlmError;
use crate::tlm::observer::{Observer, Unit};
use crate::tlm::outcome::{SelectReport, SelectedPassage};
use crate::tlm::watched::watched;

/// The union of the `top_k` best passages for each query, each once with its smallest rank, in the order of first hits.
pub(super) fn select_by_engine(
    settings: &EngineSettings,
    queries: &[String],
    top_k: usize,
    query: Query,
    observer: &mut dyn Observer,
) -> Result<External, TlmError> {
    let engine = Engine::connect(settings.clone())?;
    observer.note(&format!("engine: {} passages at {}", engine.documents(), settings.url));
    let position = AtomicU64::new(0);
    let texts = queries.len() as u64;
    let results = watched("searching", texts, Unit::Texts, observer, &position, || {
        let progress = |done: u64, _: u64| position.store(done, Ordering::Relaxed);
        engine.search(queries, top_k, query, &progress)
    })?;
    let silent = results.hits.iter().filter(|hits| hits.is_empty()).count() as u64;
    if silent > 0 {
        observer.note(&format!("{silent} of {texts} queries find nothing"));
    }
    if results.cut > 0 {
        observer.note(&format!(
            "{} of {texts} queries have more than {} terms and search with the best of them by tf x idf",
            results.cut, settings.most_terms
        ));
    }
    let union = union(&results);
    let ids: Vec<&str> = union.iter().map(|(id, _, _)| *id).collect();
    let passages = engine.passages(&ids)?;
    let passages = union
        .iter()
        .zip(passages)
        .map(|(&(_, rank, score), passage)| SelectedPassage {
            id: passage.id,
            source: passage.source,
            text: passage.text,
            rank,
            score: Some(score),
        });
    Ok(External {
        passages: passages.collect(),
        report: SelectReport {
            documents: engine.documents(),
            queries: texts,
            queries_without_terms: silent,
            ..SelectReport::default()
        },
    })
}

/// (id, smallest rank, score there) of every passage found.
fn union(results: &EngineResults) -> Vec<(&str, u32, f64)> {
    let mut places = HashMap::new();
    let mut union: Vec<(&str, u32, f64)> = Vec::new();
    for hits in &results.hits {
        for (rank, hit) in (0..).zip(hits) {
            let place = *places.entry(hit.id.as_str()).or_insert_with(|| {
                union.push((&hit.id, rank, hit.score));
                union.len() - 1
            });
            if rank < union[place].1 {
                union[place] = (&hit.id, rank, hit.score);
            }
        }
    }
    union
}
