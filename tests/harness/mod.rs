//! The harness that walks the registry: every op, case and variant on one backend against an f64 reference.
//!
//! * The reference's gradients agree with central differences of its own forward in f64; that is the same for all backends,
//!   so it is a walk of its own.
//! * The kernels' error is at most 2 x (gradients 3 x) the error of the naive algorithm in the backend's precision, plus
//!   the documented error of the elementary functions.
//! * The arena starts as NaN; rows beyond the live count and words that belong to no value still hold that NaN afterwards
//!   (a backend may say that it writes such rows).
//! * Twice on one device, on every configuration of the backend (threads, bounds checks) and with every variant: the same
//!   bits.
//! * Gradients that begin at a number end at that number plus the gradient.
//! * Every variant of every kernel that the backend has was launched, and every flag `accumulate_...` was both on and off.

pub mod plan;

use std::collections::BTreeSet;

use plan::{POISON, Recorded, Results, Start, record, round, rounded, run, upstream};
use tlm::device::{Device, Sizes};
use tlm::kernel::{DType, Element, Extent, Kernel, Precision, StepParams};
use tlm::ops::REGISTRY;
use tlm::ops::case::{Case, Expected, Given, Real, Role, Tensor};
use tlm::plan::{Launch, Plan, PlanError, Space, Value};

/// A backend to test.
pub struct Backend<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// How plans store activations. In another precision than f32, cases that store nothing are left out.
    pub precision: Precision,
    /// Variants that it has of a kernel; cases that need kernels without any are left out.
    pub variants: &'a dyn Fn(&Kernel) -> usize,
    /// Whether it may write rows beyond the live ones, which nobody reads.
    pub writes_beyond: bool,
    /// How many times more than the naive algorithm it rounds on the way from an input to a result.
    pub roundings: f64,
    /// Ways to open it, with the number of the variant that kernels are to take if they have as many; they must not
    /// change a bit.
    pub configurations: &'a [&'a dyn Fn(Sizes, usize) -> Box<dyn Device>],
}

/// What `ops::math` documents (and its tests hold it to): 4 units in the last place, where the naive algorithm calls libm.
const ELEMENTARY: f64 = 4.0 * f32::EPSILON as f64;

/// A kernel's name, the variant launched, and one of its flags with its value.
type Launched = (&'static str, usize, &'static str, u32);

/// Walks the registry.
pub fn walk(backend: &Backend) {
    walk_ops(backend, &|_| true);
}

/// Walks the ops that are `wanted` by name.
pub fn walk_ops(backend: &Backend, wanted: &dyn Fn(&str) -> bool) {
    let mut launched = BTreeSet::new();
    let ops = || REGISTRY.iter().filter(|op| wanted(op.name));
    for op in ops() {
        for case in (op.cases)() {
            launched.extend(check(rounded(case, backend.precision), backend));
        }
    }
    let stores = |kernel: &Kernel| kernel.args.iter().any(|arg| arg.element == Element::Stored);
    let kernels = ops().flat_map(|op| op.kernels);
    for kernel in kernels.filter(|kernel| backend.precision == Precision::F32 || stores(kernel)) {
        for variant in 0..(backend.variants)(kernel) {
            for key in flags(kernel, variant, |_| vec![0, 1]) {
                assert!(launched.contains(&key), "{}: no case launched {key:?}", backend.name);
            }
        }
    }
}

/// A kernel's accumulation flags with given values, or the launch alone where it has none.
fn flags(kernel: &Kernel, variant: usize, values: impl Fn(&'static str) -> Vec<u32>) -> Vec<Launched> {
    let flags = kernel.constants.iter().filter(|name| name.starts_with("accumulate_"));
    let mut keys: Vec<Launched> = Vec::new();
    for &flag in flags {
        keys.extend(
            values(flag)
                .into_iter()
                .map(|value| (kernel.name, variant, flag, value)),
        );
    }
    if keys.is_empty() {
        keys.push((kernel.name, variant, "", 0));
    }
    keys
}

fn live_elements(rows: Extent, width: u32, step: &StepParams) -> usize {
    rows.live(step) * width as usize
}

/// What a reference gives.
pub fn expected<R: Real>(case: &Case, recorded: &Recorded, reference: &tlm::ops::case::Reference<R>) -> Expected<R> {
    let convert = |data: &[f64]| data.iter().map(|&x| R::from_f64(x)).collect::<Vec<R>>();
    let tensors: Vec<Vec<R>> = case.tensors.iter().map(|tensor| convert(&tensor.data)).collect();
    let upstream: Vec<Vec<R>> = upstream(case, recorded).iter().map(|data| convert(data)).collect();
    reference(
        &Given {
            tensors: &tensors,
            step: case.step,
        },
        &upstream,
    )
}

/// Largest absolute difference; NaN anywhere makes it NaN.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "compared tensors have different sizes");
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
}

/// A tensor that a run left, and what it should hold.
struct Found<'a> {
    what: String,
    words: &'a [u32],
    dtype: DType,
    live: usize,
    /// The largest number that it began with.
    begun: f64,
    /// Whether the rows beyond the live ones may have been written.
    beyond: bool,
    /// What rounding on the way may change beyond the naive algorithm's, as a share of the largest number.
    on_the_way: f64,
}

/// What storing may change, as a share of a number; nothing for f32, which [`ELEMENTARY`] covers.
fn unit(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 0.0,
        Precision::F16 => 2f64.powi(-11),
        Precision::Bf16 => 2f64.powi(-8),
    }
}

impl Found<'_> {
    fn precision(&self) -> Precision {
        let precisions = [Precision::F32, Precision::F16, Precision::Bf16];
        let precision = precisions.into_iter().find(|precision| precision.dtype() == self.dtype);
        precision.expect("results are numbers")
    }

    /// Whether the elements beyond the live ones are what they were.
    fn untouched(&self) -> bool {
        if self.beyond {
            return true;
        }
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let start = self.live * self.dtype.bytes();
        let poison = vec![POISON; self.words.len()];
        bytes(self.words)[start..] == bytes(&poison)[start..]
    }
}

fn compare(found: &Found, truth: &[f64], naive: Vec<f64>, factor: f64) {
    let Found { what, words, live, .. } = found;
    let precision = found.precision();
    let values: Vec<f64> = precision.unpack(words)[..*live].iter().map(|&x| f64::from(x)).collect();
    let naive: Vec<f64> = naive.iter().map(|&x| f64::from(precision.round(x as f32))).collect();
    let scale = truth.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    // Of a tensor of 16 bits the result itself is rounded, whatever luck the naive algorithm had with its rounding. A
    // gradient that begins at a number is rounded again with each of up to two contributions.
    let stores = if found.begun > 0.0 { 3.0 } else { 1.0 };
    let rounding = stores * unit(precision) * (scale + found.begun) + found.on_the_way * scale;
    let allowed = factor * distance(&naive, truth) + ELEMENTARY * scale + rounding;
    let error = distance(&values, truth);
    assert!(
        error <= allowed,
        "{what}: error {error:e}, allowed {allowed:e} (largest value {scale:e})"
    );
    assert!(found.untouched(), "{what}: rows beyond the live count were written");
}

fn compare_integers(found: &Found, truth: &[f64]) {
    let Found { what, words, live, .. } = found;
    let values: Vec<f64> = words[..*live].iter().map(|&word| f64::from(word)).collect();
    let differs = values.iter().zip(truth).position(|(value, truth)| value != truth);
    assert_eq!(
        (values.len(), differs),
        (truth.len(), None),
        "{what}: the first that differs"
    );
    assert!(found.untouched(), "{what}: rows beyond the live count were written");
}

fn in_f64<R: Real>(expected: Expected<R>) -> Expected<f64> {
    let convert = |tensors: Vec<Vec<R>>| {
        let tensor = |data: Vec<R>| data.iter().map(|x| x.to_f64()).collect();
        tensors.into_iter().map(tensor).collect()
    };
    Expected {
        outputs: convert(expected.outputs),
        gradients: convert(expected.gradients),
    }
}

fn check(case: Case, backend: &Backend) -> BTreeSet<Launched> {
    let case = &case;
    let recorded = record(case, Vec::new(), backend.precision).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let plan = &recorded.plan;
    let mut values = plan.launches.iter().flat_map(|launch| &launch.values);
    let stores = values.any(|&value| plan.value(value).dtype == backend.precision.dtype());
    if backend.precision != Precision::F32 && !stores {
        return BTreeSet::new();
    }
    let variants: Vec<usize> = plan
        .launches
        .iter()
        .map(|launch| (backend.variants)(launch.kernel))
        .collect();
    if variants.contains(&0) {
        return BTreeSet::new();
    }
    let truth = expected(case, &recorded, &case.truth);
    let naive = match backend.precision {
        Precision::F32 => in_f64(expected(case, &recorded, &case.naive)),
        Precision::F16 => in_f64(expected(case, &recorded, &case.naive_f16)),
        Precision::Bf16 => in_f64(expected(case, &recorded, &case.naive_bf16)),
    };
    let sizes = Sizes::of(recorded.params.words(), true, &[plan]);
    let mut device = backend.configurations[0](sizes, 0);
    let results = run(case, &recorded, &mut *device, &sizes);
    for (index, output) in results.outputs.iter().enumerate() {
        let info = plan.value(recorded.outputs[index]);
        let found = Found {
            what: format!("{}, output {index}", case.name),
            words: output,
            dtype: info.dtype,
            live: live_elements(info.rows, info.width, &case.step),
            begun: 0.0,
            beyond: backend.writes_beyond,
            on_the_way: backend.roundings * unit(backend.precision),
        };
        match info.dtype {
            DType::U32 => compare_integers(&found, &truth.outputs[index]),
            _ => compare(&found, &truth.outputs[index], naive.outputs[index].clone(), 2.0),
        }
    }
    for (index, gradient) in results.gradients.iter().enumerate() {
        if recorded.gradients[index].is_none() {
            continue;
        }
        let (truth, naive) = (&truth.gradients[index], naive.gradients[index].clone());
        compare_gradient(case, &recorded, backend, index, gradient, truth, naive);
    }
    check_surroundings(case, &recorded, &results.arena);
    let again = run(case, &recorded, &mut *device, &sizes);
    assert!(same(&again, &results), "{}: two runs differ", case.name);
    let accumulated = check_accumulation(case, backend, &recorded, &truth, &naive);
    let mut launched_ones = BTreeSet::new();
    let last = backend.configurations.len() - 1;
    for variant in 0..variants.into_iter().max().unwrap_or(1) {
        // What accumulates runs in one configuration, the one that the first run of it did not have.
        for (recorded, expected, configurations) in [(&recorded, &results, 0..=last)]
            .into_iter()
            .chain(accumulated.as_ref().map(|(a, b)| (a, b, last..=last)))
        {
            let sizes = Sizes::of(recorded.params.words(), true, &[&recorded.plan]);
            for index in configurations.skip_while(|&index| (index, variant) == (0, 0)) {
                let open = backend.configurations[index];
                let other = run(case, recorded, &mut *open(sizes, variant), &sizes);
                let what = format!("{}, configuration {index}, variant {variant}", case.name);
                assert!(
                    same(&other, expected),
                    "{what}: other bits than configuration 0, variant 0"
                );
                check_surroundings(case, recorded, &other.arena);
            }
            launched_ones.extend(launched(&recorded.plan, variant, backend));
        }
    }
    launched_ones
}

/// What a plan launches on a device that takes variant number `variant` where there are as many.
fn launched(plan: &Plan, variant: usize, backend: &Backend) -> BTreeSet<Launched> {
    let of_launch = |launch: &Launch| {
        let variant = variant.min((backend.variants)(launch.kernel) - 1);
        flags(launch.kernel, variant, |flag| vec![launch.dims.word(flag)])
    };
    plan.launches.iter().flat_map(of_launch).collect()
}

fn same(a: &Results, b: &Results) -> bool {
    a.outputs == b.outputs && a.gradients == b.gradients
}

fn compare_gradient(
    case: &Case,
    recorded: &Recorded,
    backend: &Backend,
    index: usize,
    got: &[u32],
    truth: &[f64],
    naive: Vec<f64>,
) {
    let Some(value) = recorded.gradients[index] else { return };
    let info = recorded.plan.value(value);
    let start = recorded.starts.get(index).and_then(Option::as_ref);
    let begun = if start.is_some() { "accumulated " } else { "" };
    let found = Found {
        what: format!("{}, {begun}gradient of {}", case.name, case.tensors[index].name),
        begun: start.map_or(0.0, |start| start.data.iter().fold(0.0, |most, x| most.max(x.abs()))),
        words: got,
        dtype: info.dtype,
        live: live_elements(info.rows, info.width, &case.step),
        beyond: backend.writes_beyond,
        on_the_way: backend.roundings * unit(backend.precision),
    };
    compare(&found, truth, naive, 3.0);
}

/// Words of the arena that belong to no value are as they were.
fn check_surroundings(case: &Case, recorded: &Recorded, arena: &[u32]) {
    let plan = &recorded.plan;
    let mut owned = vec![false; arena.len()];
    for &value in plan.launches.iter().flat_map(|launch| &launch.values) {
        let place = plan.place(value);
        if place.space == Space::Arena {
            owned[place.offset..place.offset + place.words].fill(true);
        }
    }
    let mut words = arena.iter().zip(&owned);
    let stray = words.position(|(&word, owned)| !owned && word != POISON);
    assert_eq!(
        stray, None,
        "{}: a word of the arena that belongs to no value was written",
        case.name
    );
}

/// The case once more with gradients that begin at random numbers; an op that refuses to accumulate is left out.
fn check_accumulation(
    case: &Case,
    backend: &Backend,
    plain: &Recorded,
    truth: &Expected<f64>,
    naive: &Expected<f64>,
) -> Option<(Recorded, Results)> {
    let start = |(tensor, gradient): (&Tensor, &Option<Value>)| {
        let input: &'static str = format!("start of {}", tensor.name).leak();
        let mut data = Tensor::random(input, Role::Constant, tensor.rows, tensor.width).data;
        if tensor.role == Role::Input {
            round(&mut data, backend.precision);
        }
        gradient.is_some().then_some(Start { input, data })
    };
    let starts = case.tensors.iter().zip(&plain.gradients).map(start).collect();
    let recorded = match record(case, starts, backend.precision) {
        Err(PlanError::Unsupported { .. }) => return None,
        recorded => recorded.unwrap_or_else(|error| panic!("{}: {error}", case.name)),
    };
    let sizes = Sizes::of(recorded.params.words(), true, &[&recorded.plan]);
    let mut device = backend.configurations[0](sizes, 0);
    let results = run(case, &recorded, &mut *device, &sizes);
    for (index, gradient) in results.gradients.iter().enumerate() {
        let Some(start) = &recorded.starts[index] else { continue };
        let truth = truth.gradients[index]
            .iter()
            .zip(&start.data)
            .map(|(x, start)| start + x);
        let naive = naive.gradients[index].iter().zip(&start.data);
        let naive = naive.map(|(&x, &start)| f64::from(start as f32 + x as f32)).collect();
        let truth: Vec<f64> = truth.collect();
        compare_gradient(case, &recorded, backend, index, gradient, &truth, naive);
    }
    check_surroundings(case, &recorded, &results.arena);
    Some((recorded, results))
}
