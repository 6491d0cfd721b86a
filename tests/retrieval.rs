//! The retrieval layer against definitions of its own: exact BM25, known answers, and Lucene's runs.

#[path = "retrieval/golden.rs"]
mod golden;
#[path = "retrieval/lucene.rs"]
mod lucene;
#[path = "retrieval/rake.rs"]
mod rake;
#[path = "retrieval/random.rs"]
mod random;
#[path = "retrieval/reference.rs"]
mod reference;
#[path = "retrieval/selection.rs"]
mod selection;

use random::Random;
use reference::Corpus;
use tlm::retrieval::*;

const NO_PROGRESS: Progress = &|_, _| ();

/// `count` texts of up to `max_words` words.
fn texts(random: &mut Random, count: usize, max_words: u64, vocabulary: u64) -> Vec<String> {
    (0..count)
        .map(|_| {
            let words = random.below(max_words + 1);
            random.text(words, vocabulary)
        })
        .collect()
}

fn split(texts: &[String]) -> Vec<Vec<String>> {
    texts
        .iter()
        .map(|text| text.split_whitespace().map(str::to_owned).collect())
        .collect()
}

fn build(passages: &[String], tile_documents: u32) -> Index {
    let mut builder = IndexBuilder::new(Analyzer::Standard, tile_documents).unwrap();
    builder.add(passages, NO_PROGRESS).unwrap();
    builder.finish().unwrap()
}

/// Hits as (document, score).
fn pairs(hits: &[Hit]) -> Vec<(u32, u32)> {
    hits.iter().map(|hit| (hit.document, hit.score)).collect()
}

fn all_functions() -> Vec<Bm25> {
    let mut functions = Vec::new();
    for variant in Variant::ALL {
        for length in DocumentLength::ALL {
            for (k1, b) in [(0.9, 0.4), (1.2, 0.75), (2.5, 1.0), (0.5, 0.0)] {
                functions.push(Bm25 { variant, k1, b, length });
            }
        }
    }
    functions
}

#[test]
fn hits_equal_the_definition_for_every_variant_on_random_corpora() {
    let mut random = Random(1);
    for (documents, vocabulary) in [(1, 3), (30, 8), (300, 40), (700, 2000)] {
        let passages = texts(&mut random, documents, 120, vocabulary);
        let queries = texts(&mut random, 6, 60, vocabulary);
        let corpus = Corpus::new(&split(&passages));
        let mut index = build(&passages, 128);
        for bm25 in all_functions() {
            let k = 1 + random.below(20) as usize;
            // The codes that are kept are those of the function before.
            let found = search(&index, &queries, k, &bm25, NO_PROGRESS).unwrap();
            for (query, text) in split(&queries).iter().enumerate() {
                let scores = corpus.score(text, &bm25);
                let mut expected = scores.ranking();
                expected.truncate(k);
                assert_eq!(pairs(&found.hits[query]), expected, "{bm25:?}, K {k}, query {query}");
            }
            index.keep_codes(&bm25).unwrap();
            assert_eq!(search(&index, &queries, k, &bm25, NO_PROGRESS).unwrap(), found);
        }
    }
}

#[test]
fn integer_scores_stay_within_the_bound_of_exact_bm25() {
    let mut random = Random(2);
    let mut worst: f64 = 0.0;
    for (documents, words, query_words) in [(200, 40, 10), (200, 300, 150)] {
        let passages = texts(&mut random, documents, words, 500);
        let queries = texts(&mut random, 10, query_words, 500);
        let corpus = Corpus::new(&split(&passages));
        let index = build(&passages, 64);
        for bm25 in all_functions() {
            let found = search(&index, &queries, documents, &bm25, NO_PROGRESS).unwrap();
            for (query, text) in split(&queries).iter().enumerate() {
                let scores = corpus.score(text, &bm25);
                for &hit in &found.hits[query] {
                    let document = hit.document as usize;
                    let exact = scores.exact[document] - scores.absent;
                    let units = (found.bm25(query, hit) - exact).abs() / scores.unit;
                    assert!(units <= scores.bound[document] + 1e-3, "{bm25:?}: {units} units off");
                    worst = worst.max(units / scores.bound[document]);
                }
            }
        }
    }
    assert!(
        worst > 0.1,
        "the bound is far from what happens ({worst}): is the reference compared with itself?"
    );
}

#[test]
fn the_exact_top_k_is_found_up_to_near_ties() {
    let mut random = Random(3);
    let passages = texts(&mut random, 2000, 60, 3000);
    let queries = texts(&mut random, 20, 40, 3000);
    let corpus = Corpus::new(&split(&passages));
    let index = build(&passages, DEFAULT_TILE_DOCUMENTS);
    let (bm25, k) = (Bm25::default(), 50);
    let found = search(&index, &queries, k, &bm25, NO_PROGRESS).unwrap();
    let mut found_total = 0;
    for (query, text) in split(&queries).iter().enumerate() {
        let scores = corpus.score(text, &bm25);
        let mut exact = scores.exact.clone();
        exact.sort_by(|a, b| b.total_cmp(a));
        let margin = 2.0 * scores.unit * scores.bound.iter().copied().fold(0.0, f64::max);
        for (document, &score) in scores.exact.iter().enumerate() {
            let is_found = found.hits[query].iter().any(|hit| hit.document == document as u32);
            assert!(
                is_found || score <= exact[k - 1] + margin,
                "query {query}: document {document} is missing"
            );
            found_total += usize::from(is_found && score >= exact[k - 1]);
        }
    }
    assert!(
        found_total >= queries.len() * k - 1,
        "{found_total} of {}",
        queries.len() * k
    );
}

#[test]
fn frequencies_and_lengths_equal_counts_by_hand() {
    let mut random = Random(4);
    let passages = texts(&mut random, 400, 50, 300);
    let documents = split(&passages);
    let corpus = Corpus::new(&documents);
    let index = build(&passages, 100);
    let mut terms: Vec<&String> = documents.iter().flatten().collect();
    let tokens = terms.len() as u64;
    terms.sort_unstable();
    terms.dedup();
    let expected: Vec<(String, u32, u64)> = terms
        .iter()
        .map(|term| ((*term).clone(), corpus.df(term), corpus.cf(term)))
        .collect();
    let mut found = Vec::new();
    index
        .for_each_term(|term, df, cf| found.push((term.to_owned(), df, cf)))
        .unwrap();
    assert_eq!(found, expected);
    for (term, df, cf) in &expected {
        assert_eq!(index.frequencies(term), (*df, *cf), "{term}");
    }
    assert_eq!(index.frequencies("zebra"), (0, 0));
    assert_eq!(
        (index.total_length(), index.documents(), index.tile_count()),
        (tokens, 400, 4)
    );
    let lengths: Vec<u32> = documents.iter().map(|document| document.len() as u32).collect();
    assert_eq!(index.lengths().unwrap(), lengths);
}

#[test]
fn hits_are_the_same_for_every_thread_count_tile_size_segment_split_memory_cut_of_the_input_and_kept_codes() {
    let mut random = Random(5);
    let passages = texts(&mut random, 9000, 30, 900);
    let queries = texts(&mut random, 300, 25, 900);
    let in_pieces = |tile_documents, segment_documents| {
        let mut builder = IndexBuilder::new(Analyzer::Standard, tile_documents)
            .unwrap()
            .with_segment_documents(segment_documents);
        for piece in passages.chunks(701) {
            builder.add(piece, NO_PROGRESS).unwrap();
        }
        builder.finish().unwrap()
    };
    let one = build(&passages, DEFAULT_TILE_DOCUMENTS);
    let mut indexes = [
        in_pieces(1000, u32::MAX),
        in_pieces(65_536, u32::MAX),
        in_pieces(37, u32::MAX),
        in_pieces(500, 500),
        in_pieces(400, 3000),
    ];
    let shape: Vec<(usize, usize)> = indexes
        .iter()
        .map(|index| (index.segment_count(), index.tile_count()))
        .collect();
    assert_eq!(shape, [(1, 9), (1, 1), (1, 244), (18, 18), (4, 23)]);

    for (k, bm25) in [(1, Bm25::default()), (10, Bm25::default()), (4000, all_functions()[30])] {
        let [expected, few] =
            [&queries[..], &queries[..16]].map(|queries| search(&one, queries, k, &bm25, NO_PROGRESS).unwrap());
        assert_eq!(few.hits, expected.hits[..16]);
        for index in &mut indexes {
            assert!(!index.keeps_codes());
            for (threads, memory, keep) in [
                (1, DEFAULT_MEMORY, false),
                (2, 1 << 20, false),
                (3, 100_000, true),
                (2, 1 << 20, true),
            ] {
                if keep && !index.keeps_codes() {
                    index.keep_codes(&bm25).unwrap();
                }
                let settings = SearchSettings {
                    bm25,
                    memory,
                    ..SearchSettings::new(k)
                };
                // Kept codes are used for few queries.
                let (queries, expected) = match keep {
                    true => (&queries[..16], &few),
                    false => (&queries[..], &expected),
                };
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let found = pool.install(|| Search::new(index, queries, &settings).unwrap().collect(NO_PROGRESS));
                let found = found.unwrap();
                assert_eq!(
                    found,
                    *expected,
                    "K {k}, {threads} threads, {} segments, {} tiles, codes kept: {}",
                    index.segment_count(),
                    index.tile_count(),
                    index.keeps_codes()
                );
            }
            index.drop_codes();
        }
    }
}

#[test]
fn equal_scores_come_in_corpus_order_across_tiles() {
    let passages: Vec<String> = (0..500)
        .map(|i| if i % 7 == 3 { "b a" } else { "a b" }.to_owned())
        .collect();
    let queries = ["a".to_owned(), "c a".to_owned()];
    for tile_documents in [3, 64, DEFAULT_TILE_DOCUMENTS] {
        let index = build(&passages, tile_documents);
        for k in [1, 40, 500, 501] {
            let found = search(&index, &queries, k, &Bm25::default(), NO_PROGRESS).unwrap();
            for hits in &found.hits {
                let documents: Vec<u32> = hits.iter().map(|hit| hit.document).collect();
                assert_eq!(documents, (0..k.min(500) as u32).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn k_above_n_gives_every_document_that_shares_a_term_and_no_other() {
    let passages = ["cat dog", "", "dog", "bird ... !", "cat"].map(str::to_owned);
    let index = build(&passages, 2);
    let queries = ["cat", "", "unicorn", "-- !", "unicorn dog dog cat"].map(str::to_owned);
    let found = search(&index, &queries, usize::MAX, &Bm25::default(), NO_PROGRESS).unwrap();
    let documents: Vec<Vec<u32>> = found
        .hits
        .iter()
        .map(|hits| hits.iter().map(|hit| hit.document).collect())
        .collect();
    assert_eq!(documents, [vec![4, 0], vec![], vec![], vec![], vec![0, 2, 4]]);
    assert_eq!(found.without_terms, [1, 2, 3]);
    assert_eq!(index.lengths().unwrap(), [2, 0, 1, 1, 1]);
}

#[test]
fn an_empty_corpus_and_an_empty_query_list_give_nothing() {
    let mut empty = build(&[], 16);
    assert_eq!(
        (empty.documents(), empty.segment_count(), empty.average_length()),
        (0, 0, 0.0)
    );
    let found = search(&empty, &["word"], 5, &Bm25::default(), NO_PROGRESS).unwrap();
    assert_eq!((&found.hits, &found.without_terms), (&vec![vec![]], &vec![0]));
    empty.keep_codes(&Bm25::default()).unwrap();
    assert_eq!(
        search(&empty, &["word"], 5, &Bm25::default(), NO_PROGRESS).unwrap(),
        found
    );
    let blank = build(&["".to_owned(), " ".to_owned()], 16);
    assert_eq!(
        search(&blank, &["word"], 5, &Bm25::default(), NO_PROGRESS)
            .unwrap()
            .hits,
        [vec![]]
    );
    let no_queries: [String; 0] = [];
    assert_eq!(
        search(&blank, &no_queries, 5, &Bm25::default(), NO_PROGRESS).unwrap(),
        SearchResults::default()
    );
}

#[test]
fn term_frequencies_above_a_byte_and_document_lengths_above_the_code_table_are_exact() {
    let passages: Vec<String> = [1, 9, 254, 255, 256, 300, 70_000, 2]
        .iter()
        .map(|&tf| "echo ".repeat(tf) + &"filler ".repeat(1500))
        .chain(["filler".to_owned()])
        .collect();
    let queries = ["echo".to_owned(), "filler echo filler".to_owned()];
    let corpus = Corpus::new(&split(&passages));
    let mut index = build(&passages, 4);
    let cf = 1 + 9 + 254 + 255 + 256 + 300 + 70_000 + 2;
    assert_eq!(index.frequencies("echo"), (8, cf));
    for bm25 in all_functions() {
        let found = search(&index, &queries, 20, &bm25, NO_PROGRESS).unwrap();
        for (hits, text) in found.hits.iter().zip(split(&queries)) {
            assert_eq!(pairs(hits), corpus.score(&text, &bm25).ranking(), "{bm25:?}");
        }
        index.keep_codes(&bm25).unwrap();
        assert_eq!(search(&index, &queries, 20, &bm25, NO_PROGRESS).unwrap(), found);
    }
}

#[test]
fn a_thousand_terms_of_equal_weight_do_not_overflow() {
    let words: Vec<String> = (0..1000).map(|i| format!("w{i}")).collect();
    // k1 = 0 gives every posting the largest code, so the first document reaches the largest sum there is.
    let passages = [words.join(" "), words[..500].join(" "), "other".to_owned()];
    let bm25 = Bm25 {
        k1: 0.0,
        ..Bm25::default()
    };
    let found = search(&build(&passages, 2), &[words.join(" ")], 3, &bm25, NO_PROGRESS).unwrap();
    let scores = Corpus::new(&split(&passages)).score(&words, &bm25);
    assert_eq!(pairs(&found.hits[0]), scores.ranking());
    let best = found.hits[0][0];
    assert!(best.score > u32::MAX / 2 && best.document == 0, "{best:?}");
    assert!((found.bm25(0, best) / scores.exact[0] - 1.0).abs() < 1e-4);
}

#[test]
fn the_largest_query_does_not_overflow_and_a_larger_one_is_refused() {
    let mut words: Vec<String> = (0..131_073).map(|i| format!("w{i}")).collect();
    let index = build(&[words.join(" "), "other".to_owned()], 2);
    let bm25 = Bm25 {
        k1: 0.0,
        ..Bm25::default()
    };
    let too_long = words.join(" ");
    words.pop();
    let found = search(&index, &[words.join(" ")], 1, &bm25, NO_PROGRESS).unwrap();
    // Two documents, df 1: every idf is ln 2, every saturation 1.
    let exact = 131_072.0 * 2_f64.ln();
    assert!((found.bm25(0, found.hits[0][0]) / exact - 1.0).abs() < 1e-4);
    let error = search(&index, &["w1", &too_long], 1, &bm25, NO_PROGRESS)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "query 1 has 131073 distinct terms; the limit is 131072: cut the text"
    );
}

#[test]
fn wrong_settings_are_refused_with_the_value_and_the_range() {
    let index = build(&["a".to_owned()], 1);
    let message = |bm25: Bm25, k| search(&index, &["a"], k, &bm25, NO_PROGRESS).unwrap_err().to_string();
    let bm25 = Bm25::default();
    assert_eq!(message(bm25, 0), "k is 0; it must be 1 or more");
    assert_eq!(
        message(Bm25 { k1: -0.5, ..bm25 }, 1),
        "k1 is -0.5; it must be a finite number, 0 or more"
    );
    assert_eq!(
        message(Bm25 { b: f64::NAN, ..bm25 }, 1),
        "b is NaN; it must be from 0 to 1"
    );
    let variant = Variant::Bm25L;
    assert_eq!(
        message(
            Bm25 {
                variant,
                k1: 0.0,
                ..bm25
            },
            1
        ),
        "k1 is 0; it must be above 0 for bm25l"
    );
    assert!(IndexBuilder::new(Analyzer::English, 0).is_err() && IndexBuilder::new(Analyzer::English, 65_537).is_err());
    assert_eq!(
        "porter".parse::<Analyzer>().unwrap_err().to_string(),
        "analyzer: unknown name \"porter\"; choose one of standard, english"
    );
    assert!(
        Variant::ALL
            .iter()
            .all(|variant| variant.name().parse().ok() == Some(*variant))
    );
    assert!(
        DocumentLength::ALL
            .iter()
            .all(|length| length.name().parse().ok() == Some(*length))
    );
}
