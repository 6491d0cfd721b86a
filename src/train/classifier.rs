//! Running the `evaluate` plan: from token sequences to logits, classes and probabilities.
//!
//! ```text
//! sequences --EvaluationBatches--> input block --device--> class_logits [batch, C] --> logits [examples, C]
//! class  = argmax_c logits[c], the lowest of equal ones
//! score  = exp(logits[c] - max) / sum_c exp(logits[c] - max)            in f64
//! ```
//!
//! Batches are packed without padding and nothing of a sequence depends on its neighbours, so neither the size of a
//! batch nor the place within it changes a result.

use std::sync::Arc;

use super::TrainError;
use super::inputs::InputBlock;
use crate::data::{Batch, BatchCapacity, EvaluationBatches, Sequences};
use crate::device::{Device, Program};
use crate::kernel::StepParams;
use crate::plan::{Plan, Space};

/// Logits `[examples, classes]`, row-major, of all sequences in their order, as many at a time as `capacity` holds, for
/// which the `evaluate` plan `plan` was recorded; `program` is the plan on `device`. `progress` is told how many sequences
/// are done.
///
/// # Errors
/// [`TrainError::Data`] for a batch that does not fit the capacity, [`TrainError::Device`].
///
/// # Panics
/// If `plan` is not an `evaluate` plan.
pub fn logits(
    device: &mut dyn Device,
    program: Program,
    plan: &Plan,
    sequences: &Arc<Sequences>,
    capacity: BatchCapacity,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>, TrainError> {
    let output = plan.output("class_logits").expect("an evaluate plan gives logits");
    let offsets = plan.input("cu_seqlens").expect("every plan over a batch has offsets");
    let classes = output.words / (offsets.words - 1);
    let batch = capacity.sequences;
    let batches = EvaluationBatches::new(Arc::clone(sequences), batch, capacity)?;
    let mut packed = Batch::new(capacity);
    let mut block = InputBlock::new(plan.input_words());
    let mut logits = vec![0.0f32; sequences.len() * classes];
    for (index, rows) in (0..batches.count()).zip(logits.chunks_mut(batch * classes.max(1))) {
        batches.fill(index, &mut packed)?;
        block.fill(plan, &packed, &StepParams::default(), 0.0, 0.0);
        device.write(Space::Inputs, 0, block.words())?;
        device.run(program)?;
        device.read(Space::Readback, output.offset, bytemuck::cast_slice_mut(rows))?;
        progress((index as usize * batch + batch).min(sequences.len()));
    }
    Ok(logits)
}

/// The class of the largest logit of each row, the lowest of equal ones. `logits` is `[examples, classes]`.
pub fn predictions(logits: &[f32], classes: usize) -> Vec<u32> {
    let largest = |row: &[f32]| {
        let better = |best: usize, class: usize| if row[class] > row[best] { class } else { best };
        (0..row.len()).fold(0, better) as u32
    };
    logits.chunks_exact(classes.max(1)).map(largest).collect()
}

/// Mean over the examples of the cross entropy `log sum_c exp(logits[c]) - logits[label]`, in f64; 0 of no examples.
/// `logits` is `[examples, classes]`.
pub fn mean_loss(logits: &[f32], labels: &[u32], classes: usize) -> f64 {
    let losses = logits.chunks_exact(classes.max(1)).zip(labels).map(|(row, &label)| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| libm::exp(f64::from(x) - f64::from(most))).sum();
        libm::log(sum) - (f64::from(row[label as usize]) - f64::from(most))
    });
    losses.sum::<f64>() / labels.len().max(1) as f64
}

/// Softmax of one row of logits: probabilities that sum to 1.
pub fn scores(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits
        .iter()
        .map(|&logit| libm::exp(f64::from(logit) - f64::from(most)))
        .collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|value| value / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn the_largest_logit_wins_and_the_lowest_class_of_equal_ones() {
        assert_eq!(predictions(&[0.5, 2.0, 2.0, -1.0, -3.0, -1.0], 3), [1, 0]);
        assert_eq!(predictions(&[], 3), [0; 0]);
        assert_eq!(predictions(&[f32::NEG_INFINITY, f32::NEG_INFINITY], 2), [0]);
    }

    // log(e^2 + 1 + e^-1) - 2 by hand: log 8.756935540102092 = 2.169846049...; two classes at 0: log 2.
    #[test]
    fn the_mean_loss_is_the_cross_entropy_of_the_labels() {
        let known = 8.756_935_540_102_092_f64.ln() - 2.0;
        assert_relative_eq!(mean_loss(&[2.0, 0.0, -1.0], &[0], 3), known, max_relative = 1e-14);
        let two = mean_loss(&[0.0, 0.0, 700.0, 1000.0], &[1, 0], 2);
        assert_relative_eq!(two, (2.0_f64.ln() + 300.0) / 2.0, max_relative = 1e-14);
        assert_eq!(mean_loss(&[], &[], 2), 0.0);
    }

    // e^2 / (e^2 + 1 + e^-1) by hand: 7.389_056_098_930_65 / 8.756935540102092.
    #[test]
    fn scores_are_the_softmax_and_do_not_overflow() {
        let known = scores(&[2.0, 0.0, -1.0]);
        assert_relative_eq!(known[0], 7.389_056_098_930_65 / 8.756935540102092, max_relative = 1e-14);
        assert_relative_eq!(known.iter().sum::<f64>(), 1.0, max_relative = 1e-15);
        let shifted = scores(&[1002.0, 1000.0, 999.0]);
        for (a, b) in known.iter().zip(&shifted) {
            assert_relative_eq!(a, b, max_relative = 1e-14);
        }
    }
}
