//! Scores of a single-label classifier, counted as scikit-learn counts them.
//!
//! With C classes and `n[t][p]` examples of true class t predicted as p:
//!
//! * accuracy = `Σ_c n[c][c] / Σ n`
//! * class c: `tp = n[c][c]`, `fp = Σ_t n[t][c] - tp`, `fn = Σ_p n[c][p] - tp`, `F1 = 2 tp / (2 tp + fp + fn)`
//! * micro-F1 = 2 Σ tp / (2 Σ tp + Σ fp + Σ fn). Every error is one fp and one fn, so this **is** accuracy.
//! * macro-F1 = mean of F1 over the classes that occur in the truth **or** in the predictions, which is what
//!   `sklearn.metrics.f1_score(truth, predicted, average="macro")` does without `labels=`. A class that occurs in
//!   neither (say, a rare class of the training set that the test set lacks) does not pull the mean down.
//!
//! Scores lie in 0..=1; readers multiply by 100.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The score a task is judged by, also for choosing the best checkpoint on the development set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// F1 over all decisions together; equals accuracy for single-label data.
    MicroF1,
    /// Unweighted mean of the classes' F1.
    MacroF1,
    /// Share of right answers.
    Accuracy,
}

impl Metric {
    /// Every metric by its name in configurations and reports.
    pub const NAMES: [&'static str; 3] = ["micro_f1", "macro_f1", "accuracy"];

    /// The name in configurations and reports.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(name: &str) -> Result<Metric, String> {
        match name {
            "micro_f1" => Ok(Metric::MicroF1),
            "macro_f1" => Ok(Metric::MacroF1),
            "accuracy" => Ok(Metric::Accuracy),
            _ => Err(format!(
                "unknown metric \"{name}\": use one of {}",
                Metric::NAMES.join(", ")
            )),
        }
    }
}

/// Why predictions cannot be scored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Different numbers of labels and predictions.
    #[error("{truth} labels but {predicted} predictions: each example needs one of both")]
    Lengths {
        /// Number of true labels.
        truth: usize,
        /// Number of predictions.
        predicted: usize,
    },
    /// A class index outside the classes.
    #[error("example {example} has class index {class}, but there are only {classes} classes (0..{classes})")]
    ClassOutOfRange {
        /// Index of the example.
        example: usize,
        /// The offending class index.
        class: u32,
        /// Number of classes.
        classes: usize,
    },
}

/// Confusion matrix: how often each true class was predicted as each class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Confusion {
    /// `rows[truth][predicted]`, C rows of C counts.
    pub rows: Vec<Vec<u64>>,
}

/// Precision, recall and F1 of one class, each in 0..=1 (0 where undefined).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// tp / (tp + fp).
    pub precision: f64,
    /// tp / (tp + fn).
    pub recall: f64,
    /// 2 tp / (2 tp + fp + fn).
    pub f1: f64,
    /// Examples whose true class this is.
    pub support: u64,
}

/// The three scores of one set of predictions, each in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of right answers.
    pub accuracy: f64,
    /// F1 over all decisions.
    pub micro_f1: f64,
    /// Mean F1 over the classes in truth or prediction.
    pub macro_f1: f64,
    /// Number of examples scored.
    pub examples: u64,
}

impl Scores {
    /// The score that `metric` names.
    pub fn get(&self, metric: Metric) -> f64 {
        match metric {
            Metric::MicroF1 => self.micro_f1,
            Metric::MacroF1 => self.macro_f1,
            Metric::Accuracy => self.accuracy,
        }
    }
}

impl Confusion {
    /// Counts `predicted[i]` against `truth[i]`, both class indices below `classes`.
    ///
    /// # Errors
    /// [`MetricError`] where the lengths differ or an index is out of range.
    pub fn count(truth: &[u32], predicted: &[u32], classes: usize) -> Result<Confusion, MetricError> {
        if truth.len() != predicted.len() {
            return Err(MetricError::Lengths {
                truth: truth.len(),
                predicted: predicted.len(),
            });
        }
        let mut rows = vec![vec![0; classes]; classes];
        for (example, (&t, &p)) in truth.iter().zip(predicted).enumerate() {
            let class = t.max(p);
            if class as usize >= classes {
                return Err(MetricError::ClassOutOfRange {
                    example,
                    class,
                    classes,
                });
            }
            rows[t as usize][p as usize] += 1;
        }
        Ok(Confusion { rows })
    }

    /// All three scores; zeros where there is no example.
    pub fn scores(&self) -> Scores {
        let examples: u64 = self.rows.iter().flatten().sum();
        let right: u64 = (0..self.rows.len()).map(|c| self.rows[c][c]).sum();
        let present: Vec<f64> = (0..self.rows.len())
            .filter(|&c| self.truths(c) + self.predictions(c) > 0)
            .map(|c| self.class(c).f1)
            .collect();
        let accuracy = ratio(right, examples);
        let macro_f1 = if present.is_empty() {
            0.0
        } else {
            present.iter().sum::<f64>() / present.len() as f64
        };
        Scores {
            accuracy,
            micro_f1: accuracy,
            macro_f1,
            examples,
        }
    }

    /// Scores of class `c`.
    pub fn class(&self, c: usize) -> ClassScores {
        let (tp, truths, predictions) = (self.rows[c][c], self.truths(c), self.predictions(c));
        ClassScores {
            precision: ratio(tp, predictions),
            recall: ratio(tp, truths),
            f1: ratio(2 * tp, truths + predictions), // truths + predictions = 2 tp + fp + fn
            support: truths,
        }
    }

    fn truths(&self, c: usize) -> u64 {
        self.rows[c].iter().sum()
    }

    fn predictions(&self, c: usize) -> u64 {
        self.rows.iter().map(|row| row[c]).sum()
    }
}

/// Mean and sample standard deviation (n - 1 in the denominator) over repeats with different seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanStd {
    /// Mean; 0 of no values.
    pub mean: f64,
    /// Sample standard deviation; none for fewer than two values, where it is undefined.
    pub std: Option<f64>,
    /// Number of values.
    pub count: usize,
}

impl MeanStd {
    /// Mean and standard deviation of `values`, in two passes.
    pub fn of(values: &[f64]) -> MeanStd {
        let count = values.len();
        let mean = if count == 0 {
            0.0
        } else {
            values.iter().sum::<f64>() / count as f64
        };
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        MeanStd {
            mean,
            std: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
            count,
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    fn scores(truth: &[u32], predicted: &[u32], classes: usize) -> Scores {
        Confusion::count(truth, predicted, classes).unwrap().scores()
    }

    // Values of scikit-learn 1.9.1:
    //   from sklearn.metrics import accuracy_score, f1_score
    //   t, p = [0,1,2,0,1,2,3], [0,2,1,0,0,1,3]
    //   accuracy_score(t, p), f1_score(t, p, average="macro"), f1_score(t, p, average=None)
    #[test]
    fn scores_equal_scikit_learn_by_hand_sized_example() {
        let (truth, predicted) = ([0, 1, 2, 0, 1, 2, 3], [0, 2, 1, 0, 0, 1, 3]);
        let found = scores(&truth, &predicted, 4);
        assert_relative_eq!(found.accuracy, 3.0 / 7.0, epsilon = 1e-15);
        assert_relative_eq!(found.macro_f1, 0.45, epsilon = 1e-15);
        assert_eq!(found.examples, 7);
        let confusion = Confusion::count(&truth, &predicted, 4).unwrap();
        for (class, f1) in [0.8, 0.0, 0.0, 1.0].into_iter().enumerate() {
            assert_relative_eq!(confusion.class(class).f1, f1, epsilon = 1e-15);
        }
        assert_relative_eq!(confusion.class(0).precision, 2.0 / 3.0, epsilon = 1e-15);
        assert_relative_eq!(confusion.class(0).recall, 1.0, epsilon = 1e-15);
    }

    //   f1_score([0,0,1,1,1], [0,4,1,1,0], average="macro") -> 0.43333333333333335
    #[test]
    fn macro_f1_counts_predicted_classes_and_leaves_absent_ones_out() {
        // Class 4 is only predicted (F1 0, counts); 2 and 3 occur nowhere (do not count).
        assert_relative_eq!(
            scores(&[0, 0, 1, 1, 1], &[0, 4, 1, 1, 0], 5).macro_f1,
            1.3 / 3.0,
            epsilon = 1e-15
        );
        assert_relative_eq!(scores(&[2, 2, 2], &[2, 2, 2], 5).macro_f1, 1.0, epsilon = 1e-15);
        assert_relative_eq!(scores(&[1, 1, 1, 1], &[0, 0, 0, 0], 2).macro_f1, 0.0, epsilon = 1e-15);
    }

    //   i = numpy.arange(1000); t = (i*i + 3*i) % 7; p = numpy.where(i % 3 == 0, (i*5) % 7, t)
    //   accuracy_score(t, p), f1_score(t, p, average="micro"), f1_score(t, p, average="macro")
    //   -> 0.762, 0.762, 0.48051758131275546
    #[test]
    fn scores_equal_scikit_learn_on_a_thousand_examples() {
        let truth: Vec<u32> = (0..1000).map(|i| (i * i + 3 * i) % 7).collect();
        let predicted: Vec<u32> = (0..1000)
            .map(|i| if i % 3 == 0 { (i * 5) % 7 } else { truth[i as usize] })
            .collect();
        let found = scores(&truth, &predicted, 7);
        assert_relative_eq!(found.accuracy, 0.762, epsilon = 1e-12);
        assert_relative_eq!(found.micro_f1, 0.762, epsilon = 1e-12);
        assert_relative_eq!(found.macro_f1, 0.48051758131275546, epsilon = 1e-12);
    }

    #[test]
    fn micro_f1_from_its_own_formula_equals_accuracy() {
        let truth: Vec<u32> = (0..500).map(|i| (i * 7 + i / 3) % 5).collect();
        let predicted: Vec<u32> = (0..500).map(|i| (i * 7 + i / 4) % 5).collect();
        let confusion = Confusion::count(&truth, &predicted, 5).unwrap();
        let (mut tp, mut fp, mut missed) = (0, 0, 0);
        for class in 0..5 {
            for i in 0..500 {
                tp += u64::from(truth[i] == class && predicted[i] == class);
                fp += u64::from(truth[i] != class && predicted[i] == class);
                missed += u64::from(truth[i] == class && predicted[i] != class);
            }
        }
        let micro = (2 * tp) as f64 / (2 * tp + fp + missed) as f64;
        assert_relative_eq!(confusion.scores().micro_f1, micro, epsilon = 1e-15);
        assert!(
            micro > 0.1 && micro < 0.9,
            "the example should have right and wrong answers: {micro}"
        );
    }

    //   numpy.mean([81.99, 82.41, 81.57]), numpy.std([81.99, 82.41, 81.57], ddof=1) -> 81.99, 0.42
    #[test]
    fn the_standard_deviation_is_the_samples() {
        let three = MeanStd::of(&[81.99, 82.41, 81.57]);
        assert_relative_eq!(three.mean, 81.99, epsilon = 1e-12);
        assert_relative_eq!(three.std.unwrap(), 0.42, epsilon = 1e-12);
        assert_eq!(
            MeanStd::of(&[5.0]),
            MeanStd {
                mean: 5.0,
                std: None,
                count: 1
            }
        );
        assert_eq!(
            MeanStd::of(&[]),
            MeanStd {
                mean: 0.0,
                std: None,
                count: 0
            }
        );
    }

    #[test]
    fn bad_input_is_refused_with_its_place() {
        assert_eq!(
            Confusion::count(&[0, 1], &[0], 2).unwrap_err(),
            MetricError::Lengths { truth: 2, predicted: 1 }
        );
        assert_eq!(
            Confusion::count(&[0, 1], &[0, 3], 3).unwrap_err(),
            MetricError::ClassOutOfRange {
                example: 1,
                class: 3,
                classes: 3
            }
        );
    }

    #[test]
    fn every_metric_is_read_back_from_its_name() {
        for name in Metric::NAMES {
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
            assert_eq!(serde_json::to_value(name.parse::<Metric>().unwrap()).unwrap(), name);
        }
        assert!("f1".parse::<Metric>().unwrap_err().contains("micro_f1"));
    }
}
