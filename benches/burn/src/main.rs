//! The training step of `cargo bench --bench wgpu -- tiny` in burn, through the same graphics API.
//!
//! `cargo run --release` in this folder; the adapter is burn's choice, `CUBECL_WGPU_DEFAULT_DEVICE=Cpu` picks the
//! software driver. Prints the median wall time of a step from its first operation to the end of the update, loss
//! read back, and the rate in real tokens: those that the other benchmark counts. The first step tries burn's
//! variants of every kernel: on a software driver that takes minutes.
//!
//! The same: preset, vocabulary, lengths of the sequences, masked rows, places of dropout, tied decoder, loss over
//! the masked rows alone, AdamW. Different: burn's attention takes no packed sequences, so they are padded to 128
//! tokens and the padding is masked; its clipping takes one parameter at a time, not their common norm; queries, keys
//! and values are three products; vectors decay too.

use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Initializer, Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{
    Dropout, DropoutConfig, Embedding, EmbeddingConfig, Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig,
};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bool, Device, DeviceKind, Distribution, Int, Tensor, TensorData};

const LAYERS: usize = 2;
const WIDTH: usize = 128;
const HEADS: usize = 2;
const VOCABULARY: usize = 8192;
const DROPOUT: f64 = 0.1;
const EPSILON: f64 = 1e-12;
const INITIAL: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };

const SEQUENCES: usize = 32;
const LENGTH: usize = 128;
const LEARNING_RATE: f64 = 1e-4;
const WARM_UP: usize = 3;
const ROUNDS: usize = 5;

/// BERT without pooler and second segment, and its masked-token head.
#[derive(Module, Debug)]
struct Bert {
    words: Embedding,
    positions: Embedding,
    segments: Embedding,
    norm: LayerNorm,
    dropout: Dropout,
    encoder: TransformerEncoder,
    dense: Linear,
    dense_norm: LayerNorm,
    decoder_bias: Param<Tensor<1>>,
}

/// A padded batch.
struct Batch {
    ids: Tensor<2, Int>,
    padding: Tensor<2, Bool>,
    /// Rows of the batch, counted with the padding.
    masked_rows: Tensor<1, Int>,
    masked_labels: Tensor<1, Int>,
    tokens: usize,
}

impl Bert {
    fn new(device: &Device) -> Bert {
        let embedding = |rows| EmbeddingConfig::new(rows, WIDTH).with_initializer(INITIAL).init(device);
        let norm = || LayerNormConfig::new(WIDTH).with_epsilon(EPSILON).init(device);
        let mut encoder = TransformerEncoderConfig::new(WIDTH, 4 * WIDTH, HEADS, LAYERS)
            .with_dropout(DROPOUT)
            .with_initializer(INITIAL)
            .with_layer_norm_eps(EPSILON)
            .init(device);
        for layer in &mut encoder.layers {
            // BERT has none between the two products.
            layer.pwff.dropout.prob = 0.0;
        }
        Bert {
            words: embedding(VOCABULARY),
            positions: embedding(LENGTH),
            segments: embedding(2),
            norm: norm(),
            dropout: DropoutConfig::new(DROPOUT).init(),
            encoder,
            dense: LinearConfig::new(WIDTH, WIDTH).with_initializer(INITIAL).init(device),
            dense_norm: norm(),
            decoder_bias: Initializer::Zeros.init([VOCABULARY], device),
        }
    }

    /// Mean cross-entropy of the masked rows.
    fn loss(&self, batch: &Batch) -> Tensor<1> {
        let places = self.positions.weight.val() + self.segments.weight.val().slice(0..1);
        let x = self.words.forward(batch.ids.clone()) + places.unsqueeze();
        let x = self.dropout.forward(self.norm.forward(x));
        let input = TransformerEncoderInput::new(x).mask_pad(batch.padding.clone());
        let x = self.encoder.forward(input).reshape([SEQUENCES * LENGTH, WIDTH]);
        let x = self.dense.forward(x.select(0, batch.masked_rows.clone()));
        let x = self.dense_norm.forward(Gelu::new().forward(x));
        let logits = x.matmul(self.words.weight.val().transpose()) + self.decoder_bias.val().unsqueeze();
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        loss.forward(logits, batch.masked_labels.clone())
    }
}

impl Batch {
    /// Random ids in sequences of the lengths that `benches/preset` uses, 15 % of the rows masked at equal distances.
    fn random(device: &Device) -> Batch {
        let lengths = (0..SEQUENCES).map(|index| (82 + index * 46 / 31 + index % 2).min(LENGTH));
        let lengths: Vec<usize> = lengths.collect();
        let rows: Vec<usize> = lengths
            .iter()
            .enumerate()
            .flat_map(|(sequence, length)| (0..*length).map(move |position| sequence * LENGTH + position))
            .collect();
        let mut padding = vec![true; SEQUENCES * LENGTH];
        for &row in &rows {
            padding[row] = false;
        }
        let (tokens, count) = (rows.len(), rows.len() * 15 / 100);
        let masked: Vec<i32> = (0..count).map(|index| rows[index * tokens / count] as i32).collect();
        let random = Distribution::Uniform(0.0, VOCABULARY as f64);
        Batch {
            ids: Tensor::random([SEQUENCES, LENGTH], random, device),
            padding: Tensor::from_data(TensorData::new(padding, [SEQUENCES, LENGTH]), device),
            masked_rows: Tensor::from_data(TensorData::new(masked, [count]), device),
            masked_labels: Tensor::random([count], random, device),
            tokens,
        }
    }
}

/// Loss and seconds of a step.
fn step(model: Bert, optimizer: &mut ModuleOptimizer, batch: &Batch, device: &Device) -> (Bert, f32, f64) {
    let start = Instant::now();
    let loss = model.loss(batch);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = optimizer.step(LEARNING_RATE, model, gradients);
    let loss = loss.into_scalar();
    device.sync().expect("the step runs");
    (model, loss, start.elapsed().as_secs_f64())
}

fn main() {
    let device = Device::wgpu(DeviceKind::DefaultDevice).autodiff();
    let identity = device.identity().expect("a wgpu device has a name");
    println!("{}, {}, burn 0.22.1", identity.name, identity.fingerprint);
    device.seed(1);
    let batch = Batch::random(&device);
    let mut model = Bert::new(&device);
    let mut optimizer = AdamWConfig::new()
        .with_epsilon(1e-6)
        .with_weight_decay(0.01)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
        .init();
    let mut seconds = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        let (updated, loss, time) = step(model, &mut optimizer, &batch, &device);
        model = updated;
        let kind = if round < WARM_UP { "warm-up" } else { "step" };
        println!("  {kind:<8} {:>10.1} ms, loss {loss:.4}", 1e3 * time);
        if round >= WARM_UP {
            seconds.push(time);
        }
    }
    seconds.sort_by(f64::total_cmp);
    let (median, tokens) = (seconds[ROUNDS / 2], batch.tokens as f64);
    println!(
        "tiny, vocabulary {VOCABULARY}, {tokens} tokens in {} rows",
        SEQUENCES * LENGTH
    );
    println!("  step     {:>10.1} ms, {:.0} tokens/s", 1e3 * median, tokens / median);
}
