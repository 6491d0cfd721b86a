//! Every op that has WGSL on a real WebGPU driver, and the shaders against the kernel tables without any driver.
//!
//! The adapter is the hardware one where there is one, otherwise the software driver; `TLM_WGPU_ADAPTER=<index>` picks
//! another. Without any adapter the tests that need one say so and pass; `TLM_REQUIRE_WGPU=1` makes them fail.
//! The rules are those of the harness; the two configurations are shaders with and without bounds checks: equal bits
//! mean that no kernel depends on what lies outside its tensors.

mod harness;
mod lists;
#[path = "wgpu/device.rs"]
mod on_device;
mod packed;
#[path = "wgpu/replay.rs"]
mod replay;
#[path = "wgpu/training.rs"]
mod steps;
mod training;
#[path = "wgpu/variants.rs"]
mod variants;

use std::io::Write;
use std::time::{Duration, Instant};

use harness::plan::record;
use harness::{Backend, walk};
use tlm::device::wgpu::{Adapter, AdapterKind, Choice, Interface, Shader, WgpuDevice, list};
use tlm::device::{Device, DeviceError, Sizes, Variants};
use tlm::kernel::{Arg, Cost, Count, DType, Extent, File, Kernel, Precision, Source, StepParams};
use tlm::ops::case::keeps;
use tlm::ops::layer_norm::{Norm, layer_norm};
use tlm::ops::{REGISTRY, copy, gemm};
use tlm::plan::{Init, ParamSpec, ParamTable, Plan, Recorder, Space};

/// The adapter to test on.
#[expect(
    clippy::explicit_write,
    reason = "a passing test keeps what eprintln writes to itself"
)]
fn choice() -> Option<Choice> {
    let adapters = list();
    for info in &adapters {
        println!("adapter {info}");
    }
    if let Ok(index) = std::env::var("TLM_WGPU_ADAPTER") {
        return Some(Choice::Index(index.parse().expect("TLM_WGPU_ADAPTER is a number")));
    }
    if adapters.iter().any(|info| info.kind != AdapterKind::Software) {
        return Some(Choice::Hardware);
    }
    if !adapters.is_empty() {
        return Some(Choice::Software);
    }
    let required = std::env::var("TLM_REQUIRE_WGPU").is_ok_and(|value| value == "1");
    assert!(!required, "TLM_REQUIRE_WGPU=1, but there is no WebGPU adapter");
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| {
        let remedy = "install a Vulkan driver (Debian: mesa-vulkan-drivers)";
        writeln!(std::io::stderr(), "SKIPPED: there is no WebGPU adapter; {remedy}").unwrap();
    });
    None
}

fn adapter() -> Option<Adapter> {
    Some(Adapter::open(choice()?, true).unwrap())
}

fn device(adapter: &Adapter, sizes: Sizes) -> Box<dyn Device> {
    with_variant(adapter, sizes, 0)
}

fn with_variant(adapter: &Adapter, sizes: Sizes, variant: usize) -> Box<dyn Device> {
    Box::new(WgpuDevice::new(adapter, sizes, &Variants::Nth(variant)).unwrap())
}

#[test]
fn every_op_with_wgsl_agrees_with_its_f64_reference() {
    walk_in(Precision::F32);
}

#[test]
fn every_op_that_stores_f16_agrees_with_its_f64_reference() {
    walk_in(Precision::F16);
}

fn walk_in(precision: Precision) {
    let Some(choice) = choice() else { return };
    let start = Instant::now();
    let (checked, unchecked) = (
        Adapter::open(choice, true).unwrap(),
        Adapter::open(choice, false).unwrap(),
    );
    println!(
        "testing {} in {}, {} lanes",
        checked.info(),
        precision.name(),
        checked.lanes()
    );
    if !checked.stores(precision) {
        println!("SKIPPED: the adapter does not store {}", precision.name());
        return;
    }
    walk(&Backend {
        name: "wgpu",
        precision,
        variants: &|kernel| {
            let variants = kernel.wgsl.map_or(&[][..], |source| source.variants);
            variants.iter().filter(|variant| checked.runs(variant)).count()
        },
        writes_beyond: false,
        roundings: 0.0,
        configurations: &[&|sizes, n| with_variant(&checked, sizes, n), &|sizes, n| {
            with_variant(&unchecked, sizes, n)
        }],
    });
    println!("{:.1} s", start.elapsed().as_secs_f64());
}

/// The software driver's subgroups have a quarter of these bits' width in threads; results may not depend on it.
#[test]
fn every_op_agrees_at_another_width_of_the_software_driver() {
    const OTHER_BITS: &str = "128"; // it takes 256 by itself, where the processor has them
    let software = |info: &tlm::device::wgpu::AdapterInfo| info.name.contains("llvmpipe");
    let Some(choice) = choice() else { return };
    if !software(Adapter::open(choice, true).unwrap().info()) {
        println!("SKIPPED: the adapter is not lavapipe, its subgroups have one width");
        return;
    }
    let mut run = std::process::Command::new(std::env::current_exe().unwrap());
    run.args([
        "every_op_with_wgsl_agrees_with_its_f64_reference",
        "every_op_that_stores_f16_agrees_with_its_f64_reference",
        "--exact",
        "--nocapture",
    ]);
    let output = run.env("LP_NATIVE_VECTOR_WIDTH", OTHER_BITS).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{OTHER_BITS} bits:\n{text}");
    assert!(
        text.contains(&format!("{OTHER_BITS} bits")),
        "the driver ignored the width {OTHER_BITS}:\n{text}"
    );
}

#[test]
fn a_search_finds_the_lists_of_the_processor() {
    let Some(choice) = choice() else { return };
    let device = format!("wgpu:{}", Adapter::open(choice, false).unwrap().info().index);
    let directory = tempfile::tempdir().unwrap();
    lists::same_on(&device, directory.path(), || {
        std::process::Command::new(env!("CARGO_BIN_EXE_tlm"))
    });
}

#[test]
fn every_shader_agrees_with_its_kernel_table() {
    let cases = REGISTRY.iter().flat_map(|op| (op.cases)());
    let launches = cases.flat_map(|case| {
        let in_precision = |precision| record(&case, Vec::new(), precision).unwrap().plan.launches;
        [Precision::F32, Precision::F16]
            .map(in_precision)
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    });
    for launch in launches {
        let kernel = launch.kernel;
        let Some(source) = &kernel.wgsl else { continue };
        for (index, variant) in source.variants.iter().enumerate() {
            let shader = Shader::new(source, variant, &launch.dims, 8).unwrap_or_else(|error| panic!("{error}"));
            let interface = shader.interface(kernel, source);
            let Interface {
                args, workgroup_bytes, ..
            } = interface.unwrap_or_else(|error| panic!("{error}"));
            if index > 0 {
                continue;
            }
            // What every adapter has by WebGPU's defaults: kernels' first variants must run everywhere.
            assert!(args.len() <= 8, "{}: {} tensors", kernel.name, args.len());
            assert!(variant.threads <= 256, "{}: {} threads", kernel.name, variant.threads);
            assert!(
                workgroup_bytes <= 16_384,
                "{}: {workgroup_bytes} bytes of workgroup memory",
                kernel.name
            );
        }
    }
}

/// Writes the words of Philox for each row of counter and key as 16-bit halves, which f32 holds exactly.
static PHILOX: Kernel = Kernel {
    name: "philox",
    args: &[
        Arg::index("counters", ["rows", "six"]),
        Arg::output("halves", ["rows", "eight"]),
    ],
    constants: &["rows"],
    cuda: None,
    wgsl: Some(Source::new(
        File {
            name: "tests/philox.wgsl",
            text: "
                struct Constants { rows: u32 }
                @group(0) @binding(1) var<uniform> constants: Constants;
                @group(0) @binding(2) var<storage, read_write> counters: array<u32>;
                @group(0) @binding(3) var<storage, read_write> halves: array<f32>;
                @compute @workgroup_size(256)
                fn philox(@builtin(local_invocation_index) row: u32) {
                    if row >= constants.rows { return; }
                    let i = 6u * row;
                    let counter = vec4<u32>(counters[i], counters[i + 1u], counters[i + 2u], counters[i + 3u]);
                    let words = philox4x32_10(counter, vec2<u32>(counters[i + 4u], counters[i + 5u]));
                    for (var word = 0u; word < 4u; word += 1u) {
                        halves[8u * row + 2u * word] = f32(words[word] >> 16u);
                        halves[8u * row + 2u * word + 1u] = f32(words[word] & 0xffffu);
                    }
                }",
        },
        &["philox"],
    )),
    cpu: |_| (),
    reserve: None,
    grid: |_, _| [1, 1, 1],
    cost: |_| Cost::default(),
};

fn no_params() -> ParamTable {
    ParamTable::new(Vec::new())
}

fn read(device: &mut dyn Device, plan: &Plan, name: &str) -> Vec<f32> {
    let port = plan.output(name).unwrap();
    let mut words = vec![0; port.words];
    device.read(Space::Readback, port.offset, &mut words).unwrap();
    words.into_iter().map(f32::from_bits).collect()
}

fn bits(data: &[f32]) -> Vec<u32> {
    data.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn philox_gives_the_known_answers_of_random123() {
    // kat_vectors of Random123 1.14: philox4x32 10, counter, key, answer.
    const VECTORS: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        (
            [u32::MAX; 4],
            [u32::MAX; 2],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        ),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    let Some(adapter) = adapter() else { return };
    let params = no_params();
    let mut r = Recorder::new("philox", &params);
    let counters = r.input("counters", Extent::fixed(3), 6, DType::U32);
    let halves = r.output("halves", Extent::fixed(3), 8);
    r.launch(&PHILOX, &[counters, halves], &[]).unwrap();
    let plan = r.finish();
    let mut device = device(&adapter, Sizes::of(0, false, &[&plan]));
    let program = device.load(&plan).unwrap();
    let input: Vec<u32> = VECTORS
        .iter()
        .flat_map(|(counter, key, _)| [&counter[..], &key[..]].concat())
        .collect();
    device
        .write(Space::Inputs, plan.input("counters").unwrap().offset, &input)
        .unwrap();
    device.run(program).unwrap();
    let halves = read(&mut *device, &plan, "halves");
    let words: Vec<u32> = halves
        .chunks(2)
        .map(|half| (half[0] as u32) << 16 | half[1] as u32)
        .collect();
    let answers: Vec<u32> = VECTORS.iter().flat_map(|(_, _, answer)| *answer).collect();
    assert_eq!(words, answers);
}
