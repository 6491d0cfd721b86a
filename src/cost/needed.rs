//! What a batch costs: the floating-point operations that the mathematics needs, whatever the kernels do.

use super::Encoder;
use crate::bert::plans::Kind;
use crate::hub::BertConfig;
use crate::kernel::StepParams;

/// What a batch holds; numbers of many batches add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Tokens, padding not among them.
    pub tokens: f64,
    /// Sum over the sequences of their squared lengths.
    pub squared_lengths: f64,
    /// Rows whose token is predicted.
    pub masked: f64,
    /// Sequences that are classified.
    pub classified: f64,
}

/// FLOPs of one forward pass: the matrix products of the tokens, the head of masked language modelling on masked rows
/// only, the task head, attention's two products.
///
/// ```text
/// tokens L (8 h^2 + 4 h f) + 4 L h sum(len^2) + masked (2 h e + 2 e V) + sequences (2 h^2 + 2 h C)   (+ 2 e h a token, e != h)
/// ```
pub fn products(encoder: &Encoder, classes: u64, counts: &Counts) -> f64 {
    let number = |x: u64| x as f64;
    let (l, h, f, e) = (
        number(encoder.layers),
        number(encoder.hidden),
        number(encoder.intermediate),
        number(encoder.embedding),
    );
    let projection = if encoder.embedding == encoder.hidden {
        0.0
    } else {
        2.0 * e * h
    };
    counts.tokens * (l * (8.0 * h * h + 4.0 * h * f) + projection)
        + 4.0 * l * h * counts.squared_lengths
        + counts.masked * (2.0 * h * e + 2.0 * e * number(encoder.vocabulary))
        + counts.classified * (2.0 * h * h + 2.0 * h * number(classes))
}

/// FLOPs of one forward pass over a batch and, in training, its backward, which costs twice the forward.
pub fn needed_flops(config: &BertConfig, kind: Kind, step: &StepParams) -> u64 {
    let counts = Counts {
        tokens: f64::from(step.tokens),
        squared_lengths: step.squared_lengths() as f64,
        masked: if kind.is_masked() { f64::from(step.masked) } else { 0.0 },
        classified: if kind == Kind::External {
            0.0
        } else {
            f64::from(step.sequences)
        },
    };
    let passes = if kind == Kind::Evaluate { 1.0 } else { 3.0 };
    // Whole numbers below 2^53: exact.
    (passes * products(&Encoder::of(config), config.labels.len() as u64, &counts)) as u64
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
