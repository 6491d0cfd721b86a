//! The recorder: what it refuses, and in which words; how it accumulates gradients; what a plan says of itself.

use tlm::device::cpu::CpuDevice;
use tlm::device::null::NullDevice;
use tlm::device::{Device, Sizes};
use tlm::kernel::{Count, DType, Extent, StepParams};
use tlm::ops::adamw::{self, Settings, State};
use tlm::ops::gemm::{Layer, linear};
use tlm::ops::layer_norm::{Norm, residual_layer_norm};
use tlm::ops::masked_cross_entropy::{Masked, masked_cross_entropy};
use tlm::ops::{copy, fill, gather, gelu, grad_norm};
use tlm::plan::{Init, ParamSpec, ParamTable, Plan, PlanError, Recorder, Space, Value};

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

fn refusal(record: impl FnOnce(&mut Recorder) -> Result<(), PlanError>) -> String {
    let params = table();
    let mut r = Recorder::new("joint", &params);
    let result = r.scope("layer3", record);
    result
        .and_then(|()| r.differentiate())
        .expect_err("must be refused")
        .to_string()
}

/// Fills a buffer of the device with one word.
fn fill(device: &mut CpuDevice, space: Space, sizes: &Sizes, word: u32) {
    device.write(space, 0, &vec![word; sizes.words(space)]).unwrap();
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
        "joint/layer3: masked_cross_entropy over 3 rows in chunks of 0: both must be at least 1"
    );
}

// ---- gradients -------------------------------------------------------------------------------------------------

const ROWS: usize = 5;
const WIDTH: usize = 4;

/// `h = x A^T + a`, `u = h B^T + b`, `v = x B^T + b`: x and the outer layer are used twice.
fn twice<'p>(params: &'p ParamTable, accumulate: bool) -> (Plan, Value) {
    let mut r: Recorder<'p> = Recorder::new("twice", params);
    if accumulate {
        r.accumulate_gradients();
    }
    let x = r.differentiable_input("x", TOKENS, WIDTH as u32);
    let (inner, outer) = (
        Layer::named(&mut r, "inner").unwrap(),
        Layer::named(&mut r, "outer").unwrap(),
    );
    let h = linear(&mut r, x, inner).unwrap();
    let u = linear(&mut r, h, outer).unwrap();
    let v = linear(&mut r, x, outer).unwrap();
    for (value, name) in [(u, "du"), (v, "dv")] {
        let upstream = r.input(name, TOKENS, WIDTH as u32, DType::F32);
        r.seed_gradient(value, upstream);
    }
    r.freeze("projection");
    r.differentiate().unwrap();
    let dx = r.incoming(x).expect("x is differentiable");
    r.keep(dx);
    (r.finish(), dx)
}

/// `a [m, k] b [k, n]`, either transposed by its strides.
fn product(m: usize, n: usize, k: usize, a: impl Fn(usize, usize) -> f64, b: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    (0..m * n)
        .map(|at| (0..k).map(|inner| a(at / n, inner) * b(inner, at % n)).sum())
        .collect()
}

/// Gradients of the module [`twice`] in f64: dA, da, dB, db, dx.
fn truth(params: &[f64], x: &[f64], du: &[f64], dv: &[f64]) -> [Vec<f64>; 5] {
    let at = |m: &[f64], row: usize, column: usize| m[row * WIDTH + column];
    let table = table();
    let part = |name: &str, words: usize| {
        let offset = table.find(name).unwrap().1;
        params[offset..offset + words].to_vec()
    };
    let (a, bias) = (part("inner.weight", 16), part("inner.bias", 4));
    let b = part("outer.weight", 16);
    let mut h = product(ROWS, WIDTH, WIDTH, |i, k| at(x, i, k), |k, j| at(&a, j, k));
    for (index, h) in h.iter_mut().enumerate() {
        *h += bias[index % WIDTH];
    }
    let sum = |left: Vec<f64>, right: Vec<f64>| -> Vec<f64> { left.iter().zip(&right).map(|(l, r)| l + r).collect() };
    let weight = |dy: &[f64], x: &[f64]| product(WIDTH, WIDTH, ROWS, |i, k| at(dy, k, i), |k, j| at(x, k, j));
    let input = |dy: &[f64], w: &[f64]| product(ROWS, WIDTH, WIDTH, |i, k| at(dy, i, k), |k, j| at(w, k, j));
    let columns = |dy: &[f64]| product(1, WIDTH, ROWS, |_, _| 1.0, |k, j| at(dy, k, j));
    let dh = input(du, &b);
    [
        weight(&dh, x),
        columns(&dh),
        sum(weight(du, &h), weight(dv, x)),
        sum(columns(du), columns(dv)),
        sum(input(&dh, &a), input(dv, &b)),
    ]
}

struct Batch {
    x: Vec<f64>,
    du: Vec<f64>,
    dv: Vec<f64>,
}

impl Batch {
    fn new(salt: usize) -> Batch {
        let numbers = |offset: usize| numbers(salt + offset, ROWS * WIDTH);
        Batch {
            x: numbers(1),
            du: numbers(2),
            dv: numbers(3),
        }
    }

    fn write(&self, device: &mut CpuDevice, plan: &Plan) {
        let step = StepParams {
            tokens: ROWS as u32,
            ..StepParams::default()
        };
        device.write(Space::Inputs, 0, step.words()).unwrap();
        for (name, data) in [("x", &self.x), ("du", &self.du), ("dv", &self.dv)] {
            let port = plan.input(name).unwrap();
            device.write(Space::Inputs, port.offset, &words(data)).unwrap();
        }
    }
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

fn assert_gradients(device: &mut CpuDevice, truth: &[Vec<f64>]) {
    let table = table();
    let names = ["inner.weight", "inner.bias", "outer.weight", "outer.bias"];
    for (name, truth) in names.iter().zip(truth) {
        let offset = table.find(name).unwrap().1;
        assert_close(name, &read(device, Space::Grads, offset, truth.len()), truth);
    }
}

#[test]
fn the_first_contribution_to_a_gradient_overwrites_and_the_second_adds() {
    let params = table();
    let (plan, dx) = twice(&params, false);
    let flags = |kernel: &str, constant: &str| -> Vec<u32> {
        let launches = plan.launches.iter().filter(|launch| launch.kernel.name == kernel);
        launches.map(|launch| launch.dims.word(constant)).collect()
    };
    // In the order of the backward: v = x B, u = h B, h = x A.
    assert_eq!(flags("gemm.backward_weight", "accumulate_dw"), [0, 1, 0]);
    assert_eq!(flags("bias_grad.finish", "accumulate_d"), [0, 1, 0]);
    assert_eq!(flags("gemm.backward_input", "accumulate_dx"), [0, 0, 1]);

    let sizes = Sizes::of(params.words(), true, &[&plan]);
    let mut device = CpuDevice::new(sizes, 2).unwrap();
    let program = device.load(&plan).unwrap();
    let weights = numbers(9, params.words());
    device.write(Space::Params, 0, &words(&weights)).unwrap();
    fill(&mut device, Space::Grads, &sizes, f32::NAN.to_bits());
    fill(&mut device, Space::Arena, &sizes, f32::NAN.to_bits());
    let batch = Batch::new(20);
    batch.write(&mut device, &plan);
    device.run(program).unwrap();
    let truth = truth(&weights, &batch.x, &batch.du, &batch.dv);
    assert_gradients(&mut device, &truth[..4]);
    let place = plan.place(dx);
    assert_close(
        "dx",
        &read(&mut device, place.space, place.offset, ROWS * WIDTH),
        &truth[4],
    );
}

#[test]
fn accumulated_gradients_are_the_sum_over_micro_batches() {
    let params = table();
    let (first, _) = twice(&params, false);
    let (further, _) = twice(&params, true);
    let sizes = Sizes::of(params.words(), true, &[&first, &further]);
    let mut device = CpuDevice::new(sizes, 2).unwrap();
    let programs = [device.load(&first).unwrap(), device.load(&further).unwrap()];
    let weights = numbers(9, params.words());
    device.write(Space::Params, 0, &words(&weights)).unwrap();
    fill(&mut device, Space::Grads, &sizes, f32::NAN.to_bits());
    let mut sum: Option<[Vec<f64>; 5]> = None;
    for (index, program) in [0, 1, 1].into_iter().enumerate() {
        let batch = Batch::new(10 * index);
        batch.write(&mut device, if program == 0 { &first } else { &further });
        device.run(programs[program]).unwrap();
        let truth = truth(&weights, &batch.x, &batch.du, &batch.dv);
        let added = |(old, new): (&Vec<f64>, &Vec<f64>)| old.iter().zip(new).map(|(a, b)| a + b).collect();
        sum = Some(match sum {
            None => truth,
            Some(sum) => std::array::from_fn(|tensor| added((&sum[tensor], &truth[tensor]))),
        });
    }
    assert_gradients(&mut device, &sum.expect("three batches")[..4]);
}

#[test]
fn chunks_of_one_gradient_share_its_memory_and_logits_share_theirs() {
    let params = ParamTable::new(vec![spec("decoder.weight", 90, 4), spec("decoder.bias", 1, 90)]);
    let record = |chunk| {
        let mut r = Recorder::new("external", &params);
        let rows = Extent::counted(Count::Masked, 12);
        let masked = Masked {
            hidden: r.differentiable_input("hidden", rows, 4),
            decoder: Layer::named(&mut r, "decoder").unwrap(),
            labels: r.input("labels", rows, 1, DType::U32),
            weights: r.input("weights", rows, 1, DType::F32),
        };
        masked_cross_entropy(&mut r, &masked, chunk, true).unwrap();
        r.differentiate().unwrap();
        r.finish()
    };
    let plan = record(4);
    let of = |kernel: &str, argument: usize| -> Vec<usize> {
        let launches = plan.launches.iter().filter(|launch| launch.kernel.name == kernel);
        launches
            .map(|launch| plan.place(launch.values[argument]).offset)
            .collect()
    };
    let logits = of("gemm.forward", 3);
    assert_eq!(logits, [logits[0]; 3], "every chunk's logits in the same place");
    let dhidden = of("gemm.backward_input", 2);
    assert_eq!(dhidden, [dhidden[0], dhidden[0] + 16, dhidden[0] + 32]);
    assert!(
        plan.arena_words < record(12).arena_words,
        "chunks take less memory than all rows at once"
    );
}

// ---- plans as data ---------------------------------------------------------------------------------------------

#[test]
fn a_plan_explains_every_launch_with_sizes_work_and_places() {
    let params = table();
    let (plan, _) = twice(&params, false);
    let text = plan.explain();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + plan.launches.len());
    let products = 3 + 3 + 3; // forward, weights, inputs: 6 rows at capacity, 4 x 4
    let bias = 3 * (6 * 4 + 4); // partial and finish
    assert_eq!(plan.cost(None).flops, products * 2 * 6 * 4 * 4 + bias);
    assert!(
        lines[0].starts_with("plan twice: 15 launches, 0.000 GFLOP at capacity, arena "),
        "{}",
        lines[0]
    );
    let offset = |name: &str| 4 * params.find(name).unwrap().1;
    let x = 4 * plan.input("x").unwrap().offset;
    let forward = format!(
        "   0 twice gemm.forward | rows=Tokens<=6 k=4 n=4 | 0.000 GFLOP 0.000 MB | x:Inputs@{x} w:Params@{} b:Params@{} y = \
         Arena@",
        offset("inner.weight"),
        offset("inner.bias")
    );
    assert!(
        lines[1].starts_with(&forward),
        "{}\nexpected to begin with\n{forward}",
        lines[1]
    );
    let weight = offset("outer.weight");
    let overwrites = lines
        .iter()
        .position(|line| line.contains(&format!("dw = Grads@{weight}")));
    let adds = lines
        .iter()
        .position(|line| line.contains(&format!("dw += Grads@{weight}")));
    assert!(
        overwrites.is_some() && overwrites < adds,
        "= and then += for the outer weight:\n{text}"
    );
    assert!(lines[overwrites.unwrap_or(0)].contains(" twice/backward gemm.backward_weight |"));
    let memory = plan.memory();
    assert_eq!(memory.arena_bytes, 4 * plan.arena_words as u64);
    assert!(memory.lower_bound_bytes <= memory.arena_bytes);
    assert_eq!(
        memory.largest[0].1,
        6 * 4 * 4,
        "the largest value has 6 rows of 4 words"
    );
}

#[test]
fn the_null_device_runs_the_same_plan_and_checks_the_same_sizes() {
    let params = table();
    let (plan, _) = twice(&params, false);
    let sizes = Sizes::of(params.words(), true, &[&plan]);
    let mut device = NullDevice::new(sizes);
    let program = device.load(&plan).unwrap();
    device.write(Space::Inputs, 0, StepParams::default().words()).unwrap();
    device.run(program).unwrap();
    device.run(program).unwrap();
    assert_eq!(device.launched(), 2 * plan.launches.len() as u64);
    let small = Sizes {
        arena: plan.arena_words / 2,
        ..sizes
    };
    let refused = NullDevice::new(small).load(&plan).unwrap_err().to_string();
    assert!(
        refused.starts_with("plan `twice` needs ") && refused.contains("words of Arena"),
        "{refused}"
    );
    let end = sizes.inputs;
    let refused = device.write(Space::Inputs, end, &[0]).unwrap_err().to_string();
    assert_eq!(
        refused,
        format!("words {end}..{} are outside the Inputs buffer of {end} words", end + 1)
    );
}

// ---- the update plan -------------------------------------------------------------------------------------------

const SETTINGS: Settings = Settings {
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-6,
    weight_decay: 0.01,
    head: false,
};

fn update_plan(params: &ParamTable) -> Plan {
    let mut r = Recorder::new("update", params);
    let all = 0..params.words();
    let state = State {
        params: r.range("params", Space::Params, all.clone()),
        grads: r.range("grads", Space::Grads, all.clone()),
        moment1: r.range("moment1", Space::Moment1, all.clone()),
        moment2: r.range("moment2", Space::Moment2, all),
        norm: r.output("norm", Extent::fixed(1), 1),
    };
    grad_norm::record(&mut r, state.grads, state.norm).unwrap();
    adamw::record(&mut r, &state, &SETTINGS, params.decay_words() as u32).unwrap();
    r.finish()
}

#[test]
fn replays_of_one_update_plan_follow_the_learning_rate_of_each_step() {
    let params = table();
    let plan = update_plan(&params);
    let mut device = CpuDevice::new(Sizes::of(params.words(), true, &[&plan]), 2).unwrap();
    let program = device.load(&plan).unwrap();
    let (mut p, g) = (numbers(1, params.words()), numbers(2, params.words()));
    device.write(Space::Params, 0, &words(&p)).unwrap();
    device.write(Space::Grads, 0, &words(&g)).unwrap();
    let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
    let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    let wide = |x: f32| f64::from(x);
    for (t, (learning_rate, clip_norm)) in [(0.5, f32::INFINITY), (0.0, 1.0), (0.125, 1.0)].into_iter().enumerate() {
        let power = t as i32 + 1;
        let correction = (1.0 - wide(SETTINGS.beta2).powi(power)).sqrt() / (1.0 - wide(SETTINGS.beta1).powi(power));
        let step = StepParams {
            learning_rate,
            clip_norm,
            bias_correction: correction as f32,
            ..StepParams::default()
        };
        device.write(Space::Inputs, 0, step.words()).unwrap();
        device.run(program).unwrap();
        let lr = wide(learning_rate);
        for index in 0..p.len() {
            let g = g[index] * (wide(clip_norm) / norm).min(1.0);
            m[index] = wide(SETTINGS.beta1) * m[index] + (1.0 - wide(SETTINGS.beta1)) * g;
            v[index] = wide(SETTINGS.beta2) * v[index] + (1.0 - wide(SETTINGS.beta2)) * g * g;
            p[index] -= lr * correction * m[index] / (v[index].sqrt() + wide(SETTINGS.epsilon));
            if index < params.decay_words() {
                p[index] -= lr * wide(SETTINGS.weight_decay) * p[index];
            }
        }
        assert_close("params", &read(&mut device, Space::Params, 0, p.len()), &p);
        assert_close("moment1", &read(&mut device, Space::Moment1, 0, p.len()), &m);
        assert_close("moment2", &read(&mut device, Space::Moment2, 0, p.len()), &v);
        assert_close("norm", &read(&mut device, Space::Readback, 0, 1), &[norm]);
    }
}

#[test]
fn a_gradient_that_is_not_finite_shows_in_the_norm_and_changes_nothing() {
    let params = table();
    let plan = update_plan(&params);
    let mut device = CpuDevice::new(Sizes::of(params.words(), true, &[&plan]), 2).unwrap();
    let program = device.load(&plan).unwrap();
    let before = words(&numbers(1, params.words()));
    let step = StepParams {
        learning_rate: 0.5,
        bias_correction: 1.0,
        clip_norm: 1.0,
        ..StepParams::default()
    };
    device.write(Space::Inputs, 0, step.words()).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
        for at in [0, 17, params.words() - 1] {
            let mut grads = numbers(2, params.words());
            grads[at] = f64::from(bad);
            for space in [Space::Params, Space::Moment1, Space::Moment2] {
                device.write(space, 0, &before).unwrap();
            }
            device.write(Space::Grads, 0, &words(&grads)).unwrap();
            device.run(program).unwrap();
            let norm = read(&mut device, Space::Readback, 0, 1)[0];
            assert!(!norm.is_finite(), "{bad} at word {at}: the norm is {norm}");
            for space in [Space::Params, Space::Moment1, Space::Moment2] {
                let mut after = vec![0; before.len()];
                device.read(space, 0, &mut after).unwrap();
                assert_eq!(after, before, "{bad} at word {at}: {space:?} changed");
            }
        }
    }
}
