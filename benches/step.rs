//! Whole training steps on the CPU against the matrix products that they consist of.
//!
//! `cargo bench --bench step [-- PRESET ...]`, presets `tiny-8192`, `mini-30522`, ... A step writes a packed batch of 32
//! sequences (82 to 128 tokens, mean 105, 15 % masked), runs the plan `external` with dropout 0.1, the gradient norm and AdamW,
//! and reads loss and norm. Interleaved with it, the *floor*: the same products and nothing else, once through crate
//! `gemm` and once through the crate's own `multiply`. Medians. Which kernel takes how long, `tlm profile` and `tlm bench` say.

mod preset;
mod product;

use std::time::Instant;

use preset::{PRESETS, Packed, Training};
use product::{Shape, fill, span};
use rayon::prelude::*;
use tlm::device::cpu::{CpuDevice, instruction_set};
use tlm::device::{Device, Program};
use tlm::kernel::StepParams;
use tlm::ops::gemm::cpu::{multiply, multiply_here};
use tlm::plan::{Limits, Plan};

const VOCABULARIES: [usize; 2] = [8_192, 30_522];

/// Products that run one after the other with all threads, or, in attention, side by side on one thread each.
enum Work {
    Whole(Shape),
    Sequences(Vec<Vec<Shape>>),
}

fn products(plan: &Plan, batch: &Packed, step: &StepParams) -> Vec<Work> {
    let mut work = Vec::new();
    for launch in &plan.launches {
        let (dims, name) = (&launch.dims, launch.kernel.name);
        if name.starts_with("gemm.") {
            let (rows, n, k) = (dims.extent("rows").live(step), dims.size("n"), dims.size("k"));
            let shape = |m, n, k, a, b| Shape { m, n, k, a, b, ldc: n };
            work.push(Work::Whole(match name {
                "gemm.forward" | "gemm.forward_gelu" => shape(rows, n, k, [k, 1], [k, 1]),
                "gemm.backward_input" | "gemm.backward_gelu" => shape(rows, k, n, [n, 1], [1, k]),
                "gemm.backward_weight" => shape(n, k, rows, [1, n], [1, k]),
                other => panic!("unknown product {other}"),
            }));
        }
        if matches!(name, "attention.forward" | "attention.backward") {
            let (heads, d, h) = (dims.word("heads"), dims.word("head_size") as usize, dims.size("h"));
            let of_sequence = |span: &[u32]| -> Vec<Shape> {
                let len = (span[1] - span[0]) as usize;
                let ld = len.next_multiple_of(16);
                let shape = |m, n, k, a, b, ldc| Shape { m, n, k, a, b, ldc };
                let scores = shape(len, len, d, [3 * h, 1], [3 * h, 1], ld);
                let rows = |a| shape(len, d, len, a, [1, 3 * h], h);
                let products = match name {
                    "attention.forward" => vec![scores, rows([ld, 1])],
                    _ => vec![scores, scores, rows([ld, 1]), rows([1, ld]), rows([1, ld])],
                };
                (0..heads).flat_map(|_| products.clone()).collect()
            };
            work.push(Work::Sequences(batch.cu_seqlens.windows(2).map(of_sequence).collect()));
        }
    }
    work
}

fn flops(work: &[Work]) -> f64 {
    let of = |shape: &Shape| 2.0 * (shape.m * shape.n * shape.k) as f64;
    let all = work.iter().map(|work| match work {
        Work::Whole(shape) => of(shape),
        Work::Sequences(sequences) => sequences.iter().flatten().map(of).sum(),
    });
    all.sum()
}

/// Operands large enough for every product.
struct Operands {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Operands {
    fn new(work: &[Work]) -> Operands {
        let (mut a, mut b, mut c) = (0, 0, 0);
        let mut cover = |shape: &Shape| {
            a = a.max(span(shape.m, shape.k, shape.a));
            b = b.max(span(shape.n, shape.k, shape.b));
            c = c.max(shape.m * shape.ldc);
        };
        for work in work {
            match work {
                Work::Whole(shape) => cover(shape),
                Work::Sequences(sequences) => sequences.iter().flatten().for_each(&mut cover),
            }
        }
        Operands {
            a: fill(a),
            b: fill(b),
            c: vec![0.0; c],
        }
    }
}

/// Runs all products: through crate `gemm`, or through the crate's own.
fn floor(work: &[Work], operands: &mut Operands, library: bool) {
    let Operands { a, b, c } = operands;
    let (a, b) = (&a[..], &b[..]);
    for work in work {
        match work {
            Work::Whole(shape) if library => shape.theirs(a, b, c, gemm::Parallelism::Rayon(0)),
            Work::Whole(shape) => multiply(&shape.ours(a, b), c),
            Work::Sequences(sequences) => {
                let longest = sequences.iter().flatten().map(|shape| shape.m * shape.ldc).max();
                let own = c.par_chunks_mut(longest.unwrap_or(1));
                own.zip(sequences).for_each(|(c, shapes)| {
                    for shape in shapes {
                        if library {
                            shape.theirs(a, b, c, gemm::Parallelism::None);
                        } else {
                            multiply_here(&shape.ours(a, b), c);
                        }
                    }
                });
            }
        }
    }
}

/// One training step, as a trainer makes it; the sum of the masked tokens' losses.
fn train(device: &mut dyn Device, training: &Training, programs: [Program; 2], number: u32) -> f32 {
    let run = |device: &mut dyn Device| {
        training
            .batch
            .write(device, &training.external, &training.step(number))?;
        device.submit(&[], &programs)?;
        let mut losses = [0];
        device.collect(&mut losses)?;
        Ok::<f32, tlm::device::DeviceError>(f32::from_bits(losses[0]))
    };
    run(device).expect("the plans fit the device")
}

fn timed<T>(times: &mut Vec<f64>, body: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = body();
    times.push(start.elapsed().as_secs_f64());
    result
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Peak resident memory since the last reset, in bytes; 0 where the system does not say.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn reset_peak_memory() {
    // Linux: 5 resets the peak. Elsewhere there is no such file, and `peak_memory` is 0.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn preset(preset: (&str, usize, usize, usize), vocabulary: usize) {
    let (name, layers, width, _) = preset;
    let training = Training::new(preset, vocabulary, Limits::default());
    let (external, update, batch) = (&training.external, &training.update, &training.batch);
    let sizes = training.sizes();
    let (step, tokens) = (batch.step(), batch.ids.len());

    reset_peak_memory();
    let before = peak_memory();
    let mut device = CpuDevice::new(sizes, 0).expect("threads start");
    let programs = [external, update].map(|plan| device.load(plan).expect("the plan fits"));
    training.start(&mut device);
    let mut losses = Vec::new();
    for number in 0..2 {
        losses.push(train(&mut device, &training, programs, number) / batch.masked_rows.len() as f32);
    }
    let memory = peak_memory().saturating_sub(before);

    let work = products(external, batch, &step);
    let mut operands = Operands::new(&work);
    let rounds = if width >= 512 { 5 } else { 11 };
    let (mut steps, mut library, mut own) = (Vec::new(), Vec::new(), Vec::new());
    floor(&work, &mut operands, true);
    for number in 2..2 + rounds {
        timed(&mut steps, || train(&mut device, &training, programs, number));
        timed(&mut library, || floor(&work, &mut operands, true));
        timed(&mut own, || floor(&work, &mut operands, false));
    }
    let (step_time, library, own) = (median(&mut steps), median(&mut library), median(&mut own));
    let cost = external.cost(Some(&step)) + update.cost(Some(&step));
    let launches = external.launches.len() + update.launches.len();
    println!(
        "\n{name} ({layers} x {width}), {vocabulary} words: {tokens} tokens, {} masked",
        batch.masked_rows.len()
    );
    println!(
        "  step                {:9.2} ms, {:8.0} tokens/s",
        1e3 * step_time,
        tokens as f64 / step_time
    );
    println!(
        "  products            {:9.2} GFLOP, {:.1} GFLOP/s in the step",
        flops(&work) / 1e9,
        flops(&work) / step_time / 1e9
    );
    for (what, time) in [("crate gemm", library), ("multiply", own)] {
        println!(
            "  floor by {what:<10} {:9.2} ms, {:8.0} tokens/s: the step reaches {:.1} %",
            1e3 * time,
            tokens as f64 / time,
            100.0 * time / step_time
        );
    }
    println!(
        "  launches {launches}, {:.2} GFLOP, {:.1} MB read, {:.1} MB written",
        cost.flops as f64 / 1e9,
        cost.read as f64 / 1e6,
        cost.written as f64 / 1e6
    );
    println!(
        "  memory              {:9.1} MB planned, {:.1} MB peak",
        sizes.bytes() as f64 / 1e6,
        memory as f64 / 1e6
    );
    println!("  loss of a masked token {:.4}, then {:.4}", losses[0], losses[1]);
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    println!("{}, {} threads", instruction_set(), rayon::current_num_threads());
    for (name, layers, width, heads) in PRESETS {
        for vocabulary in VOCABULARIES {
            if wanted.is_empty() || wanted.contains(&format!("{name}-{vocabulary}")) {
                preset((name, layers, width, heads), vocabulary);
            }
        }
    }
}
