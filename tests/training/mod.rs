//! Twenty joint training steps of tiny on a device, beside the CPU's.

use super::packed::Packed;
use tlm::bert::{Capacity, initial_values, parameters, plans};
use tlm::device::cpu::CpuDevice;
use tlm::device::{Device, Program, Sizes, write_params};
use tlm::hub::BertConfig;
use tlm::kernel::{Precision, StepParams};
use tlm::plan::{Limits, Plan, Space};

pub const STEPS: u32 = 20;
const CAPACITY: Capacity = Capacity {
    tokens: 512,
    sequences: 16,
    masked: 96,
    max_length: 40,
};

/// Tiny: two layers of 128, two heads of 64.
pub fn tiny() -> BertConfig {
    BertConfig {
        vocab_size: 8192,
        hidden_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 512,
        max_position_embeddings: 40,
        labels: vec![String::new(); 5],
        ..BertConfig::default()
    }
}

/// The plans of a joint step and of its update.
fn recorded(limits: Limits, precision: Precision) -> [Plan; 2] {
    let (config, params) = (tiny(), parameters(&tiny()));
    let form = plans::Form {
        limits,
        precision,
        ..plans::Form::default()
    };
    [
        plans::batch(plans::Kind::Joint, &config, &params, &CAPACITY, form).unwrap(),
        plans::update(&params, &plans::Optimizer::BERT, limits, precision).unwrap(),
    ]
}

/// Parameters and moments.
#[derive(Clone, PartialEq)]
pub struct State([Vec<f32>; 3]);

const SPACES: [Space; 3] = [Space::Params, Space::Moment1, Space::Moment2];

/// The first state; `noise` moves every parameter by up to this share of it.
pub fn start(noise: f32) -> State {
    let (config, params) = (tiny(), parameters(&tiny()));
    let mut values = vec![0.0; params.words()];
    initial_values(&config, &params, 7, &mut values, |_| true);
    for (index, value) in values.iter_mut().enumerate() {
        *value *= 1.0 + noise * (index as f32).sin();
    }
    let zeros = vec![0.0; values.len()];
    State([values, zeros.clone(), zeros])
}

/// A device in the middle of a training.
pub struct Training {
    pub device: Box<dyn Device>,
    pub plans: [Plan; 2],
    pub programs: [Program; 2],
}

impl Training {
    pub fn new(
        limits: Limits,
        precision: Precision,
        open: impl Fn(Sizes) -> Box<dyn Device>,
        state: &State,
    ) -> Training {
        let plans = recorded(limits, precision);
        let sizes = Sizes::of(parameters(&tiny()).words(), true, &[&plans[0], &plans[1]]);
        let mut device = open(sizes);
        for (space, values) in SPACES.into_iter().zip(&state.0) {
            device.write(space, 0, bytemuck::cast_slice(values)).unwrap();
        }
        write_params(&mut *device, precision, &state.0[0]).unwrap();
        let programs = [device.load(&plans[0]).unwrap(), device.load(&plans[1]).unwrap()];
        Training {
            device,
            plans,
            programs,
        }
    }

    /// Losses of masked tokens and of the task, and the gradient norm, of each step.
    pub fn run(&mut self, steps: std::ops::Range<u32>) -> Vec<[f32; 3]> {
        let mut losses = Vec::new();
        for number in steps {
            let lengths: Vec<u32> = (0..16).map(|sequence| 17 + (number + sequence) % 15).collect();
            let batch = Packed::random(&lengths, 8192, 5, u64::from(number % 4));
            let updates = number as i32 + 1;
            let correction = (1.0 - 0.999f64.powi(updates)).sqrt() / (1.0 - 0.9f64.powi(updates));
            let scaled = self.plans[0].precision == Precision::F16;
            let scale = if scaled { 1024.0 } else { 1.0 };
            let step = StepParams {
                loss_scale: scale,
                inverse_loss_scale: 1.0 / scale,
                step: number,
                seed: [5, 6],
                learning_rate: 5e-4,
                bias_correction: correction as f32,
                clip_norm: 1.0,
                ..batch.step()
            };
            batch.write(&mut *self.device, &self.plans[0], &step).unwrap();
            self.device.submit(&[], &self.programs).unwrap();
            let mut readback = vec![0; self.plans[1].readback_words()];
            self.device.collect(&mut readback).unwrap();
            let value = |name: &str| f32::from_bits(readback[self.plans[1].output(name).unwrap().offset]);
            losses.push([value("mlm_loss"), value("task_loss"), value("grad_norm")]);
        }
        losses
    }

    pub fn state(&mut self) -> State {
        State(SPACES.map(|space| {
            let mut words = vec![0; parameters(&tiny()).words()];
            self.device.read(space, 0, &mut words).unwrap();
            words.into_iter().map(f32::from_bits).collect()
        }))
    }
}

/// Trains for `steps` steps on the device that `open` makes and compares each with the CPU's; the training and its losses.
///
/// What rounding may do to them is what the CPU's own losses show when every weight begins two units in the last
/// place (of the precision) off: the backends may differ by three times that, and by 16 roundings of the loss itself, a
/// sum of some 80 terms in another order.
pub fn beside_the_cpu(
    limits: Limits,
    precision: Precision,
    steps: u32,
    open: impl Fn(Sizes) -> Box<dyn Device>,
) -> (Training, Vec<[f32; 3]>) {
    let unit = match precision {
        Precision::F32 => f32::EPSILON,
        Precision::F16 => 1.0 / 1024.0,
        Precision::Bf16 => 1.0 / 128.0,
    };
    let cpu = |state: &State| {
        let open = |sizes| -> Box<dyn Device> { Box::new(CpuDevice::new(sizes, 2).unwrap()) };
        Training::new(Limits::default(), Precision::F32, open, state).run(0..steps)
    };
    let (expected, moved) = (cpu(&start(0.0)), cpu(&start(2.0 * unit)));
    let mut training = Training::new(limits, precision, open, &start(0.0));
    let losses = training.run(0..steps);
    let mut spread = [0.0f32; 3];
    println!("step   mlm: cpu, device, allowed      task                             norm");
    for (step, ((cpu, moved), device)) in expected.iter().zip(&moved).zip(&losses).enumerate() {
        let mut line = format!("{step:>4}");
        for index in 0..3 {
            spread[index] = spread[index].max((cpu[index] - moved[index]).abs());
            let allowed = 3.0 * spread[index] + 16.0 * unit * cpu[index].abs();
            let error = (device[index] - cpu[index]).abs();
            line += &format!("   {:.6} {:.6} {allowed:.1e}", cpu[index], device[index]);
            assert!(error <= allowed, "{line}: error {error:e}");
        }
        println!("{line}");
    }
    let (first, last) = (losses[0][0], losses[steps as usize - 1][0]);
    assert!(steps < STEPS || last < 0.95 * first, "nothing was learnt: {losses:?}");
    (training, losses)
}
