//! What the framework itself costs: the trainer's time per step on `null`, the device that runs nothing.
//!
//! `cargo bench --bench host`: stage 1 of each model, batches of 32 sequences of 128 tokens, 15 % masked. A step takes a prepared
//! batch, uploads it, replays two plans, reads losses and norm and counts FLOPs and floors; the time of waiting for a batch,
//! which a device would hide, is left out. `benches/eager.py` makes the same step in PyTorch's eager mode.
//!
//! Then what profiling adds: steps of tiny on the CPU, every other one written down launch by launch, medians of both.

use std::sync::Arc;
use std::time::Instant;

use tlm::bert::Capacity;
use tlm::bert::plans::{Form, Kind, Optimizer};
use tlm::cost::Ceilings;
use tlm::cost::bench::median_and_notch;
use tlm::data::{BatchSettings, BatchStream, Masking, Sequences, SpecialIds};
use tlm::device::choice::{DeviceChoice, PrecisionChoice};
use tlm::hub::BertConfig;
use tlm::rng::Stream;
use tlm::train::feed::{Stage, StepPlan};
use tlm::train::inputs::batch_capacity;
use tlm::train::trainer::Trainer;

const SEQUENCES: usize = 32;
const LENGTH: usize = 128;
const VOCABULARY: usize = 30_522;
const STEPS: u64 = 500;
/// Steps on the CPU, half of them profiled.
const PROFILED: u64 = 120;
const CAPACITY: Capacity = Capacity {
    tokens: (SEQUENCES * LENGTH) as u32,
    sequences: SEQUENCES as u32,
    masked: 752,
    max_length: LENGTH as u32,
};

fn sequences() -> Sequences {
    let mut stream = Stream::new(1, 0, 0);
    let mut sequences = Sequences::default();
    for _ in 0..SEQUENCES {
        let ids: Vec<u32> = (0..LENGTH)
            .map(|_| 5 + stream.next_u32() % (VOCABULARY as u32 - 5))
            .collect();
        sequences.push(&ids);
    }
    sequences
}

fn stage(steps: u64) -> Stage {
    let special = SpecialIds {
        pad: 0,
        unk: 1,
        cls: 2,
        sep: 3,
        mask: 4,
    };
    let settings = BatchSettings {
        seed: 1,
        stream: 0,
        batch: SEQUENCES,
        masking: Some(Masking::new(0.15, special, VOCABULARY).expect("a share between 0 and 1")),
        capacity: batch_capacity(&CAPACITY),
    };
    Stage {
        number: 1,
        seed: 1,
        steps,
        accumulate: 1,
        clip_norm: 1.0,
        streams: vec![BatchStream::new(Arc::new(sequences()), settings).expect("the sequences fit")],
        schedule: Box::new(|step| StepPlan {
            kind: Kind::External,
            stream: 0,
            batch: step,
            mlm_weight: 1.0,
            task_weight: 0.0,
            optimizer: 0,
            learning_rate: 1e-4,
            bias_correction: 1.0,
            head_bias_correction: 1.0,
        }),
    }
}

fn trainer(layers: usize, width: usize, device: DeviceChoice) -> Trainer {
    let config = BertConfig {
        vocab_size: VOCABULARY,
        hidden_size: width,
        num_hidden_layers: layers,
        num_attention_heads: width / 64,
        intermediate_size: 4 * width,
        max_position_embeddings: 512,
        labels: vec!["0".to_owned(), "1".to_owned()],
        max_length: LENGTH,
        ..BertConfig::default()
    };
    let plans = [(Kind::External, CAPACITY, Form::default())];
    let precision = PrecisionChoice::F32;
    let mut trainer =
        Trainer::new(&config, &plans, &[Optimizer::BERT], device, precision).expect("both devices take every plan");
    // Floors are counted as in a run; which rates they are of does not matter here.
    trainer.set_ceilings(Some(Ceilings {
        read: 1e10,
        write: 1e10,
        copy: 1e10,
        fma: 1e11,
        product: 1e11,
        matrix_units: false,
        launch: 1e-6,
    }));
    trainer
}

/// The trainer's own time on `null`.
fn host(name: &str, layers: usize, width: usize) {
    let mut trainer = trainer(layers, width, DeviceChoice::Null);
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let mut feed = trainer.feed(stage(STEPS), 0).expect("a thread starts");
        let start = Instant::now();
        while trainer.step(&mut feed, |_| false).expect("nothing can fail").is_some() {}
        best = best.min((start.elapsed() - feed.waited()).as_secs_f64() / STEPS as f64);
    }
    println!(
        "{name:<8} {:>5} launches a step, {:>8.2} us of the host",
        trainer.launches(Kind::External),
        1e6 * best
    );
}

/// The same step with and without profiling, in turn, the device at rest between them.
fn profiling() {
    let mut trainer = trainer(2, 128, DeviceChoice::Cpu);
    let mut feed = trainer.feed(stage(PROFILED), 0).expect("a thread starts");
    let mut seconds = [Vec::new(), Vec::new()];
    let mut slices = 0;
    for step in 0..PROFILED {
        let profiled = step % 2 == 1;
        let start = Instant::now();
        if profiled {
            trainer.begin_timeline();
        }
        trainer.step(&mut feed, |_| true).expect("losses are finite");
        let timeline = trainer.end_timeline();
        seconds[usize::from(profiled)].push(start.elapsed().as_secs_f64());
        slices = timeline.map_or(slices, |timeline| timeline.slices.len());
    }
    let [(plain, _), (profiled, notch)] = seconds.each_mut().map(|seconds| median_and_notch(seconds));
    println!(
        "tiny on the CPU: {:.2} ms a step, {:.2} ms profiled ({:+.2} % ± {:.2} %), {slices} slices a step",
        1e3 * plain,
        1e3 * profiled,
        100.0 * (profiled / plain - 1.0),
        100.0 * notch / plain
    );
}

fn main() {
    for (name, layers, width) in [("tiny", 2, 128), ("mini", 4, 256), ("base", 12, 768)] {
        host(name, layers, width);
    }
    profiling();
}
