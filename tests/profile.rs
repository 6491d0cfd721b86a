//! `tlm profile`, `tlm bench` and `tlm flops` through the built program.

#[allow(dead_code, reason = "profiles own no run directory")]
mod toy;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use toy::{finished, write_data};

fn tlm(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tlm"))
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Profiles the toy task; the report, and the trace's events.
fn profiled(directory: &Path, steps: &str) -> (Value, Vec<Value>) {
    write_data(directory);
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let arguments = [
        "profile",
        &at("run.toml"),
        "--device",
        "cpu",
        "--json",
        "--steps",
        steps,
        "--trace",
        &at("trace.json"),
        "--html",
        &at("page.html"),
    ];
    let report = json(&tlm(&arguments));
    let trace: Value = serde_json::from_slice(&std::fs::read(at("trace.json")).unwrap()).unwrap();
    (report, trace["traceEvents"].as_array().unwrap().clone())
}

#[test]
fn profiled_steps_have_the_bits_of_plain_ones_and_their_parts_add_up_to_the_wall_clock() {
    let directory = tempfile::tempdir().unwrap();
    let (report, _) = profiled(directory.path(), "12");
    assert_eq!(report["same_bits"], Value::Bool(true));
    assert_eq!(report["steps"], 12);
    let wall = number(&report["wall"]);
    let parts = &report["parts"];
    let of = |name: &str| number(&parts[name]);
    let known = of("kernels") + of("launching") + of("waiting") + of("upload") + of("readback");
    assert!(
        (known / wall - 1.0).abs() < 0.03,
        "{known} s of {wall} s are accounted for"
    );
    for table in ["kernels", "layers"] {
        let lines = report[table].as_array().unwrap();
        let sum = |name: &str| lines.iter().map(|line| number(&line[name])).sum::<f64>();
        assert!((sum("seconds") / of("kernels") - 1.0).abs() < 1e-6, "{table}");
        assert!((sum("share") - 1.0).abs() < 1e-6, "{table}");
        assert_eq!(sum("calls"), number(&report["launches"]), "{table}");
        assert_eq!(sum("flops"), number(&report["executed"]), "{table}");
    }
    let layers: Vec<&str> = report["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["name"].as_str().unwrap())
        .collect();
    for layer in [
        "embeddings",
        "layer0/attention",
        "layer1/feed_forward",
        "mlm_head",
        "task_head",
        "update",
    ] {
        assert!(layers.contains(&layer), "{layers:?}");
    }
    assert!(number(&report["needed"]) < number(&report["executed"]));
    let page = std::fs::read_to_string(directory.path().join("page.html")).unwrap();
    assert!(page.contains("class=\"chart flame\"") && page.contains("gemm.forward"));
}

// Trace Event Format: an object with `traceEvents`; complete events (X) have name, pid, tid, ts and dur in microseconds;
// metadata (M) name each thread; slices of one thread follow each other or lie within each other.
#[test]
fn a_trace_follows_the_rules_of_its_format() {
    let directory = tempfile::tempdir().unwrap();
    let (report, events) = profiled(directory.path(), "10");
    let mut threads: BTreeMap<u64, String> = BTreeMap::new();
    let mut slices: BTreeMap<u64, Vec<(f64, f64, String)>> = BTreeMap::new();
    let (mut steps, mut kernels, mut flops) = (0, 0.0, 0);
    for event in &events {
        let (name, tid) = (event["name"].as_str().unwrap(), event["tid"].as_u64().unwrap());
        assert_eq!(event["pid"], 1);
        match event["ph"].as_str().unwrap() {
            "M" => {
                if name == "thread_name" {
                    threads.insert(tid, event["args"]["name"].as_str().unwrap().to_owned());
                }
            }
            "X" => {
                let (ts, dur) = (number(&event["ts"]), number(&event["dur"]));
                assert!(ts >= 0.0 && dur >= 0.0, "{event}");
                slices.entry(tid).or_default().push((ts, dur, name.to_owned()));
                if name == "step" {
                    steps += 1;
                }
                if let Some(of) = event["args"].get("flops") {
                    kernels += dur;
                    flops += of.as_u64().unwrap();
                    let args = &event["args"];
                    assert!(args["bytes_read"].is_u64() && args["bytes_written"].is_u64(), "{event}");
                    assert!(args["shapes"].as_str().unwrap().contains('['), "{event}");
                }
            }
            other => panic!("an event of kind {other}"),
        }
    }
    let names: Vec<&str> = threads.values().map(String::as_str).collect();
    assert_eq!(
        names,
        ["steps", "prepare batches", "host", "forward", "backward", "update"]
    );
    assert_eq!(steps, 10);
    assert_eq!(flops, report["executed"].as_u64().unwrap());
    assert!((1e-6 * kernels / number(&report["parts"]["kernels"]) - 1.0).abs() < 1e-3);
    for (tid, slices) in &mut slices {
        assert!(threads.contains_key(tid), "thread {tid} has no name");
        slices.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = Vec::new();
        for (ts, dur, name) in slices {
            while open.last().is_some_and(|end| *end <= *ts + 2e-3) {
                open.pop();
            }
            let inside = open.last().is_none_or(|end| *ts + *dur <= *end + 2e-3);
            assert!(inside, "{}: {name} at {ts} ends after what it began in", threads[tid]);
            open.push(*ts + *dur);
        }
    }
}

#[test]
fn a_run_has_its_steps_rates_and_a_profile_of_three_of_them() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    finished(directory.path(), "a", &["--device", "cpu"]);
    let read = |name: &str| std::fs::read_to_string(directory.path().join("a").join(name)).unwrap();
    let report: Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!(report["profile"]["steps"], 3);
    assert!(read("report.html").contains("class=\"chart flame\""));
    for name in ["paper", "exact", "palm", "megatron", "chinchilla", "electra"] {
        assert!(number(&report["flops"]["conventions"][name]) > 0.0, "{name}");
    }
    assert_eq!(report["flops"]["conventions"]["paper"], report["flops"]["paper"]);
    // 60 steps of 8 sequences of 32 tokens, padding and all.
    let paper = 6.0 * number(&report["model"]["parameters"]) * 60.0 * 8.0 * 32.0;
    assert_eq!(number(&report["flops"]["paper"]), paper);
    let training: Vec<Value> = read("metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|row: &Value| row.get("tokens_per_second").is_some())
        .collect();
    assert!(!training.is_empty());
    for row in training {
        assert!(number(&row["model_flops_per_second"]) > 0.0, "{row}");
        assert!(
            number(&row["mfu"]) > 0.0 && number(&row["speed_of_light"]) > 0.0,
            "{row}"
        );
        let (padding, packing) = (number(&row["padding_efficiency"]), number(&row["packing_efficiency"]));
        assert!(
            padding > 0.0 && padding <= 1.0 && packing > 0.0 && packing <= padding,
            "{row}"
        );
    }
}

#[test]
fn every_kernel_of_a_step_is_measured_and_compared_with_an_earlier_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bench.json");
    let file = file.to_str().unwrap();
    let arguments = [
        "bench",
        "--preset",
        "tiny",
        "--vocab-size",
        "500",
        "--rounds",
        "3",
        "--device",
        "cpu",
    ];
    let first = json(&tlm(&[&arguments[..], &["--out", file, "--json"]].concat()));
    let kernels = first["kernels"].as_array().unwrap();
    let measured: std::collections::BTreeSet<&str> =
        kernels.iter().map(|line| line["kernel"].as_str().unwrap()).collect();
    let missing: Vec<&str> = first["not_launched"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let all = tlm::ops::REGISTRY
        .iter()
        .flat_map(|op| op.kernels)
        .map(|kernel| kernel.name);
    for kernel in all {
        assert!(measured.contains(kernel) != missing.contains(&kernel), "{kernel}");
    }
    assert!(
        measured.contains("gemm.forward") && missing.contains(&"adamw.with_shadow"),
        "{missing:?}"
    );
    for line in kernels {
        assert!(
            number(&line["microseconds"]) > 0.0 && number(&line["of_ceiling"]) > 0.0,
            "{line}"
        );
    }
    for field in ["device", "hardware", "version"] {
        assert!(first[field].is_string());
    }
    let again = json(&tlm(&[
        &arguments[..],
        &["--out", file, "--against", file, "--json", "gemm"],
    ]
    .concat()));
    let against = &again["against"];
    let compared = |name: &str| against[name].as_array().unwrap().len() as u64;
    let of_gemm = kernels
        .iter()
        .filter(|line| line["kernel"].as_str().unwrap().starts_with("gemm."))
        .count() as u64;
    assert_eq!(
        compared("slower") + compared("faster") + against["unmoved"].as_u64().unwrap(),
        of_gemm
    );
    assert!(against["differences"].as_array().unwrap().is_empty());
}

#[test]
fn bad_requests_end_with_code_two_and_say_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    write_data(directory.path());
    let config = directory.path().join("run.toml");
    let config = config.to_str().unwrap();
    for (arguments, says) in [
        (vec!["bench", "gem", "--device", "cpu"], "the ops are layer_norm, gemm"),
        (
            vec!["bench", "--against", "/nowhere/b.json", "--device", "cpu"],
            "cannot read /nowhere/b.json",
        ),
        (
            vec!["profile", config, "--stage", "2", "--set", "stage2.steps=0"],
            "stage2.steps = 0",
        ),
        (
            vec!["flops", config, "--set", "stage1.stps=1"],
            "did you mean \"steps\"",
        ),
    ] {
        let output = tlm(&arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(says), "{arguments:?}: {message}");
    }
}
