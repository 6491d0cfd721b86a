//! The step that the benchmarks time: a packed batch of 32 sequences (82 to 128 tokens, mean 105, 15 % masked), the plan
//! `external` with dropout 0.1, and the update.

#[path = "../../tests/packed/mod.rs"]
mod packed;

use tlm::bert::{Capacity, initial_values, parameters, plans};
use tlm::device::{Device, Sizes};
use tlm::hub::BertConfig;
use tlm::kernel::{Precision, StepParams};
use tlm::plan::{Limits, ParamTable, Plan, Space};

pub use packed::Packed;

/// Name, layers, width, heads.
pub const PRESETS: [(&str, usize, usize, usize); 3] = [("tiny", 2, 128, 2), ("mini", 4, 256, 4), ("small", 4, 512, 8)];

const SEQUENCES: u32 = 32;
const CAPACITY: Capacity = Capacity {
    tokens: 4096,
    sequences: SEQUENCES,
    masked: 614,
    max_length: 128,
};

/// A model with the plans of its step and a batch.
pub struct Training {
    config: BertConfig,
    params: ParamTable,
    pub external: Plan,
    pub update: Plan,
    pub batch: Packed,
}

impl Training {
    pub fn new((_, layers, width, heads): (&str, usize, usize, usize), vocabulary: usize, limits: Limits) -> Training {
        let config = BertConfig {
            vocab_size: vocabulary,
            hidden_size: width,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            intermediate_size: 4 * width,
            max_position_embeddings: 128,
            labels: (0..6).map(|class| class.to_string()).collect(),
            max_length: 128,
            ..BertConfig::default()
        };
        let params = parameters(&config);
        let form = plans::Form {
            limits,
            ..plans::Form::default()
        };
        let external = plans::batch(plans::Kind::External, &config, &params, &CAPACITY, form);
        // 82 to 128 tokens, mean 105.
        let lengths: Vec<u32> = (0..SEQUENCES)
            .map(|index| 82 + index * 46 / 31 + index % 2)
            .map(|length| length.min(128))
            .collect();
        Training {
            external: external.expect("sizes are supported"),
            update: plans::update(&params, &plans::Optimizer::BERT, limits, Precision::F32)
                .expect("sizes are supported"),
            batch: Packed::random(&lengths, vocabulary as u32, 6, 1),
            config,
            params,
        }
    }

    pub fn sizes(&self) -> Sizes {
        Sizes::of(self.params.words(), true, &[&self.external, &self.update])
    }

    /// Writes the first weights.
    pub fn start(&self, device: &mut dyn Device) {
        let mut values = vec![0.0f32; self.params.words()];
        initial_values(&self.config, &self.params, 1, &mut values, |_| true);
        device
            .write(Space::Params, 0, bytemuck::cast_slice(&values))
            .expect("sized for it");
    }

    /// The scalars of a step.
    pub fn step(&self, number: u32) -> StepParams {
        StepParams {
            step: number,
            seed: [1, 2],
            learning_rate: 1e-4,
            bias_correction: 1.0,
            clip_norm: 1.0,
            ..self.batch.step()
        }
    }
}
