//! The whole job through the built program: its files, its exit codes, and that a killed run ends with the same bits.

mod events;
mod toy;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use toy::{command, finished, subcommand, write_data};

/// The bytes of the weights.
fn model(directory: &Path, out: &str) -> Vec<u8> {
    std::fs::read(directory.join(out).join("model/model.safetensors")).unwrap()
}

/// `report.json`.
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
    let output = finished(directory.path(), "a", &[]);
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
        "tensorboard/seed-42/events.out.tfevents.tlm",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    let report = report(directory.path(), "a");
    assert_eq!(report["stage1"]["steps"], 60);
    assert!(report["test"]["value"].as_f64().unwrap() > 0.9, "{}", report["test"]);
    assert!(report["select"]["selected"].as_u64().unwrap() > 0);
    assert!(report["memory"]["planned_bytes"].as_u64().unwrap() > 0);
    assert_memory_was_measured(&report);
    assert!(report["flops"]["executed"].as_f64() >= report["flops"]["needed"].as_f64());
    let selected = report["select"]["selected"].as_u64().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    for line in [
        format!("training the tokenizer: {} texts in ", 48 + selected),
        format!("tokenising: {} texts in ", 48 + 16 + 16 + selected),
        "searching: 48 texts in ".to_owned(),
        "stage 1: 60 steps in ".to_owned(),
        "stage 2: 40 steps in ".to_owned(),
        "testing: 16 texts in ".to_owned(),
    ] {
        assert!(said.contains(&line), "no \"{line}\" in: {said}");
    }
}

#[test]
fn the_event_files_hold_every_figure_of_the_log_at_its_step() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    let short = [
        "run.seeds=2",
        "stage1.steps=12",
        "stage1.warmup=0",
        "stage2.steps=10",
        "stage1.eval_every=4",
    ];
    let extra: Vec<&str> = short.iter().flat_map(|set| ["--set", set]).collect();
    finished(directory.path(), "a", &extra);
    let points = events::of_run(&directory.path().join("a"));
    assert_eq!(points, events::of_log(&directory.path().join("a")));
    // Of each seed in stage 1, steps 5, 10 and 12; E E I: the last two are one of each kind. Evaluations at 4, 8, 12.
    let steps = |seed: u64, tag: &str| -> Vec<u64> {
        let of_tag = points.iter().filter(|point| (point.0, point.1.as_str()) == (seed, tag));
        of_tag.map(|point| point.2).collect()
    };
    for seed in [42, 43] {
        assert_eq!(steps(seed, "stage1/gradient_norm"), [5, 10, 12]);
        assert_eq!(steps(seed, "stage1/mlm_loss_external"), [5, 10]);
        assert_eq!(steps(seed, "stage1/mlm_loss_internal"), [12]);
        assert_eq!(steps(seed, "stage1/dev_score"), [4, 8, 12]);
        assert_eq!(steps(seed, "stage2/task_loss"), [5, 10]);
        assert_eq!(steps(seed, "stage2/dev_score"), [10]);
    }
}

#[test]
fn stage_1_alone_and_then_stage_2_alone_end_with_the_weights_of_a_whole_run() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(directory.path(), "whole", &[]);
    let done = |name: &str, out: &str, extra: &[&str]| {
        let output = subcommand(name, directory.path(), out, extra).output().unwrap();
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_memory_was_measured(&report(directory.path(), out));
    };
    done("train", "parts", &[]);
    let trained = model(directory.path(), "parts");
    let page = std::fs::read_to_string(directory.path().join("parts/report.html")).unwrap();
    assert!(page.contains("<title>toy: stage 1</title>"), "no score before the test");
    done("finetune", "parts", &[]);
    assert!(model(directory.path(), "parts") == model(directory.path(), "whole"));
    assert!(model(directory.path(), "parts") != trained);
    let parts = directory.path().join("parts");
    assert_eq!(events::of_run(&parts), events::of_log(&parts));
    assert_eq!(
        events::of_log(&parts).len(),
        events::of_log(&directory.path().join("whole")).len()
    );

    let from = directory.path().join("whole/model");
    done("finetune", "other", &["--model", from.to_str().unwrap()]);
    assert_eq!(report(directory.path(), "other")["stage1"]["steps"], 0);
}

#[test]
fn without_stage_2_the_model_of_stage_1_is_tested_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    let set = ["--set", "stage2.steps=0", "--set", "stage2.warmup=0"];
    let trained = subcommand("train", directory.path(), "trained", &set).output().unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    finished(directory.path(), "tested", &set);
    assert!(model(directory.path(), "tested") == model(directory.path(), "trained"));
    let report = report(directory.path(), "tested");
    assert_eq!(report["test"]["examples"], 16);
    assert_eq!(report["stage2"]["steps"], 0);
    assert_eq!(report["stage2"]["best_dev"], serde_json::Value::Null);
}

#[cfg(target_os = "linux")]
fn assert_memory_was_measured(report: &serde_json::Value) {
    let peak = report["memory"]["peak_rss_bytes"].as_u64().unwrap();
    assert!(peak > 10 << 20, "{peak} bytes are less than the weights");
}

#[cfg(not(target_os = "linux"))]
fn assert_memory_was_measured(_: &serde_json::Value) {}

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
        let root = directory.path().join(name);
        assert_eq!(events::of_run(&root), events::of_log(&root), "{name}");
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
