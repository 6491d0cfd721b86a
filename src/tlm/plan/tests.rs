use std::path::Path;

use super::*;
use crate::bert::plans::Form;
use crate::device::choice::DeviceChoice;
use crate::device::cpu::CpuDevice;
use crate::device::{Device, DeviceError};

const TEXT: &str = "[task]\ntrain = \"train.jsonl\"\ndev = \"dev.jsonl\"\ntest = \"test.jsonl\"\n\
                    [corpus]\ninputs = \"c.jsonl\"\n[model]\npreset = \"tiny\"\nmax_length = 32\n\
                    [tokenizer]\nvocab_size = 500\n[stage1]\nsteps = 8\nbatch = 4\n[stage2]\nsteps = 3\nbatch = 2\n";

fn report(file: &Path, overrides: &[&str], device: DeviceChoice) -> PlanReport {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    plan(&Config::parse(TEXT, file, &overrides).unwrap(), device).unwrap()
}

fn null(overrides: &[&str]) -> PlanReport {
    report(Path::new("/nowhere/run.toml"), overrides, DeviceChoice::Null)
}

// By hand for tiny (2 layers of 128, feed-forward 512), vocabulary 500, positions 512, 2 segments, 2 classes.
#[test]
fn parameters_are_the_closed_formula() {
    let (h, f, v) = (128, 512, 500);
    let layer = 4 * (h * h + h) + 2 * h + (h * f + f) + (f * h + h) + 2 * h;
    let embeddings = (v + 512 + 2) * h + 2 * h;
    let heads = (h * h + h + 2 * h + v) + (h * h + h + h * 2 + 2);
    let found = null(&[]);
    assert_eq!(found.model.parameters, embeddings + 2 * layer + heads);
    assert!(
        found.assumptions.iter().any(|text| text.contains("two classes")),
        "{:?}",
        found.assumptions
    );
}

#[test]
fn steps_are_counted_once_each() {
    let replays = |overrides: &[&str]| -> Vec<(String, Option<u64>)> {
        null(overrides)
            .plans
            .iter()
            .map(|plan| (plan.name.clone(), plan.replays))
            .collect()
    };
    let expected = |rows: &[(&str, Option<u64>)]| -> Vec<(String, Option<u64>)> {
        rows.iter()
            .map(|(name, replays)| (name.to_string(), *replays))
            .collect()
    };
    // rho1 = 3: E E E I E E E I.
    let plain = [
        ("external", Some(6)),
        ("joint", Some(2)),
        ("finetune", Some(3)),
        ("evaluate", None),
        ("update", Some(8)),
        ("update", Some(3)),
    ];
    assert_eq!(replays(&[]), expected(&plain));
    let split = [
        ("joint", Some(8)),
        ("joint +", Some(8)),
        ("evaluate", None),
        ("update", Some(8)),
    ];
    assert_eq!(
        replays(&["stage1.rho1=0", "stage1.accumulate=2", "stage2.steps=0"]),
        expected(&split)
    );
    let skipped = null(&["stage1.head_on_external=skip", "stage2.steps=0"]);
    let updates: Vec<_> = skipped.plans.iter().filter(|plan| plan.capacity.is_none()).collect();
    assert_eq!(
        updates.iter().map(|plan| plan.replays).collect::<Vec<_>>(),
        [Some(2), Some(6)]
    );
}

#[test]
fn memory_is_what_a_device_is_opened_with() {
    let found = null(&[]).memory;
    let parts = found.params + found.copies + found.grads + found.moments + found.arena + found.inputs + found.readback;
    assert_eq!(found.total, parts);
    assert_eq!((found.grads, found.moments), (found.params, 2 * found.params));
    let still = null(&["stage1.steps=0", "stage2.steps=1"]).memory;
    assert!(still.arena < found.arena, "a smaller stage needs a smaller arena");
}

#[test]
fn recomputation_takes_less_memory_and_its_work_is_named() {
    let (kept, again) = (null(&[]), null(&["model.recompute=true"]));
    assert!(again.memory.arena < kept.memory.arena);
    assert_eq!(again.flops - kept.flops, again.recomputed_flops);
    assert_eq!(kept.recomputed_flops, 0);
    let of = |name: &str| again.plans.iter().find(|plan| plan.name == name).unwrap();
    assert_eq!((of("evaluate").recomputed_flops, of("update").recomputed_bytes), (0, 0));
    assert!(of("joint").recomputed_bytes > 0);
    assert!(again.to_text(false).contains("model.recompute") && !kept.to_text(false).contains("model.recompute"));
}

#[test]
fn labels_and_vocabulary_are_read_where_the_files_exist() {
    let directory = tempfile::tempdir().unwrap();
    let rows = ["a", "b", "c"].map(|label| format!("{{\"text\": \"x\", \"label\": \"{label}\"}}\n"));
    std::fs::write(directory.path().join("train.jsonl"), rows.concat()).unwrap();
    let file = directory.path().join("run.toml");
    let found = report(&file, &[], DeviceChoice::Null);
    assert_eq!(found.model.labels, 3);
    assert_eq!(found.assumptions.len(), 1, "{:?}", found.assumptions);

    std::fs::write(directory.path().join("train.jsonl"), "{\"text\": \"x\"}\n").unwrap();
    let config = Config::parse(TEXT, &file, &[]).unwrap();
    let error = plan(&config, DeviceChoice::Null).unwrap_err().to_string();
    assert!(error.contains("train.jsonl:1") && error.contains("label"), "{error}");
}

#[test]
fn the_text_shows_every_plan_and_on_request_every_launch() {
    let found = null(&[]);
    let (brief, full) = (found.to_text(false), found.to_text(true));
    for name in ["external", "joint", "finetune", "evaluate", "update"] {
        assert!(brief.lines().any(|line| line.starts_with(name)), "{brief}");
    }
    let launches: usize = found.plans.iter().map(|plan| plan.launches).sum();
    let listed = |text: &str| {
        text.lines()
            .filter(|line| line.contains(" GFLOP ") && line.contains(" MB |"))
            .count()
    };
    assert_eq!((listed(&brief), listed(&full)), (0, launches));
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["plans"][0]["capacity"][0], 4 * 32);
}

#[test]
fn devices_that_would_not_run_say_why() {
    let said = |device| report(Path::new("/nowhere/run.toml"), &[], device).device;
    assert!(said(DeviceChoice::Null).runs);
    assert!(said(DeviceChoice::Cpu).runs, "{:?}", said(DeviceChoice::Cpu));
    let cuda = said(DeviceChoice::Cuda(Some(99)));
    let says = |what: &str| cuda.message.contains(what);
    assert!(
        !cuda.runs && (says("no NVIDIA driver") || says("no GPU 99")),
        "{cuda:?}"
    );
    let absent = said(DeviceChoice::Wgpu(Some(99)));
    assert!(!absent.runs && absent.message.contains("adapter 99"), "{absent:?}");
}

#[test]
fn the_planned_sizes_are_enough_for_the_cpu_and_no_word_too_many() {
    let config = Config::parse(TEXT, Path::new("/nowhere/run.toml"), &[]).unwrap();
    let bert = sizes::bert_config(&config, 500, vec!["a".to_owned(), "b".to_owned()]);
    let params = bert::parameters(&bert);
    let capacity = sizes::batches(&config).unwrap()[0].capacity;
    let recorded = batch(Kind::External, &bert, &params, &capacity, Form::default()).unwrap();
    let enough = Sizes::of(params.words(), true, &[&recorded]);
    assert!(CpuDevice::new(enough, 1).unwrap().load(&recorded).is_ok());
    let short = Sizes {
        arena: enough.arena - 64,
        ..enough
    };
    let refused = CpuDevice::new(short, 1).unwrap().load(&recorded);
    assert!(matches!(
        refused,
        Err(DeviceError::TooSmall {
            space: Space::Arena,
            ..
        })
    ));
}
