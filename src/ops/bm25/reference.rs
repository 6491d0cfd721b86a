//! The definition, document by document, and the cases.

use super::{COLUMN, NONE, SUB_TILE, Shard, bm25};
use crate::kernel::{Extent, StepParams};
use crate::ops::case::{Case, Expected, Given, Real, Reference, Tensor};
use crate::rng::philox4x32_10;

/// A term of a query: its weight, and its code for each document (0: not in it).
#[derive(Clone)]
struct Term {
    weight: u32,
    codes: Vec<u32>,
    column: bool,
}

/// A query as its definition has it.
#[derive(Clone)]
struct Query {
    terms: Vec<Term>,
    shift: u32,
    threshold: u32,
}

/// Queries over documents.
#[derive(Clone)]
struct Search {
    documents: usize,
    k: usize,
    queries: Vec<Query>,
}

impl Query {
    /// In u64, so that a sum that does not fit would show.
    fn score(&self, document: usize) -> u64 {
        let half = (1u64 << self.shift) >> 1;
        let part = |term: &Term| match term.codes[document] {
            0 => 0,
            code => (u64::from(term.weight) * u64::from(code) + half) >> self.shift,
        };
        self.terms.iter().map(part).sum()
    }
}

fn reference<R: Real>(search: &Search) -> Reference<R> {
    let search = search.clone();
    Box::new(move |_: &Given<R>, _: &[Vec<R>]| {
        let mut found = Vec::new();
        for query in &search.queries {
            let all = (0..search.documents).map(|document| (query.score(document), document as u64));
            let mut hits: Vec<(u64, u64)> = all.filter(|(score, _)| *score > u64::from(query.threshold)).collect();
            hits.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            hits.truncate(search.k);
            hits.sort_by_key(|hit| hit.1);
            hits.resize(search.k, (0, u64::from(NONE)));
            found.extend(hits.into_iter().flat_map(|(score, document)| [document, score]));
        }
        Expected {
            outputs: vec![found.into_iter().map(|word| R::from_f64(word as f64)).collect()],
            gradients: Vec::new(),
        }
    })
}

/// A random search. Term number i of a query is in about one of 2^(1 + i mod 12) documents, those of one in two and one in four
/// as columns. Document 0 has every term with the largest code, so that its sum is the largest that fits. `equal`: all codes
/// are the same, so that ties decide.
fn search(documents: usize, terms: &[usize], k: usize, equal: bool) -> Search {
    let draw = |a: usize, b: usize, c: usize| philox4x32_10([a as u32, b as u32, c as u32, documents as u32], [25, 7]);
    let term = |query: usize, number: usize| {
        let rarity = 1 + number % 12;
        let code = |document: usize| {
            let [has, code, ..] = draw(query, number, document);
            match has >> (32 - rarity) {
                _ if document == 0 => 65_535,
                0 if equal => 700,
                0 => 1 + code % 65_535,
                _ => 0,
            }
        };
        Term {
            weight: if equal {
                9
            } else {
                1 + draw(query, number, documents)[0] % 65_535
            },
            codes: (0..documents).map(code).collect(),
            column: rarity <= 2,
        }
    };
    let query = |(query, &count): (usize, &usize)| {
        let terms: Vec<Term> = (0..count).map(|number| term(query, number)).collect();
        // The smallest shift with which no document's score passes 2^32, whatever its codes.
        let most = |shift: u32| -> u64 {
            let half = (1u64 << shift) >> 1;
            terms
                .iter()
                .map(|term| (u64::from(term.weight) * 65_535 + half) >> shift)
                .sum()
        };
        let shift = (0..32)
            .find(|&shift| most(shift) < 1 << 32)
            .expect("weights have 16 bits");
        let mut query = Query {
            terms,
            shift,
            threshold: 0,
        };
        if count % 2 == 0 {
            query.threshold = (query.score(1) / 2) as u32;
        }
        query
    };
    Search {
        documents,
        k,
        queries: terms.iter().enumerate().map(query).collect(),
    }
}

/// The tensors of a search, in the order of [`Shard`].
fn tensors(search: &Search) -> Vec<Tensor> {
    let (mut postings, mut columns, mut spans) = (vec![0], vec![0], Vec::new());
    let (mut weights, mut queries) = (Vec::new(), Vec::new());
    for query in &search.queries {
        let (first, count) = (weights.len() as u32, query.terms.len() as u32);
        queries.extend([first, count, query.shift, query.threshold]);
        for term in &query.terms {
            weights.push(term.weight);
            for (sub_tile, codes) in term.codes.chunks(SUB_TILE).enumerate() {
                if term.column {
                    spans.extend([columns.len() as u32, COLUMN]);
                    columns.extend(codes.chunks(2).map(|pair| pair[0] | pair[1] << 16));
                    continue;
                }
                let start = postings.len() as u32;
                let document = |index: usize| (sub_tile * SUB_TILE + index) as u32 & 0xffff;
                let present = codes.iter().enumerate().filter(|(_, code)| **code > 0);
                postings.extend(present.map(|(index, code)| code << 16 | document(index)));
                spans.extend([start, postings.len() as u32 - start]);
            }
        }
    }
    // Queries without terms leave these without rows, which no device binds.
    weights.push(0);
    spans.extend([0, 0]);
    let tensor =
        |name, width: u32, data: &[u32]| Tensor::index(name, Extent::fixed(data.len() as u32 / width), width, data);
    vec![
        tensor("postings", 1, &postings),
        tensor("columns", 1, &columns),
        tensor("spans", 2, &spans),
        tensor("weights", 1, &weights),
        tensor("queries", 4, &queries),
    ]
}

/// No term, one, columns and lists alone and together, sums near 2^32, more asked for than there is, ties, one and several
/// sub-tiles.
pub fn cases() -> Vec<Case> {
    let case = |(documents, terms, k, equal): (usize, &[usize], usize, bool)| {
        let search = search(documents, terms, k, equal);
        Case {
            name: format!("bm25, {documents} documents, terms {terms:?}, k {k}, equal {equal}"),
            tensors: tensors(&search),
            step: StepParams::default(),
            record: Box::new(move |r, v| {
                let shard = Shard {
                    postings: v[0],
                    columns: v[1],
                    spans: v[2],
                    weights: v[3],
                    queries: v[4],
                };
                Ok(vec![bm25(r, &shard, documents as u32, k as u32)?])
            }),
            upstream: vec![false],
            truth: reference(&search),
            naive: reference(&search),
            naive_f16: reference(&search),
            naive_bf16: reference(&search),
        }
    };
    [
        (SUB_TILE, &[0, 1, 2, 40][..], 1, false),
        (SUB_TILE, &[13, 3], 5000, false),
        (3 * SUB_TILE, &[12, 0, 70], 10, false),
        (2 * SUB_TILE, &[4, 5, 12], 333, true),
    ]
    .map(case)
    .into()
}
