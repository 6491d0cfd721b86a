//! Key phrases against those of rake-nltk 1.0.6 (`tests/golden/rake.json`, made by `rake.py` beside it).

use tlm::retrieval::rake_phrases;

#[test]
fn key_phrases_and_scores_are_those_of_rake_nltk() {
    let golden = include_str!("../golden/rake.json");
    let golden: Vec<serde_json::Value> = serde_json::from_str(golden).unwrap();
    assert!(golden.len() > 10);
    for case in &golden {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<(f64, &str)> = case["phrases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_f64().unwrap(), pair[1].as_str().unwrap()))
            .collect();
        let phrases = rake_phrases(text);
        let found: Vec<(f64, &str)> = phrases
            .iter()
            .map(|phrase| (phrase.score, phrase.text.as_str()))
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }
}
