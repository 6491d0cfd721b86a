//! The recorder: what it refuses and in which words. Below `plan/`: how it accumulates gradients, what it recomputes, what
//! a plan says of itself, the update plan.

#[path = "plan/explain.rs"]
mod explain;
#[path = "plan/gradients.rs"]
mod gradients;
#[path = "plan/recompute.rs"]
mod recompute;
#[path = "plan/update.rs"]
mod update;

use tlm::bert::plans::{self, HeadUpdate, Optimizer};
use tlm::device::cpu::CpuDevice;
use tlm::device::null::NullDevice;
use tlm::device::{Device, Sizes};
use tlm::kernel::{Count, DType, Extent, Precision, StepParams};
use tlm::ops::adamw::{self, Settings, State};
use tlm::ops::gemm::{Layer, linear};
use tlm::ops::layer_norm::{Norm, residual_layer_norm};
use tlm::ops::masked_cross_entropy::{Masked, masked_cross_entropy};
use tlm::ops::{copy, fill, gather, gelu, grad_norm};
use tlm::plan::{Init, Limits, ParamSpec, ParamTable, Plan, PlanError, Recorder, Space, Value};

const TOKENS: Extent = Extent::counted(Count::Tokens, 6);

fn spec(name: &str, rows: u32, width: u32) -> ParamSpec {
    ParamSpec {
        name: name.to_string(),
        rows,
        width,
        decay: rows > 1,
        head: false,
        init: Init::Zeros,
        vector: rows == 1,
    }
}

/// Two square layers of width 4 and a projection to 3.
fn table() -> ParamTable {
    ParamTable::new(vec![
        spec("inner.weight", 4, 4),
        spec("inner.bias", 1, 4),
        spec("outer.weight", 4, 4),
        spec("outer.bias", 1, 4),
        spec("projection.weight", 3, 4),
    ])
}

/// Words as different as needed, exact in f32 and small enough that products are too.
fn numbers(salt: usize, count: usize) -> Vec<f64> {
    (0..count)
        .map(|index| ((index * 37 + salt * 53) % 101) as f64 / 64.0 - 0.75)
        .collect()
}

fn words(numbers: &[f64]) -> Vec<u32> {
    numbers.iter().map(|&x| (x as f32).to_bits()).collect()
}

fn read(device: &mut CpuDevice, space: Space, offset: usize, count: usize) -> Vec<f64> {
    let mut out = vec![0; count];
    device.read(space, offset, &mut out).unwrap();
    out.iter().map(|&word| f64::from(f32::from_bits(word))).collect()
}

fn assert_close(what: &str, got: &[f64], truth: &[f64]) {
    let scale = truth.iter().fold(1.0f64, |most, x| most.max(x.abs()));
    for (index, (got, truth)) in got.iter().zip(truth).enumerate() {
        // Sums of at most 14 products, each rounded once.
        let allowed = 16.0 * f64::from(f32::EPSILON) * scale;
        assert!(
            (got - truth).abs() <= allowed,
            "{what} [{index}]: {got}, expected {truth}"
        );
    }
}

fn refusal(record: impl FnOnce(&mut Recorder) -> Result<(), PlanError>) -> String {
    let params = table();
    let mut r = Recorder::new("joint", &params);
    let result = r.scope("layer3", record);
    result
        .and_then(|()| r.differentiate())
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn a_wrong_width_is_refused_with_scope_kernel_and_both_sizes() {
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 7, DType::F32);
        let layer = Layer::named(r, "inner")?;
        linear(r, x, layer).map(drop)
    });
    assert_eq!(
        message,
        "joint/layer3: gemm.forward expects k = 7 for `w`, got 4 (joint/layer3/inner.weight)"
    );
}

#[test]
fn rows_of_another_kind_or_capacity_are_refused() {
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        let other = r.value("other", Extent::counted(Count::Sequences, 6), 4);
        r.launch(&copy::COPY, &[x, other], &[("accumulate_y", 0)])
    });
    assert_eq!(
        message,
        "joint/layer3: copy expects rows = Tokens<=6 for `y`, got Sequences<=6 (joint/layer3/other)"
    );
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        let other = r.view(x, 2, 3);
        r.launch(&gelu::BACKWARD, &[x, other, x], &[])
    });
    assert_eq!(
        message,
        "joint/layer3: gelu.backward expects rows = Tokens<=6 for `z`, got Tokens[2..5] (joint/layer3/x[2..])"
    );
}

#[test]
fn a_wrong_element_type_is_refused() {
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        let index = r.input("index", Extent::counted(Count::Masked, 2), 1, DType::F32);
        gather::gather(r, x, index).map(drop)
    });
    assert_eq!(
        message,
        "joint/layer3: gather.forward expects U32 for `index`, got F32 (joint/layer3/index)"
    );
}

#[test]
fn a_wrong_number_of_arguments_and_a_missing_constant_are_refused() {
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        r.launch(&copy::COPY, &[x], &[("accumulate_y", 0)])
    });
    assert_eq!(message, "joint/layer3: copy takes 2 arguments, got 1");
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        let y = r.value("y", TOKENS, 4);
        r.launch(&copy::COPY, &[x, y], &[])
    });
    assert_eq!(message, "joint/layer3: copy needs the constant `accumulate_y`");
}

#[test]
fn reading_a_value_before_it_is_written_is_refused() {
    let message = refusal(|r| {
        let x = r.value("nothing yet", TOKENS, 4);
        copy::copy(r, x).map(drop)
    });
    assert_eq!(
        message,
        "joint/layer3: copy reads `joint/layer3/nothing yet` before it is written"
    );
    // Adding to it reads it as well; overwriting it does not.
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        let y = r.value("sum", TOKENS, 4);
        r.launch(&copy::COPY, &[x, y], &[("accumulate_y", 1)])
    });
    assert_eq!(
        message,
        "joint/layer3: copy reads `joint/layer3/sum` before it is written"
    );
}

#[test]
fn overwriting_an_input_or_a_parameter_is_refused() {
    let message = refusal(|r| {
        let x = r.differentiable_input("x", TOKENS, 4);
        let residual = r.input("residual", TOKENS, 4, DType::F32);
        let norm = Norm {
            gamma: r.param("inner.bias")?,
            beta: r.param("outer.bias")?,
            epsilon: 1e-12,
        };
        residual_layer_norm(r, x, residual, norm, 0.0).map(drop)
    });
    assert_eq!(
        message,
        "joint/layer3: layer_norm.residual_forward would overwrite `joint/layer3/x`, which is read-only in a plan that \
         computes gradients"
    );
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        let layer = Layer::named(r, "inner")?;
        linear(r, x, layer)?;
        fill::zero(r, layer.bias)
    });
    assert_eq!(
        message,
        "joint/layer3: fill.zero would overwrite `joint/layer3/inner.bias`, which is read-only in a plan that computes \
         gradients"
    );
}

#[test]
fn an_op_without_a_backward_on_the_path_to_a_parameter_is_refused() {
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        let (inner, outer) = (Layer::named(r, "inner")?, Layer::named(r, "outer")?);
        let y = linear(r, x, inner)?;
        let cut = gelu::record_backward(r, y, x)?;
        let z = linear(r, cut, outer)?;
        let upstream = r.input("upstream", TOKENS, 4, DType::F32);
        r.seed_gradient(z, upstream);
        Ok(())
    });
    assert_eq!(
        message,
        "joint/layer3/backward: `joint/layer3/dz` lies on a path to a parameter, but the op that made it has no backward"
    );
}

#[test]
fn a_parameter_without_a_gradient_is_refused_unless_it_is_frozen() {
    let record = |frozen: &[&str]| {
        let params = table();
        let mut r = Recorder::new("external", &params);
        let x = r.input("x", TOKENS, 4, DType::F32);
        let layer = Layer::named(&mut r, "inner").unwrap();
        let y = linear(&mut r, x, layer).unwrap();
        let upstream = r.input("upstream", TOKENS, 4, DType::F32);
        r.seed_gradient(y, upstream);
        for prefix in frozen {
            r.freeze(prefix);
        }
        r.differentiate().map_err(|error| error.to_string())
    };
    assert_eq!(
        record(&["outer."]),
        Err(
            "external: parameter `projection.weight` gets no gradient; use it, or declare it frozen for this plan"
                .to_string()
        )
    );
    assert_eq!(record(&["outer.", "projection"]), Ok(()));
}

#[test]
fn a_gradient_through_a_view_is_refused() {
    let message = refusal(|r| {
        let x = r.input("x", TOKENS, 4, DType::F32);
        let (inner, outer) = (Layer::named(r, "inner")?, Layer::named(r, "outer")?);
        let h = linear(r, x, inner)?;
        let part = r.view(h, 0, 2);
        let y = linear(r, part, outer)?;
        let upstream = r.input("upstream", r.info(y).rows, 4, DType::F32);
        r.seed_gradient(y, upstream);
        Ok(())
    });
    assert_eq!(
        message,
        "joint/layer3/backward: `joint/layer3/linear[0..]` lies on a path to a parameter, but the op that made it has no \
         backward"
    );
}

#[test]
fn parameters_used_alone_and_joined_are_refused() {
    let params = ParamTable::new(vec![
        spec("key.weight", 32, 4),
        spec("value.weight", 32, 4),
        spec("joined.bias", 1, 64),
        spec("value.bias", 1, 32),
    ]);
    let mut r = Recorder::new("joint", &params);
    let x = r.input("x", TOKENS, 4, DType::F32);
    let joined = Layer {
        weight: r.joined(&["key.weight", "value.weight"]).unwrap(),
        bias: r.param("joined.bias").unwrap(),
    };
    let value = Layer::named(&mut r, "value").unwrap();
    for (layer, name, width) in [(joined, "first", 64), (value, "second", 32)] {
        let y = linear(&mut r, x, layer).unwrap();
        let upstream = r.input(name, TOKENS, width, DType::F32);
        r.seed_gradient(y, upstream);
    }
    assert_eq!(
        r.differentiate().unwrap_err().to_string(),
        "joint/backward: `joint/key.weight` shares parameters with `joint/value.weight`, which has a gradient already; use \
         them in one form, alone or joined"
    );
}

#[test]
fn an_unknown_parameter_is_refused_with_the_nearest_name() {
    let message = refusal(|r| r.param("outer.wieght").map(drop));
    assert_eq!(
        message,
        "joint/layer3: no parameter `outer.wieght`; the table has 5 parameters, nearest `outer.weight`"
    );
}

#[test]
fn parameters_that_do_not_lie_side_by_side_cannot_be_one_matrix() {
    let message = refusal(|r| r.joined(&["inner.weight", "projection.weight"]).map(drop));
    assert_eq!(
        message,
        "joint/layer3: parameters inner.weight, projection.weight are not adjacent in the parameter buffer and cannot be \
         used as one matrix"
    );
}

#[test]
fn an_unsupported_size_is_refused() {
    let message = refusal(|r| {
        let rows = Extent::counted(Count::Masked, 3);
        let masked = Masked {
            hidden: r.input("hidden", rows, 4, DType::F32),
            decoder: Layer::named(r, "outer")?,
            labels: r.input("labels", rows, 1, DType::U32),
            weights: r.input("weights", rows, 1, DType::F32),
        };
        masked_cross_entropy(r, &masked, 0, true).map(drop)
    });
    assert_eq!(
        message,
        "joint/layer3: masked_cross_entropy over 3 rows in chunks of 0: it needs a row, and chunks of a multiple of \
         64 rows or of all"
    );
}
