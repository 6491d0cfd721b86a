//! What the kernels of a BERT-base step take at least on an A100 and an H100: FLOPs and bytes of the cost functions over the
//! data sheets' rates, and the share of that which the kernels' design is predicted to reach.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tlm::bert::plans::{self, Form, Kind, Optimizer};
use tlm::bert::{Capacity, parameters};
use tlm::hub::BertConfig;
use tlm::kernel::{Cost, Precision, Sizes};
use tlm::plan::{Limits, Plan};

const HEAD: &str = "\
# CUDA: floors and predictions

Made from the kernels' cost functions by `TLM_BLESS=1 cargo test --release --test docs`; a test compares. **Predicted, not run on
hardware.**

A step of stage 1 of BERT-base (12 layers of 768, 12 heads, 30,522 words) in bf16: 4,096 tokens in sequences of 128, 614 of them
masked, forward, backward, gradient norm and AdamW. The floor of a launch is the larger of its FLOPs over the rate of the units it
uses and its bytes (each tensor once) over the rate of memory. Rates from NVIDIA's data sheets: A100 SXM 80 GB 312 TFLOP/s bf16,
19.5 TFLOP/s f32, 2,039 GB/s; H100 SXM 989, 66.9, 3,350.

What bounds a launch: `matrix` or `f32` units, `memory`, or `launch` where the floor is below the 2 us that a kernel in a graph takes to
start and drain. Predicted is the largest of its FLOPs and its bytes over these shares of the rates, and of 2 us:

* `matrix`, products: 60 % on A100, where `mma.sync` fed by `cp.async` and `ldmatrix` reaches two thirds of the peak in large products
  and tiles at the edges lose a tenth; 35 % on H100, whose peak needs `wgmma`, which these kernels do not use.
* `matrix`, attention: 35 % and 20 %: softmax and dropout run on the f32 units between the products.
* `f32`: 50 %. `memory`: 80 %, where a warp reads 16 bytes a thread in rows.

";

/// A GPU's rates: bf16 matrix units and f32 units in FLOP/s, memory in bytes/s.
struct Rates {
    matrix: f64,
    f32: f64,
    memory: f64,
    /// Predicted share of products and of attention.
    products: f64,
    attention: f64,
}

const A100: Rates = Rates {
    matrix: 312e12,
    f32: 19.5e12,
    memory: 2_039e9,
    products: 0.60,
    attention: 0.35,
};
const H100: Rates = Rates {
    matrix: 989e12,
    f32: 66.9e12,
    memory: 3_350e9,
    products: 0.35,
    attention: 0.20,
};

/// Seconds that a launch takes to start and drain inside a graph.
const LAUNCH: f64 = 2e-6;
/// Predicted share of the f32 units' rate: half of them issue something else than a fused multiply-add.
const F32: f64 = 0.5;
/// Predicted share of memory's rate.
const STREAMED: f64 = 0.8;
const TOKENS: u32 = 4096;

/// What bounds a launch, its floor and its predicted time, both in seconds.
fn floor(kernel: &str, cost: Cost, rates: &Rates) -> (&'static str, f64, f64) {
    let attention = matches!(kernel, "attention.forward" | "attention.backward");
    let matrix = attention || kernel.starts_with("gemm.");
    let (unit, rate) = if matrix {
        ("matrix", rates.matrix)
    } else {
        ("f32", rates.f32)
    };
    let compute = cost.flops as f64 / rate;
    let memory = (cost.read + cost.written) as f64 / rates.memory;
    let floor = compute.max(memory);
    let share = match (matrix, attention) {
        (_, true) => rates.attention,
        (true, false) => rates.products,
        (false, false) => F32,
    };
    let bound = if floor < LAUNCH {
        "launch"
    } else if memory >= compute {
        "memory"
    } else {
        unit
    };
    let predicted = (compute / share).max(memory / STREAMED).max(LAUNCH);
    (bound, floor, predicted)
}

/// The plans of the step.
fn step() -> [Plan; 2] {
    let config = BertConfig {
        labels: vec![String::new(); 2],
        ..BertConfig::default()
    };
    let params = parameters(&config);
    let capacity = Capacity {
        tokens: TOKENS,
        sequences: 32,
        masked: 614,
        max_length: 128,
    };
    let form = Form {
        precision: Precision::Bf16,
        ..Form::default()
    };
    [
        plans::batch(Kind::External, &config, &params, &capacity, form).unwrap(),
        plans::update(&params, &Optimizer::BERT, Limits::default(), Precision::Bf16).unwrap(),
    ]
}

#[derive(Default)]
struct Row {
    launches: u64,
    cost: Cost,
    bounds: [BTreeMap<&'static str, u64>; 2],
    floors: [f64; 2],
    predicted: [f64; 2],
}

/// The whole file.
pub fn table() -> String {
    let plans = step();
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for launch in plans.iter().flat_map(|plan| &plan.launches) {
        let cost = (launch.kernel.cost)(&Sizes::new(&launch.dims, None));
        let row = rows.entry(launch.kernel.name).or_default();
        row.launches += 1;
        row.cost = row.cost + cost;
        for (index, rates) in [A100, H100].iter().enumerate() {
            let (bound, floor, predicted) = floor(launch.kernel.name, cost, rates);
            *row.bounds[index].entry(bound).or_default() += 1;
            row.floors[index] += floor;
            row.predicted[index] += predicted;
        }
    }
    let mut out = HEAD.to_owned();
    out += "| kernel | launches | GFLOP | MiB | FLOP/byte | bound, A100 | floor, us | predicted | bound, H100 | floor, us | predicted |\n";
    out += "|---|---|---|---|---|---|---|---|---|---|---|\n";
    for (kernel, row) in &rows {
        let bytes = row.cost.read + row.cost.written;
        let bound = |index: usize| row.bounds[index].keys().copied().collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            out,
            "| `{kernel}` | {} | {:.2} | {:.1} | {:.1} | {} | {:.1} | {:.1} | {} | {:.1} | {:.1} |",
            row.launches,
            row.cost.flops as f64 / 1e9,
            bytes as f64 / f64::from(1 << 20),
            row.cost.flops as f64 / bytes as f64,
            bound(0),
            1e6 * row.floors[0],
            1e6 * row.predicted[0],
            bound(1),
            1e6 * row.floors[1],
            1e6 * row.predicted[1],
        );
    }
    out.push('\n');
    for (index, gpu) in ["A100", "H100"].into_iter().enumerate() {
        let sum = |of: fn(&Row) -> &[f64; 2]| rows.values().map(|row| of(row)[index]).sum::<f64>();
        let (floor, predicted) = (sum(|row| &row.floors), sum(|row| &row.predicted));
        let _ = writeln!(
            out,
            "* {gpu}: floor of the step {:.2} ms, predicted {:.2} ms: {:.0} tokens/s, {:.0} % of the speed of light.",
            1e3 * floor,
            1e3 * predicted,
            f64::from(TOKENS) / predicted,
            100.0 * floor / predicted
        );
    }
    out
}
