//! Inputs and places that a run cannot use: what it says, how it ends, and that it writes nothing.

mod toy;

use toy::{command, finished, subcommand, write_data};

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
    refused(
        "a misspelt override",
        &["--set", "stage1.rho_1=3"],
        &["--set", "rho_1", "\"rho1\""],
    );
    refused("a misspelt section", &["--set", "stag1.rho1=3"], &["--set", "[stage1]"]);
    let rate = ["--set", "stage1.mask_rate=0"];
    refused("no masking", &rate, &["stage1.mask_rate", "above 0 and below 1"]);
    let config = std::fs::read_to_string(root.join("run.toml")).unwrap();
    std::fs::write(root.join("run.toml"), config.replace("rho1", "rho_1")).unwrap();
    refused("a misspelt key", &[], &["run.toml:20", "rho_1", "\"rho1\""]);
    std::fs::write(root.join("run.toml"), &config).unwrap();
    refused("no run to go on with", &["--resume"], &["there is no run", "bad"]);
    let train = std::fs::read_to_string(root.join("train.jsonl")).unwrap();
    std::fs::write(root.join("train.jsonl"), train.replacen("\"label\"", "\"label", 1)).unwrap();
    refused("a broken line", &[], &["train.jsonl:1"]);
    std::fs::write(root.join("train.jsonl"), train.replace("tools", "things")).unwrap();
    refused("a label that train lacks", &[], &["dev.jsonl", "tools"]);
    std::fs::write(root.join("train.jsonl"), &train).unwrap();
    std::fs::write(root.join("dev.jsonl"), "").unwrap();
    refused("an empty file", &[], &["dev.jsonl", "no records"]);
    std::fs::write(root.join("dev.jsonl"), train).unwrap();
    let corpus = std::fs::read_to_string(root.join("corpus.jsonl")).unwrap();
    std::fs::write(root.join("corpus.jsonl"), corpus.clone() + "{\"text\": 3}\n").unwrap();
    refused("a broken line of the corpus", &[], &["corpus.jsonl:201"]);
    std::fs::write(root.join("corpus.jsonl"), "{\"text\": \"nothing alike\"}\n").unwrap();
    refused(
        "a corpus without a common term",
        &[],
        &["no passage was selected", "another"],
    );
}

#[test]
fn a_run_of_another_configuration_or_start_is_not_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(
        directory.path(),
        "a",
        &["--set", "stage1.steps=0", "--set", "stage1.warmup=0"],
    );
    let from = directory.path().join("a/model");
    let from = from.to_str().unwrap();
    let refused = |name: &str, out: &str, extra: &[&str], says: &[&str]| {
        let output = subcommand(name, directory.path(), out, extra).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(2), "{name} {extra:?}: {message}");
        for part in says {
            assert!(message.contains(part), "{name}: no \"{part}\" in: {message}");
        }
    };
    refused("run", "a", &["--resume"], &["stage1.steps = 0, now it is 60", "--out"]);
    let same = [
        "--resume",
        "--set",
        "stage1.steps=0",
        "--set",
        "stage1.warmup=0",
        "--model",
        from,
    ];
    refused("finetune", "a", &same, &["from random weights", "--out"]);
    refused("finetune", "absent", &[], &["there is no run", "tlm train", "--model"]);
    std::fs::remove_file(directory.path().join("a/config.toml")).unwrap();
    refused("run", "a", &[], &["checkpoints", "no config.toml"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_takes_no_files_is_named_before_any_work() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    let output = command(directory.path(), "/proc/here", &[]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("/proc/here") && message.contains("another place"),
        "{message}"
    );
    assert!(!message.contains("indexing"), "{message}");
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
