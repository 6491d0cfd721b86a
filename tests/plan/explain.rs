//! Plans as data: what a plan says of itself, and the null device.

use super::gradients::twice;
use super::*;

#[test]
fn a_plan_explains_every_launch_with_sizes_work_and_places() {
    let params = table();
    let (plan, _) = twice(&params, false);
    let text = plan.explain();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + plan.launches.len());
    let products = 3 + 3 + 3; // forward, weights, inputs: 6 rows at capacity, 4 x 4
    let bias = 3 * (6 * 4 + 6 * 4 + 4); // added; partial and finish of its gradient
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
