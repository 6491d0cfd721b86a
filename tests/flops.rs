//! The cost functions of the kernels against a count of what their references do, and the plans against closed formulas.

#[allow(dead_code, reason = "nothing is written to a device here")]
mod packed;
#[allow(dead_code, reason = "the harness' own runs are not needed here")]
#[path = "harness/plan.rs"]
mod plan;

use packed::Packed;
use plan::{record, upstream};
use tlm::bert::{Capacity, parameters, plans};
use tlm::cost::needed_flops;
use tlm::hub::BertConfig;
use tlm::kernel::{Precision, Sizes, StepParams};
use tlm::ops::REGISTRY;
use tlm::ops::case::{Case, Given, Mixed, Real, operations};
use tlm::plan::{Launch, Plan};

/// What a case's reference does, its numbers counting their own operations.
fn counted(case: &Case, recorded: &plan::Recorded) -> u64 {
    let convert = |data: &[f64]| data.iter().map(|&x| Mixed::<true>::from_f64(x)).collect::<Vec<_>>();
    let tensors: Vec<_> = case.tensors.iter().map(|tensor| convert(&tensor.data)).collect();
    let upstream: Vec<_> = upstream(case, recorded).iter().map(|data| convert(data)).collect();
    let given = Given {
        tensors: &tensors,
        step: case.step,
    };
    let (_, operations) = operations(|| (case.naive_bf16)(&given, &upstream));
    operations
}

/// What a launch does beyond the mathematics: sums in two passes, and values made a second time instead of kept.
fn again(launch: &Launch, step: &StepParams) -> u64 {
    let sizes = Sizes::new(&launch.dims, Some(step));
    let elements = |rows, width| sizes.get(rows) * sizes.get(width);
    match launch.kernel.name {
        "bias_grad.finish" => elements("blocks", "width"),
        "grad_norm.finish" => sizes.get("blocks"),
        // xhat, from s and the row's mean and deviation.
        "layer_norm.backward" | "layer_norm.residual_backward" => 2 * elements("rows", "width"),
        // Scores and probabilities: a product, scale, lse subtracted, exponential, dropout.
        "attention.backward" => step.squared_lengths() * sizes.word("heads") * (2 * sizes.word("head_size") + 4),
        // The softmax of the loss.
        "class_cross_entropy.gradient" => 3 * elements("rows", "classes"),
        _ => 0,
    }
}

#[test]
fn cost_functions_count_what_the_references_do() {
    let mut wrong = Vec::new();
    for op in REGISTRY {
        let mut seen = 0;
        for case in (op.cases)() {
            // Such a reference works out once what the plan does twice.
            if case.name.contains("2 times") {
                continue;
            }
            let recorded = record(&case, Vec::new(), Precision::F32).unwrap();
            let launches = &recorded.plan.launches;
            let cost: u64 = launches.iter().map(|launch| launch.cost(Some(&case.step)).flops).sum();
            let again: u64 = launches.iter().map(|launch| again(launch, &case.step)).sum();
            let reference = counted(&case, &recorded);
            if cost != reference + again {
                wrong.push(format!(
                    "{}: {cost} by the cost functions, {reference} + {again} again",
                    case.name
                ));
            }
            seen += 1;
        }
        assert!(seen > 0, "{}: no case was counted", op.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn preset(layers: usize, width: usize, heads: usize) -> BertConfig {
    BertConfig {
        vocab_size: 8192,
        hidden_size: width,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: 4 * width,
        labels: (0..6).map(|class| class.to_string()).collect(),
        ..BertConfig::default()
    }
}

/// FLOPs of a plan's matrix products.
fn products(plan: &Plan, step: &StepParams) -> u64 {
    let of = |launch: &Launch| {
        let sizes = Sizes::new(&launch.dims, Some(step));
        match launch.kernel.name {
            name if name.starts_with("gemm.") => 2 * sizes.get("rows") * sizes.get("n") * sizes.get("k"),
            "attention.forward" => 4 * step.squared_lengths() * sizes.get("h"),
            "attention.backward" => 10 * step.squared_lengths() * sizes.get("h"),
            _ => 0,
        }
    };
    plan.launches.iter().map(of).sum()
}

#[test]
fn the_products_of_every_plan_are_what_the_closed_formula_needs_and_the_scores_once_more() {
    use plans::Kind::{Evaluate, External, Finetune, Joint};
    let batch = Packed::random(&[128, 90, 105, 100, 128, 7], 8192, 6, 3);
    let step = batch.step();
    let capacity = Capacity {
        tokens: 1024,
        sequences: 8,
        masked: 200,
        max_length: 128,
    };
    for (layers, width, heads) in [(2, 128, 2), (4, 256, 4), (12, 768, 12)] {
        let config = preset(layers, width, heads);
        let params = parameters(&config);
        for kind in [External, Joint, Finetune, Evaluate] {
            let plan = plans::batch(kind, &config, &params, &capacity, plans::Form::default()).unwrap();
            let again = 2 * (layers * width) as u64 * step.squared_lengths();
            let again = if kind == Evaluate { 0 } else { again };
            let needed = needed_flops(&config, kind, &step);
            assert_eq!(products(&plan, &step), needed + again, "{layers} x {width}, {kind:?}");
            // Everything else is little.
            let all = plan.cost(Some(&step)).flops;
            assert!(
                all > needed && all < needed + needed / 6,
                "{layers} x {width}, {kind:?}: {all} of {needed}"
            );
        }
    }
}
