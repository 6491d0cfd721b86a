//! Recomputed regions: what is recorded twice, and what they refuse.

use super::*;
use tlm::ops::attention::{Attention, attention};
use tlm::ops::layer_norm::layer_norm;

fn norm(r: &mut Recorder) -> Result<Norm, PlanError> {
    Ok(Norm {
        gamma: r.param("inner.bias")?,
        beta: r.param("outer.bias")?,
        epsilon: 1e-12,
    })
}

/// `projection(inner(dropout(LN(x))))` with the middle in a region.
fn chain(params: &ParamTable, recompute: bool) -> Plan {
    let mut r = Recorder::new("chain", params);
    let x = r.differentiable_input("x", TOKENS, 4);
    let body = |r: &mut Recorder| {
        let norm = norm(r)?;
        let y = layer_norm(r, x, norm, 0.5)?;
        let inner = Layer::named(r, "inner")?;
        linear(r, y, inner)
    };
    let h = if recompute {
        r.recomputed("middle", body).unwrap()
    } else {
        r.scope("middle", body).unwrap()
    };
    let outer = Layer::named(&mut r, "outer").unwrap();
    let z = linear(&mut r, h, outer).unwrap();
    let upstream = r.input("upstream", TOKENS, 4, DType::F32);
    r.seed_gradient(z, upstream);
    r.freeze("projection");
    r.differentiate().unwrap();
    r.finish()
}

#[test]
fn a_regions_launches_are_repeated_before_its_backward_with_the_same_constants() {
    let params = table();
    let (kept, again) = (chain(&params, false), chain(&params, true));
    let names = |plan: &Plan| -> Vec<&str> { plan.launches.iter().map(|launch| launch.kernel.name).collect() };
    let mut expected = names(&kept);
    let backward = expected.iter().position(|name| *name == "layer_norm.backward").unwrap();
    // The middle's own backward begins with the linear layer: weight, bias in two launches, input.
    let begin = backward - 4;
    expected.splice(begin..begin, ["layer_norm.forward", "gemm.forward"]);
    assert_eq!(names(&again), expected);

    let (first, second) = (&again.launches[0], &again.launches[begin]);
    assert_eq!((first.recomputed, second.recomputed), (false, true));
    assert_eq!(first.dims, second.dims, "sizes, threshold and op id");
    assert!(first.dims.word("threshold") > 0 && first.dims.word("op") > 0);
    assert_eq!(second.scope, "chain/middle/recomputed");
    // x, gamma and beta are the same; y and the statistics are not.
    assert_eq!(first.values[..3], second.values[..3]);
    assert!(first.values[3] != second.values[3] && first.values[4] != second.values[4]);
    // What the backward reads are the copies: x, statistics of the LayerNorm.
    let backward = again
        .launches
        .iter()
        .find(|l| l.kernel.name == "layer_norm.backward")
        .unwrap();
    assert_eq!(
        (backward.values[1], backward.values[2]),
        (second.values[0], second.values[4])
    );
}

#[test]
fn a_plan_shows_what_is_recomputed() {
    let params = table();
    let plan = chain(&params, true);
    let text = plan.explain();
    let lines: Vec<&str> = text.lines().collect();
    // 6 rows at capacity: y of 4 words, statistics of 2, h of 4.
    let bytes = 4 * 6 * (4 + 2 + 4);
    assert_eq!(plan.memory().recomputed_bytes, bytes);
    assert_eq!(
        lines[1],
        format!("recomputed: 2 of the launches, 0.000 of the GFLOP; {bytes} bytes dropped after the forward")
    );
    assert_eq!(lines.iter().filter(|line| line.contains("/recomputed ")).count(), 2);
    assert!(!chain(&params, false).explain().contains("recomputed"));
    // LayerNorm 8 an element and 5 a row, dropout 1; the product 2 x 4, its bias 1.
    assert_eq!(plan.recomputed_cost(None).flops, 6 * 4 * (8 + 1 + 2 * 4 + 1) + 6 * 5);
}

#[test]
fn writing_a_value_from_outside_of_a_region_is_refused() {
    let message = refusal(|r| {
        let x = r.differentiable_input("x", TOKENS, 4);
        let sum = copy::copy(r, x)?;
        r.recomputed("again", |r| {
            let norm = norm(r)?;
            residual_layer_norm(r, sum, x, norm, 0.0).map(drop)
        })
    });
    assert_eq!(
        message,
        "joint/layer3/again: layer_norm.residual_forward writes `joint/layer3/copy`, which is not the region's own; move \
         it out of the recomputed region"
    );
    let message = refusal(|r| {
        let x = r.differentiable_input("x", TOKENS, 4);
        let out = r.output("out", TOKENS, 4);
        r.recomputed("again", |r| copy::into(r, x, out))
    });
    assert!(
        message.starts_with("joint/layer3/again: copy.widen writes `joint/layer3/out`"),
        "{message}"
    );
}

#[test]
fn a_loss_inside_a_region_is_refused() {
    let message = refusal(|r| {
        let rows = Extent::counted(Count::Masked, 3);
        r.recomputed("again", |r| {
            let masked = Masked {
                hidden: r.differentiable_input("hidden", rows, 4),
                decoder: Layer::named(r, "outer")?,
                labels: r.input("labels", rows, 1, DType::U32),
                weights: r.input("weights", rows, 1, DType::F32),
            };
            masked_cross_entropy(r, &masked, 3, true).map(drop)
        })
    });
    assert_eq!(
        message,
        "joint/layer3/again: the gradient of `joint/layer3/again/hidden` would begin inside the region and be made twice; \
         move it out of the recomputed region"
    );
}

#[test]
fn a_region_inside_a_region_is_refused() {
    let message = refusal(|r| r.recomputed("outer", |r| r.recomputed("inner", |_| Ok(()))));
    assert_eq!(
        message,
        "joint/layer3/outer: recomputed region `inner` inside another one"
    );
}

/// The first value that the in-place sum overwrites goes into the region; computed again, it would be another one.
#[test]
fn overwriting_what_a_region_reads_is_refused() {
    let message = refusal(|r| {
        let x = r.differentiable_input("x", TOKENS, 4);
        let (inner, norm) = (Layer::named(r, "inner")?, norm(r)?);
        let sum = copy::copy(r, x)?;
        let h = r.recomputed("again", |r| linear(r, sum, inner))?;
        residual_layer_norm(r, sum, h, norm, 0.0)?;
        let upstream = r.input("upstream", TOKENS, 4, DType::F32);
        r.seed_gradient(h, upstream);
        Ok(())
    });
    assert_eq!(
        message,
        "joint/layer3/again/recomputed: gemm.forward reads `joint/layer3/copy`, which was overwritten after the op that \
         needs it; give the op that works in place a copy"
    );
}

/// Attention's backward reads its output, so that nothing may work on it in place.
#[test]
fn overwriting_what_a_backward_reads_is_refused() {
    let message = refusal(|r| {
        let qkv = r.differentiable_input("qkv", TOKENS, 12);
        let residual = r.differentiable_input("residual", TOKENS, 4);
        let cu_seqlens = r.input("cu_seqlens", Extent::counted(Count::Sequences, 3), 1, DType::U32);
        let shape = Attention {
            heads: 1,
            max_length: 4,
            dropout: 0.0,
        };
        let mixed = attention(r, qkv, cu_seqlens, shape)?;
        let norm = norm(r)?;
        let y = residual_layer_norm(r, mixed, residual, norm, 0.0)?;
        let upstream = r.input("upstream", TOKENS, 4, DType::F32);
        r.seed_gradient(y, upstream);
        Ok(())
    });
    assert!(
        message.starts_with("joint/layer3/backward: attention.") && message.contains("which was overwritten after"),
        "{message}"
    );
}
