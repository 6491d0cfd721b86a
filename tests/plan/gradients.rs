//! Gradients of values and parameters that are used twice, and over micro-batches.

use super::*;

/// Fills a buffer of the device with one word.
fn fill(device: &mut CpuDevice, space: Space, sizes: &Sizes, word: u32) {
    device.write(space, 0, &vec![word; sizes.words(space)]).unwrap();
}

const ROWS: usize = 5;
const WIDTH: usize = 4;

/// `h = x A^T + a`, `u = h B^T + b`, `v = x B^T + b`: x and the outer layer are used twice.
pub fn twice<'p>(params: &'p ParamTable, accumulate: bool) -> (Plan, Value) {
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
        let rows = Extent::counted(Count::Masked, 192);
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
    let plan = record(64);
    let of = |kernel: &str, argument: usize| -> Vec<usize> {
        let launches = plan.launches.iter().filter(|launch| launch.kernel.name == kernel);
        launches
            .map(|launch| plan.place(launch.values[argument]).offset)
            .collect()
    };
    let logits = of("gemm.forward", 3);
    assert_eq!(logits, [logits[0]; 3], "every chunk's logits in the same place");
    let dhidden = of("gemm.backward_input", 2);
    assert_eq!(dhidden, [dhidden[0], dhidden[0] + 256, dhidden[0] + 512]);
    assert!(
        plan.arena_words < record(192).arena_words,
        "chunks take less memory than all rows at once"
    );
}
