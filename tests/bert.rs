//! BERT's plans: against PyTorch, and against themselves one sequence at a time. Below `bert/`: what a plan costs, and
//! recomputation.
//!
//! `tests/reference/bert.safetensors` holds a small model as PyTorch computes it in f64; its README says how far PyTorch's
//! own f32 is from that. Twice as far is allowed here.

#[path = "bert/cost.rs"]
mod cost;
mod packed;
#[path = "bert/recompute.rs"]
mod recompute;

use std::path::Path;

use packed::Packed;
use safetensors::SafeTensors;
use tlm::bert::{Capacity, initial_values, parameters, plans};
use tlm::device::cpu::CpuDevice;
use tlm::device::{Device, Sizes};
use tlm::hub::BertConfig;
use tlm::kernel::{Precision, Sizes as LiveSizes, StepParams};
use tlm::plan::{Limits, ParamTable, Plan, Space};

/// PyTorch's f32 against its f64, relative to a tensor's largest entry: outputs, gradients.
const OUTPUT_ERROR: f64 = 7.2e-7;
const GRADIENT_ERROR: f64 = 3.1e-6;
/// The same for losses, and for the parameters after three updates, absolute.
const LOSS_ERROR: f64 = 3.7e-7;
const UPDATE_ERROR: f64 = 2.0e-6;
/// A tensor smaller than this is compared with this.
const FLOOR: f64 = 1e-3;
/// The gradient of a key bias is zero in exact arithmetic.
const KEY_BIAS: f64 = 1e-7;
const RHO2: f64 = 20.0;

struct Reference {
    bytes: Vec<u8>,
}

impl Reference {
    fn open() -> Reference {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/bert.safetensors");
        Reference {
            bytes: std::fs::read(path).unwrap(),
        }
    }

    fn words(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (words, rest) = tensor.data().as_chunks::<4>();
        assert!(rest.is_empty());
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_bits).collect()
    }

    fn batch(&self) -> Packed {
        let [ids, cu_seqlens, rows, labels, classes] = [
            "input_ids",
            "cu_seqlens",
            "masked_rows",
            "masked_labels",
            "class_labels",
        ]
        .map(|name| self.words(&format!("batch.{name}")));
        let masked: Vec<(u32, u32)> = rows.into_iter().zip(labels).collect();
        let batch = Packed::new(&ids, &cu_seqlens, &masked, &classes, RHO2);
        assert_eq!(batch.positions, self.words("batch.position_ids"));
        batch
    }
}

/// The reference's model.
fn small() -> BertConfig {
    BertConfig {
        vocab_size: 97,
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 128,
        max_position_embeddings: 40,
        type_vocab_size: 1,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        labels: (0..5).map(|class| class.to_string()).collect(),
        max_length: 40,
        ..BertConfig::default()
    }
}

/// Room for the reference's batch and some more: live counts are below the capacities.
const CAPACITY: Capacity = Capacity {
    tokens: 80,
    sequences: 6,
    masked: 13,
    max_length: 40,
};

struct Trainer {
    params: ParamTable,
    device: CpuDevice,
    plans: Vec<Plan>,
}

impl Trainer {
    /// Opens a device for plans and gives it the reference's weights.
    fn new(reference: &Reference, plans: Vec<Plan>) -> Trainer {
        let params = parameters(&small());
        let sizes = Sizes::of(params.words(), true, &plans.iter().collect::<Vec<_>>());
        let mut device = CpuDevice::new(sizes, 2).unwrap();
        for (spec, offset) in params.iter() {
            device
                .write(Space::Params, offset, &reference.words(&spec.name))
                .unwrap();
        }
        Trainer { params, device, plans }
    }

    fn run(&mut self, plan: usize, batch: &Packed, step: &StepParams) {
        let program = self.device.load(&self.plans[plan]).unwrap();
        batch.write(&mut self.device, &self.plans[plan], step).unwrap();
        self.device.run(program).unwrap();
    }

    fn read(&mut self, space: Space, offset: usize, words: usize) -> Vec<f32> {
        let mut out = vec![0; words];
        self.device.read(space, offset, &mut out).unwrap();
        out.into_iter().map(f32::from_bits).collect()
    }

    fn tensor(&mut self, space: Space, name: &str) -> Vec<f32> {
        let (spec, offset) = self.params.find(name).unwrap();
        let words = spec.len();
        self.read(space, offset, words)
    }

    fn output(&mut self, plan: usize, name: &str) -> Vec<f32> {
        let port = self.plans[plan].output(name).unwrap().clone();
        self.read(Space::Readback, port.offset, port.words)
    }

    fn names(&self) -> Vec<String> {
        self.params.iter().map(|(spec, _)| spec.name.clone()).collect()
    }
}

/// Largest difference relative to the largest entry of `truth`.
fn relative_error(got: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(got.len(), truth.len());
    let largest = truth.iter().fold(FLOOR, |most, x| most.max(f64::from(x.abs())));
    absolute_error(got, truth) / largest
}

fn absolute_error(got: &[f32], truth: &[f32]) -> f64 {
    assert!(got.iter().all(|x| x.is_finite()), "not finite");
    let errors = got
        .iter()
        .zip(truth)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    errors.fold(0.0, f64::max)
}

fn joint(accumulate: bool) -> Plan {
    plans::batch(
        plans::Kind::Joint,
        &small(),
        &parameters(&small()),
        &CAPACITY,
        plans::Form {
            accumulate,
            ..plans::Form::default()
        },
    )
    .unwrap()
}

fn update() -> Plan {
    plans::update(
        &parameters(&small()),
        &plans::Optimizer::BERT,
        Limits::default(),
        Precision::F32,
    )
    .unwrap()
}

#[test]
fn losses_and_every_gradient_agree_with_pytorch() {
    let reference = Reference::open();
    let mut trainer = Trainer::new(&reference, vec![joint(false)]);
    let batch = reference.batch();
    trainer.run(0, &batch, &batch.step());
    for (output, name, rows) in [
        ("mlm_loss", "loss.mlm", batch.masked_rows.len()),
        ("task_loss", "loss.task", 4),
    ] {
        let mean = trainer.output(0, output)[0] / rows as f32;
        let truth = reference.floats(name)[0];
        assert!(
            f64::from((mean - truth).abs()) <= 2.0 * LOSS_ERROR,
            "{name}: {mean}, PyTorch {truth}"
        );
    }
    for name in trainer.names() {
        let (got, truth) = (
            trainer.tensor(Space::Grads, &name),
            reference.floats(&format!("grad.{name}")),
        );
        let (error, allowed) = if name.ends_with("key.bias") {
            (absolute_error(&got, &truth), KEY_BIAS)
        } else {
            (relative_error(&got, &truth), 2.0 * GRADIENT_ERROR)
        };
        assert!(
            error <= allowed,
            "gradient of {name}: error {error:.1e}, allowed {allowed:.1e}"
        );
    }
}

#[test]
fn class_logits_agree_with_pytorch() {
    let reference = Reference::open();
    let (params, batch) = (parameters(&small()), reference.batch());
    let plan = plans::batch(
        plans::Kind::Evaluate,
        &small(),
        &params,
        &CAPACITY,
        plans::Form::default(),
    )
    .unwrap();
    let mut trainer = Trainer::new(&reference, vec![plan]);
    trainer.run(0, &batch, &batch.step());
    let truth = reference.floats("output.class_logits");
    let logits = trainer.output(0, "class_logits");
    let error = relative_error(&logits[..truth.len()], &truth);
    assert!(error <= 2.0 * OUTPUT_ERROR, "error {error:.1e}");
}

#[test]
fn parameters_after_three_updates_agree_with_pytorch() {
    let reference = Reference::open();
    let mut trainer = Trainer::new(&reference, vec![joint(false), update()]);
    let batch = reference.batch();
    // What a key bias may move: its gradient, rounding alone, is far below epsilon, so a step is rate x gradient / epsilon.
    let mut key_bias = 0.0;
    for number in 0..3 {
        let updates = f64::from(number + 1);
        let correction = (1.0 - 0.999f64.powf(updates)).sqrt() / (1.0 - 0.9f64.powf(updates));
        key_bias += 1e-3 * (1.0 - 0.999f64.powf(updates)).sqrt() * KEY_BIAS / 1e-6;
        let step = StepParams {
            step: number,
            learning_rate: 1e-3,
            bias_correction: correction as f32,
            ..batch.step()
        };
        trainer.run(0, &batch, &step);
        let program = trainer.device.load(&trainer.plans[1]).unwrap();
        trainer.device.run(program).unwrap();
    }
    for name in trainer.names() {
        let (got, truth) = (
            trainer.tensor(Space::Params, &name),
            reference.floats(&format!("adamw3.{name}")),
        );
        let allowed = if name.ends_with("key.bias") {
            2.0 * UPDATE_ERROR + key_bias
        } else {
            2.0 * UPDATE_ERROR
        };
        let error = absolute_error(&got, &truth);
        assert!(
            error <= allowed,
            "{name} after three updates: error {error:.1e}, allowed {allowed:.1e}"
        );
    }
}

#[test]
fn packed_gradients_equal_single_example_gradients() {
    let reference = Reference::open();
    let mut trainer = Trainer::new(&reference, vec![joint(false), joint(true)]);
    let batch = reference.batch();
    trainer.run(0, &batch, &batch.step());
    let names = trainer.names();
    let packed: Vec<Vec<f32>> = names.iter().map(|name| trainer.tensor(Space::Grads, name)).collect();
    for (index, span) in batch.cu_seqlens.windows(2).enumerate() {
        let rows = span[0]..span[1];
        let masked: Vec<(u32, u32)> = batch
            .masked_rows
            .iter()
            .zip(&batch.masked_labels)
            .filter(|(row, _)| rows.contains(row))
            .map(|(row, label)| (row - span[0], *label))
            .collect();
        let ids = &batch.ids[span[0] as usize..span[1] as usize];
        let mut single = Packed::new(ids, &[0, span[1] - span[0]], &masked, &[batch.labels[index]], RHO2);
        // A row weighs what it weighs in the whole batch.
        single.masked_weights = vec![batch.masked_weights[0]; masked.len()];
        single.label_weights = vec![batch.label_weights[0]];
        trainer.run(usize::from(index > 0), &single, &single.step());
    }
    for (name, packed) in names.iter().zip(&packed) {
        let error = relative_error(&trainer.tensor(Space::Grads, name), packed);
        let allowed = if name.ends_with("key.bias") {
            KEY_BIAS / FLOOR
        } else {
            2.0 * GRADIENT_ERROR
        };
        assert!(
            error <= allowed,
            "gradient of {name}: error {error:.1e}, allowed {allowed:.1e}"
        );
    }
}

#[test]
fn parameters_start_as_published_and_depend_on_the_seed_alone() {
    let config = small();
    let params = parameters(&config);
    let values = |seed| {
        let mut flat = vec![0.0f32; params.words()];
        initial_values(&config, &params, seed, &mut flat, |_| true);
        flat
    };
    let first = values(1);
    assert_eq!(first, values(1));
    assert_ne!(first, values(2));
    let part = |name: &str| {
        let (spec, offset) = params.find(name).unwrap();
        &first[offset..offset + spec.len()]
    };
    assert!(part("bert.embeddings.LayerNorm.weight").iter().all(|&x| x == 1.0));
    assert!(part("bert.encoder.layer.1.output.dense.bias").iter().all(|&x| x == 0.0));
    let words = part("bert.embeddings.word_embeddings.weight");
    assert!(words[..64].iter().all(|&x| x == 0.0), "the padding token's row");
    let drawn = &words[64..];
    let square: f64 = drawn.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / drawn.len() as f64;
    // The deviation of a sample of n normals is sigma (1 +- 1 / sqrt(2 n)); five of these.
    let allowed = 0.02 * 5.0 / (2.0 * drawn.len() as f64).sqrt();
    assert!(
        (square.sqrt() - 0.02).abs() < allowed,
        "standard deviation {}",
        square.sqrt()
    );
    assert!(part("classifier.dense.weight").iter().all(|x| x.abs() <= 0.125));
}
