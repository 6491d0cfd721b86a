//! Matrix products and whole training steps on a WebGPU adapter.
//!
//! `cargo bench --bench wgpu [-- products | PRESET ...]`. The adapter is the hardware one, else the software driver;
//! `TLM_WGPU_ADAPTER=<index>` picks another. Products: GFLOP/s of every variant, by the adapter's timestamps. Steps: wall
//! time from submission to losses against the sum of the kernels' own times, dispatches, and the host's time where no
//! dispatch has any work. Medians.

mod preset;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use preset::{PRESETS, Training};
use tlm::device::wgpu::{Adapter, Choice, WgpuDevice};
use tlm::device::{Device, Program, Sizes, Variants};
use tlm::kernel::{Count, DType, Extent, Kernel, StepParams};
use tlm::ops::gemm;
use tlm::plan::{ParamTable, Plan, Recorder, Space};

const REPEATS: usize = 7;

/// One launch of a product of `m` rows.
fn plan(kernel: &'static Kernel, m: u32, n: u32, k: u32) -> Plan {
    let params = ParamTable::new(Vec::new());
    let mut r = Recorder::new("product", &params);
    let rows = Extent::counted(Count::Tokens, m);
    let (values, constants): (Vec<_>, &[_]) = match kernel.name {
        "gemm.forward" => (
            vec![
                r.input("x", rows, k, DType::F32),
                r.input("w", Extent::fixed(n), k, DType::F32),
                r.input("b", Extent::fixed(1), n, DType::F32),
                r.value("y", rows, n),
            ],
            &[],
        ),
        "gemm.backward_input" => (
            vec![
                r.input("dy", rows, n, DType::F32),
                r.input("w", Extent::fixed(n), k, DType::F32),
                r.value("dx", rows, k),
            ],
            &[("accumulate_dx", 0)],
        ),
        _ => (
            vec![
                r.input("dy", rows, n, DType::F32),
                r.input("x", rows, k, DType::F32),
                r.value("dw", Extent::fixed(n), k),
            ],
            &[("accumulate_dw", 0)],
        ),
    };
    r.launch(kernel, &values, constants).expect("the shapes agree");
    r.finish()
}

/// Median time of the plan's only launch.
fn time(adapter: &Adapter, plan: &Plan, variant: usize, rows: u32) -> Duration {
    let sizes = Sizes::of(0, false, &[plan]);
    let mut device = WgpuDevice::new(adapter, sizes, &Variants::Nth(variant)).expect("the plan fits");
    let program = device.load(plan).expect("the kernel compiles");
    let numbers: Vec<u32> = (0..plan.input_words())
        .map(|i| (((i * 37 % 101) as f32 - 50.0) / 50.0).to_bits())
        .collect();
    device.write(Space::Inputs, 0, &numbers).expect("the input fits");
    let step = StepParams {
        tokens: rows,
        ..StepParams::default()
    };
    device.write(Space::Inputs, 0, step.words()).expect("the input fits");
    device.run(program).expect("the launch runs");
    let mut times: Vec<Duration> = (0..REPEATS)
        .map(|_| {
            let mut times = [Duration::ZERO];
            device
                .run_timed(program, &mut times)
                .expect("the adapter has timestamps");
            times[0]
        })
        .collect();
    times.sort();
    times[REPEATS / 2]
}

fn products(adapter: &Adapter) {
    for (m, n, k) in [
        (512, 512, 512),
        (1024, 1024, 1024),
        (3360, 384, 128),
        (3360, 1024, 256),
        (504, 8192, 256),
    ] {
        for kernel in [&gemm::FORWARD, &gemm::BACKWARD_INPUT, &gemm::BACKWARD_WEIGHT] {
            let plan = plan(kernel, m, n, k);
            print!("{:<22} {m:>5} {n:>5} {k:>5}", kernel.name);
            for (index, variant) in kernel.wgsl.expect("gemm has WGSL").variants.iter().enumerate() {
                let seconds = time(adapter, &plan, index, m).as_secs_f64();
                let rate = 2e-9 * f64::from(m) * f64::from(n) * f64::from(k) / seconds;
                print!("  {} {rate:.2}", variant.name);
            }
            println!();
        }
    }
}

/// Seconds of a step: inputs are on the device already.
fn step_time(device: &mut WgpuDevice, programs: &[Program], readback: &mut [u32]) -> f64 {
    let start = Instant::now();
    device.submit(&[], programs).expect("the step runs");
    device.collect(readback).expect("the step runs");
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn steps(adapter: &Adapter, preset: (&str, usize, usize, usize)) {
    const ROUNDS: usize = 5;
    let training = Training::new(preset, 8192, adapter.limits());
    let (plans, sizes) = ([&training.external, &training.update], training.sizes());
    let variants = Variants::Measured {
        file: None,
        pins: Vec::new(),
    };
    let mut device = WgpuDevice::new(adapter, sizes, &variants).expect("the plans fit");
    training.start(&mut device);
    let programs = plans.map(|plan| device.load(plan).expect("the plan fits"));
    let step = training.step(0);
    let written = training.batch.write(&mut device, &training.external, &step);
    written.expect("the batch fits");
    let mut readback = vec![0; sizes.readback];
    step_time(&mut device, &programs, &mut readback);
    let (mut wall, mut sums) = (Vec::new(), Vec::new());
    let mut kernels: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for _ in 0..ROUNDS {
        wall.push(step_time(&mut device, &programs, &mut readback));
        let mut sum = 0.0;
        for (plan, program) in plans.into_iter().zip(programs) {
            let mut times = vec![Duration::ZERO; plan.launches.len()];
            let timed = device.run_timed(program, &mut times);
            timed.expect("the adapter has timestamps");
            for (launch, time) in plan.launches.iter().zip(times) {
                let of_kernel = kernels.entry(launch.kernel.name).or_default();
                of_kernel.0 += 1;
                of_kernel.1 += time.as_secs_f64();
                sum += time.as_secs_f64();
            }
        }
        sums.push(sum);
    }
    let dispatches: usize = programs.iter().map(|&program| device.dispatches(program)).sum();
    let idle = plans.map(|plan| device.load_idle(plan).expect("the plan fits"));
    let host = (0..100).map(|_| step_time(&mut device, &idle, &mut readback)).collect();
    let (wall, sum, host) = (median(wall), median(sums), median(host));
    let tokens = f64::from(step.tokens);
    println!("\n{}, vocabulary 8192, {tokens} tokens", preset.0);
    println!("  step      {:>9.1} ms, {:.0} tokens/s", 1e3 * wall, tokens / wall);
    println!("  kernels   {:>9.1} ms in {dispatches} dispatches", 1e3 * sum);
    println!("  overhead  {:>9.1} % of the kernels' time", 1e2 * (wall / sum - 1.0));
    println!(
        "  idle step {:>9.3} ms: host and driver, no dispatch has a workgroup",
        1e3 * host
    );
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    for (name, (launches, seconds)) in kernels {
        let (launches, ms) = (launches / ROUNDS, 1e3 * seconds / ROUNDS as f64);
        println!("  {name:<34} {launches:>4} {ms:>9.2} ms {:>5.1} %", 0.1 * ms / sum);
    }
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| asked.iter().any(|arg| arg == name);
    let choice = match std::env::var("TLM_WGPU_ADAPTER") {
        Ok(index) => Choice::Index(index.parse().expect("TLM_WGPU_ADAPTER is a number")),
        Err(_) => Choice::Hardware,
    };
    let adapter = Adapter::open(choice, false).or_else(|_| Adapter::open(Choice::Software, false));
    let adapter = adapter.expect("an adapter");
    println!("{}", adapter.info());
    if asked.is_empty() || wanted("products") {
        products(&adapter);
    }
    for preset in PRESETS {
        // The smallest alone unless asked: a software driver needs minutes for the others.
        if wanted(preset.0) || (asked.is_empty() && preset.0 == "tiny") {
            steps(&adapter, preset);
        }
    }
}
