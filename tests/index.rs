//! Indexes on disk: the same hits as in memory, the same bytes for any number of threads, and damage that is found.

#[path = "retrieval/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::path::Path;

use random::Random;
use tlm::retrieval::*;

const NO_PROGRESS: Progress = &|_, _| ();

fn passages(random: &mut Random, count: usize) -> Vec<Passage> {
    (0..count)
        .map(|i| Passage {
            id: format!("doc/{i}"),
            source: if i % 3 == 0 { "wiki" } else { "news" }.to_owned(),
            text: {
                let words = 1 + random.below(9);
                random.text(words, 3000)
            },
        })
        .collect()
}

/// Writes passages in pieces of `piece`.
fn fill(mut writer: IndexWriter, passages: &[Passage], piece: usize) -> Result<(), RetrievalError> {
    let mut pieces = passages.chunks(piece);
    writer.add_stream(|| Ok::<_, RetrievalError>(pieces.next()), |piece| piece.to_vec())?;
    writer.commit()
}

fn create(directory: &Path, passages: &[Passage]) {
    let writer = IndexWriter::create(directory, Analyzer::Standard, None, LEAST_MEMORY).unwrap();
    fill(writer, passages, 1000).unwrap();
}

fn add(directory: &Path, passages: &[Passage]) {
    fill(IndexWriter::extend(directory, LEAST_MEMORY).unwrap(), passages, 1000).unwrap();
}

fn in_memory(passages: &[Passage]) -> Index {
    let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
    Index::build(&texts, Analyzer::Standard, NO_PROGRESS).unwrap()
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap();
    let entries = entries.map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    });
    entries.collect()
}

fn names(directory: &Path) -> Vec<String> {
    files(directory).into_keys().collect()
}

#[test]
fn an_index_on_disk_finds_what_one_in_memory_finds_and_gives_the_passages_back() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("index");
    let mut random = Random(1);
    let passages = passages(&mut random, 70_000);
    let queries: Vec<String> = (0..50).map(|_| random.text(20, 3000)).collect();
    create(&place, &passages[..50_000]);
    add(&place, &passages[50_000..50_001]);
    add(&place, &passages[50_001..]);
    let index = Index::open(&place).unwrap();
    assert_eq!((index.segment_count(), index.tile_count()), (3, 4));
    index.verify(NO_PROGRESS).unwrap();

    let held = in_memory(&passages);
    let summaries = [&index, &held].map(|index| {
        let summary = index.summary().unwrap();
        (summary.documents, summary.total_length, summary.terms, summary.postings)
    });
    assert_eq!(summaries[0], summaries[1]);
    for (k, variant) in [(10, Variant::Lucene), (500, Variant::Bm25Plus)] {
        let bm25 = Bm25 {
            variant,
            ..Bm25::default()
        };
        let found = [&index, &held].map(|index| search(index, &queries, k, &bm25, NO_PROGRESS).unwrap());
        assert_eq!(found[0], found[1]);
    }

    let wanted: Vec<u32> = (0..2000).map(|i| (i * 7919) % 70_000).collect();
    let found = index.passages(&wanted).unwrap();
    let named = index.passage_names(&wanted).unwrap();
    for ((&document, passage), name) in wanted.iter().zip(&found).zip(&named) {
        assert_eq!(passage, &passages[document as usize]);
        assert_eq!((&name.id, &name.source), (&passage.id, &passage.source));
    }
    assert!(
        held.passages(&[0])
            .unwrap_err()
            .to_string()
            .contains("stores no passages")
    );
}

#[test]
fn the_bytes_of_an_index_are_the_same_for_any_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    let passages = passages(&mut Random(2), 40_000);
    let made = |threads: usize| {
        let place = directory.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            create(&place, &passages[..35_000]);
            add(&place, &passages[35_000..]);
        });
        files(&place)
    };
    let one = made(1);
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        [
            ".lock",
            "index.json",
            "passages-000001",
            "passages-000002",
            "segment-000001",
            "segment-000002"
        ]
    );
    for threads in [2, 3, 8] {
        assert!(made(threads) == one, "{threads} threads");
    }
}

/// What is wrong with the index in a directory, found without reading all of it and by reading all of it.
fn refusals(place: &Path, queries: &[String]) -> [Option<String>; 2] {
    let index = Index::open(place);
    let mut index = match index {
        Err(error) => {
            let message = Some(error.to_string());
            return [message.clone(), message];
        }
        Ok(index) => index,
    };
    let read = search(&index, queries, 5, &Bm25::default(), NO_PROGRESS).map(|_| ());
    let message = |result: &Result<(), RetrievalError>| result.as_ref().err().map(RetrievalError::to_string);
    let kept = index.keep_codes(&Bm25::default());
    assert_eq!((message(&kept), index.keeps_codes()), (message(&read), read.is_ok()));
    let all: Vec<u32> = (0..index.documents()).collect();
    let read = read.and_then(|()| index.passages(&all).map(|_| ()));
    [read, index.verify(NO_PROGRESS)].map(|result| message(&result))
}

#[test]
fn every_kind_of_damage_is_refused_by_readers_and_found_by_verify_with_the_file_named() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("index");
    let mut random = Random(3);
    let passages = passages(&mut random, 3000);
    create(&place, &passages[..2000]);
    add(&place, &passages[2000..]);
    let queries = [random.text(200, 3000), random.text(200, 3000)];
    assert_eq!(refusals(&place, &queries), [None, None]);
    let good = files(&place);
    let segment = good["segment-000001"].len();
    let stored = good["passages-000002"].len();

    type Damage<'a> = &'a dyn Fn(&Path);
    let change = |name: &'static str, how: &'static dyn Fn(&mut Vec<u8>)| {
        move |place: &Path| {
            let mut bytes = std::fs::read(place.join(name)).unwrap();
            how(&mut bytes);
            std::fs::write(place.join(name), bytes).unwrap();
        }
    };
    let flip = |name: &'static str, at: usize| {
        move |place: &Path| {
            let mut bytes = std::fs::read(place.join(name)).unwrap();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(place.join(name), bytes).unwrap();
        }
    };
    let manifest = |from: &'static str, to: &'static str| {
        move |place: &Path| {
            let text = std::fs::read_to_string(place.join("index.json")).unwrap();
            assert!(text.contains(from));
            std::fs::write(place.join("index.json"), text.replacen(from, to, 1)).unwrap();
        }
    };
    let cases: [(&str, &str, Damage); 18] = [
        (
            "a segment cut by a byte",
            "segment-000001",
            &change("segment-000001", &|bytes| {
                bytes.pop();
            }),
        ),
        (
            "a segment cut to half",
            "segment-000002",
            &change("segment-000002", &|bytes| bytes.truncate(bytes.len() / 2)),
        ),
        (
            "an empty segment",
            "segment-000001",
            &change("segment-000001", &|bytes| bytes.clear()),
        ),
        (
            "a segment with more behind it",
            "segment-000002",
            &change("segment-000002", &|bytes| bytes.push(0)),
        ),
        ("a missing segment", "segment-000001", &|place| {
            std::fs::remove_file(place.join("segment-000001")).unwrap();
        }),
        ("a segment in another's place", "segment-000001", &|place| {
            std::fs::copy(place.join("segment-000002"), place.join("segment-000001")).unwrap();
        }),
        (
            "a flipped bit in a tile's lengths",
            "segment-000001",
            &flip("segment-000001", 20),
        ),
        (
            "a flipped bit in a tile's lists",
            "segment-000001",
            &flip("segment-000001", segment / 2),
        ),
        (
            "a flipped bit in the vocabulary",
            "segment-000001",
            &flip("segment-000001", segment - 2000),
        ),
        (
            "a flipped bit in the footer",
            "segment-000001",
            &flip("segment-000001", segment - 60),
        ),
        (
            "a flipped bit in the magic",
            "segment-000001",
            &flip("segment-000001", 3),
        ),
        (
            "a flipped bit in a passage",
            "passages-000002",
            &flip("passages-000002", stored / 2),
        ),
        (
            "passages cut by a byte",
            "passages-000001",
            &change("passages-000001", &|bytes| {
                bytes.pop();
            }),
        ),
        ("missing passages", "passages-000002", &|place| {
            std::fs::remove_file(place.join("passages-000002")).unwrap();
        }),
        (
            "another number in the manifest",
            "index.json",
            &manifest("\"documents\": 3000", "\"documents\": 3001"),
        ),
        (
            "a manifest cut to half",
            "index.json",
            &change("index.json", &|bytes| bytes.truncate(bytes.len() / 2)),
        ),
        (
            "a manifest of another format",
            "index.json",
            &manifest("\"format\": 3", "\"format\": 1"),
        ),
        ("no manifest", "index.json", &|place| {
            std::fs::remove_file(place.join("index.json")).unwrap()
        }),
    ];
    for (what, file, damage) in cases {
        for (name, bytes) in &good {
            std::fs::write(place.join(name), bytes).unwrap();
        }
        damage(&place);
        let refusals = refusals(&place, &queries);
        for (reader, refusal) in ["search", "verify"].iter().zip(refusals) {
            let message = refusal.unwrap_or_else(|| panic!("{what}: {reader} is content"));
            assert!(message.contains(file), "{what}: {reader}: {message}");
        }
        // What is damaged is not added to.
        assert!(
            IndexWriter::extend(&place, LEAST_MEMORY).is_err() || !what.contains("manifest"),
            "{what}"
        );
    }
}

#[test]
fn verify_finds_a_flipped_bit_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("index");
    let mut random = Random(4);
    create(&place, &passages(&mut random, 300));
    let good = files(&place);
    for (name, bytes) in good.iter().filter(|(name, _)| *name != ".lock") {
        for _ in 0..200 {
            let (at, bit) = (random.below(bytes.len() as u64) as usize, random.below(8));
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            std::fs::write(place.join(name), &bad).unwrap();
            let found = Index::open(&place).and_then(|index| index.verify(NO_PROGRESS));
            // White space in the manifest may change into other white space.
            let harmless = name == "index.json" && bad[at].is_ascii_whitespace() && bytes[at].is_ascii_whitespace();
            match found {
                Err(error) => assert!(error.to_string().contains(name.as_str()), "{name}, byte {at}: {error}"),
                Ok(()) => assert!(harmless, "{name}, byte {at}, bit {bit}: not found"),
            }
        }
        std::fs::write(place.join(name), bytes).unwrap();
    }
}

#[test]
fn a_build_or_an_addition_that_fails_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("index");
    let passages = passages(&mut Random(5), 40_000);
    let fail = |mut writer: IndexWriter| {
        let mut pieces = passages.chunks(1000).take(38);
        let result = writer.add_stream(
            || match pieces.next() {
                Some(piece) => Ok(Some(piece)),
                None => Err(RetrievalError::Mismatch("line 38001 is broken".to_owned())),
            },
            |piece| piece.to_vec(),
        );
        assert_eq!(result.unwrap_err().to_string(), "line 38001 is broken");
    };
    fail(IndexWriter::create(&place, Analyzer::English, None, LEAST_MEMORY).unwrap());
    assert!(!place.exists(), "a directory without an index stays");
    create(&place, &passages[..100]);
    let before = files(&place);
    fail(IndexWriter::extend(&place, LEAST_MEMORY).unwrap());
    assert_eq!(names(&place), before.keys().cloned().collect::<Vec<_>>());
    fail(IndexWriter::create(&place, Analyzer::English, None, LEAST_MEMORY).unwrap());
    assert!(files(&place) == before);
    // Replaced: nothing of the old one stays.
    create(&place, &passages[..50]);
    assert_eq!(Index::open(&place).unwrap().documents(), 50);
    assert_eq!(
        names(&place),
        [".lock", "index.json", "passages-000002", "segment-000002"]
    );
}

#[test]
fn an_index_has_one_writer_and_any_number_of_readers() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("index");
    let passages = passages(&mut Random(6), 300);
    create(&place, &passages[..100]);
    let writer = IndexWriter::extend(&place, LEAST_MEMORY).unwrap();
    let error = IndexWriter::extend(&place, LEAST_MEMORY).err().unwrap().to_string();
    assert!(error.contains("another process is writing"), "{error}");
    let error = IndexWriter::create(&place, Analyzer::English, None, LEAST_MEMORY)
        .err()
        .unwrap();
    assert!(matches!(error, RetrievalError::Busy { .. }), "{error}");
    let reader = Index::open(&place).unwrap();
    fill(writer, &passages[100..], 10).unwrap();
    create(&place, &passages);
    // The old files are gone from the directory and still read.
    assert_eq!(reader.documents(), 100);
    reader.verify(NO_PROGRESS).unwrap();
    assert_eq!(reader.passages(&[99]).unwrap()[0], passages[99]);
}

#[test]
fn places_and_bounds_that_do_not_fit_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    std::fs::write(place.join("thesis.tex"), "years of work").unwrap();
    let error = IndexWriter::create(place, Analyzer::English, None, LEAST_MEMORY)
        .err()
        .unwrap();
    assert!(error.to_string().contains("holds other files"), "{error}");
    assert_eq!(names(place), ["thesis.tex"]);
    let error = IndexWriter::create(&place.join("thesis.tex"), Analyzer::English, None, LEAST_MEMORY)
        .err()
        .unwrap();
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    let error = IndexWriter::create(&place.join("i"), Analyzer::English, None, 1000)
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "memory is 1000; it must be at least 64M");
    for missing in [place.join("i"), place.to_owned()] {
        let error = Index::open(&missing).unwrap_err().to_string();
        assert!(error.contains("tlm index build --out"), "{error}");
        assert!(IndexWriter::extend(&missing, LEAST_MEMORY).is_err());
    }
    assert_eq!(names(place), ["thesis.tex"]);
}
