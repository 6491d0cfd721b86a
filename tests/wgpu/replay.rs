//! Replays of one loaded plan: scalars of each step, submissions on their way, times of launches.

use super::*;
use tlm::device::Program;

/// LayerNorm with dropout of an input of up to 65 tokens.
fn dropped(r: &mut Recorder) {
    let rows = Extent::counted(Count::Tokens, 65);
    let x = r.input("x", rows, 130, DType::F32);
    let norm = Norm {
        gamma: r.param("gamma").unwrap(),
        beta: r.param("beta").unwrap(),
        epsilon: 1e-12,
    };
    let y = layer_norm(r, x, norm, 0.25).unwrap();
    let out = r.output("out", rows, 130);
    r.launch(&copy::COPY, &[y, out], &[("accumulate_y", 0)]).unwrap();
}

fn norm_params() -> ParamTable {
    let vector = |name: &str| ParamSpec {
        name: name.to_string(),
        rows: 1,
        width: 130,
        decay: false,
        head: false,
        init: Init::Ones,
        vector: true,
    };
    ParamTable::new(vec![vector("gamma"), vector("beta")])
}

/// The plan of [`dropped`], loaded, with all parameters 1.5.
fn loaded(adapter: &Adapter) -> (Plan, Box<dyn Device>, Program) {
    let params = norm_params();
    let mut r = Recorder::new("dropped", &params);
    dropped(&mut r);
    let plan = r.finish();
    let mut device = device(adapter, Sizes::of(params.words(), false, &[&plan]));
    let program = device.load(&plan).unwrap();
    let values = vec![1.5f32.to_bits(); params.words()];
    device.write(Space::Params, 0, &values).unwrap();
    (plan, device, program)
}

#[test]
fn each_replay_reads_its_own_steps_scalars_and_drops_the_elements_that_the_definition_drops() {
    let Some(adapter) = adapter() else { return };
    let (plan, mut device, program) = loaded(&adapter);
    let port = plan.input("x").unwrap();
    let x: Vec<f32> = (0..port.words).map(|index| (index as f32).sin()).collect();
    device.write(Space::Inputs, port.offset, &bits(&x)).unwrap();
    for (index, tokens) in [65u32, 64, 1, 0].into_iter().enumerate() {
        let step = StepParams {
            step: 7 + index as u32,
            seed: [3, 1 << 31],
            tokens,
            ..StepParams::default()
        };
        device
            .write(Space::Readback, 0, &vec![f32::NAN.to_bits(); plan.readback_words()])
            .unwrap();
        device.write(Space::Inputs, 0, step.words()).unwrap();
        device.run(program).unwrap();
        for (element, y) in read(&mut *device, &plan, "out").into_iter().enumerate() {
            if element < 130 * tokens as usize {
                let kept = keeps(&step, 1, tlm::rng::threshold(0.25), element);
                assert_eq!(y != 0.0, kept, "step {}, element {element}: {y}", step.step);
            } else {
                assert!(y.is_nan(), "element {element} of {tokens} rows was written");
            }
        }
    }
}

#[test]
fn submissions_come_back_in_order_and_make_no_object() {
    let Some(adapter) = adapter() else { return };
    let (plan, mut device, program) = loaded(&adapter);
    let port = plan.input("x").unwrap();
    let inputs = |number: u32| {
        let step = StepParams {
            step: number,
            tokens: 65,
            ..StepParams::default()
        };
        let mut words = vec![0; plan.input_words()];
        words[..StepParams::WORDS].copy_from_slice(step.words());
        for (index, word) in words[port.offset..port.offset + port.words].iter_mut().enumerate() {
            *word = ((index as u32 + number) as f32).sin().to_bits();
        }
        words
    };
    const STEPS: u32 = 12;
    let mut expected = Vec::new();
    for number in 0..STEPS {
        device.write(Space::Inputs, 0, &inputs(number)).unwrap();
        device.run(program).unwrap();
        let mut words = vec![0; plan.readback_words()];
        device.read(Space::Readback, 0, &mut words).unwrap();
        expected.push(words);
    }
    let ahead = device.ring() as u32;
    assert!(ahead > 1, "the host waits for every step");
    let mut objects = Vec::new();
    for number in 0..STEPS + ahead {
        if number >= ahead {
            let mut words = vec![0; plan.readback_words()];
            device.collect(&mut words).unwrap();
            assert!(words == expected[(number - ahead) as usize], "step {}", number - ahead);
        }
        if number < STEPS {
            device.submit(&inputs(number), &[program]).unwrap();
            objects.push(adapter.objects());
        }
    }
    assert!(objects[0].buffers > 0 && objects[0].pipelines > 0, "{:?}", objects[0]);
    let changed = objects.iter().position(|now| *now != objects[0]);
    assert_eq!(changed, None, "{objects:?}");
}

#[test]
fn timing_each_launch_changes_no_bit() {
    let Some(adapter) = adapter() else { return };
    let (plan, mut device, program) = loaded(&adapter);
    let step = StepParams {
        tokens: 65,
        ..StepParams::default()
    };
    device.write(Space::Inputs, 0, step.words()).unwrap();
    let x: Vec<f32> = (0..65 * 130).map(|index| (index as f32).cos()).collect();
    device
        .write(Space::Inputs, plan.input("x").unwrap().offset, &bits(&x))
        .unwrap();
    device.run(program).unwrap();
    let plain = bits(&read(&mut *device, &plan, "out"));
    let mut times = vec![Duration::ZERO; plan.launches.len()];
    match device.run_timed(program, &mut times) {
        Err(DeviceError::Backend { what, .. }) if what.contains("no timestamps") => return println!("SKIPPED: {what}"),
        result => result.unwrap(),
    }
    assert!(times.iter().all(|time| *time > Duration::ZERO), "{times:?}");
    assert_eq!(bits(&read(&mut *device, &plan, "out")), plain);
}
