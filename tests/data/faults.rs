//! Every fault is an error that names the file, the line and the remedy.

use super::{Folder, examples, gzip, passages, task, zstandard};
use std::path::{Path, PathBuf};
use tlm::data::{DataError, Fields, Task, expand};

/// Asserts that reading fails, at this line of the file and with these words.
fn assert_fault<T: std::fmt::Debug>(result: Result<T, DataError>, path: &Path, line: u64, words: &[&str]) {
    let message = result.unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("{}:{line}: ", path.display())),
        "{message}"
    );
    for word in words {
        assert!(message.contains(word), "`{word}` in: {message}");
    }
}

#[test]
fn faults_in_json_lines_are_named_with_file_and_line() {
    let folder = Folder::new();
    let good = "{\"text\": \"a\", \"label\": \"x\"}\n";
    let fault = |name: &str, bad: &[u8], words: &[&str]| {
        let path = folder.file(name, [good.as_bytes(), b"\n", bad, b"\n", good.as_bytes()].concat());
        assert_fault(examples(&path), &path, 3, words);
        let packed = folder.file(&format!("{name}.gz"), gzip(&std::fs::read(&path).unwrap()));
        assert_fault(examples(&packed), &packed, 3, words);
    };
    fault(
        "json.jsonl",
        b"{\"text\": \"a\", \"label\": }",
        &["broken JSON at column 24", "expected value"],
    );
    fault("cut.jsonl", b"{\"text\": \"a", &["broken JSON", "EOF"]);
    fault("list.jsonl", b"[1, 2]", &["broken JSON", "{\"text\": \"...\"}"]);
    fault(
        "utf8.jsonl",
        b"{\"text\": \"na\xefve\"}",
        &["invalid UTF-8 at byte 13 of the line", "iconv"],
    );
    fault(
        "no_text.jsonl",
        b"{\"txt\": \"a\", \"label\": 1}",
        &["field `text` is missing", "`txt`, `label`"],
    );
    fault(
        "no_label.jsonl",
        b"{\"text\": \"a\", \"class\": 1}",
        &["field `label` is missing", "`text`, `class`"],
    );
    fault(
        "blank.jsonl",
        b"{\"text\": \"a\", \"label\": \" \"}",
        &["field `label` is blank"],
    );
    fault(
        "type.jsonl",
        b"{\"text\": 5, \"label\": 1}",
        &["field `text` is a number, expected a string"],
    );
    fault(
        "float.jsonl",
        b"{\"text\": \"a\", \"label\": 1.5}",
        &["`label` is a number, expected a string or an integer"],
    );
    fault(
        "bool.jsonl",
        b"{\"text\": \"a\", \"label\": true}",
        &["`label` is a boolean"],
    );
}

#[test]
fn faults_in_tables_are_named_with_file_and_line() {
    let folder = Folder::new();
    let fault = |name: &str, contents: &[u8], line: u64, words: &[&str]| {
        let path = folder.file(name, contents);
        assert_fault(examples(&path), &path, line, words);
    };
    fault(
        "header.csv",
        b"text,class\na,b\n",
        1,
        &["field `label` is missing", "`text`, `class`"],
    );
    fault(
        "header.tsv",
        b"text,label\na,b\n",
        1,
        &["field `text` is missing", "`text,label`"],
    );
    fault("short.csv", b"text,label\na,b\nc\n", 3, &["1 fields, expected 2"]);
    fault(
        "long.csv",
        b"text,label\n\"a\nb\",x\nan, unquoted comma,x\n",
        4,
        &["3 fields, expected 2", "quote"],
    );
    fault(
        "utf8.csv",
        b"text,label\na,b\n\"c\nd\xff\",x\n",
        4,
        &["invalid UTF-8", "of `text`"],
    );
    fault("blank.csv", b"text,label\na,b\nc,\n", 3, &["field `label` is blank"]);
    fault(
        "open.csv",
        b"label,text\nx,a\ny,\"never closed\nx,b\ny,c\n",
        3,
        &["a quote that opens here is never closed"],
    );
    fault("only_header.csv", b"text,label\n", 1, &["no records"]);
    fault("empty.tsv", b"", 1, &["no records"]);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    for name in ["empty.jsonl", "empty.txt", "empty.csv"] {
        let path = folder.file(name, "");
        assert_fault(passages(&path), &path, 1, &["the file holds no records"]);
    }
    let blank = folder.file("blank.jsonl", "\n \n");
    assert_fault(passages(&blank), &blank, 1, &["the file holds no records"]);

    // Incompressible, so that half of the file still holds lines.
    let lines: String = (0..4000_u32)
        .map(|i| format!("{}\n", i.wrapping_mul(2_654_435_761)))
        .collect();
    for (name, bytes) in [
        ("cut.txt.gz", gzip(lines.as_bytes())),
        ("cut.txt.zst", zstandard(lines.as_bytes())),
    ] {
        let path = folder.file(name, &bytes[..bytes.len() / 2]);
        let message = passages(&path).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{}:", path.display())) && message.contains("cut off"),
            "{message}"
        );
    }

    let message = |result: Result<Vec<PathBuf>, DataError>| result.unwrap_err().to_string();
    let none = message(expand(&[folder.pattern("nothing*.jsonl")]));
    assert!(
        none.contains("no file matches") && none.contains("nothing*.jsonl"),
        "{none}"
    );
    assert!(message(expand(&["a[".into()])).contains("bad glob `a[`"));
    let unknown = passages(&folder.file("notes.doc", "x")).unwrap_err().to_string();
    assert!(
        unknown.contains("notes.doc: unknown file type") && unknown.contains(".jsonl"),
        "{unknown}"
    );
    let absent = passages(&folder.path("absent.txt")).unwrap_err().to_string();
    assert!(absent.contains("absent.txt: cannot open"), "{absent}");
    let text = examples(&folder.file("task.txt", "a\n")).unwrap_err().to_string();
    assert!(text.contains("task.txt: a .txt file has no labels"), "{text}");
}

#[test]
fn faults_of_a_task_are_named_with_file_and_line() {
    let folder = Folder::new();
    let read = || Task::read(&task(&folder), &Fields::default());
    folder.file(
        "train1.jsonl",
        "{\"text\":\"a\",\"label\":\"x\"}\n{\"text\":\"b\",\"label\":\"y\"}\n",
    );
    folder.file("dev.csv", "text,label\n\"two\nlines\",x\nc,z\n");
    folder.file("test.tsv", "text\tlabel\nd\tx\n");
    let words = ["label `z` does not occur in the training data", "`x`, `y`"];
    assert_fault(read(), &folder.path("dev.csv"), 4, &words);

    folder.file("dev.csv", "text,label\n,x\n");
    let empty = read().unwrap_err().to_string();
    assert!(empty.contains("dev.csv: all 1 texts are empty"), "{empty}");

    folder.file("train1.jsonl", "{\"text\":\"a\",\"label\":\"x\"}\n");
    let single = read().unwrap_err().to_string();
    assert!(single.contains("every training example has the label `x`"), "{single}");

    std::fs::remove_file(folder.path("train1.jsonl")).unwrap();
    assert!(read().unwrap_err().to_string().contains("no file matches"));
}
