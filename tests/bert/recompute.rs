//! Layers that compute their values again in the backward instead of keeping them.

use super::cost::{BATCH, preset};
use super::*;
use tlm::bert::plans::{Form, Kind};
use tlm::plan::PlanError;

/// The reference's model with dropout.
fn with_dropout() -> BertConfig {
    BertConfig {
        hidden_dropout_prob: 0.1,
        attention_probs_dropout_prob: 0.1,
        ..small()
    }
}

fn recorded(kind: Kind, config: &BertConfig, capacity: &Capacity, form: Form) -> Result<Plan, PlanError> {
    plans::batch(kind, config, &parameters(config), capacity, form)
}

/// Bits of all gradients, parameters and moments after each of five steps over two micro-batches.
fn trained(recompute: bool) -> Vec<Vec<u32>> {
    let reference = Reference::open();
    let plan = |accumulate| {
        let form = Form {
            accumulate,
            recompute,
            ..Form::default()
        };
        recorded(Kind::Joint, &with_dropout(), &CAPACITY, form).unwrap()
    };
    let mut trainer = Trainer::new(&reference, vec![plan(false), plan(true), update()]);
    let batches = [reference.batch(), Packed::random(&[9, 30, 1, 17], 97, 5, 3)];
    let words = trainer.params.words();
    let mut bits = Vec::new();
    for number in 0..5 {
        let step = |batch: &Packed| StepParams {
            step: number,
            seed: [7, 11],
            learning_rate: 1e-3,
            bias_correction: 1.0,
            ..batch.step()
        };
        for (plan, batch) in batches.iter().enumerate() {
            trainer.run(plan, batch, &step(batch));
        }
        let program = trainer.device.load(&trainer.plans[2]).unwrap();
        trainer.device.run(program).unwrap();
        for space in [Space::Grads, Space::Params, Space::Moment1, Space::Moment2] {
            bits.push(trainer.read(space, 0, words).into_iter().map(f32::to_bits).collect());
        }
    }
    bits
}

#[test]
fn gradients_and_weights_are_the_same_bits_with_and_without_recomputation() {
    let (kept, again) = (trained(false), trained(true));
    assert_eq!(kept.len(), 20);
    assert!(kept == again, "some bits differ");
    assert_ne!(kept[1], kept[5], "the weights move");
}

/// Launches of a layer's forward: qkv, attention, projection, LayerNorm, two products, LayerNorm.
const LAYER: usize = 7;

#[test]
fn each_layer_is_launched_once_more_and_nothing_else_is() {
    let recompute = Form {
        recompute: true,
        ..Form::default()
    };
    for layers in [1, 4] {
        let config = preset(layers, 256, 4, 8_192);
        for kind in [Kind::External, Kind::Joint, Kind::Finetune] {
            let kept = recorded(kind, &config, &BATCH, Form::default()).unwrap();
            let again = recorded(kind, &config, &BATCH, recompute).unwrap();
            assert_eq!(again.launches.len(), kept.launches.len() + LAYER * layers, "{kind:?}");
            let marked = again.launches.iter().filter(|launch| launch.recomputed).count();
            assert_eq!(marked, LAYER * layers, "{kind:?}");
            assert_eq!(kept.recomputed_cost(None).flops, 0);
        }
        let evaluate = |form| recorded(Kind::Evaluate, &config, &BATCH, form).unwrap();
        let (kept, again) = (evaluate(Form::default()), evaluate(recompute));
        assert_eq!(kept.launches.len(), again.launches.len(), "no backward, nothing again");
        assert_eq!(kept.arena_words, again.arena_words);
    }
}

/// A step executes the encoder's forward twice: of 3 parts (the backward costs 2) it makes 4. In products alone: attention's
/// backward makes its scores once more anyway (5 products, not 4).
#[test]
fn executed_flops_grow_by_the_forward_of_the_layers() {
    let config = preset(4, 256, 4, 8_192);
    let plan = |recompute| {
        let form = Form {
            recompute,
            ..Form::default()
        };
        recorded(Kind::Joint, &config, &BATCH, form).unwrap()
    };
    let (kept, again) = (plan(false), plan(true));
    let step = Packed::random(&[128, 90, 105, 100, 128, 7], 8_192, 6, 3).step();
    let extra = again.cost(Some(&step)).flops - kept.cost(Some(&step)).flops;
    assert_eq!(extra, again.recomputed_cost(Some(&step)).flops);
    let (tokens, h, squares) = (f64::from(step.tokens), 256.0, step.squared_lengths() as f64);
    let forward = 4.0 * (tokens * 24.0 * h * h + 4.0 * squares * h);
    let ratio = extra as f64 / forward;
    assert!(
        ratio > 1.0 && ratio < 1.05,
        "{ratio} of the products, the rest is elementwise"
    );
}

#[test]
fn a_layer_keeps_its_input_alone() {
    let arena = |layers, recompute| {
        let form = Form {
            recompute,
            ..Form::default()
        };
        let config = preset(layers, 256, 4, 8_192);
        recorded(Kind::Joint, &config, &BATCH, form).unwrap().arena_lower_bound
    };
    let row = BATCH.tokens as usize * 256;
    let stats = BATCH.tokens as usize * 2;
    // Input, q k v, attention, two sums, y between the halves, z and gelu(z) of 4 x the width; statistics and lse.
    let kept = row * (1 + 3 + 1 + 2 + 1 + 8) + 2 * stats + BATCH.tokens as usize * 4;
    assert_eq!(arena(8, false) - arena(7, false), kept);
    assert_eq!(arena(8, true) - arena(7, true), row);
}

#[test]
fn arenas_with_recomputation_stay_within_15_percent_of_the_lower_bound() {
    for (layers, width, heads) in [(2, 128, 2), (4, 256, 4), (8, 512, 8), (12, 768, 12)] {
        let config = preset(layers, width, heads, 30_522);
        let form = Form {
            recompute: true,
            ..Form::default()
        };
        let plan = recorded(Kind::Joint, &config, &BATCH, form).unwrap();
        let kept = recorded(Kind::Joint, &config, &BATCH, Form::default()).unwrap();
        let share = plan.arena_words as f64 / plan.arena_lower_bound as f64;
        assert!(share <= 1.15, "{layers} x {width}: {share:.3} of the lower bound");
        assert!(plan.arena_words < kept.arena_words, "{layers} x {width}");
    }
}
