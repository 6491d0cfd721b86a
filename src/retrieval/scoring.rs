//! The inner loop: scores of some queries in one sub-tile.
//!
//! Scores are `[u32; SUB_TILE]` for each query, 16 KB: one fits the L1 cache, all of them a part of the L2 cache.
//!
//! ```text
//! for each query    lists     scores[d] += (w c + h) >> s                        in vectors; the addition itself with Intel's AVX-512
//! for each strip of 256 documents, each query:
//!                   parts     of 128 documents, where the largest score and the largest codes of all columns together
//!                             pass the threshold
//!                   needs     what the columns must add to pass the threshold   16 bits, rounded down
//!                   bounds    what they can add: sums of w c >> 16, + 1 each    16 bits, 16 or 32 documents in a register
//!                   columns   scores += (w c[d] + h) >> s                       8 documents, where a bound reaches its need
//! ```
//!
//! Where queries have many columns, a strip of all columns is read from memory once for all queries; where they have few,
//! as those of a sentence, each query is taken through the sub-tile alone and its scores stay in the L1 cache. Frequent
//! terms have the columns, and small weights: few documents are left to be scored exactly, and those that are not could
//! not come in, so the bounds change no result.
//!
//! An absent document has code 0 in a column and adds h >> s = 0.

use std::ops::Range;

use super::best::{Best, key};
use super::bm25::WeightedQuery;
use super::codec::SUB_TILE;
use super::image::{Place, STRIP, STRIPS, SubTileImage};
#[cfg(target_arch = "x86_64")]
use super::loops::Avx512;
use super::loops::{LANES, Loops, PART, Plain};

/// Queries that are handed in together, at most: their scores are 128 KB.
pub(super) const MAX_QUERIES: usize = 8;

/// Documents that are scored exactly together.
const GROUP: usize = 8;

/// Columns of a query, on average, from which on strips are read for all queries together.
const MANY_COLUMNS: usize = 8;

/// The memory of one thread.
pub(super) struct Accumulators {
    /// Of the queries that are scored together.
    scores: Vec<[u32; SUB_TILE]>,
    queries: Vec<Accumulator>,
}

/// The memory of a query beside its scores.
struct Accumulator {
    /// (postings, weight) of the query's lists.
    lists: Vec<(Range<usize>, u32)>,
    columns: Vec<Column>,
    /// What the columns add to a score in this sub-tile at most.
    most: u32,
    bound: Bound,
    /// Keys that come in and are not yet handed on.
    found: [u64; 2 * STRIP],
    found_len: usize,
    /// Documents among which they were found.
    scored: usize,
}

/// A column of a query.
struct Column {
    /// Its number in the image.
    number: usize,
    weight: u32,
    /// The weight for the bound, [`LANES`] times: read as a vector, it makes the compiler multiply 16 bits by 16.
    reduced: [u16; LANES],
}

/// How the bounds of a query's columns are reckoned.
///
/// With reduced weights v = ceil(w / 2^m), a column adds at most w c / 2^s + 1/2 < (v c >> 16) 2^e + 2^e + 1/2 to a score, e
/// = 16 + m - s. So a score can pass the threshold only if the sum of v c >> 16 over the C columns reaches
/// (threshold + 1 - score - C/2) >> e, less C. m is the smallest for which sums have 16 bits and e is not negative.
#[derive(Default)]
struct Bound {
    /// e
    shift: u32,
    /// C; the sums of v c >> 16 and C stay below 2^16.
    columns: u16,
}

/// So many columns have a bound; a query of more is scored exactly everywhere.
const MAX_COLUMNS: usize = 1 << 14;

impl Bound {
    /// Reduces the weights of `columns` of products that are shifted down by `shift`.
    #[inline(always)]
    fn new(columns: &mut [Column], shift: u32) -> Bound {
        if columns.len() > MAX_COLUMNS {
            return Bound {
                shift: 0,
                columns: u16::MAX,
            };
        }
        let mut m = shift.saturating_sub(16);
        loop {
            let mut sum = columns.len() as u32;
            for column in &mut *columns {
                let reduced = column.weight.div_ceil(1 << m);
                column.reduced = [reduced as u16; LANES];
                sum += reduced;
            }
            if sum < 1 << 16 {
                return Bound {
                    shift: 16 + m - shift,
                    columns: columns.len() as u16,
                };
            }
            m += 1;
        }
    }
}

impl Accumulators {
    /// Ready for up to [`MAX_QUERIES`] queries at a time.
    pub(super) fn new() -> Self {
        let accumulator = || Accumulator {
            lists: Vec::new(),
            columns: Vec::new(),
            most: 0,
            bound: Bound::default(),
            found: [0; 2 * STRIP],
            found_len: 0,
            scored: 0,
        };
        Accumulators {
            scores: vec![[0; SUB_TILE]; MAX_QUERIES],
            queries: std::iter::repeat_with(accumulator).take(MAX_QUERIES).collect(),
        }
    }
}

/// Scores the documents of a sub-tile against up to [`MAX_QUERIES`] queries and takes in those that belong to the best
/// of each so far.
///
/// The queries' terms are numbered as in the image. The code for the processor at hand is chosen here; all versions are the
/// same function, compiled for other vectors and with other loops over postings.
pub(super) fn score_sub_tile(
    image: &SubTileImage,
    queries: &[WeightedQuery],
    accumulators: &mut Accumulators,
    best: &[Best],
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
        // SAFETY: the processor has these two features, as was just detected, and the others if there is an `Avx512`.
        return match Avx512::detect_fast() {
            Some(loops) => unsafe { score_with_avx512(loops, image, queries, accumulators, best) },
            None => unsafe { score_with_avx2(image, queries, accumulators, best) },
        };
    }
    score(Plain, image, queries, accumulators, best);
}

/// [`score`], compiled for processors with AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn score_with_avx2(image: &SubTileImage, queries: &[WeightedQuery], accumulators: &mut Accumulators, best: &[Best]) {
    score(Plain, image, queries, accumulators, best);
}

/// [`score`], compiled for processors with AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn score_with_avx512(
    loops: Avx512,
    image: &SubTileImage,
    queries: &[WeightedQuery],
    accumulators: &mut Accumulators,
    best: &[Best],
) {
    score(loops, image, queries, accumulators, best);
}

#[inline(always)]
fn score(
    loops: impl Loops,
    image: &SubTileImage,
    queries: &[WeightedQuery],
    accumulators: &mut Accumulators,
    best: &[Best],
) {
    let Accumulators {
        scores,
        queries: accumulators,
    } = accumulators;
    let accumulators = &mut accumulators[..queries.len()];
    for (query, accumulator) in queries.iter().zip(&mut *accumulators) {
        find_places(image, query, accumulator);
    }
    let columns: usize = accumulators.iter().map(|accumulator| accumulator.columns.len()).sum();
    let together = match columns >= MANY_COLUMNS * queries.len() {
        true => queries.len().max(1),
        false => 1,
    };
    for first in (0..queries.len()).step_by(together) {
        let places = first..first + together;
        for (at, scores) in places.clone().zip(&mut *scores) {
            scores.fill(0);
            for (list, weight) in &accumulators[at].lists {
                loops.add(image.postings(list.clone()), queries[at].product(*weight), scores);
            }
        }
        for strip in 0..STRIPS {
            for (at, scores) in places.clone().zip(&*scores) {
                let (accumulator, best) = (&mut accumulators[at], &best[at]);
                let scores = &scores.as_chunks::<STRIP>().0[strip];
                add_columns(loops, image, strip, &queries[at], scores, accumulator, best.threshold());
                accumulator.scored += STRIP;
                // Room for another strip, or the end: a few keys for each lock.
                if accumulator.found_len > STRIP || strip == STRIPS - 1 {
                    let found = &accumulator.found[..std::mem::take(&mut accumulator.found_len)];
                    best.take(found, std::mem::take(&mut accumulator.scored));
                }
            }
        }
    }
}

/// Where the query's terms lie.
#[inline(always)]
fn find_places(image: &SubTileImage, query: &WeightedQuery, accumulator: &mut Accumulator) {
    let Accumulator {
        lists,
        columns,
        most,
        bound,
        ..
    } = accumulator;
    columns.clear();
    lists.clear();
    *most = 0;
    for &(term, weight) in &query.terms {
        match image.place(term) {
            Place::Column(number) => {
                *most += query.product(weight).of(image.largest_code(number).into());
                columns.push(Column {
                    number,
                    weight,
                    reduced: [0; LANES],
                });
            }
            Place::List(list) => {
                if !list.is_empty() {
                    lists.push((list, weight));
                }
            }
        }
    }
    *bound = Bound::new(columns, query.shift);
}

/// Finds the documents of a strip of the sub-tile whose scores pass the threshold.
#[inline(always)]
fn add_columns(
    loops: impl Loops,
    image: &SubTileImage,
    strip: usize,
    query: &WeightedQuery,
    scores: &[u32; STRIP],
    accumulator: &mut Accumulator,
    threshold: u32,
) {
    let Accumulator {
        columns,
        most,
        bound,
        found,
        found_len,
        ..
    } = accumulator;
    let least = threshold.saturating_add(1);
    let by_lists = least.saturating_sub(*most);
    let mut len = *found_len;
    for (part, scores) in scores.as_chunks::<PART>().0.iter().enumerate() {
        if scores.iter().copied().fold(0, u32::max) < by_lists {
            continue;
        }
        // More than a score in half units is no more than its next integer.
        let goal = least.saturating_sub(columns.len().div_ceil(2) as u32);
        let mut needs = [0_u16; PART];
        for (need, &score) in needs.iter_mut().zip(scores) {
            let units = goal.saturating_sub(score) >> bound.shift;
            *need = (units.min(u32::from(u16::MAX)) as u16).saturating_sub(bound.columns);
        }
        let each = columns.iter().map(|column| {
            let codes = &image.codes(strip, column.number).as_chunks::<PART>().0[part];
            (codes, &column.reduced)
        });
        let bounds = loops.bounds(each);
        let (needs, bounds) = (needs.as_chunks::<GROUP>().0, bounds.as_chunks::<GROUP>().0);
        for (group, (needs, bounds)) in needs.iter().zip(bounds).enumerate() {
            if !reaches(bounds, needs) {
                continue;
            }
            let mut sums = scores.as_chunks::<GROUP>().0[group];
            let group = part * (PART / GROUP) + group;
            for column in &*columns {
                let product = query.product(column.weight);
                let codes = &image.codes(strip, column.number).as_chunks::<GROUP>().0[group];
                for (sum, &code) in sums.iter_mut().zip(codes) {
                    *sum += product.of(code.into());
                }
            }
            // Every key is written, and only those that pass advance the end: no branch to mispredict.
            let first = image.first_document() + (strip * STRIP + group * GROUP) as u32;
            for (document, &sum) in (first..).zip(&sums) {
                found[len] = key(document, sum);
                len += usize::from(sum > threshold);
            }
        }
    }
    *found_len = len;
}

/// Whether a bound reaches its need.
#[inline(always)]
fn reaches(bounds: &[u16; GROUP], needs: &[u16; GROUP]) -> bool {
    let mut any = false;
    for (bound, need) in bounds.iter().zip(needs) {
        any |= bound >= need;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::bm25::{Bm25, CodeTable};
    use crate::retrieval::coder::MANY;
    use crate::retrieval::kept::KeptCodes;
    use crate::retrieval::lists::TileLists;
    use crate::retrieval::query::Prepared;
    use crate::retrieval::{Analyzer, Hit, IndexBuilder, Query};
    use crate::rng::{Stream, purpose};

    #[test]
    fn columns_their_bounds_and_kept_codes_find_the_hits_of_lists_in_every_compiled_version() {
        // Words of 3 to 81 % of the documents, now and then with a long frequency, in five sub-tiles.
        const DOCUMENTS: usize = 20_000;
        let mut stream = Stream::new(1, purpose::SYNTHETIC, 0);
        let mut passage = |number: usize| {
            let mut text = format!("q{} ", number % 1001);
            for word in 0..40 {
                if stream.below(100) < 3 + 2 * word {
                    let often = if stream.below(500) == 0 {
                        17
                    } else {
                        1 + stream.below(3)
                    };
                    text += &format!("w{word} ").repeat(often as usize);
                }
            }
            text
        };
        let passages: Vec<String> = (0..DOCUMENTS).map(&mut passage).collect();
        let mut builder = IndexBuilder::new(Analyzer::Standard, DOCUMENTS as u32).unwrap();
        builder.add(&passages, &|_, _| ()).unwrap();
        let index = builder.finish().unwrap();
        let bm25 = Bm25::default();
        let codes = CodeTable::new(bm25, index.average_length());
        let words = (0..40).map(|word| format!("w{word} ").repeat(1 + word % 3));
        let words = words.collect::<String>();
        let many = ["q12 q900", "q77"].map(|word| words.clone() + word);
        let few = ["w0 w39 w39", "w20 q17", "w38 q900 w5"].map(str::to_owned);
        let texts = [&many[..], &few[..]].concat();
        let prepared = Prepared::new(&index, &texts, Query::Text, &[], &bm25).unwrap();
        let tile = index.tile(index.tiles()[0]).unwrap();
        let kept = KeptCodes::new(&index, &bm25).unwrap();
        let lists = [None, Some(kept.of_tile(index.tiles()[0]))].map(|kept| {
            let mut lists = TileLists::default();
            let terms = &prepared.of_segment[0];
            lists.fill(&tile, 0, terms, prepared.terms, &codes, kept).unwrap();
            lists
        });
        let images = |which: usize, uses| -> Vec<SubTileImage> {
            let uses = vec![uses; prepared.terms];
            let image = |number| {
                let mut image = SubTileImage::default();
                image.fill(&lists[which].sub_tile(number), &uses, u64::MAX, &codes);
                image
            };
            (0..lists[which].sub_tiles()).map(image).collect()
        };
        let by_lists = images(0, 0);
        let postings = |number| lists[0].sub_tile(number).postings();
        assert!(postings(0) >= MANY && postings(4) < MANY, "codes of both kinds");
        let others = [images(0, 9), images(1, 0), images(1, 9)];
        let columns = |images: &[SubTileImage]| images.iter().map(SubTileImage::column_count).collect::<Vec<_>>();
        for (lists, columned) in [(&by_lists, &others[0]), (&others[1], &others[2])] {
            assert!(columns(lists).iter().all(|&count| count == 0));
            assert!(columns(columned).iter().all(|count| (25..40).contains(count)));
        }

        type Version = fn(&SubTileImage, &[WeightedQuery], &mut Accumulators, &[Best]);
        let plain: Version = |image, queries, accumulators, best| score(Plain, image, queries, accumulators, best);
        let mut versions = vec![plain, score_sub_tile];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the processor has these two features.
            versions.push(|image, queries, accumulators, best| unsafe {
                score_with_avx2(image, queries, accumulators, best)
            });
            if Avx512::detect().is_some() {
                versions.push(|image, queries, accumulators, best| {
                    let loops = Avx512::detect().unwrap();
                    // SAFETY: the processor has AVX2 and BMI2 and what comes with an `Avx512`.
                    unsafe { score_with_avx512(loops, image, queries, accumulators, best) }
                });
            }
        }
        let hits = |version: Version, images: &[SubTileImage], queries: &[WeightedQuery], k| -> Vec<Vec<Hit>> {
            let mut accumulators = Accumulators::new();
            let best: Vec<Best> = queries.iter().map(|_| Best::new(k, DOCUMENTS)).collect();
            for image in images {
                version(image, queries, &mut accumulators, &best);
            }
            best.into_iter().map(|best| best.into_hits().unwrap()).collect()
        };
        for k in [1, 40, 3000, DOCUMENTS] {
            let expected = hits(plain, &by_lists, &prepared.queries, k);
            assert!(expected[0].len() >= k.min(19_000));
            for &version in &versions {
                // Together, and one by one.
                for queries in [0..many.len(), many.len()..texts.len()] {
                    for images in &others {
                        let found = hits(version, images, &prepared.queries[queries.clone()], k);
                        assert!(found == expected[queries.clone()], "k = {k}, queries {queries:?}");
                    }
                }
            }
        }
    }
}
