//! Every op that has WGSL on a real WebGPU driver, and the shaders against the kernel tables without any driver.
//!
//! The adapter is the hardware one where there is one, otherwise the software driver; `TLM_WGPU_ADAPTER=<index>` picks
//! another. Without any adapter the tests that need one say so and pass; `TLM_REQUIRE_WGPU=1` makes them fail.
//! The rules are those of the harness; the two configurations are shaders with and without bounds checks: equal bits
//! mean that no kernel depends on what lies outside its tensors.

mod harness;
mod packed;
#[path = "wgpu/training.rs"]
mod training;

use std::io::Write;
use std::time::{Duration, Instant};

use harness::plan::record;
use harness::{Backend, walk};
use tlm::device::wgpu::{Adapter, AdapterKind, Choice, Interface, Shader, Variants, WgpuDevice, list};
use tlm::device::{Device, DeviceError, Sizes};
use tlm::kernel::{Arg, Cost, Count, DType, Extent, File, Kernel, Source, StepParams};
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
    let Some(choice) = choice() else { return };
    let start = Instant::now();
    let (checked, unchecked) = (
        Adapter::open(choice, true).unwrap(),
        Adapter::open(choice, false).unwrap(),
    );
    println!("testing {}", checked.info());
    walk(&Backend {
        name: "wgpu",
        variants: |kernel| kernel.wgsl.map_or(0, |source| source.variants.len()),
        configurations: &[&|sizes, n| with_variant(&checked, sizes, n), &|sizes, n| {
            with_variant(&unchecked, sizes, n)
        }],
    });
    println!("{:.1} s", start.elapsed().as_secs_f64());
}

/// The software driver's subgroups have a quarter of these bits' width in threads; results may not depend on it.
#[test]
fn every_op_agrees_at_other_widths_of_the_software_driver() {
    let software = |info: &tlm::device::wgpu::AdapterInfo| info.name.contains("llvmpipe");
    let Some(choice) = choice() else { return };
    if !software(Adapter::open(choice, true).unwrap().info()) {
        println!("SKIPPED: the adapter is not lavapipe, its subgroups have one width");
        return;
    }
    for width in ["128", "512"] {
        let mut run = std::process::Command::new(std::env::current_exe().unwrap());
        run.args([
            "--exact",
            "every_op_with_wgsl_agrees_with_its_f64_reference",
            "--nocapture",
        ]);
        let output = run.env("LP_NATIVE_VECTOR_WIDTH", width).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "width {width}:\n{text}");
        assert!(
            text.contains(&format!("{width} bits")),
            "the driver ignored width {width}:\n{text}"
        );
    }
}

#[test]
fn every_shader_agrees_with_its_kernel_table() {
    let cases = REGISTRY.iter().flat_map(|op| (op.cases)());
    let launches = cases.flat_map(|case| record(&case, Vec::new()).unwrap().plan.launches);
    for launch in launches {
        let kernel = launch.kernel;
        let Some(source) = &kernel.wgsl else { continue };
        for (index, variant) in source.variants.iter().enumerate() {
            let shader = Shader::new(source, variant, &launch.dims).unwrap_or_else(|error| panic!("{error}"));
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

/// LayerNorm with dropout of an input of up to 65 tokens.
fn dropped(r: &mut Recorder) {
    let rows = Extent::counted(Count::Tokens, 65);
    let x = r.input("x", rows, 130, DType::F32);
    let norm = Norm {
        gamma: r.param("gamma").unwrap(),
        beta: r.param("beta").unwrap(),
        epsilon: 1e-12,
    };
    let y = layer_norm(r, x, norm, 0.25).unwrap();
    let out = r.output("out", rows, 130);
    r.launch(&copy::COPY, &[y, out], &[("accumulate_y", 0)]).unwrap();
}

fn norm_params() -> ParamTable {
    let vector = |name: &str| ParamSpec {
        name: name.to_string(),
        rows: 1,
        width: 130,
        decay: false,
        head: false,
        init: Init::Ones,
        vector: true,
    };
    ParamTable::new(vec![vector("gamma"), vector("beta")])
}

#[test]
fn each_replay_reads_its_own_steps_scalars_and_drops_the_elements_that_the_definition_drops() {
    let Some(adapter) = adapter() else { return };
    let params = norm_params();
    let mut r = Recorder::new("dropout", &params);
    dropped(&mut r);
    let plan = r.finish();
    let mut device = device(&adapter, Sizes::of(params.words(), false, &[&plan]));
    let program = device.load(&plan).unwrap();
    device
        .write(Space::Params, 0, &vec![1.5f32.to_bits(); params.words()])
        .unwrap();
    let port = plan.input("x").unwrap();
    let x: Vec<f32> = (0..port.words).map(|index| (index as f32).sin()).collect();
    device.write(Space::Inputs, port.offset, &bits(&x)).unwrap();
    for (index, tokens) in [65u32, 64, 1, 0].into_iter().enumerate() {
        let step = StepParams {
            step: 7 + index as u32,
            seed: [3, 1 << 31],
            tokens,
            ..StepParams::default()
        };
        device
            .write(Space::Readback, 0, &vec![f32::NAN.to_bits(); plan.readback_words()])
            .unwrap();
        device.write(Space::Inputs, 0, step.words()).unwrap();
        device.run(program).unwrap();
        for (element, y) in read(&mut *device, &plan, "out").into_iter().enumerate() {
            if element < 130 * tokens as usize {
                let kept = keeps(&step, 1, tlm::rng::threshold(0.25), element);
                assert_eq!(y != 0.0, kept, "step {}, element {element}: {y}", step.step);
            } else {
                assert!(y.is_nan(), "element {element} of {tokens} rows was written");
            }
        }
    }
}

#[test]
fn submissions_come_back_in_order_and_make_no_object() {
    let Some(adapter) = adapter() else { return };
    let params = norm_params();
    let mut r = Recorder::new("ring", &params);
    dropped(&mut r);
    let plan = r.finish();
    let mut device = device(&adapter, Sizes::of(params.words(), false, &[&plan]));
    let program = device.load(&plan).unwrap();
    device
        .write(Space::Params, 0, &vec![1.5f32.to_bits(); params.words()])
        .unwrap();
    let port = plan.input("x").unwrap();
    let inputs = |number: u32| {
        let step = StepParams {
            step: number,
            tokens: 65,
            ..StepParams::default()
        };
        let mut words = vec![0; plan.input_words()];
        words[..StepParams::WORDS].copy_from_slice(step.words());
        for (index, word) in words[port.offset..port.offset + port.words].iter_mut().enumerate() {
            *word = ((index as u32 + number) as f32).sin().to_bits();
        }
        words
    };
    const STEPS: u32 = 12;
    let mut expected = Vec::new();
    for number in 0..STEPS {
        device.write(Space::Inputs, 0, &inputs(number)).unwrap();
        device.run(program).unwrap();
        let mut words = vec![0; plan.readback_words()];
        device.read(Space::Readback, 0, &mut words).unwrap();
        expected.push(words);
    }
    let ahead = device.ring() as u32;
    assert!(ahead > 1, "the host waits for every step");
    let mut objects = Vec::new();
    for number in 0..STEPS + ahead {
        if number >= ahead {
            let mut words = vec![0; plan.readback_words()];
            device.collect(&mut words).unwrap();
            assert!(words == expected[(number - ahead) as usize], "step {}", number - ahead);
        }
        if number < STEPS {
            device.submit(&inputs(number), &[program]).unwrap();
            objects.push(adapter.objects());
        }
    }
    assert!(objects[0].buffers > 0 && objects[0].pipelines > 0, "{:?}", objects[0]);
    let changed = objects.iter().position(|now| *now != objects[0]);
    assert_eq!(changed, None, "{objects:?}");
}

#[test]
fn timing_each_launch_changes_no_bit() {
    let Some(adapter) = adapter() else { return };
    let params = norm_params();
    let mut r = Recorder::new("timed", &params);
    dropped(&mut r);
    let plan = r.finish();
    let mut device = device(&adapter, Sizes::of(params.words(), false, &[&plan]));
    let program = device.load(&plan).unwrap();
    let step = StepParams {
        tokens: 65,
        ..StepParams::default()
    };
    device
        .write(Space::Params, 0, &vec![1.5f32.to_bits(); params.words()])
        .unwrap();
    device.write(Space::Inputs, 0, step.words()).unwrap();
    let x: Vec<f32> = (0..65 * 130).map(|index| (index as f32).cos()).collect();
    device
        .write(Space::Inputs, plan.input("x").unwrap().offset, &bits(&x))
        .unwrap();
    device.run(program).unwrap();
    let plain = bits(&read(&mut *device, &plan, "out"));
    let mut times = vec![Duration::ZERO; plan.launches.len()];
    match device.run_timed(program, &mut times) {
        Err(DeviceError::Backend { what, .. }) if what.contains("no timestamps") => return println!("SKIPPED: {what}"),
        result => result.unwrap(),
    }
    assert!(times.iter().all(|time| *time > Duration::ZERO), "{times:?}");
    assert_eq!(bits(&read(&mut *device, &plan, "out")), plain);
}

#[test]
fn transfers_longer_than_the_staging_buffer_arrive_whole() {
    let Some(adapter) = adapter() else { return };
    let sizes = Sizes {
        arena: 2_500_000,
        ..Sizes::default()
    };
    let mut device = device(&adapter, sizes);
    let sent: Vec<u32> = (0..2_400_000)
        .map(|index: u32| index.wrapping_mul(2_654_435_761))
        .collect();
    device.write(Space::Arena, 64, &sent).unwrap();
    let mut back = vec![0; sent.len()];
    device.read(Space::Arena, 64, &mut back).unwrap();
    assert!(
        back == sent,
        "first difference at {:?}",
        back.iter().zip(&sent).position(|(a, b)| a != b)
    );
    let mut zeros = vec![1; 64];
    device.read(Space::Arena, 0, &mut zeros).unwrap();
    assert_eq!(zeros, vec![0; 64], "buffers start as zero");
    assert!(matches!(
        device.read(Space::Arena, 2_499_999, &mut [0; 2]),
        Err(DeviceError::OutOfRange { .. })
    ));
}

/// A product of 70 rows with the bits that it leaves.
fn product(adapter: &Adapter, variants: &Variants) -> Result<(Option<String>, &'static str, Vec<u32>), DeviceError> {
    let params = no_params();
    let mut r = Recorder::new("product", &params);
    let rows = Extent::counted(Count::Tokens, 70);
    let (x, w) = (
        r.input("x", rows, 36, DType::F32),
        r.input("w", Extent::fixed(65), 36, DType::F32),
    );
    let b = r.input("b", Extent::fixed(1), 65, DType::F32);
    let y = r.output("y", rows, 65);
    r.launch(&gemm::FORWARD, &[x, w, b, y], &[]).unwrap();
    let plan = r.finish();
    let mut device = WgpuDevice::new(adapter, Sizes::of(0, false, &[&plan]), variants)?;
    let program = device.load(&plan)?;
    let numbers: Vec<f32> = (0..plan.input_words()).map(|index| (index as f32).sin()).collect();
    device.write(Space::Inputs, 0, &bits(&numbers))?;
    let step = StepParams {
        tokens: 70,
        ..StepParams::default()
    };
    device.write(Space::Inputs, 0, step.words())?;
    device.run(program)?;
    let y = bits(&read(&mut device, &plan, "y"));
    Ok((device.remark(), device.variants(program)[0], y))
}

#[test]
fn the_fastest_variant_is_measured_once_and_what_the_file_says_is_taken() {
    let Some(adapter) = adapter() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache/variants.json");
    let measured = Variants::parse("measured", Some(file.clone())).unwrap();
    let (remark, fastest, expected) = product(&adapter, &measured).unwrap();
    assert!(
        remark
            .unwrap()
            .contains("1 launches measured now, 0 as measured before")
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = kept.as_object().unwrap().values().next().unwrap().as_object().unwrap();
    let (key, entry) = entries.iter().next().unwrap();
    assert!(key.starts_with("gemm.forward rows=128 k=36 n=65 #"), "{key}");
    let times = entry["microseconds"].as_object().unwrap();
    let least = times
        .iter()
        .min_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap()));
    assert_eq!(times.len(), gemm::FORWARD.wgsl.unwrap().variants.len());
    assert_eq!(
        (least.unwrap().0.as_str(), entry["variant"].as_str().unwrap()),
        (fastest, fastest)
    );

    let (remark, again, y) = product(&adapter, &measured).unwrap();
    assert!(remark.unwrap().contains("1 launches as measured before"));
    assert!(again == fastest && y == expected);

    let other = if fastest == "32x32" { "64x64" } else { "32x32" };
    let edited = text.replace(
        &format!("\"variant\": \"{fastest}\""),
        &format!("\"variant\": \"{other}\""),
    );
    std::fs::write(&file, edited).unwrap();
    let (_, edited, y) = product(&adapter, &measured).unwrap();
    assert!(edited == other && y == expected);
    let pinned = Variants::parse("gemm=128x64", Some(file.clone())).unwrap();
    let (_, pinned, y) = product(&adapter, &pinned).unwrap();
    assert!(pinned == "128x64" && y == expected);

    std::fs::write(&file, "{").unwrap();
    let error = product(&adapter, &measured).err().unwrap().to_string();
    assert!(
        error.contains("variants.json") && error.contains("delete the file"),
        "{error}"
    );
}

/// A kernel without WGSL and one whose WGSL is wrong.
static MISSING: Kernel = Kernel {
    name: "missing",
    ..CODELESS
};
static BROKEN: Kernel = Kernel {
    name: "broken",
    wgsl: Some(Source::new(
        File {
            name: "tests/broken.wgsl",
            text: "\n\nfn f() -> u32 { return missing; }\n",
        },
        &["f"],
    )),
    ..CODELESS
};

/// The table of `copy` without its code.
const CODELESS: Kernel = Kernel {
    name: "copy",
    args: &[Arg::input("x", ["rows", "width"]), Arg::inout("y", ["rows", "width"])],
    constants: &["rows", "rows.count", "rows.start", "width", "accumulate_y"],
    cuda: None,
    wgsl: None,
    cpu: |_| (),
    reserve: None,
    grid: |_, _| [1, 1, 1],
    cost: |_| Cost::default(),
};

#[test]
fn what_an_adapter_cannot_do_is_refused_before_it_runs_with_the_reason() {
    let error = Adapter::open(Choice::Index(1_000), true).err().unwrap().to_string();
    assert!(error.contains("asked for adapter 1000"), "{error}");

    let Some(adapter) = adapter() else { return };
    let huge = Sizes {
        params: 1 << 50,
        ..Sizes::default()
    };
    let error = WgpuDevice::new(&adapter, huge, &Variants::First)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("Params needs 4503599627370496 bytes"), "{error}");

    let params = no_params();
    let load = |kernel: &'static Kernel, rows: u32, start: u32| {
        let mut r = Recorder::new("refused", &params);
        let x = r.input("x", Extent::fixed(rows + start), 8, DType::F32);
        let x = r.view(x, start, rows);
        let y = r.output("y", Extent::fixed(rows), 8);
        r.launch(kernel, &[x, y], &[("accumulate_y", 0)]).unwrap();
        let plan = r.finish();
        device(&adapter, Sizes::of(0, false, &[&plan]))
            .load(&plan)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(load(&copy::COPY, 4, 8), Ok(()));
    let error = load(&copy::COPY, 4, 1).unwrap_err();
    assert!(error.contains("shows `x` from word 72 of Inputs on"), "{error}");
    let error = load(&MISSING, 4, 0).unwrap_err();
    assert!(error.contains("wgpu has no implementation of missing"), "{error}");
    let error = load(&BROKEN, 4, 0).unwrap_err();
    assert!(error.contains("tests/broken.wgsl:3:24"), "{error}");
    // 128 MiB and a little: more than WebGPU promises, less than most GPUs allow.
    match load(&copy::COPY, (1 << 22) + 64, 0) {
        Ok(()) => assert!(adapter.info().kind != AdapterKind::Software),
        Err(error) => assert!(
            error.contains("refused: copy, `x` needs 134219776 bytes in one tensor"),
            "{error}"
        ),
    }
}
