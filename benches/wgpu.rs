//! Matrix products on a WebGPU adapter: GFLOP/s of every variant.
//!
//! `cargo bench --bench wgpu`. The adapter is the hardware one, else the software driver; `TLM_WGPU_ADAPTER=<index>` picks
//! another. Medians of 7 runs, timed by the adapter's timestamps.

use std::time::Duration;

use tlm::device::wgpu::{Adapter, Choice, Variants, WgpuDevice};
use tlm::device::{Device, Sizes};
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

fn main() {
    let choice = match std::env::var("TLM_WGPU_ADAPTER") {
        Ok(index) => Choice::Index(index.parse().expect("TLM_WGPU_ADAPTER is a number")),
        Err(_) => Choice::Hardware,
    };
    let adapter = Adapter::open(choice, false).or_else(|_| Adapter::open(Choice::Software, false));
    let adapter = adapter.expect("an adapter");
    println!("{}", adapter.info());
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
                let seconds = time(&adapter, &plan, index, m).as_secs_f64();
                let rate = 2e-9 * f64::from(m) * f64::from(n) * f64::from(k) / seconds;
                print!("  {} {rate:.2}", variant.name);
            }
            println!();
        }
    }
}
