//! BM25 by definition: every document against every query, in f64 and in the integers of the search.
//!
//! Written from the published formulas, with the constants of absent terms that the search leaves out.

use std::collections::BTreeMap;
use tlm::retrieval::{Bm25, DocumentLength, Variant};

/// A corpus as bags of words.
pub struct Corpus {
    documents: Vec<BTreeMap<String, u32>>,
    lengths: Vec<u32>,
}

/// The scores of one query.
pub struct Scores {
    /// BM25 of every document in f64, constants of absent terms included.
    pub exact: Vec<f64>,
    /// What every document gets for the terms that it does not have, were it to have none.
    pub absent: f64,
    /// Integer score of every document.
    pub integer: Vec<u64>,
    /// By how many units the integer score of each document may differ from the exact one.
    pub bound: Vec<f64>,
    /// One unit in BM25.
    pub unit: f64,
}

impl Corpus {
    pub fn new(documents: &[Vec<String>]) -> Self {
        let bag = |document: &Vec<String>| {
            let mut bag = BTreeMap::new();
            for term in document {
                *bag.entry(term.clone()).or_insert(0) += 1;
            }
            bag
        };
        Corpus {
            documents: documents.iter().map(bag).collect(),
            lengths: documents.iter().map(|document| document.len() as u32).collect(),
        }
    }

    /// In how many documents a term occurs.
    pub fn df(&self, term: &str) -> u32 {
        self.documents.iter().filter(|bag| bag.contains_key(term)).count() as u32
    }

    /// How often a term occurs in all documents.
    pub fn cf(&self, term: &str) -> u64 {
        self.documents
            .iter()
            .filter_map(|bag| bag.get(term))
            .map(|&tf| u64::from(tf))
            .sum()
    }

    pub fn score(&self, query: &[String], bm25: &Bm25) -> Scores {
        let mut query_tf: BTreeMap<&str, u32> = BTreeMap::new();
        for term in query {
            *query_tf.entry(term).or_insert(0) += 1;
        }
        let n = self.documents.len() as f64;
        let average = self.lengths.iter().map(|&length| f64::from(length)).sum::<f64>() / n;
        // (term, query weight), only terms of the corpus.
        let weights: Vec<(&str, f64)> = query_tf
            .into_iter()
            .map(|(term, tf)| (term, f64::from(tf), f64::from(self.df(term))))
            .filter(|&(_, _, df)| df > 0.0)
            .map(|(term, tf, df)| (term, tf * idf(bm25.variant, n, df)))
            .filter(|&(_, weight)| weight > 0.0)
            .collect();
        let largest = weights.iter().map(|&(_, weight)| weight).fold(0.0, f64::max);
        // (part(tf) - part(0)) / limit, reduced; that it is the same shows in the distance from the exact score.
        let k = if bm25.variant == Variant::Bm25L {
            bm25.k1 + 0.5
        } else {
            bm25.k1
        };
        let limit = part(bm25, f64::INFINITY, 1.0) - part(bm25, 0.0, 1.0);
        let integer_weight = |weight: f64| ((65535.0 * weight / largest).round() as u64).max(1);
        let half = |shift: u32| if shift == 0 { 0 } else { 1_u64 << (shift - 1) };
        let top = |shift| {
            weights
                .iter()
                .map(|&(_, x)| (integer_weight(x) * 65535 + half(shift)) >> shift)
                .sum::<u64>()
        };
        let shift = (0..).find(|&shift| top(shift) < 1 << 32).unwrap();

        let mut scores = Scores {
            exact: Vec::new(),
            absent: weights.iter().map(|&(_, weight)| weight * part(bm25, 0.0, 1.0)).sum(),
            integer: Vec::new(),
            bound: Vec::new(),
            unit: largest * limit * 2_f64.powi(shift as i32) / (65535.0 * 65535.0),
        };
        for (bag, &length) in self.documents.iter().zip(&self.lengths) {
            let (mut exact, mut integer, mut bound) = (0.0, 0, 0.0);
            let length = f64::from(match bm25.length {
                DocumentLength::Exact => length,
                DocumentLength::Lucene => lucene_byte_to_length(length_to_lucene_byte(length)),
            });
            let norm = 1.0 - bm25.b + bm25.b * length / average;
            for &(term, weight) in &weights {
                let Some(&tf) = bag.get(term) else {
                    exact += weight * part(bm25, 0.0, norm);
                    continue;
                };
                exact += weight * part(bm25, f64::from(tf), norm);
                let fraction = f64::from(tf) / (f64::from(tf) + k * norm);
                let code = ((65535.0 * fraction).round() as u64).max(1);
                integer += (integer_weight(weight) * code + half(shift)) >> shift;
                let floored = 65535.0 * fraction < 0.5 || 65535.0 * weight / largest < 0.5;
                let rounding = (65536.0 + integer_weight(weight) as f64) / 2_f64.powi(shift as i32 + 1) + 0.5;
                bound += if floored { 2.0 * rounding } else { rounding };
            }
            scores.exact.push(exact);
            scores.integer.push(integer);
            scores.bound.push(bound);
        }
        scores
    }
}

impl Scores {
    /// Documents by integer score, descending, then by number; those with a score of 0 left out.
    pub fn ranking(&self) -> Vec<(u32, u32)> {
        let mut ranking: Vec<(u32, u32)> = (0..).zip(self.integer.iter().map(|&score| score as u32)).collect();
        ranking.retain(|&(_, score)| score > 0);
        ranking.sort_by_key(|&(document, score)| (std::cmp::Reverse(score), document));
        ranking
    }
}

fn idf(variant: Variant, n: f64, df: f64) -> f64 {
    // The pure-Rust logarithm: whether half a weight is rounded up can hang on its last bit.
    libm::log(match variant {
        Variant::Lucene => 1.0 + (n - df + 0.5) / (df + 0.5),
        Variant::Robertson => ((n - df + 0.5) / (df + 0.5)).max(1.0),
        Variant::Atire => n / df,
        Variant::Bm25L => (n + 1.0) / (df + 0.5),
        Variant::Bm25Plus => (n + 1.0) / df,
    })
}

/// The factor of the idf for a term frequency (0: absent; infinite: the limit).
fn part(bm25: &Bm25, tf: f64, norm: f64) -> f64 {
    let k1 = bm25.k1;
    let saturation = |x: f64, k: f64| match x {
        0.0 => 0.0,
        f64::INFINITY => 1.0,
        _ => x / (x + k),
    };
    match bm25.variant {
        Variant::Lucene | Variant::Robertson => saturation(tf, k1 * norm),
        Variant::Atire => (k1 + 1.0) * saturation(tf, k1 * norm),
        Variant::Bm25L => (k1 + 1.0) * saturation(tf / norm + 0.5, k1),
        Variant::Bm25Plus => 0.5 + (k1 + 1.0) * saturation(tf, k1 * norm),
    }
}

/// `SmallFloat.intToByte4` of Lucene.
pub fn length_to_lucene_byte(length: u32) -> u8 {
    let long_to_int4 = |i: u32| -> u32 {
        let bits = u32::BITS - i.leading_zeros();
        if bits < 4 {
            return i;
        }
        let shift = bits - 4;
        i >> shift & 7 | (shift + 1) << 3
    };
    let free = 255 - long_to_int4(i32::MAX as u32);
    (if length < free {
        length
    } else {
        free + long_to_int4(length - free)
    }) as u8
}

/// `SmallFloat.byte4ToInt` of Lucene.
pub fn lucene_byte_to_length(byte: u8) -> u32 {
    let free = 24;
    if u32::from(byte) < free {
        return u32::from(byte);
    }
    let code = u32::from(byte) - free;
    let (bits, shift) = (code & 7, code >> 3);
    free + if shift == 0 { bits } else { (bits | 8) << (shift - 1) }
}
