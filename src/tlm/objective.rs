//! The joint objective of stage 1: which batch comes when, and how its two losses are weighed.
//!
//! With period P = rho1 + 1, optimiser step s = 0, 1, 2, ... trains on the task's own ("internal") texts where
//! (s + 1) mod P = 0 and on selected ("external") texts otherwise; rho1 = 3 gives E E E I E E E I.
//!
//! ```text
//! external            : L = L_mlm
//! internal, normalised: L = (rho2 L_mlm + L_task) / (rho2 + 1)
//! internal, literal   : L =  rho2 L_mlm + L_task
//! ```
//!
//! The paper (section 3.2) prints the literal form; the published numbers were made with the normalised one, which
//! keeps the gradient's size independent of rho2. L_mlm is a mean over masked tokens, L_task a mean over examples.
//!
//! On an external step the classification head has no loss. The published code nevertheless hands it gradients of zero,
//! so that AdamW goes on with it: its first moment, and more slowly its second, decay towards zero between two internal
//! steps, and the next internal gradient then moves the head further than it would alone ([`head_gain`]).
//! [`HeadOnExternal`] offers this and the other reading, in which an external step leaves the head alone.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where the texts of a step come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// Texts selected from the corpus: masked language modelling only.
    External,
    /// Texts of the task: masked language modelling and classification from one forward pass.
    Internal,
}

/// How the two losses of an internal step are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossForm {
    /// (rho2 L_mlm + L_task) / (rho2 + 1), as the published code has it.
    #[default]
    Normalised,
    /// rho2 L_mlm + L_task, as the paper prints it.
    Literal,
}

/// What an external step does to the classification head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadOnExternal {
    /// The head is updated with a gradient of zero, as the published code does: its moments decay, its weights drift
    /// on.
    #[default]
    Zero,
    /// The head and its moments stay as they are.
    Skip,
}

/// Factors of the two mean losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossWeights {
    /// Factor of the mean masked-token loss.
    pub mlm: f64,
    /// Factor of the mean classification loss.
    pub task: f64,
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StepKind::External => "external",
            StepKind::Internal => "internal",
        })
    }
}

/// Kind of 0-based optimiser step `step`. rho1 = 0: every step is internal.
pub fn step_kind(step: u64, rho1: u64) -> StepKind {
    if (step + 1).is_multiple_of(rho1 + 1) {
        StepKind::Internal
    } else {
        StepKind::External
    }
}

/// Position of step `step` in the sequence of batches of its own kind: with rho1 = 3 the external batches 0, 1, 2 are
/// steps 0, 1, 2, the internal batch 0 is step 3, the external batch 3 is step 4. A resume finds its batches with this.
pub fn batch_index(step: u64, rho1: u64) -> u64 {
    let internal_before = step / (rho1 + 1);
    match step_kind(step, rho1) {
        StepKind::Internal => internal_before,
        StepKind::External => step - internal_before,
    }
}

/// Number of steps of each kind, `(external, internal)`, among the first `steps`.
pub fn step_counts(steps: u64, rho1: u64) -> (u64, u64) {
    let internal = steps / (rho1 + 1);
    (steps - internal, internal)
}

/// Factors of the mean losses on a step of kind `kind`. rho2 = 0 leaves the task's loss alone on internal steps.
pub fn loss_weights(kind: StepKind, form: LossForm, rho2: f64) -> LossWeights {
    match (kind, form) {
        (StepKind::External, _) => LossWeights { mlm: 1.0, task: 0.0 },
        (StepKind::Internal, LossForm::Normalised) => LossWeights {
            mlm: rho2 / (rho2 + 1.0),
            task: 1.0 / (rho2 + 1.0),
        },
        (StepKind::Internal, LossForm::Literal) => LossWeights { mlm: rho2, task: 1.0 },
    }
}

/// Updates the head has seen once step `step` is done: the t of its bias correction (0: none yet).
pub fn head_updates(step: u64, rho1: u64, policy: HeadOnExternal) -> u64 {
    match policy {
        HeadOnExternal::Zero => step + 1,
        HeadOnExternal::Skip => (step + 1) / (rho1 + 1),
    }
}

/// How much further than the learning rate the head's second moment lets it move on an internal step under
/// [`HeadOnExternal::Zero`], once the moments are settled: `sqrt((1 - beta2^P) / (1 - beta2))` with P = rho1 + 1
/// (1 at rho1 = 0, 25 at rho1 = 999 and beta2 = 0.999).
pub fn head_gain(rho1: u64, beta2: f64) -> f64 {
    let decayed = -libm::expm1((rho1 + 1) as f64 * libm::log(beta2));
    (decayed / (1.0 - beta2)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    fn letters(rho1: u64, steps: u64) -> String {
        (0..steps)
            .map(|s| {
                if step_kind(s, rho1) == StepKind::Internal {
                    'I'
                } else {
                    'E'
                }
            })
            .collect()
    }

    #[test]
    fn rho1_three_gives_three_external_batches_before_each_internal_one() {
        assert_eq!(letters(3, 8), "EEEIEEEI");
        assert_eq!(letters(1, 5), "EIEIE");
        assert_eq!(letters(0, 3), "III");
        assert_eq!(letters(1_000_000, 50), "E".repeat(50));
    }

    #[test]
    fn every_kind_counts_its_own_batches_without_gaps() {
        for rho1 in [0, 1, 3, 19] {
            let (mut external, mut internal) = (0, 0);
            for step in 0..200 {
                assert_eq!(step_counts(step, rho1), (external, internal), "rho1 {rho1} step {step}");
                let next = match step_kind(step, rho1) {
                    StepKind::External => &mut external,
                    StepKind::Internal => &mut internal,
                };
                assert_eq!(batch_index(step, rho1), *next, "rho1 {rho1} step {step}");
                *next += 1;
            }
        }
    }

    #[test]
    fn losses_two_and_one_with_rho2_twenty_give_41_over_21() {
        // Of a masked-token loss of 2 and a task loss of 1.
        let joint = |kind, form, rho2| {
            let LossWeights { mlm, task } = loss_weights(kind, form, rho2);
            mlm * 2.0 + task
        };
        assert_relative_eq!(
            joint(StepKind::Internal, LossForm::Normalised, 20.0),
            41.0 / 21.0,
            epsilon = 1e-15
        );
        assert_eq!(joint(StepKind::Internal, LossForm::Literal, 20.0), 41.0);
        for rho2 in [0.0, 20.0, 1000.0] {
            assert_eq!(joint(StepKind::External, LossForm::Normalised, rho2), 2.0);
            assert_eq!(joint(StepKind::External, LossForm::Literal, rho2), 2.0);
        }
        assert_eq!(joint(StepKind::Internal, LossForm::Normalised, 0.0), 1.0);
        assert_eq!(joint(StepKind::Internal, LossForm::Literal, 0.0), 1.0);
    }

    #[test]
    fn a_skipped_head_counts_only_internal_steps() {
        assert_eq!(
            (0..8)
                .map(|s| head_updates(s, 3, HeadOnExternal::Skip))
                .collect::<Vec<_>>(),
            [0, 0, 0, 1, 1, 1, 1, 2]
        );
        assert_eq!(
            (0..4)
                .map(|s| head_updates(s, 3, HeadOnExternal::Zero))
                .collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
    }

    // By simulation of the second moment: gradient 1 on every P-th step, 0 between. Directly after the internal
    // gradient v = (1 - b2) (1 + b2^P + b2^2P + ...) = (1 - b2) / (1 - b2^P); the step is lr / sqrt(v).
    #[test]
    fn the_heads_gain_is_that_of_a_simulated_second_moment() {
        for (rho1, beta2) in [(0, 0.999), (3, 0.999), (999, 0.999), (19, 0.98)] {
            let mut v = 0.0f64;
            for step in 0..200_000 {
                let gradient = if step_kind(step, rho1) == StepKind::Internal {
                    1.0
                } else {
                    0.0
                };
                v = beta2 * v + (1.0 - beta2) * gradient;
            }
            // 200,000 is a multiple of 1, 4, 20 and 1000: the last step was internal.
            assert_relative_eq!(head_gain(rho1, beta2), 1.0 / v.sqrt(), max_relative = 1e-9);
        }
        assert_relative_eq!(head_gain(999, 0.999), 25.0, max_relative = 0.01);
    }
}
