//! Readers against files as users have them: every format and compression, and each fault with its file and line.

#[path = "data/faults.rs"]
mod faults;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tlm::data::{
    Contents, DataError, Fields, Format, LongTexts, Passage, Passages, Record, Records, Task, TaskFiles, Tokenizer,
    VocabularySettings, WordCounts, expand, stored_bytes,
};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn pattern(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

fn gzip(contents: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(contents: &[u8]) -> Vec<u8> {
    zstd::encode_all(contents, 3).unwrap()
}

fn examples(path: &Path) -> Result<Vec<Record>, DataError> {
    Records::open(&[path.to_owned()], Contents::Examples, &Fields::default(), |_| {}).collect()
}

fn passages(path: &Path) -> Result<Vec<Passage>, DataError> {
    Passages::open(&[path.to_owned()], &Fields::default(), |_| {}).collect()
}

#[test]
fn all_formats_and_compressions_give_the_same_examples() {
    let folder = Folder::new();
    let jsonl = "\u{feff}{\"text\": \"a \\\"quoted\\\" text, with commas\", \"label\": \"x\"}\r\n\n\
                 {\"other\": [1, {}], \"label\": 7, \"text\": \"Größe\"}";
    let csv = "\u{feff}label,text\r\nx,\"a \"\"quoted\"\" text, with commas\"\r\n7,Größe\r\n";
    let tsv = "text\tlabel\na \"quoted\" text, with commas\tx\nGröße\t7\n";
    for (name, contents) in [("t.jsonl", jsonl), ("t.csv", csv), ("t.tsv", tsv)] {
        let bytes = contents.as_bytes();
        for (suffix, bytes) in [("", bytes.to_vec()), (".gz", gzip(bytes)), (".zst", zstandard(bytes))] {
            let path = folder.file(&format!("{name}{suffix}"), bytes);
            let read = examples(&path).unwrap();
            let found: Vec<_> = read
                .iter()
                .map(|record| (&*record.text, record.label.as_deref()))
                .collect();
            assert_eq!(
                found,
                [("a \"quoted\" text, with commas", Some("x")), ("Größe", Some("7"))],
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn concatenated_gzip_and_zstandard_parts_are_read_to_the_end() {
    let folder = Folder::new();
    let (one, two) = (&b"first\n"[..], &b"second\nthird\n"[..]);
    for (name, bytes) in [
        ("c.txt.gz", [gzip(one), gzip(two)]),
        ("c.txt.zst", [zstandard(one), zstandard(two)]),
    ] {
        let read = passages(&folder.file(name, bytes.concat())).unwrap();
        assert_eq!(
            read.iter().map(|passage| &*passage.text).collect::<Vec<_>>(),
            ["first", "second", "third"]
        );
    }
}

#[test]
fn passages_get_names_where_they_have_none_and_empty_ones_are_counted() {
    let folder = Folder::new();
    let path = folder.file(
        "news.jsonl",
        "{\"text\":\"a\",\"label\":0.5}\n{\"text\":\" \"}\n{\"id\":3,\"source\":\"s\",\"text\":\"b\"}\n",
    );
    let mut stream = Passages::open(
        &[path, folder.file("plain.txt", "one\n\ntwo\r\n")],
        &Fields::default(),
        |_| {},
    );
    let found: Vec<(String, String, String)> = stream
        .by_ref()
        .map(|passage| passage.unwrap())
        .map(|p| (p.id, p.source, p.text))
        .collect();
    let expected = [
        ("news#1", "news", "a"),
        ("3", "s", "b"),
        ("plain#1", "plain", "one"),
        ("plain#3", "plain", "two"),
    ];
    assert_eq!(
        found,
        expected.map(|(id, source, text)| (id.to_owned(), source.to_owned(), text.to_owned()))
    );
    assert_eq!(stream.empty(), 2);
}

#[test]
fn columns_can_be_named_and_a_stream_is_read_like_a_file() {
    let fields = Fields {
        text: "sentence".into(),
        label: "class".into(),
        ..Fields::default()
    };
    let bytes = Box::new(&b"class,sentence\n\"1\",\"over\ntwo lines\"\n2,b\n"[..]);
    let records = Records::from_reader("standard input", Format::Csv, bytes, Contents::Examples, &fields).unwrap();
    let records: Vec<Record> = records.map(Result::unwrap).collect();
    assert_eq!((&*records[0].text, records[0].line), ("over\ntwo lines", 2));
    assert_eq!(
        (&*records[1].text, records[1].label.as_deref(), records[1].line),
        ("b", Some("2"), 4)
    );
}

#[test]
fn globs_give_files_by_name_and_each_once() {
    let folder = Folder::new();
    for name in ["c2.txt", "c10.txt", "c1.txt", "d[1].txt"] {
        folder.file(name, "x\n");
    }
    let files = expand(&[
        folder.pattern("d[1].txt"),
        folder.pattern("c1.txt"),
        folder.pattern("*.txt"),
    ])
    .unwrap();
    assert_eq!(
        files,
        ["d[1].txt", "c1.txt", "c10.txt", "c2.txt"].map(|name| folder.path(name))
    );
}

#[test]
fn progress_adds_up_to_the_stored_bytes() {
    let folder = Folder::new();
    let lines: String = (0..20_000_u32)
        .map(|i| format!("line {}\n", i.wrapping_mul(2_654_435_761)))
        .collect();
    let files = [
        folder.file("a.txt", &lines),
        folder.file("b.txt.zst", zstandard(lines.as_bytes())),
    ];
    let (sum, calls) = (AtomicU64::new(0), AtomicU64::new(0));
    let stream = Passages::open(&files, &Fields::default(), |bytes| {
        sum.fetch_add(bytes, Ordering::Relaxed);
        calls.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(stream.map(Result::unwrap).count(), 40_000);
    assert_eq!(sum.into_inner(), stored_bytes(&files).unwrap());
    assert!(calls.into_inner() > 3);
}

fn task(folder: &Folder) -> TaskFiles {
    let one = |name: &str| vec![folder.pattern(name)];
    TaskFiles {
        train: one("train*.jsonl"),
        dev: one("dev.csv"),
        test: one("test.tsv"),
    }
}

#[test]
fn the_training_split_defines_the_labels_and_empty_texts_leave_with_theirs() {
    let folder = Folder::new();
    folder.file(
        "train1.jsonl",
        "{\"text\":\"a\",\"label\":10}\n{\"text\":\"\",\"label\":99}\n{\"text\":\"b\",\"label\":2}\n",
    );
    folder.file("train2.jsonl", "{\"text\":\"c  C\",\"label\":\"-1\"}\n");
    folder.file("dev.csv", "text,label\nd,2\n\" \",10\ne,-1\n");
    folder.file("test.tsv", "text\tlabel\nf\t10\nC c\t2\nB\t2\n");
    let read = Task::read(&task(&folder), &Fields::default()).unwrap();
    assert_eq!(read.labels, ["-1", "2", "10"]);
    let split = |examples: &[tlm::data::Example]| {
        examples
            .iter()
            .map(|example| format!("{} {}", example.text, example.label))
            .collect::<Vec<_>>()
    };
    assert_eq!(split(&read.train), ["a 2", "b 1", "c  C 0"]);
    assert_eq!(split(&read.dev), ["d 1", "e 0"]);
    assert_eq!(split(&read.test), ["f 2", "C c 1", "B 1"]);
    assert_eq!(read.empty, [1, 1, 0]);
    assert_eq!(read.test_in_train, [1, 2]);

    folder.file(
        "train2.jsonl",
        "{\"text\":\"c\",\"label\":\"x\"}\n{\"text\":\"c\",\"label\":-1}\n",
    );
    let read = Task::read(&task(&folder), &Fields::default()).unwrap();
    assert_eq!(read.labels, ["-1", "10", "2", "x"], "not all are integers");
}

/// A folder of the shared data, or `None` with a note where it is absent.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn shared_task(folder: &Path) -> Task {
    let split = |name: &str| vec![folder.join(format!("{name}.jsonl.zst")).to_str().unwrap().to_owned()];
    let files = TaskFiles {
        train: split("train"),
        dev: split("dev"),
        test: split("test"),
    };
    Task::read(&files, &Fields::default()).unwrap()
}

#[test]
fn known_tasks_have_their_published_sizes_and_repeated_texts() {
    for (name, sizes, labels) in [
        ("tasks/acl_arc", [1688, 114, 139], 6),
        ("tasks/chemprot", [4169, 2427, 3469], 13),
        ("tasks/sst2", [6920, 872, 1821], 2),
        ("quickstart/tasks/rct_ei_small", [5997, 990, 1500], 5),
    ] {
        let Some(folder) = shared(name) else { return };
        let task = shared_task(&folder);
        assert_eq!([task.train.len(), task.dev.len(), task.test.len()], sizes, "{name}");
        assert_eq!((task.labels.len(), task.empty), (labels, [0; 3]), "{name}");
        if name == "tasks/acl_arc" {
            assert_eq!(task.test_in_train.len(), 52, "the published fault of ACL-ARC");
        }
    }
}

#[test]
fn entity_markers_of_chemprot_survive_tokenisation() {
    let (Some(corpus), Some(folder)) = (shared("quickstart/corpus.jsonl.zst"), shared("tasks/chemprot")) else {
        return;
    };
    let task = shared_task(&folder);
    let mut words = WordCounts::default();
    let passages: Vec<String> = Passages::open(&[corpus], &Fields::default(), |_| {})
        .map(|passage| passage.unwrap().text)
        .collect();
    words.add(&passages);
    words.add(&task.train.iter().map(|example| &*example.text).collect::<Vec<_>>());
    let tokenizer = Tokenizer::train(&words, &VocabularySettings::default()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 8192);
    let texts: Vec<&str> = task.test.iter().map(|example| &*example.text).collect();
    let (sequences, report) = tokenizer.encode(&texts, 4096, LongTexts::Truncate).unwrap();
    for (index, text) in texts.iter().enumerate() {
        for marker in ["<", ">", "[", "]"] {
            let id = tokenizer.id(marker).unwrap();
            let tokens = sequences.ids(index).iter().filter(|&&token| token == id).count();
            assert_eq!(tokens, text.matches(marker).count(), "{marker} in {text}");
        }
    }
    assert!(report.unknown * 1000 < report.tokens, "{report:?}");
}
