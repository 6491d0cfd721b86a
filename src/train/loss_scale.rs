//! Dynamic loss scaling (Micikevicius et al. 2018), for plans that store gradients as binary16.
//!
//! ```text
//! gradients of the losses x 2^e       small ones survive: binary16 ends at 6e-8
//! norm, AdamW             x 2^-e      on the device, which leaves the weights alone when the norm is not finite
//! norm not finite         e -= 1      the step is skipped
//! PATIENCE steps without  e += 1
//! ```
//!
//! A device with a queue has begun other steps when an overflow comes back. Every result is therefore acted on [`LATE`]
//! steps later, whether it was known before or not: the scale of a step is a function of the steps before it alone, so
//! that a run that was interrupted anywhere goes on with the same bits. What the steps in between made with the same
//! scale says nothing new and changes nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Where the exponent starts: 65,536, as in the common implementations.
const START: i32 = 16;
/// Steps without overflow after which the scale is doubled.
const PATIENCE: u32 = 2_000;
/// The largest exponent; beyond it nothing is gained.
const MOST: i32 = 24;
/// The result of step n is acted on before step n + `LATE`: no device runs further ahead.
pub const LATE: usize = 3;

/// The scale and since when it has held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossScale {
    exponent: i32,
    good: u32,
    /// Results that are not acted on yet, the oldest first: the exponent of their steps and whether they were finite.
    known: VecDeque<(i32, bool)>,
}

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale {
            exponent: START,
            good: 0,
            known: VecDeque::new(),
        }
    }
}

impl LossScale {
    /// The exponent e of the next step's scale 2^e, while the results of `on_their_way` steps are still to come.
    ///
    /// # Panics
    /// If more steps are on their way than results may be late.
    pub fn next(&mut self, on_their_way: usize) -> i32 {
        assert!(on_their_way < LATE, "no device runs further ahead");
        while self.known.len() + on_their_way >= LATE {
            let (exponent, finite) = self.known.pop_front().expect("longer than nothing");
            self.act_on(exponent, finite);
        }
        self.exponent
    }

    /// Takes note of a step's result: the exponent that it was made with, and whether its gradients were finite. False if
    /// no smaller scale is left to try: the gradients are at fault, not their scale.
    #[must_use]
    pub fn result(&mut self, exponent: i32, finite: bool) -> bool {
        self.known.push_back((exponent, finite));
        finite || exponent > 0
    }

    fn act_on(&mut self, exponent: i32, finite: bool) {
        if exponent != self.exponent {
            return;
        }
        self.good = if finite { self.good + 1 } else { 0 };
        if !finite {
            self.exponent -= 1;
        } else if self.good == PATIENCE {
            (self.exponent, self.good) = ((self.exponent + 1).min(MOST), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exponents of 40 steps of which some overflow, on a device that runs so many steps ahead, with rests between.
    fn exponents(ahead: usize, rests: &[usize]) -> Vec<i32> {
        let mut scale = LossScale::default();
        let (mut exponents, mut begun) = (Vec::new(), VecDeque::new());
        for step in 0..40 {
            let room = if rests.contains(&step) { 0 } else { ahead };
            while begun.len() > room {
                let (step, exponent) = begun.pop_front().unwrap();
                assert!(scale.result(exponent, ![5, 6, 7, 8, 9, 20].contains(&step)));
            }
            let exponent = scale.next(begun.len());
            exponents.push(exponent);
            begun.push_back((step, exponent));
        }
        exponents
    }

    #[test]
    fn the_scale_does_not_depend_on_how_far_a_device_runs_ahead_or_where_it_rests() {
        let expected = exponents(2, &[]);
        assert_eq!((expected[7], expected[8], expected[10], expected[11]), (16, 15, 15, 14));
        for ahead in 0..LATE {
            for rests in [&[][..], &[6, 7, 9], &[8, 11, 21, 22]] {
                assert_eq!(exponents(ahead, rests), expected, "{ahead} ahead, rests {rests:?}");
            }
        }
    }

    #[test]
    fn an_overflow_halves_the_scale_once_for_all_steps_begun_with_it_and_patience_doubles_it() {
        let mut scale = LossScale::default();
        for _ in 0..LATE {
            assert!(scale.result(16, false));
        }
        assert_eq!(scale.next(0), 15);
        for step in 0..PATIENCE {
            assert_eq!(scale.next(0), 15, "step {step}");
            assert!(scale.result(15, true));
        }
        for _ in 0..LATE - 1 {
            assert_eq!(scale.next(0), 15);
            assert!(scale.result(15, true));
        }
        assert_eq!(scale.next(0), 16);
    }

    #[test]
    fn gradients_that_overflow_unscaled_are_an_error() {
        let mut scale = LossScale::default();
        assert!(scale.result(1, false));
        assert!(!scale.result(0, false));
    }
}
