//! `tlm search` on a device beside the processor: the same run, byte for byte.

use std::path::Path;
use std::process::Command;

/// Lines of a file of the quickstart.
pub fn quickstart(name: &str, lines: usize) -> String {
    let path = format!("{}/examples/quickstart/{name}.jsonl.zst", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(path).unwrap();
    let text = std::io::read_to_string(zstd::Decoder::new(file).unwrap()).unwrap();
    text.lines().take(lines).flat_map(|line| [line, "\n"]).collect()
}

/// Texts of a file of the quickstart without their ids, which may have white space in them.
fn texts(name: &str, lines: usize) -> String {
    let text = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::json!({"text": record["text"]}).to_string() + "\n"
    };
    quickstart(name, lines).lines().map(text).collect()
}

/// Searches an index of two segments for a few of the quickstart's texts on `device`; `tlm` makes a command.
pub fn same_on(device: &str, directory: &Path, tlm: impl Fn() -> Command) {
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (index, corpus, more) = (at("index"), at("corpus.jsonl"), at("more.jsonl"));
    let (queries, out) = (at("queries.jsonl"), at("run.trec"));
    std::fs::write(&corpus, texts("corpus", 9000)).unwrap();
    std::fs::write(&more, texts("corpus", 300)).unwrap();
    std::fs::write(&queries, texts("dev", 70) + "{\"text\": \"\"}\n").unwrap();
    let run = |args: &[&str]| {
        let output = tlm().args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
    };
    run(&["index", "build", "--out", &index, &corpus]);
    run(&["index", "add", &index, &more]);
    for (k, reduction) in [("10", "text"), ("700", "tfidf:20")] {
        let search = |device: &str| {
            let common = ["search", "--index", &index, "--queries", &queries, "--out", &out];
            run(&[&common[..], &["--top-k", k, "--query", reduction, "--device", device]].concat());
            std::fs::read_to_string(&out).unwrap()
        };
        let (processor, found) = (search("cpu"), search(device));
        assert!(processor.lines().count() > 500, "{processor}");
        assert!(found == processor, "{device}, k {k}: other lists");
    }
}
