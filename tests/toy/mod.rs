//! A task of a few words, and the program run on it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Writes a small task whose texts and corpus are made of a few words, so that a run takes seconds.
pub fn write_data(directory: &Path) {
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

/// Its configuration.
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

/// `tlm run` of the task, with `out` below `directory` as run directory.
pub fn command(directory: &Path, out: &str, extra: &[&str]) -> Command {
    subcommand("run", directory, out, extra)
}

/// As [`command`] for another command that owns a run directory.
pub fn subcommand(name: &str, directory: &Path, out: &str, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlm"));
    command
        .arg(name)
        .arg(directory.join("run.toml"))
        .arg("--out")
        .arg(directory.join(out))
        .args(extra);
    command.stdin(Stdio::null());
    command
}

/// The output of a run that must succeed.
pub fn finished(directory: &Path, out: &str, extra: &[&str]) -> Output {
    let output = command(directory, out, extra).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}
