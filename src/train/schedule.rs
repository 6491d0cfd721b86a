//! How large a step the optimiser takes: the learning-rate schedule and AdamW's bias correction.
//!
//! Learning rate at 0-based optimiser step s, with peak lr, W warm-up steps and T steps in all:
//!
//! ```text
//! s < W : lr * s / W                      0 at s = 0, lr at s = W
//! s >= W: lr * (T - s) / (T - W)          lr at s = W, 0 at s = T and beyond
//! ```
//!
//! The first step (s = 0) moves nothing while the moments already fill: this is what the published training did
//! (`get_linear_schedule_with_warmup` of Hugging Face transformers), so it is kept.
//!
//! AdamW as Hugging Face transformers wrote it, with t = 1, 2, ... counting updates:
//!
//! ```text
//! m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
//! p -= lr * c(t) * m / (sqrt(v) + eps)    c(t) = sqrt(1 - b2^t) / (1 - b1^t)
//! p -= lr * weight_decay * p
//! ```
//!
//! Here eps is added to the **uncorrected** sqrt(v), unlike in `torch.optim.AdamW`; c(t) is the one scalar that
//! changes.

/// Linear warm-up, then linear decay to zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearSchedule {
    /// Highest learning rate, reached at step `warmup`.
    pub peak: f64,
    /// Steps of the warm-up; 0: starts at the peak.
    pub warmup: u64,
    /// Steps in all; at this step the rate is 0.
    pub total: u64,
}

impl LinearSchedule {
    /// Learning rate at 0-based optimiser step `step`; 0 from `total` on.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step >= self.total {
            0.0
        } else if step < self.warmup {
            self.peak * step as f64 / self.warmup as f64
        } else {
            self.peak * (self.total - step) as f64 / (self.total - self.warmup) as f64
        }
    }
}

/// AdamW's bias correction `sqrt(1 - beta2^t) / (1 - beta1^t)` for the t-th update, t = 1, 2, ...
///
/// Computed in f64 through `exp_m1`, because `1 - beta2^t` cancels in f32 for small t. Without momentum (beta = 0) the
/// corresponding factor is 1.
pub fn adamw_bias_correction(beta1: f64, beta2: f64, t: u64) -> f64 {
    // 1 - beta^t = -(exp(t ln beta) - 1)
    let first = -libm::expm1(t as f64 * libm::log(beta1));
    let second = -libm::expm1(t as f64 * libm::log(beta2));
    second.sqrt() / first
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    const SCHEDULE: LinearSchedule = LinearSchedule {
        peak: 1e-4,
        warmup: 10_000,
        total: 150_000,
    };

    #[test]
    fn the_rate_is_zero_at_the_start_peak_after_warm_up_and_zero_at_the_end() {
        assert_eq!(SCHEDULE.learning_rate(0), 0.0);
        assert_eq!(SCHEDULE.learning_rate(10_000), 1e-4);
        assert_eq!(SCHEDULE.learning_rate(150_000), 0.0);
        assert_eq!(SCHEDULE.learning_rate(1 << 60), 0.0);
    }

    // transformers.get_linear_schedule_with_warmup(optimizer, 10000, 150000), lr 1e-4, scheduler.last_epoch = s:
    // the lambda is s / 10000 below the warm-up and (150000 - s) / 140000 after it.
    #[test]
    fn the_rate_is_linear_on_both_sides() {
        assert_relative_eq!(SCHEDULE.learning_rate(2_500), 2.5e-5, max_relative = 1e-14);
        assert_relative_eq!(SCHEDULE.learning_rate(80_000), 5e-5, max_relative = 1e-14);
        assert_relative_eq!(SCHEDULE.learning_rate(149_999), 1e-4 / 140_000.0, max_relative = 1e-14);
        assert!((1..10_000).all(|s| SCHEDULE.learning_rate(s) > SCHEDULE.learning_rate(s - 1)));
        assert!((10_001..20_000).all(|s| SCHEDULE.learning_rate(s) < SCHEDULE.learning_rate(s - 1)));
    }

    #[test]
    fn without_warm_up_the_rate_starts_at_the_peak() {
        let schedule = LinearSchedule {
            peak: 2e-5,
            warmup: 0,
            total: 4,
        };
        for (step, rate) in [2e-5, 1.5e-5, 1e-5, 0.5e-5, 0.0].into_iter().enumerate() {
            assert_relative_eq!(schedule.learning_rate(step as u64), rate, max_relative = 1e-14);
        }
    }

    #[test]
    fn a_schedule_that_is_all_warm_up_never_divides_by_zero() {
        let schedule = LinearSchedule {
            peak: 1.0,
            warmup: 4,
            total: 4,
        };
        let rates: Vec<f64> = (0..6).map(|step| schedule.learning_rate(step)).collect();
        assert_eq!(rates, [0.0, 0.25, 0.5, 0.75, 0.0, 0.0]);
    }

    // By hand: t = 1: sqrt(0.001) / 0.1 = 0.31622776601683794; t = 2: sqrt(1 - 0.998001) / (1 - 0.81) =
    // sqrt(0.001999) / 0.19 = 0.23531702...; t -> infinity: 1.
    #[test]
    fn the_bias_correction_has_its_known_values() {
        assert_relative_eq!(
            adamw_bias_correction(0.9, 0.999, 1),
            0.316_227_766_016_837_94,
            max_relative = 1e-12
        );
        assert_relative_eq!(
            adamw_bias_correction(0.9, 0.999, 2),
            0.001_999f64.sqrt() / 0.19,
            max_relative = 1e-12
        );
        assert_relative_eq!(adamw_bias_correction(0.9, 0.999, 100_000), 1.0, max_relative = 1e-12);
    }

    #[test]
    fn a_zero_beta_needs_no_correction() {
        assert_eq!(adamw_bias_correction(0.0, 0.0, 1), 1.0);
        assert_eq!(adamw_bias_correction(0.0, 0.0, 7), 1.0);
    }
}
