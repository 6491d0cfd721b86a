//! Selection: which documents of the corpus become the external data.
//!
//! TLM's rule (Yao et al., ICML 2022, section 3): the union of all queries' hits, each document once. A document keeps
//! its smallest rank, counted from 0, so that the documents for a smaller K are those with rank < K. The order is that
//! of first occurrence: queries in order, within a query by rank.
//!
//! The baseline of the ablation takes as many passages at random.

use super::RetrievalError;
use super::search::Hit;
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

/// The union of the hits of queries, as they come.
pub struct Union {
    /// By document: its place in `selected`.
    places: Vec<u32>,
    selected: Vec<Selected>,
    queries: u32,
}

const NOT_SELECTED: u32 = u32::MAX;

impl Union {
    /// Of hits in a corpus of `documents`.
    #[must_use]
    pub fn new(documents: u32) -> Self {
        Union {
            places: vec![NOT_SELECTED; documents as usize],
            selected: Vec::new(),
            queries: 0,
        }
    }

    /// Takes in the hits of the next query, best first, and one unit of its scores in BM25.
    pub fn add(&mut self, hits: &[Hit], unit: f64) {
        let query = self.queries;
        self.queries += 1;
        for (rank, hit) in (0..).zip(hits) {
            let found = Selected {
                document: hit.document,
                rank,
                query,
                score: f64::from(hit.score) * unit,
            };
            let place = &mut self.places[hit.document as usize];
            if *place == NOT_SELECTED {
                *place = self.selected.len() as u32;
                self.selected.push(found);
            } else if rank < self.selected[*place as usize].rank {
                self.selected[*place as usize] = found;
            }
        }
    }

    /// The selected documents in the order of first occurrence.
    #[must_use]
    pub fn into_selected(self) -> Vec<Selected> {
        self.selected
    }
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
