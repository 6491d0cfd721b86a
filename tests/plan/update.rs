//! The update plan: learning rates per step, gradients that are not finite.

use super::*;

const SETTINGS: Settings = Settings::BERT;

fn update_plan(params: &ParamTable) -> Plan {
    let mut r = Recorder::new("update", params);
    let all = 0..params.words();
    let state = State {
        params: r.range("params", Space::Params, all.clone()),
        grads: r.range("grads", Space::Grads, all.clone()),
        moment1: r.range("moment1", Space::Moment1, all.clone()),
        moment2: r.range("moment2", Space::Moment2, all),
        shadow: None,
        norm: r.output("norm", Extent::fixed(1), 1),
    };
    grad_norm::record(&mut r, &[state.grads], state.norm).unwrap();
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

/// Where a device cannot show the whole buffer to one launch, the update is cut: the same bits.
#[test]
fn an_update_in_pieces_gives_the_bits_of_a_whole_one() {
    let spec = |name: &str, rows: u32, decay: bool, head: bool| ParamSpec {
        name: name.to_string(),
        rows,
        width: 1024,
        decay,
        head,
        init: Init::Zeros,
        vector: false,
    };
    let params = ParamTable::new(vec![
        spec("weight", 2_300, true, false),
        spec("head", 70, true, true),
        spec("bias", 300, false, false),
    ]);
    let optimizer = Optimizer {
        adamw: SETTINGS,
        head: HeadUpdate::Apart,
    };
    let run = |limits: Limits| {
        let plan = plans::update(&params, &optimizer, limits, Precision::F32).unwrap();
        let mut device = CpuDevice::new(Sizes::of(params.words(), true, &[&plan]), 2).unwrap();
        let program = device.load(&plan).unwrap();
        for (seed, space) in [(1, Space::Params), (2, Space::Grads)] {
            device.write(space, 0, &words(&numbers(seed, params.words()))).unwrap();
        }
        let step = StepParams {
            learning_rate: 0.5,
            bias_correction: 1.0,
            head_bias_correction: 0.5,
            clip_norm: 1.0,
            ..StepParams::default()
        };
        device.write(Space::Inputs, 0, step.words()).unwrap();
        device.run(program).unwrap();
        let mut after = vec![0; params.words()];
        device.read(Space::Params, 0, &mut after).unwrap();
        (plan.launches.len(), after)
    };
    let (launches, whole) = run(Limits::default());
    let (more, pieces) = run(Limits {
        tensor: 1_100_000,
        ..Limits::default()
    });
    assert!(more > launches, "{more} launches, {launches} for the whole");
    assert!(pieces == whole);
}
