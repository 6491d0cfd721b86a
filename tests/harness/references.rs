//! The references against themselves: their gradients are the slopes of their own forward in f64.

use rayon::prelude::*;
use tlm::kernel::Precision;
use tlm::ops::REGISTRY;
use tlm::ops::case::{Case, Expected, Given};

use crate::harness::expected;
use crate::harness::plan::{Recorded, record, upstream};

/// Compares the gradients of every case's reference with central differences.
pub fn compare_with_differences() {
    let cases = REGISTRY
        .iter()
        .flat_map(|op| (0..(op.cases)().len()).map(move |index| (op, index)));
    let cases: Vec<_> = cases.collect();
    // A case stays on its thread.
    cases.into_par_iter().for_each(|(op, index)| {
        let case = (op.cases)().swap_remove(index);
        let recorded =
            record(&case, Vec::new(), Precision::F32).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        check(&case, &recorded, &expected(&case, &recorded, &case.truth));
    });
}

/// Central differences of the reference's forward along single elements (a spread of at most 40 of each tensor).
fn check(case: &Case, recorded: &Recorded, truth: &Expected<f64>) {
    let tensors: Vec<Vec<f64>> = case.tensors.iter().map(|tensor| tensor.data.clone()).collect();
    let upstream = upstream(case, recorded);
    let objective = |tensors: &[Vec<f64>]| -> f64 {
        let expected = (case.truth)(
            &Given {
                tensors,
                step: case.step,
            },
            &upstream,
        );
        if upstream.is_empty() {
            return expected.outputs.last().unwrap().iter().sum();
        }
        let takes = case.upstream.iter().zip(&expected.outputs).filter(|(takes, _)| **takes);
        takes
            .zip(&upstream)
            .map(|((_, y), dy)| y.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>())
            .sum()
    };
    for (index, gradient) in truth.gradients.iter().enumerate() {
        let scale = gradient.iter().fold(1.0f64, |most, x| most.max(x.abs()));
        let stride = gradient.len().div_ceil(40).max(1);
        for element in (0..gradient.len()).step_by(stride) {
            let h = 1e-5;
            let shifted = |by: f64| {
                let mut tensors = tensors.clone();
                tensors[index][element] += by;
                objective(&tensors)
            };
            let slope = (shifted(h) - shifted(-h)) / (2.0 * h);
            // Truncation h^2 f''' / 6 and cancellation eps |f| / h, with room for a third derivative of 100.
            let allowed = scale * 1e-7 + objective(&tensors).abs() * 1e-9;
            let error = (slope - gradient[element]).abs();
            assert!(
                error <= allowed,
                "{}: reference gradient of {} [{element}]",
                case.name,
                case.tensors[index].name
            );
        }
    }
}
