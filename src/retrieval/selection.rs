//! Selection: which documents of the corpus become the external data.
//!
//! TLM's rule (Yao et al., ICML 2022, section 3): the union of all queries' hits, each document once. A document keeps
//! its smallest rank, counted from 0, so that the documents for a smaller K are those with rank < K. The order is that
//! of first occurrence: queries in order, within a query by rank.
//!
//! The baseline of the ablation takes as many passages at random.

use super::RetrievalError;
use super::search::SearchResults;
use crate::rng::{Stream, purpose};

/// A selected document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selected {
    /// Its ordinal in the corpus.
    pub document: u32,
    /// Its smallest rank over all queries, from 0.
    pub rank: u32,
    /// The first query that ranks it there.
    pub query: u32,
    /// Its BM25 score for that query.
    pub score: f64,
}

/// The union of the hits of a search in a corpus of `documents`, in the order of first occurrence.
#[must_use]
pub fn select(results: &SearchResults, documents: u32) -> Vec<Selected> {
    const NOT_SELECTED: u32 = u32::MAX;
    let mut places = vec![NOT_SELECTED; documents as usize];
    let mut selected: Vec<Selected> = Vec::new();
    for (query, hits) in results.hits.iter().enumerate() {
        for (rank, &hit) in (0..).zip(hits) {
            let found = Selected {
                document: hit.document,
                rank,
                query: query as u32,
                score: results.bm25(query, hit),
            };
            let place = &mut places[hit.document as usize];
            if *place == NOT_SELECTED {
                *place = selected.len() as u32;
                selected.push(found);
            } else if rank < selected[*place as usize].rank {
                selected[*place as usize] = found;
            }
        }
    }
    selected
}

/// `wanted` different documents of a corpus of `documents`, every set and order equally likely; the seed decides.
///
/// # Errors
/// [`RetrievalError::OutOfRange`] if more are wanted than there are.
pub fn random(documents: u32, wanted: u32, seed: u64) -> Result<Vec<u32>, RetrievalError> {
    if wanted > documents {
        return Err(RetrievalError::OutOfRange {
            setting: "number of random passages",
            found: wanted.to_string(),
            expected: "at most the number of passages in the corpus",
        });
    }
    // The first steps of a Fisher-Yates shuffle.
    let mut ordinals: Vec<u32> = (0..documents).collect();
    let mut stream = Stream::new(seed, purpose::SELECT, 0);
    for place in 0..wanted {
        let other = place + stream.below(documents - place);
        ordinals.swap(place as usize, other as usize);
    }
    ordinals.truncate(wanted as usize);
    Ok(ordinals)
}
