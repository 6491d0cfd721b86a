//! `tlm index` and `tlm search` as processes: what they print, what a killed one leaves, how much memory they take.

#![cfg(unix)]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Words of an endless sequence of numbers, small ones frequent.
struct Words(u64);

impl Words {
    fn number(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn text(&mut self, words: u64) -> String {
        let words: Vec<String> = (0..words)
            .map(|_| {
                let below = 1 + self.number(200_000);
                format!("w{}", self.number(below))
            })
            .collect();
        words.join(" ")
    }
}

fn corpus(path: &Path, seed: u64, passages: usize, words: u64) {
    let mut words_of = Words(seed);
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for i in 0..passages {
        let text = words_of.text(words);
        writeln!(out, "{{\"id\": \"p{seed}-{i}\", \"text\": \"{text}\"}}").unwrap();
    }
}

fn tlm(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlm"));
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    tlm(args).output().unwrap()
}

/// The JSON document of a command that succeeds.
fn json(args: &[&str]) -> serde_json::Value {
    let output = run(&[args, &["--json"]].concat());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {message}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The message of a command that refuses its input.
fn refused(args: &[&str]) -> String {
    let output = run(args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    message
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn parts(&self, index: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(index)).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }
}

#[test]
fn an_index_is_built_extended_described_and_searched() {
    let place = Place::new();
    let [index, run_file] = ["index", "run.trec"].map(|name| place.path(name));
    let lines =
        "{\"id\": \"a\", \"text\": \"The cat sat on the mat.\"}\n{\"text\": \" \"}\n{\"text\": \"Dogs chase cats\"}\n";
    std::fs::write(place.path("first.jsonl"), lines).unwrap();
    let compressed = zstd::encode_all("id,text\nc,\"a bird, a cat\"\n".as_bytes(), 1).unwrap();
    std::fs::write(place.path("second.csv.zst"), compressed).unwrap();
    let queries = "{\"id\": \"q1\", \"text\": \"cats\"}\n{\"id\": \"q2\", \"text\": \"the unicorn\"}\n{\"id\": 3, \"text\": \"bird dog\"}\n";
    std::fs::write(place.path("q.jsonl"), queries).unwrap();

    let built = json(&["index", "build", "--out", &index, &place.path("first.jsonl")]);
    assert_eq!(
        (&built["documents"], &built["added"], &built["empty"]),
        (&2.into(), &2.into(), &1.into())
    );
    assert_eq!(built["analyzer"], "english");
    assert!(built["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    for (documents, place_of_index) in [(3, vec![index.as_str()]), (4, vec!["--index", &index])] {
        let added = json(&[&["index", "add"], &place_of_index[..], &[&place.path("second.csv.zst")]].concat());
        assert_eq!((&added["documents"], &added["added"]), (&documents.into(), &1.into()));
    }
    for place_of_index in [vec![index.as_str()], vec!["--index", &index]] {
        let info = json(&[&["index", "info"], &place_of_index[..]].concat());
        assert_eq!((&info["documents"], &info["segments"]), (&4.into(), &3.into()));
        // cat, sat, mat; dog, chase, cat; twice bird, cat.
        assert_eq!(
            (&info["total_length"], &info["terms"], &info["postings"]),
            (&10.into(), &6.into(), &10.into())
        );
        assert_eq!(json(&[&["index", "verify"], &place_of_index[..]].concat()), info);
    }

    let [queries, top] = [place.path("q.jsonl"), "10".to_owned()];
    let search = [
        "search",
        "--index",
        &index,
        "--queries",
        &queries,
        "--top-k",
        &top,
        "--out",
        &run_file,
    ];
    let report = json(&search);
    assert_eq!(
        (&report["queries"], &report["queries_without_terms"], &report["hits"]),
        (&3.into(), &1.into(), &7.into())
    );
    let written = std::fs::read_to_string(&run_file).unwrap();
    let rows: Vec<Vec<&str>> = written.lines().map(|line| line.split(' ').collect()).collect();
    // Equal scores in the order of the corpus; `first#3` is the line of the passage without an id.
    let names: Vec<[&str; 4]> = rows.iter().map(|row| [row[0], row[1], row[2], row[3]]).collect();
    assert_eq!(
        names,
        [
            ["q1", "Q0", "c", "1"],
            ["q1", "Q0", "c", "2"],
            ["q1", "Q0", "a", "3"],
            ["q1", "Q0", "first#3", "4"],
            ["3", "Q0", "first#3", "1"],
            ["3", "Q0", "c", "2"],
            ["3", "Q0", "c", "3"],
        ]
    );
    // N 4, df 1, avgdl 2.5, dl 3: ln(1 + 3.5 / 1.5) / (1 + 1.2 (0.25 + 0.75 * 3 / 2.5))
    let expected = (1.0 + 3.5 / 1.5_f64).ln() / (1.0 + 1.2 * (0.25 + 0.75 * 3.0 / 2.5));
    let best: f64 = rows[4][4].parse().unwrap();
    assert!(
        (best - expected).abs() < 1e-4 && rows.iter().all(|row| row[5] == "tlm"),
        "{best} for {expected}"
    );

    // trec_eval ignores ranks and orders equal scores by name: there are none.
    let score = |row: &[&str]| row[4].parse::<f32>().unwrap();
    let falls = |pair: &[Vec<&str>]| pair[0][0] != pair[1][0] || score(&pair[0]) > score(&pair[1]);
    assert!(rows.windows(2).all(falls), "{written}");

    let cat = [
        &search[..],
        &["--stop-words", "lucene", "--query", "tfidf:1", "--tag", "x"],
    ]
    .concat();
    assert_eq!(json(&cat)["hits"], 5);
}

#[test]
fn what_does_not_fit_is_refused_with_place_and_remedy_and_changes_nothing() {
    let place = Place::new();
    let index = place.path("index");
    let write = |name: &str, text: &str| {
        std::fs::write(place.path(name), text).unwrap();
        place.path(name)
    };
    let good = write("good.jsonl", "{\"id\": \"x y\", \"text\": \"one two\"}\n");
    let bad = write("bad.jsonl", "{\"text\": \"three\"}\n{\"text\": 4}\n");
    let build = |input: &str| refused(&["index", "build", "--out", &index, input]);
    assert!(build(&bad).contains("bad.jsonl:2: field `text` is a number"));
    assert!(build(&write("empty.jsonl", "{\"text\": \" \"}\n")).contains("all 1 texts are empty"));
    assert!(build(&place.path("absent.jsonl")).contains("no file matches"));
    assert!(refused(&["index", "build", "--out", &index, &good, "--memory", "1M"]).contains("64M"));
    assert!(!Path::new(&index).exists());
    assert!(refused(&["index", "info", &index]).contains("tlm index build --out"));

    json(&["index", "build", "--out", &index, &good]);
    let parts = place.parts("index");
    assert!(refused(&["index", "add", &index, &bad]).contains("bad.jsonl:2"));
    assert!(refused(&["index", "add", &index]).contains("tlm index add INDEX INPUT..."));
    assert_eq!(place.parts("index"), parts);

    let queries = write("q.jsonl", "{\"id\": \"q\", \"text\": \"two\"}\n");
    let out = write("run.trec", "old\n");
    let search = |queries: &str, more: &[&str]| {
        refused(
            &[
                &[
                    "search",
                    "--index",
                    &index,
                    "--queries",
                    queries,
                    "--top-k",
                    "5",
                    "--out",
                    &out,
                ],
                more,
            ]
            .concat(),
        )
    };
    let unnamed = write("unnamed.jsonl", "{\"id\": \"\", \"text\": \"two\"}\n");
    assert!(search(&unnamed, &[]).contains("unnamed.jsonl:1: the id \"\" has nothing in it"));
    assert!(search(&queries, &["--analyzer", "standard"]).contains("was made by the analyzer english"));
    assert!(
        search(
            &write(
                "twice.jsonl",
                "{\"id\": 1, \"text\": \"a\"}\n{\"id\": 1, \"text\": \"b\"}\n"
            ),
            &[]
        )
        .contains("twice.jsonl:2: the id \"1\" stands at another query")
    );
    // As they stand in a run, these are the same.
    let alike = "{\"id\": \"a b\", \"text\": \"a\"}\n{\"id\": \"a%20b\", \"text\": \"b\"}\n";
    assert!(search(&write("alike.jsonl", alike), &[]).contains("\"a%20b\" stands at another query"));
    assert!(search(&queries, &["--stop-words", "absent.txt"]).contains("absent.txt"));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "old\n");
    let named = write("named.jsonl", "{\"id\": \"q\\t1\", \"text\": \"two\"}\n");
    json(&[
        "search",
        "--index",
        &index,
        "--queries",
        &named,
        "--top-k",
        "5",
        "--out",
        &out,
    ]);
    let found = std::fs::read_to_string(&out).unwrap();
    assert!(
        found.starts_with("q%091 Q0 x%20y 1 ") && found.lines().count() == 1,
        "{found}"
    );
    let tmp = std::fs::read_dir(place.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(tmp.into_iter().all(|name| !name.to_string_lossy().ends_with(".tmp")));
}

/// Starts a command and kills it when a file of its index appears that begins so.
fn killed_at(args: &[&str], index: &Path, part: &str) {
    let mut child = tlm(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    loop {
        let entries = std::fs::read_dir(index).into_iter().flatten().flatten();
        let here = entries.map(|entry| entry.file_name().into_string().unwrap());
        if here.into_iter().any(|name| name.starts_with(part)) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{part} does not appear");
        assert_eq!(child.try_wait().unwrap(), None, "it ended before {part} was seen");
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "it ended before it was killed: {status:?}");
}

#[test]
fn a_killed_build_or_addition_leaves_the_old_index_and_the_next_one_clears_up() {
    let place = Place::new();
    let [index, large, small] = ["index", "large.jsonl", "small.jsonl"].map(|name| place.path(name));
    corpus(large.as_ref(), 1, 60_000, 80);
    corpus(small.as_ref(), 2, 50, 20);
    let directory = PathBuf::from(&index);
    let build = [
        "index",
        "build",
        "--out",
        &index,
        &large,
        "--memory",
        "64M",
        "--analyzer",
        "standard",
    ];
    let add = ["index", "add", &index, &large, "--memory", "64M"];

    // The first build: no index, and a reader says so.
    killed_at(&build, &directory, ".passages-");
    assert!(refused(&["index", "verify", &index]).contains("no index.json"));
    json(&["index", "build", "--out", &index, &small, "--analyzer", "standard"]);
    let old = json(&["index", "info", &index]);
    let parts = place.parts("index");
    assert_eq!(parts, ["index.json", "passages-000001", "segment-000001"]);

    for (command, part) in [
        (&build[..], ".segment-"),
        (&add[..], ".passages-"),
        (&add[..], ".segment-"),
    ] {
        killed_at(command, &directory, part);
        assert!(
            place.parts("index").len() > parts.len(),
            "nothing was left: it was not in the middle"
        );
        assert_eq!(json(&["index", "verify", &index]), old);
    }
    let added = json(&["index", "add", &index, &small]);
    assert_eq!(added["documents"], 100);
    let left = place.parts("index");
    assert_eq!(left.len(), 5, "{left:?}");
    let built = json(&build);
    assert_eq!(built["documents"], 60_000);
    let stay = place.parts("index").into_iter().filter(|part| left.contains(part));
    assert_eq!(stay.collect::<Vec<_>>(), ["index.json"]);
}

#[test]
fn a_build_and_a_search_keep_to_their_memory() {
    let place = Place::new();
    let [index, corpus_file, out] = ["index", "corpus.jsonl", "s.jsonl"].map(|name| place.path(name));
    // 80 MB, five million postings, many distinct words.
    corpus(corpus_file.as_ref(), 3, 100_000, 120);
    corpus(place.path("q.jsonl").as_ref(), 4, 300, 100);
    let bound = 128 << 20;
    let [one, two] = [1, 2].map(|threads: u64| {
        let index = format!("{index}{threads}");
        let threads = threads.to_string();
        let build = [
            "index",
            "build",
            "--out",
            &index,
            &corpus_file,
            "--memory",
            "128M",
            "--threads",
            &threads,
        ];
        json(&[&build[..], &["--analyzer", "standard"]].concat())
    });
    for report in [&one, &two] {
        let peak = report["peak_rss_bytes"].as_u64().unwrap();
        assert!(peak <= bound, "{peak} bytes of {bound}");
    }
    assert!(
        one["segments"].as_u64().unwrap() > 1 && one["postings"].as_u64().unwrap() > 5_000_000,
        "{one}"
    );
    for name in place.parts("index1") {
        let [a, b] =
            ["index1", "index2"].map(|index| std::fs::read(Path::new(&place.path(index)).join(&name)).unwrap());
        assert!(a == b, "{name} differs between one and two threads");
    }

    let [queries, first] = [place.path("q.jsonl"), format!("{index}1")];
    let select = [
        "search",
        "--index",
        &first,
        "--queries",
        &queries,
        "--top-k",
        "1000",
        "--out",
        &out,
        "--device",
        "cpu", // the drivers of GPUs take memory of their own
    ];
    let small = json(&[&select[..], &["--memory", "128M"]].concat());
    let run = std::fs::read(&out).unwrap();
    let large = json(&[&select[..], &["--memory", "4G"]].concat());
    assert!(std::fs::read(&out).unwrap() == run, "memory changes hits");
    assert_eq!(small["hits"], large["hits"]);
    let peak = small["peak_rss_bytes"].as_u64().unwrap();
    assert!(peak <= bound, "{peak} bytes of {bound}");
}
