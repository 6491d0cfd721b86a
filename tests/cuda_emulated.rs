//! Every CUDA kernel executed without a GPU: NVRTC compiles it, cudarc launches it unmodified, and an interpreter of the PTX
//! behind the driver's interface (`tests/cuda_emulator`) runs and checks it: bounds, races, barriers, reads of what
//! nobody wrote, alignment. A finding fails the launch with the `.cu` file and line.
//!
//! What this cannot show is speed, and how a GPU's matrix units and approximate instructions round.
//!
//! Without NVRTC the tests say so and pass; `TLM_REQUIRE_NVRTC=1` makes them fail.

#![cfg(target_os = "linux")]

mod harness;
mod lists;
mod packed;
mod training;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use cuda_emulator::control::{Control, FILE_NAME};
use harness::{Backend, walk, walk_ops};
use tlm::bert::parameters;
use tlm::device::cuda::{CudaDevice, Gpu, Nvrtc};
use tlm::device::null::NullDevice;
use tlm::device::{Device, Sizes, Variants};
use tlm::kernel::{Precision, VENDOR, Variant};
use tlm::ops::REGISTRY;
use tlm::plan::Limits;
use training::{STEPS, Training, beside_the_cpu, start, tiny};

/// The emulated GPU: one at a time, because settings and findings belong to the process.
struct Emulated {
    control: Control,
    gpu: Gpu,
}

#[expect(
    clippy::explicit_write,
    reason = "a passing test keeps what eprintln writes to itself"
)]
fn emulated() -> Option<MutexGuard<'static, Option<Emulated>>> {
    static ONE: Mutex<Option<Emulated>> = Mutex::new(None);
    let mut one = ONE.lock().unwrap_or_else(|failed| failed.into_inner());
    if one.is_some() {
        return Some(one);
    }
    if let Err(error) = Nvrtc::find() {
        let required = std::env::var("TLM_REQUIRE_NVRTC").is_ok_and(|value| value == "1");
        assert!(!required, "TLM_REQUIRE_NVRTC=1, but {error}");
        writeln!(std::io::stderr(), "SKIPPED: {error}").unwrap();
        return None;
    }
    let control = Control::find().unwrap();
    let gpu = Gpu::open(0, Some(cache())).unwrap();
    assert!(gpu.info().name.contains("not a GPU"), "{}", gpu.info());
    println!("{}", gpu.info());
    *one = Some(Emulated { control, gpu });
    Some(one)
}

/// Where compiled kernels are kept from one run of the tests to the next.
fn cache() -> PathBuf {
    std::env::temp_dir().join("tlm-cuda-emulated")
}

impl Emulated {
    /// A device whose warps run in the order of a seed.
    fn open(&self, sizes: Sizes, variant: usize, seed: u64, graphs: bool) -> Box<dyn Device> {
        self.control.set_seed(seed);
        Box::new(CudaDevice::new(&self.gpu, sizes, &Variants::Nth(variant), graphs).unwrap())
    }
}

#[test]
fn every_kernel_has_a_cuda_version() {
    let kernels = REGISTRY.iter().flat_map(|op| op.kernels);
    let missing: Vec<_> = kernels
        .filter(|kernel| kernel.cuda.is_none())
        .map(|kernel| kernel.name)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_op_agrees_with_its_f64_reference_in_f32() {
    walk_in(Precision::F32);
}

#[test]
fn every_op_agrees_with_its_f64_reference_in_bf16() {
    walk_in(Precision::Bf16);
}

#[test]
fn every_op_agrees_with_its_f64_reference_in_f16() {
    walk_in(Precision::F16);
}

/// The registry, as a captured graph and launch by launch, with two orders of warps.
fn walk_in(precision: Precision) {
    let Some(emulated) = emulated() else { return };
    let emulated = emulated.as_ref().expect("opened above");
    walk(&Backend {
        name: "cuda, emulated",
        precision,
        variants: &|kernel| kernel.cuda.map_or(0, |source| source.storing(precision).variants.len()),
        writes_beyond: false,
        roundings: 0.0,
        configurations: &[
            &|sizes, variant| emulated.open(sizes, variant, 0, true),
            &|sizes, variant| emulated.open(sizes, variant, 7, false),
        ],
    });
    let findings = emulated.control.findings();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn twenty_steps_in_bf16_agree_with_the_cpus_and_repeat_and_resume_bit_for_bit() {
    let Some(emulated) = emulated() else { return };
    let emulated = emulated.as_ref().expect("opened above");
    let precision = Precision::Bf16;
    let (mut whole, losses) = beside_the_cpu(Limits::default(), precision, STEPS, |sizes| {
        emulated.open(sizes, 0, 0, true)
    });
    // Once more with another order of warps, launch by launch, and half of it resumed on a new device with graphs.
    let last = whole.state();
    let half = STEPS as usize / 2;
    emulated.control.set_checked(false);
    let launched = |sizes| emulated.open(sizes, 0, 7, false);
    let mut first = Training::new(Limits::default(), precision, launched, &start(0.0));
    assert!(first.run(0..STEPS / 2) == losses[..half], "another run, other losses");
    let replayed = |sizes| emulated.open(sizes, 0, 11, true);
    let mut second = Training::new(Limits::default(), precision, replayed, &first.state());
    assert!(
        second.run(STEPS / 2..STEPS) == losses[half..],
        "after the resume, other losses"
    );
    assert!(second.state() == last, "after the resume, other weights");
    emulated.control.set_checked(true);
    let findings = emulated.control.findings();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// Blocks of sm_75 have 64 KiB of shared memory, its matrix units know f16 alone, and nothing is copied asynchronously.
#[test]
fn a_turing_gpu_trains_in_f16_with_the_variants_that_fit_it() {
    let Some(emulated) = emulated() else { return };
    let emulated = emulated.as_ref().expect("opened above");
    emulated.control.set_capability(75);
    let turing = Gpu::open(0, Some(cache())).unwrap();
    emulated.control.set_capability(80);
    let info = turing.info();
    assert_eq!((info.architecture, info.fastest()), (75, Precision::F16));

    let open = |sizes| -> Box<dyn Device> {
        Box::new(CudaDevice::new(&turing, sizes, &Variants::Nth(usize::MAX), true).unwrap())
    };
    beside_the_cpu(Limits::default(), Precision::F16, 2, open);

    let null = |sizes| -> Box<dyn Device> { Box::new(NullDevice::new(sizes)) };
    let plan = |precision| {
        let [plan, _] = Training::new(Limits::default(), precision, null, &start(0.0)).plans;
        plan
    };
    let (f16, bf16) = (&plan(Precision::F16), &plan(Precision::Bf16));
    let pins = vec![("gemm".to_owned(), "64x64".to_owned())];
    let measured = Variants::Measured { file: None, pins };
    let sizes = Sizes::of(parameters(&tiny()).words(), true, &[f16, bf16]);
    let mut device = CudaDevice::new(&turing, sizes, &measured, false).unwrap();
    let program = device.load(f16).unwrap();
    let chosen = f16.launches.iter().zip(device.variants(program));
    let backward: Vec<_> = chosen
        .filter(|(launch, _)| launch.kernel.name == "attention.backward")
        .collect();
    let (launch, _) = backward[0];
    let source = launch.kernel.cuda.as_ref().unwrap().storing(Precision::F16);
    let bytes = |variant: &Variant| source.shared_bytes(&launch.dims, variant);
    let (fit, larger): (Vec<&Variant>, Vec<&Variant>) =
        source.variants.iter().partition(|variant| bytes(variant) <= 64 << 10);
    assert!(!larger.is_empty(), "all variants fit");
    let fits = |name: &str| fit.iter().any(|variant| variant.name == name);
    assert!(backward.iter().all(|(_, chosen)| fits(chosen)));

    let refused = device.load(bf16).unwrap_err().to_string();
    assert!(refused.contains("bf16") && refused.contains("f32 and f16"), "{refused}");
    let findings = emulated.control.findings();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// The library that is the driver is also the model of the vendor's.
fn with_model() -> Gpu {
    let model = std::env::current_exe().unwrap().with_file_name(FILE_NAME);
    Gpu::open(0, Some(cache())).unwrap().with_cublaslt(model)
}

#[test]
fn products_of_the_vendors_library_agree_with_their_f64_references() {
    let Some(emulated) = emulated() else { return };
    let emulated = emulated.as_ref().expect("opened above");
    let gpu = with_model();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let open = |sizes, seed, graphs| -> Box<dyn Device> {
            emulated.control.set_seed(seed);
            Box::new(CudaDevice::new(&gpu, sizes, &Variants::Vendor, graphs).unwrap())
        };
        walk_ops(
            &Backend {
                name: "cuda, emulated, cuBLASLt modelled",
                precision,
                variants: &|kernel| usize::from(kernel.cuda.is_some()),
                writes_beyond: true,
                // A bias, what GELU is taken of, and what its derivative multiplies.
                roundings: 3.0,
                configurations: &[&|sizes, _| open(sizes, 0, true), &|sizes, _| open(sizes, 7, false)],
            },
            &|op| op == "gemm",
        );
    }
    let findings = emulated.control.findings();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn steps_with_products_of_the_vendors_library_agree_with_the_cpus() {
    let Some(emulated) = emulated() else { return };
    let emulated = emulated.as_ref().expect("opened above");
    let gpu = with_model();
    assert!(gpu.has_cublaslt());
    let precision = Precision::Bf16;
    let open = |sizes| -> Box<dyn Device> { Box::new(CudaDevice::new(&gpu, sizes, &Variants::Vendor, true).unwrap()) };
    let (training, _) = beside_the_cpu(Limits::default(), precision, 3, open);
    let (remark, plan) = (training.device.remark().unwrap(), &training.plans[0]);
    assert!(remark.contains("products by cuBLASLt 130000"), "{remark}");
    let launches = plan.launches.iter().zip(training.device.variants(training.programs[0]));
    for (launch, variant) in launches {
        assert_eq!(
            launch.kernel.name.starts_with("gemm"),
            *variant == VENDOR,
            "{:?}",
            launch.kernel
        );
    }
    let findings = emulated.control.findings();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn a_pin_to_a_library_that_is_not_there_says_where_to_get_it() {
    if emulated().is_none() {
        return;
    }
    let gpu = Gpu::open(0, None).unwrap().with_cublaslt("libcublasLt.so.0".into());
    assert!(!gpu.has_cublaslt());
    let null = |sizes| -> Box<dyn Device> { Box::new(NullDevice::new(sizes)) };
    let [plan, _] = Training::new(Limits::default(), Precision::Bf16, null, &start(0.0)).plans;
    let sizes = Sizes::of(parameters(&tiny()).words(), true, &[&plan]);
    let mut device = CudaDevice::new(&gpu, sizes, &Variants::Vendor, true).unwrap();
    let said = device.load(&plan).unwrap_err().to_string();
    for part in [
        "cuBLASLt",
        "libcublasLt.so.0",
        "pip install nvidia-cublas",
        "TLM_CUBLASLT",
    ] {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
}

#[test]
fn a_search_finds_the_lists_of_the_processor() {
    if emulated().is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    lists::same_on("cuda", directory.path(), || tlm(directory.path()));
}

/// The program with the interpreter as its driver, which it finds in a directory by the driver's name.
fn tlm(directory: &Path) -> Command {
    let (library, link) = (
        std::env::current_exe().unwrap().with_file_name(FILE_NAME),
        directory.join("libcuda.so.1"),
    );
    if !link.exists() {
        std::os::unix::fs::symlink(library, link).unwrap();
    }
    let mut tlm = Command::new(env!("CARGO_BIN_EXE_tlm"));
    tlm.current_dir(env!("CARGO_MANIFEST_DIR")) // where .venv is
        .env("LD_LIBRARY_PATH", directory)
        .env("CUDA_EMULATOR_CHECKED", "0") // the other tests check the kernels
        .env("TLM_CACHE", directory.join("cache"))
        .env("TLM_VARIANTS", "first");
    tlm
}

/// A few texts of the quickstart, few steps, every stage.
fn smallest_form(directory: &Path) -> PathBuf {
    for (name, lines) in [("train", 1000), ("dev", 24), ("test", 24), ("corpus", 200)] {
        std::fs::write(directory.join(format!("{name}.jsonl")), lists::quickstart(name, lines)).unwrap();
    }
    let config = "[task]\ntrain = \"train.jsonl\"\ndev = \"dev.jsonl\"\ntest = \"test.jsonl\"\n\
        [corpus]\ninputs = \"corpus.jsonl\"\n[tokenizer]\nvocab_size = 600\n\
        [model]\npreset = \"tiny\"\nmax_length = 32\n\
        [stage1]\nsteps = 4\nbatch = 4\nrho1 = 1\nwarmup = 1\n[stage2]\nsteps = 4\nbatch = 4\nwarmup = 1\neval_every = 4\n";
    let path = directory.join("run.toml");
    std::fs::write(&path, config).unwrap();
    path
}

/// In a process of its own: with bf16 as Ampere does, and with f16, whose losses are scaled, as Turing does.
#[test]
fn a_run_of_the_quickstarts_smallest_form_goes_from_start_to_end() {
    if emulated().is_none() {
        return;
    }
    for (capability, precision) in [("80", "bf16"), ("75", "f16")] {
        let directory = tempfile::tempdir().unwrap();
        let (config, out) = (smallest_form(directory.path()), directory.path().join("out"));
        let mut run = tlm(directory.path());
        run.env("CUDA_EMULATOR_CAPABILITY", capability);
        run.arg("run")
            .arg(config)
            .arg("--out")
            .arg(&out)
            .args(["--device", "cuda"]);
        let output = run.output().unwrap();
        let (said, failed) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{said}\n{failed}");
        println!("{said}");
        let report = std::fs::read_to_string(out.join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let device = report["device"].as_str().unwrap();
        let expected = format!("PTX interpreter (not a GPU) (sm_{capability}");
        assert!(device.contains(&expected) && device.contains(precision), "{device}");
        assert_eq!(
            (&report["stage1"]["steps"], &report["test"]["examples"]),
            (&4.into(), &24.into())
        );
        assert!(
            report["stage1"]["mlm_loss_last"].as_f64().unwrap().is_finite(),
            "{report}"
        );
    }
}

#[test]
fn a_driver_without_the_compiler_is_told_what_to_install() {
    let directory = tempfile::tempdir().unwrap();
    let config = smallest_form(directory.path());
    let mut run = tlm(directory.path());
    run.env("TLM_NVRTC", directory.path().join("libnvrtc.so.0"));
    run.arg("run").arg(config).args(["--device", "cuda"]);
    let output = run.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for part in ["NVRTC", "libnvrtc.so.0", "pip install nvidia-cuda-nvrtc", "TLM_NVRTC"] {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
}

/// How the kernels of a bf16 step touch memory: sectors of 32 bytes and passes through shared memory, against the fewest
/// that the same accesses need. The file that says so is compared; `TLM_BLESS=1` writes it anew.
#[test]
fn memory_accesses_are_those_of_the_committed_table() {
    let Some(emulated) = emulated() else { return };
    let emulated = emulated.as_ref().expect("opened above");
    emulated.control.reset();
    emulated.control.set_counters(true);
    let open = |sizes| emulated.open(sizes, 0, 0, true);
    Training::new(Limits::default(), Precision::Bf16, open, &start(0.0)).run(0..1);
    emulated.control.set_counters(false);
    let counted = emulated.control.counters();
    let mut table = String::from(HEAD);
    let mut broken = Vec::new();
    for (kernel, counts) in counted.as_object().unwrap() {
        let lines = counts["lines"].as_object().unwrap();
        let sum = |name: &str| -> u64 { lines.values().filter_map(|line| line[name].as_u64()).sum() };
        let share = |ideal: u64, real: u64| match real {
            0 => "-".to_owned(),
            _ => format!("{:.0} %", 100.0 * ideal as f64 / real as f64),
        };
        let (sectors, ideal_sectors) = (sum("sectors"), sum("ideal_sectors"));
        let (wavefronts, ideal_wavefronts) = (sum("wavefronts"), sum("ideal_wavefronts"));
        table += &format!(
            "| `{kernel}` | {sectors} | {} | {wavefronts} | {} |\n",
            share(ideal_sectors, sectors),
            share(ideal_wavefronts, wavefronts)
        );
        // Products live on shared memory: a conflict there is time.
        let product = kernel.starts_with("gemm") || kernel.starts_with("attention");
        if product && 100 * ideal_wavefronts < 95 * wavefronts {
            broken.push(format!(
                "{kernel}: {wavefronts} passes where {ideal_wavefronts} would do"
            ));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cuda-memory.md");
    if std::env::var("TLM_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(path, &table).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == table,
        "docs/cuda-memory.md is out of date: TLM_BLESS=1 cargo test --release --test cuda_emulated memory"
    );
}

const HEAD: &str = "# How CUDA's kernels touch memory

Made by `TLM_BLESS=1 cargo test --release --test cuda_emulated memory`; a test compares. Counted by the interpreter of
`tests/cuda_emulator` over one joint training step of tiny (H = 128, two heads of 64, 8,192 words, bf16, first variants): sectors of
32 bytes that the warps' requests to global memory touch, and passes (wavefronts of 32 banks) of their requests to shared
memory; each with the share of them that the same bytes need at least. Counted, not measured: nothing here ran on hardware.

| entry point | sectors | needed | shared passes | needed |
|---|---|---|---|---|
";
