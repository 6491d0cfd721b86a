//! What a batch costs: the floating-point operations that the mathematics needs, whatever the kernels do.

use crate::bert::plans::Kind;
use crate::hub::BertConfig;
use crate::kernel::StepParams;

/// FLOPs that the mathematics of one forward and backward pass needs (a multiply-add is two, the backward costs twice the
/// forward): the matrix products of the real tokens, the MLM head on masked rows only, attention's two products.
///
/// ```text
/// 3 [tokens L (8 H^2 + 4 H F) + 4 L H sum(len^2) + masked (2 H^2 + 2 H V) + sequences (2 H^2 + 2 H C)]
/// ```
pub fn needed_flops(config: &BertConfig, kind: Kind, step: &StepParams) -> u64 {
    let size = |x: usize| x as u64;
    let (h, f) = (size(config.hidden_size), size(config.intermediate_size));
    let (layers, v, c) = (
        size(config.num_hidden_layers),
        size(config.vocab_size),
        size(config.labels.len()),
    );
    let encoder = u64::from(step.tokens) * layers * (8 * h * h + 4 * h * f) + 4 * layers * h * step.squared_lengths();
    let mlm = u64::from(step.masked) * (2 * h * h + 2 * h * v);
    let task = u64::from(step.sequences) * (2 * h * h + 2 * h * c);
    match kind {
        Kind::External => 3 * (encoder + mlm),
        Kind::Joint => 3 * (encoder + mlm + task),
        Kind::Finetune => 3 * (encoder + task),
        Kind::Evaluate => encoder + task,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One layer of 2, feed-forward 3, vocabulary 5, 2 classes; sequences of 3 and 1 tokens, one masked row. Products by
    // hand, rows x inputs x outputs x 2: query, key, value and output 4 (4 x 2 x 2 x 2) = 128; feed-forward
    // 2 (4 x 2 x 3 x 2) = 96; scores and their use 2 (9 + 1) x 2 x 2 = 80; masked row 2 x 2 x 2 + 2 x 5 x 2 = 28; task
    // head 2 (2 x 2 x 2 + 2 x 2 x 2) = 32.
    #[test]
    fn the_products_of_a_batch_are_counted_by_hand() {
        let config = BertConfig {
            vocab_size: 5,
            hidden_size: 2,
            num_hidden_layers: 1,
            intermediate_size: 3,
            labels: vec![String::new(); 2],
            ..BertConfig::default()
        };
        let step = StepParams {
            tokens: 4,
            sequences: 2,
            masked: 1,
            squared_lengths: 10,
            ..StepParams::default()
        };
        let (encoder, mlm, task) = (128 + 96 + 80, 28, 32);
        let found = |kind| needed_flops(&config, kind, &step);
        assert_eq!(found(Kind::External), 3 * (encoder + mlm));
        assert_eq!(found(Kind::Joint), 3 * (encoder + mlm + task));
        assert_eq!(found(Kind::Finetune), 3 * (encoder + task));
        assert_eq!(found(Kind::Evaluate), encoder + task);
    }
}
