//! Selection: the union of all hits, and the random baseline.

use super::{NO_PROGRESS, Random, build, texts};
use tlm::retrieval::*;

#[test]
fn selection_keeps_each_document_once_with_its_minimum_rank_in_first_hit_order() {
    let hit = |document, score| Hit { document, score };
    let mut union = Union::new(8);
    union.add(&[hit(5, 90), hit(2, 80), hit(7, 70)], 1.0);
    union.add(&[], 0.0);
    union.add(&[hit(2, 60), hit(5, 50), hit(7, 45), hit(1, 40)], 0.5);
    let selected: Vec<(u32, u32, u32, f64)> = union
        .into_selected()
        .iter()
        .map(|s| (s.document, s.rank, s.query, s.score))
        .collect();
    assert_eq!(
        selected,
        [(5, 0, 0, 90.0), (2, 0, 2, 30.0), (7, 2, 0, 70.0), (1, 3, 2, 20.0)]
    );
}

#[test]
fn random_selection_draws_different_documents_uniformly_and_repeats_by_seed() {
    let drawn = random(100, 100, 7).unwrap();
    assert_eq!(drawn, random(100, 100, 7).unwrap());
    assert_ne!(drawn, random(100, 100, 8).unwrap());
    let mut sorted = drawn;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    let mut counts = [0_i32; 10];
    for seed in 0..10_000 {
        for document in random(10, 3, seed).unwrap() {
            counts[document as usize] += 1;
        }
    }
    // 3,000 expected, standard deviation 46.
    assert!(counts.iter().all(|count| (count - 3000).abs() < 276), "{counts:?}");
    assert!(random(3, 4, 0).is_err());
}

#[test]
fn the_selection_for_a_smaller_k_is_the_part_with_smaller_ranks() {
    let mut random = Random(6);
    let passages = texts(&mut random, 800, 40, 500);
    let queries = texts(&mut random, 40, 20, 500);
    let index = build(&passages, DEFAULT_TILE_DOCUMENTS);
    let selected = |k: usize| {
        let results = search(&index, &queries, k, &Bm25::default(), NO_PROGRESS).unwrap();
        let mut union = Union::new(index.documents());
        for (hits, &unit) in results.hits.iter().zip(&results.units) {
            union.add(hits, unit);
        }
        let selected = union.into_selected();
        let mut pairs: Vec<(u32, u32)> = selected.iter().map(|found| (found.document, found.rank)).collect();
        pairs.sort_unstable();
        pairs
    };
    let mut cut = selected(50);
    cut.retain(|&(_, rank)| rank < 7);
    assert_eq!(cut, selected(7));
}
