//! What plans cost: arenas, FLOPs, launches.

use super::*;

pub fn preset(layers: usize, width: usize, heads: usize, vocabulary: usize) -> BertConfig {
    BertConfig {
        vocab_size: vocabulary,
        hidden_size: width,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: 4 * width,
        labels: (0..6).map(|class| class.to_string()).collect(),
        ..BertConfig::default()
    }
}

pub const BATCH: Capacity = Capacity {
    tokens: 4096,
    sequences: 32,
    masked: 640,
    max_length: 128,
};

#[test]
fn arenas_of_all_presets_stay_within_15_percent_of_the_lower_bound() {
    for (layers, width, heads) in [(2, 128, 2), (4, 256, 4), (4, 512, 8), (8, 512, 8), (12, 768, 12)] {
        let config = preset(layers, width, heads, 30_522);
        let params = parameters(&config);
        let plan = plans::batch(plans::Kind::Joint, &config, &params, &BATCH, plans::Form::default()).unwrap();
        let (words, bound) = (plan.arena_words as f64, plan.arena_lower_bound as f64);
        assert!(
            words <= 1.15 * bound,
            "{layers} x {width}: {:.3} of the lower bound",
            words / bound
        );
    }
}

/// FLOPs of the products of a training step by Korthikanti et al. 2022, appendix A, with the real number of logits, plus
/// what the formula leaves out: the heads' dense layers. A backward is twice its forward; this implementation's attention
/// makes the scores once more (5 products backward instead of 4).
fn korthikanti(config: &BertConfig, tokens: f64, squares: f64, masked: f64, sequences: f64) -> f64 {
    let (l, h, v) = (
        config.num_hidden_layers as f64,
        config.hidden_size as f64,
        config.vocab_size as f64,
    );
    let mean_length = squares / tokens;
    let encoder = 72.0 * tokens * l * h * h * (1.0 + mean_length / (6.0 * h) + masked / tokens * v / (12.0 * l * h));
    let heads = 6.0 * (masked * h * h + sequences * (h * h + h * config.labels.len() as f64));
    let scores_again = 2.0 * l * squares * h;
    encoder + heads + scores_again
}

#[test]
fn products_of_the_joint_plan_have_the_flops_of_the_closed_formula() {
    for (layers, width, heads) in [(2, 128, 2), (4, 256, 4), (12, 768, 12)] {
        let config = preset(layers, width, heads, 8_192);
        let params = parameters(&config);
        let plan = plans::batch(plans::Kind::Joint, &config, &params, &BATCH, plans::Form::default()).unwrap();
        let batch = Packed::random(&[128, 90, 105, 100, 128, 7], 8_192, 6, 3);
        let step = batch.step();
        let mut flops = 0.0;
        for launch in &plan.launches {
            let (dims, name) = (&launch.dims, launch.kernel.name);
            let sizes = LiveSizes::new(dims, Some(&step));
            if name.starts_with("gemm.") {
                flops += 2.0 * (sizes.get("rows") * sizes.get("n") * sizes.get("k")) as f64;
            } else if let Some(pass) = name.strip_prefix("attention.") {
                let products = match pass {
                    "forward" => 2.0,
                    "backward" => 5.0,
                    _ => 0.0,
                };
                flops += 2.0 * products * (step.squared_lengths() * sizes.get("h")) as f64;
            }
        }
        let (tokens, masked) = (f64::from(step.tokens), f64::from(step.masked));
        let formula = korthikanti(
            &config,
            tokens,
            step.squared_lengths() as f64,
            masked,
            f64::from(step.sequences),
        );
        assert!(
            (flops / formula - 1.0).abs() < 1e-12,
            "{layers} x {width}: {flops} by launches, {formula} by formula"
        );
        // What the kernels themselves report is this and the elementwise work, which is little.
        let reported = plan.cost(Some(&step)).flops as f64;
        assert!(reported > flops && reported < 1.15 * flops, "{reported} FLOPs reported");
    }
}

#[test]
fn launches_grow_by_a_constant_number_per_layer() {
    let launches = |kind, layers| {
        let config = preset(layers, 128, 2, 8_192);
        let plan = plans::batch(kind, &config, &parameters(&config), &BATCH, plans::Form::default()).unwrap();
        plan.launches.len()
    };
    use plans::Kind::{Evaluate, External, Finetune, Joint};
    // Forward: qkv, attention, projection, LayerNorm, two products, LayerNorm.
    assert_eq!(launches(Evaluate, 3) - launches(Evaluate, 2), 7);
    // Backward: 4 x (weight, bias in two launches), 4 x input, attention in two launches, 2 x LayerNorm with two finishes each.
    for kind in [External, Finetune, Joint] {
        assert_eq!(launches(kind, 3) - launches(kind, 2), 7 + 12 + 4 + 2 + 6, "{kind:?}");
    }
    // Embedding and LayerNorm, the layers, gather, two products, copy.
    assert_eq!(launches(Evaluate, 2), 2 + 2 * 7 + 4);
}

#[test]
fn a_plan_says_where_its_memory_goes() {
    let config = preset(2, 128, 2, 8_192);
    let plan = plans::batch(
        plans::Kind::Joint,
        &config,
        &parameters(&config),
        &BATCH,
        plans::Form::default(),
    )
    .unwrap();
    let memory = plan.memory();
    assert_eq!(memory.arena_bytes, 4 * plan.arena_words as u64);
    let largest = *plan
        .launches
        .iter()
        .flat_map(|launch| &launch.values)
        .filter(|&&value| plan.place(value).space == Space::Arena)
        .max_by_key(|&&value| plan.place(value).words)
        .unwrap();
    assert_eq!(memory.largest[0].1, 4 * plan.place(largest).words as u64);
}
