//! Scores against those of another implementation, bm25s 0.3 (`tests/golden/scores.json`, made by `scores.py` beside it).

use super::NO_PROGRESS;
use tlm::retrieval::*;

#[test]
fn scores_of_every_variant_are_those_of_bm25s() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/scores.json")).unwrap();
    let strings = |value: &serde_json::Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let documents = strings(&golden["documents"]);
    let index = Index::build(&documents, Analyzer::Standard, NO_PROGRESS).unwrap();
    let cases = golden["golden"].as_array().unwrap();
    assert_eq!(cases.len(), 50);
    for case in cases {
        let bm25 = Bm25 {
            variant: case["variant"].as_str().unwrap().parse().unwrap(),
            k1: case["k1"].as_f64().unwrap(),
            b: case["b"].as_f64().unwrap(),
            length: DocumentLength::Exact,
        };
        let query = case["query"].as_str().unwrap();
        let expected: Vec<f64> = serde_json::from_value(case["scores"].clone()).unwrap();
        // "xylophone zither" has no term of any query: what bm25s gives it is the constant of absent terms.
        let absent = expected[6];
        let found = search(&index, &[query], 100, &bm25, NO_PROGRESS).unwrap();
        let mut scores = vec![absent; documents.len()];
        for &hit in &found.hits[0] {
            scores[hit.document as usize] += found.bm25(0, hit);
        }
        for (document, (score, expected)) in scores.iter().zip(&expected).enumerate() {
            let distance = (score - expected).abs();
            assert!(
                distance < 2e-4 * (1.0 + expected.abs()),
                "{bm25:?}, {query:?}, {document}: {score} for {expected}"
            );
        }
    }
}
