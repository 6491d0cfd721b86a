//! The whole job through the built program: its files, its exit codes, and that a killed run ends with the same bits.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A small task whose texts and corpus are made of a few words, so that a run takes seconds.
fn write_data(directory: &Path) {
    let topics = [
        ("animals", ["cat", "dog", "horse", "bird", "fish", "sheep"]),
        ("tools", ["hammer", "saw", "drill", "file", "plane", "chisel"]),
    ];
    let text = |topic: usize, n: usize| {
        let words = topics[topic].1;
        format!(
            "the {} sees a {} and one {} .",
            words[n % 6],
            words[(n / 6 + 1) % 6],
            words[(n / 2 + 3) % 6]
        )
    };
    let lines = |count: usize, offset: usize| -> String {
        let line = |n: usize| {
            let topic = n % 2;
            let text = text(topic, n + offset);
            format!("{}\n", serde_json::json!({ "text": text, "label": topics[topic].0 }))
        };
        (0..count).map(line).collect()
    };
    for (name, count, offset) in [("train", 48, 0), ("dev", 16, 101), ("test", 16, 211)] {
        std::fs::write(directory.join(format!("{name}.jsonl")), lines(count, offset)).unwrap();
    }
    let passages: String = (0..200)
        .map(|n| {
            let text = format!("{} It was here {n} times. {}", text(n % 2, n), text(n % 2, 3 * n));
            format!(
                "{}\n",
                serde_json::json!({ "id": format!("made/{n}#0"), "source": "made", "text": text })
            )
        })
        .collect();
    std::fs::write(directory.join("corpus.jsonl"), passages).unwrap();
    std::fs::write(directory.join("run.toml"), CONFIG).unwrap();
}

const CONFIG: &str = r#"
[task]
name = "toy"
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
metric = "macro_f1"
[corpus]
inputs = "corpus.jsonl"
[select]
top_k = 5
[tokenizer]
vocab_size = 200
[model]
preset = "tiny"
max_length = 32
[stage1]
steps = 60
batch = 8
rho1 = 2
learning_rate = 1e-3
warmup = 5
[stage2]
steps = 40
batch = 8
learning_rate = 1e-3
warmup = 4
eval_every = 10
[run]
log_every = 5
save_every = 7
"#;

fn command(directory: &Path, out: &str, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlm"));
    command
        .arg("run")
        .arg(directory.join("run.toml"))
        .arg("--out")
        .arg(directory.join(out))
        .args(extra);
    command.stdin(Stdio::null());
    command
}

fn finished(directory: &Path, out: &str, extra: &[&str]) -> Output {
    let output = command(directory, out, extra).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn model(directory: &Path, out: &str) -> Vec<u8> {
    std::fs::read(directory.join(out).join("model/model.safetensors")).unwrap()
}

fn report(directory: &Path, out: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(directory.join(out).join("report.json")).unwrap()).unwrap()
}

/// Waits until the run has logged a step at or beyond `stage`, `step`.
fn wait_for(child: &mut Child, log: &PathBuf, stage: u64, step: u64) {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let place = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .next_back();
        let reached = place.is_some_and(|row| {
            (row["stage"].as_u64().unwrap_or(0), row["step"].as_u64().unwrap_or(0)) >= (stage, step)
        });
        if reached || child.try_wait().unwrap().is_some() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "the run does not get there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_leaves_every_file_of_the_contract_and_learns_the_task() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(directory.path(), "a", &[]);
    let root = directory.path().join("a");
    for file in [
        "config.toml",
        "selected.jsonl",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "metrics.jsonl",
        "report.json",
        "report.html",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    let report = report(directory.path(), "a");
    assert_eq!(report["stage1"]["steps"], 60);
    assert!(report["test"]["value"].as_f64().unwrap() > 0.9, "{}", report["test"]);
    assert!(report["select"]["selected"].as_u64().unwrap() > 0);
    assert!(report["memory"]["planned_bytes"].as_u64().unwrap() > 0);
    assert!(report["flops"]["executed"].as_f64() >= report["flops"]["needed"].as_f64());
}

#[cfg(unix)]
#[test]
fn a_killed_run_ends_with_the_same_weights_as_one_that_was_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(directory.path(), "whole", &[]);
    let expected = model(directory.path(), "whole");
    for (name, stage, step) in [("early", 1, 10), ("late", 1, 50), ("second", 2, 15)] {
        let mut child = command(directory.path(), name, &[])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(
            &mut child,
            &directory.path().join(name).join("metrics.jsonl"),
            stage,
            step,
        );
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        finished(directory.path(), name, &["--resume"]);
        assert!(
            model(directory.path(), name) == expected,
            "{name}: other weights after a resume"
        );
        let text = std::fs::read_to_string(directory.path().join(name).join("metrics.jsonl")).unwrap();
        let rows = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut places: Vec<_> = rows
            .filter(|row| row.get("learning_rate").is_some())
            .map(|row| (row["stage"].as_u64(), row["step"].as_u64()))
            .collect();
        let before = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), before, "{name}: a step is logged twice");
        assert_eq!(places.len(), 12 + 8, "{name}: a step is missing in the log");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_ends_with_code_75() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(directory.path(), "whole", &[]);
    let mut child = command(directory.path(), "stopped", &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&mut child, &directory.path().join("stopped/metrics.jsonl"), 1, 10);
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(75));
    let occupied = command(directory.path(), "stopped", &[]).output().unwrap();
    assert_eq!(occupied.status.code(), Some(2), "a directory in use needs --resume");
    assert!(String::from_utf8_lossy(&occupied.stderr).contains("--resume"));
    finished(directory.path(), "stopped", &["--resume"]);
    assert!(model(directory.path(), "stopped") == model(directory.path(), "whole"));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(directory.path(), "one", &["--threads", "1"]);
    finished(directory.path(), "two", &["--threads", "2"]);
    assert!(model(directory.path(), "one") == model(directory.path(), "two"));
}

#[test]
fn four_micro_batches_train_as_one_batch_does() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    let plain = [
        "--set",
        "model.dropout=0",
        "--set",
        "model.attention_dropout=0",
        "--set",
        "stage1.steps=0",
        "--set",
        "stage1.warmup=0",
    ];
    finished(directory.path(), "one", &plain);
    let split: Vec<&str> = plain.iter().copied().chain(["--set", "stage2.accumulate=4"]).collect();
    finished(directory.path(), "four", &split);
    let scores = |name| report(directory.path(), name)["test"]["value"].as_f64().unwrap();
    assert_eq!(scores("one"), scores("four"));
    assert_eq!(
        model(directory.path(), "one").len(),
        model(directory.path(), "four").len()
    );
}

#[test]
fn other_methods_of_selection_run_too() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(directory.path(), "none", &["--set", "select.method=none"]);
    assert_eq!(report(directory.path(), "none")["select"]["selected"], 0);
    finished(directory.path(), "bm25", &[]);
    finished(directory.path(), "random", &["--set", "select.method=random"]);
    let selected = |name| report(directory.path(), name)["select"]["selected"].clone();
    assert_eq!(selected("random"), selected("bm25"));
}

#[test]
fn bad_inputs_end_with_code_2_name_the_place_and_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let refused = |what: &str, extra: &[&str], says: &[&str]| {
        let output = command(root, "bad", extra).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(2), "{what}: {message}");
        for part in says {
            assert!(message.contains(part), "{what}: no \"{part}\" in: {message}");
        }
        assert!(!root.join("bad").exists(), "{what}: something was written");
    };
    write_data(root);
    refused("a misspelt key", &["--set", "stage1.rho_1=3"], &["rho_1", "rho1"]);
    let train = std::fs::read_to_string(root.join("train.jsonl")).unwrap();
    std::fs::write(root.join("train.jsonl"), train.replacen("\"label\"", "\"label", 1)).unwrap();
    refused("a broken line", &[], &["train.jsonl:1"]);
    std::fs::write(root.join("train.jsonl"), train.replace("tools", "things")).unwrap();
    refused("a label that train lacks", &[], &["dev.jsonl", "tools"]);
    std::fs::write(root.join("train.jsonl"), &train).unwrap();
    std::fs::write(root.join("dev.jsonl"), "").unwrap();
    refused("an empty file", &[], &["dev.jsonl", "no records"]);
}

#[test]
fn a_truncated_checkpoint_is_refused_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(directory.path(), "a", &[]);
    let root = directory.path().join("a/checkpoints");
    std::fs::remove_file(root.join("seed-42.json")).unwrap();
    let path = root.join("seed-42.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let output = command(directory.path(), "a", &["--resume"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("seed-42.safetensors") && message.contains("delete it"),
        "{message}"
    );
}
