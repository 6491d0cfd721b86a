//! Queries: from texts to weighted terms of an index.
//!
//! ```text
//! texts --reduction--> texts --Analyzer--> (term, qtf) --stop words off--> x = qtf * idf --tfidf:N--> (term, w)
//! ```
//!
//! | query | what of a text searches |
//! |---|---|
//! | `text` | all of it |
//! | `rake` | its 20 best key phrases ([`rake_phrases`]), as in the TLM paper for long texts |
//! | `tfidf:N` | its N terms of the largest qtf * idf; of equal ones those first in the order of their bytes |
//!
//! The idf is the index's own, so that `tfidf` needs no list of words and no language.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::RetrievalError;
use super::block::{Block, BlockAnalyzer};
use super::bm25::{Bm25, WeightedQuery};
use super::index::Index;
use super::rake::rake_phrases;
use super::term_cache::{MAX_CACHED_WORDS, TermNumbers};
use super::tile::sorted_order;
use super::workers::map_with_worker;

/// What of a text is the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Query {
    /// All its terms.
    #[default]
    Text,
    /// Its 20 best RAKE key phrases.
    Rake,
    /// Its so many best terms by tf x idf.
    TfIdf(usize),
}

/// Key phrases of a `rake` query, as in the TLM paper.
const RAKE_PHRASES: usize = 20;

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Query::Text => f.write_str("text"),
            Query::Rake => f.write_str("rake"),
            Query::TfIdf(terms) => write!(f, "tfidf:{terms}"),
        }
    }
}

impl FromStr for Query {
    type Err = String;

    fn from_str(text: &str) -> Result<Query, String> {
        let terms = text.strip_prefix("tfidf:").and_then(|terms| terms.parse().ok());
        match (text, terms) {
            ("text", _) => Ok(Query::Text),
            ("rake", _) => Ok(Query::Rake),
            (_, Some(terms)) if terms > 0 => Ok(Query::TfIdf(terms)),
            _ => Err("\"text\", \"rake\" or \"tfidf:N\" with N terms above 0, for example \"tfidf:20\"".to_owned()),
        }
    }
}

impl From<Query> for String {
    fn from(query: Query) -> String {
        query.to_string()
    }
}

impl TryFrom<String> for Query {
    type Error = String;

    fn try_from(text: String) -> Result<Query, String> {
        text.parse()
    }
}

/// Queries that are analysed together, at most, and terms that are looked up together.
const PIECE: usize = 256;

/// Queries made ready for an index.
pub(super) struct Prepared {
    /// Terms are numbered from 0 to `terms`.
    pub(super) queries: Vec<WeightedQuery>,
    /// How many terms the queries have together.
    pub(super) terms: usize,
    /// For each segment (its own number of the term, ours) of the terms that it has, ascending.
    pub(super) of_segment: Vec<Vec<(u32, u32)>>,
}

impl Prepared {
    /// The weighted terms of texts, without those that the index's analyzer makes of `stop_words`.
    ///
    /// # Errors
    /// [`RetrievalError::TooManyTerms`] for a query of more than 131,072 distinct terms.
    pub(super) fn new<S: AsRef<str> + Sync>(
        index: &Index,
        texts: &[S],
        query: Query,
        stop_words: &[String],
        bm25: &Bm25,
    ) -> Result<Prepared, RetrievalError> {
        let piece = texts.len().div_ceil(2 * rayon::current_num_threads()).clamp(1, PIECE);
        let pieces: Vec<&[S]> = texts.chunks(piece).collect();
        let blocks = map_with_worker(
            &pieces,
            || BlockAnalyzer::new(index.analyzer(), MAX_CACHED_WORDS),
            |analyzer, texts| match query {
                Query::Rake => analyzer.analyze(texts.iter().map(|text| rake_query(text.as_ref()))),
                Query::Text | Query::TfIdf(_) => analyzer.analyze(texts.iter()),
            },
        );
        let mut union = TermNumbers::default();
        let numbers: Vec<Vec<u32>> = blocks
            .iter()
            .map(|block| block.terms.iter().map(|term| union.number(term)).collect())
            .collect();
        let terms: Vec<&str> = union.terms.iter().collect();
        let stopped = stop_words.iter().flat_map(|word| index.analyzer().terms(word));
        let stopped: HashSet<String> = stopped.collect();
        // Terms in order are near each other in a vocabulary.
        let order = sorted_order(&union.terms);

        // By segment and term: the segment's number of the term, and the df.
        let find = |segment: &super::segment::Segment| -> Vec<Option<(u32, u32)>> {
            let vocabulary = segment.vocabulary();
            let found = order.par_chunks(PIECE).flat_map_iter(|places| {
                let entries = vocabulary.find_all(places.iter().map(|&place| terms[place as usize]));
                places.iter().zip(entries)
            });
            let mut entries = vec![None; terms.len()];
            for (&place, entry) in found.collect::<Vec<_>>() {
                entries[place as usize] = entry.map(|entry| (entry.number, entry.df));
            }
            entries
        };
        let found: Vec<Vec<Option<(u32, u32)>>> = index.segments().iter().map(find).collect();
        let idf = |term: usize| {
            let df: u64 = found
                .iter()
                .filter_map(|entries| entries[term])
                .map(|(_, df)| u64::from(df))
                .sum();
            match df {
                0 => 0.0,
                _ if stopped.contains(terms[term]) => 0.0,
                _ => bm25.idf(u64::from(index.documents()), df),
            }
        };
        let idf: Vec<f64> = (0..terms.len()).into_par_iter().map(idf).collect();

        let weigh = |(number, (block, numbers)): (usize, (&Block, &Vec<u32>))| {
            let queries = (number * piece..).zip(block.by_document()).map(|(place, counts)| {
                let weights = counts.iter().map(|&(term, qtf)| {
                    let term = numbers[term as usize];
                    (term, f64::from(qtf) * idf[term as usize])
                });
                let mut weights: Vec<(u32, f64)> = weights.filter(|&(_, weight)| weight > 0.0).collect();
                if let Query::TfIdf(kept) = query {
                    weights.sort_by(|a, b| {
                        let by_text = || terms[a.0 as usize].cmp(terms[b.0 as usize]);
                        b.1.total_cmp(&a.1).then_with(by_text)
                    });
                    weights.truncate(kept);
                }
                WeightedQuery::new(place, &weights, bm25)
            });
            queries.collect::<Result<Vec<WeightedQuery>, RetrievalError>>()
        };
        let queries: Result<Vec<Vec<WeightedQuery>>, RetrievalError> =
            blocks.par_iter().zip(&numbers).enumerate().map(weigh).collect();
        let mut queries: Vec<WeightedQuery> = queries?.into_iter().flatten().collect();

        let (places, used) = number_used(&mut queries, terms.len());
        let of_segment = found.iter().map(|entries| {
            let known = places
                .iter()
                .zip(entries)
                .filter_map(|(place, entry)| Some(((*entry)?.0, (*place)?)));
            let mut known: Vec<(u32, u32)> = known.collect();
            known.sort_unstable();
            known
        });
        Ok(Prepared {
            of_segment: of_segment.collect(),
            queries,
            terms: used as usize,
        })
    }
}

/// Renumbers the queries' terms without gaps. Returns the new number of every term that a query uses, and how many.
fn number_used(queries: &mut [WeightedQuery], terms: usize) -> (Vec<Option<u32>>, u32) {
    let mut places: Vec<Option<u32>> = vec![None; terms];
    let mut used = 0;
    for query in queries {
        for (term, _) in &mut query.terms {
            *term = *places[*term as usize].get_or_insert_with(|| {
                used += 1;
                used - 1
            });
        }
    }
    (places, used)
}

/// The best key phrases of a text, as one text.
pub(super) fn rake_query(text: &str) -> String {
    let phrases = rake_phrases(text).into_iter().take(RAKE_PHRASES);
    phrases.map(|phrase| phrase.text).collect::<Vec<_>>().join(" ")
}
