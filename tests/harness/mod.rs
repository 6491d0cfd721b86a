//! The harness that walks the registry: every op, case and variant on one backend against an f64 reference.
//!
//! * The reference's gradients agree with central differences of its own forward in f64.
//! * The kernels' error is at most 2 x (gradients 3 x) the error of the naive algorithm in f32, plus the
//!   documented error of the elementary functions.
//! * The arena starts as NaN; rows beyond the live count and words that belong to no value still hold that NaN afterwards.
//! * Twice on one device, and on every configuration of the backend (threads, bounds checks): the same bits.
//! * Every variant of every kernel that the backend has was launched.

use std::collections::BTreeSet;

use tlm::device::{Device, Sizes};
use tlm::kernel::{DType, Extent, Kernel, StepParams};
use tlm::ops::REGISTRY;
use tlm::ops::case::{Case, Expected, Given, Real, Role};
use tlm::plan::{Init, ParamSpec, ParamTable, Plan, Recorder, Space, Value};

/// A backend to test.
pub struct Backend<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// Whether it has a kernel; cases that need others are left out.
    pub has: fn(&Kernel) -> bool,
    /// Ways to open it that must not change a bit.
    pub configurations: &'a [&'a dyn Fn(Sizes) -> Box<dyn Device>],
}

/// A quiet NaN that no arithmetic produces.
const POISON: u32 = 0x7fc0_dead;
/// What `ops::math` documents (and its tests hold it to): 4 units in the last place, where the naive algorithm calls libm.
const ELEMENTARY: f64 = 4.0 * f32::EPSILON as f64;
const UPSTREAM: [&str; 4] = ["upstream 0", "upstream 1", "upstream 2", "upstream 3"];

/// Walks the registry.
pub fn walk(backend: &Backend) {
    let mut launched = BTreeSet::new();
    for op in REGISTRY {
        let variants = op.kernels.iter().map(|kernel| kernel.variants.len()).max().unwrap_or(1);
        for case in (op.cases)() {
            for variant in 0..variants {
                launched.extend(check(&case, variant, backend));
            }
        }
    }
    for kernel in REGISTRY
        .iter()
        .flat_map(|op| op.kernels)
        .filter(|kernel| (backend.has)(kernel))
    {
        for variant in 0..kernel.variants.len() {
            assert!(
                launched.contains(&(kernel.name, variant)),
                "{}: no case launched variant {variant} of {}",
                backend.name,
                kernel.name
            );
        }
    }
}

struct Recorded {
    plan: Plan,
    outputs: Vec<Value>,
    gradients: Vec<Option<Value>>,
    params: ParamTable,
}

fn record(case: &Case, variant: usize) -> Recorded {
    let spec = |tensor: &tlm::ops::case::Tensor| ParamSpec {
        name: tensor.name.to_string(),
        rows: tensor.rows.capacity,
        width: tensor.width,
        decay: true,
        head: false,
        init: Init::Zeros,
        vector: tensor.rows.capacity == 1,
    };
    let params = ParamTable::new(
        case.tensors
            .iter()
            .filter(|tensor| tensor.role == Role::Param)
            .map(spec)
            .collect(),
    );
    let mut r = Recorder::new("case", &params);
    r.prefer_variant(variant);
    let values: Vec<Value> = case
        .tensors
        .iter()
        .map(|tensor| match tensor.role {
            Role::Param => r.param(tensor.name).unwrap(),
            Role::Input => r.differentiable_input(tensor.name, tensor.rows, tensor.width),
            Role::Constant | Role::Index => r.input(tensor.name, tensor.rows, tensor.width, tensor.dtype()),
        })
        .collect();
    let outputs = (case.record)(&mut r, &values).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    for (index, (&output, _)) in outputs
        .iter()
        .zip(&case.upstream)
        .filter(|(_, takes)| **takes)
        .enumerate()
    {
        let (rows, width) = (r.info(output).rows, r.info(output).width);
        let upstream = r.input(UPSTREAM[index], rows, width, DType::F32);
        r.seed_gradient(output, upstream);
    }
    r.differentiate()
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let differentiable = |tensor: &tlm::ops::case::Tensor| matches!(tensor.role, Role::Param | Role::Input);
    let gradients: Vec<Option<Value>> = case
        .tensors
        .iter()
        .zip(&values)
        .map(|(tensor, &value)| differentiable(tensor).then(|| r.incoming(value)).flatten())
        .collect();
    r.keep_everything();
    let plan = r.finish();
    Recorded {
        plan,
        outputs,
        gradients,
        params,
    }
}

/// Upstream gradients at capacity, by output.
fn upstream(case: &Case, recorded: &Recorded) -> Vec<Vec<f64>> {
    let mut all = Vec::new();
    for (&output, _) in recorded.outputs.iter().zip(&case.upstream).filter(|(_, takes)| **takes) {
        let info = recorded.plan.value(output);
        let name = UPSTREAM[all.len()];
        all.push(tlm::ops::case::Tensor::random(name, Role::Constant, info.rows, info.width).data);
    }
    all
}

struct Results {
    outputs: Vec<Vec<u32>>,
    gradients: Vec<Vec<u32>>,
    arena: Vec<u32>,
}

fn words(data: &[f64], dtype: DType) -> Vec<u32> {
    let word = |&x: &f64| match dtype {
        DType::U32 => x as u32,
        DType::F32 => (x as f32).to_bits(),
    };
    data.iter().map(word).collect()
}

fn run(case: &Case, recorded: &Recorded, device: &mut dyn Device, sizes: &Sizes) -> Results {
    let plan = &recorded.plan;
    let program = device
        .load(plan)
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    for space in [Space::Arena, Space::Grads, Space::Readback] {
        device.write(space, 0, &vec![POISON; sizes.words(space)]).unwrap();
    }
    device.write(Space::Inputs, 0, case.step.words()).unwrap();
    for tensor in &case.tensors {
        let (space, offset) = match tensor.role {
            Role::Param => (Space::Params, recorded.params.find(tensor.name).unwrap().1),
            _ => (Space::Inputs, plan.input(tensor.name).unwrap().offset),
        };
        device
            .write(space, offset, &words(&tensor.data, tensor.dtype()))
            .unwrap();
    }
    for (index, data) in upstream(case, recorded).iter().enumerate() {
        let port = plan.input(UPSTREAM[index]).unwrap();
        device
            .write(Space::Inputs, port.offset, &words(data, DType::F32))
            .unwrap();
    }
    device.run(program).unwrap();
    let mut read = |value: &Value| {
        let place = plan.place(*value);
        let mut out = vec![0; place.words];
        device.read(place.space, place.offset, &mut out).unwrap();
        out
    };
    let outputs = recorded.outputs.iter().map(&mut read).collect();
    let gradients = recorded
        .gradients
        .iter()
        .map(|g| g.as_ref().map(&mut read).unwrap_or_default())
        .collect();
    let mut arena = vec![0; plan.arena_words];
    device.read(Space::Arena, 0, &mut arena).unwrap();
    Results {
        outputs,
        gradients,
        arena,
    }
}

fn live_words(rows: Extent, width: u32, step: &StepParams) -> usize {
    rows.live(step) * width as usize
}

fn expected<R: Real>(case: &Case, recorded: &Recorded, reference: &tlm::ops::case::Reference<R>) -> Expected<R> {
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

fn compare(what: &str, got: &[u32], live: usize, truth: &[f64], naive: Vec<f64>, factor: f64) {
    let values: Vec<f64> = got[..live]
        .iter()
        .map(|&word| f64::from(f32::from_bits(word)))
        .collect();
    let scale = truth.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let allowed = factor * distance(&naive, truth) + ELEMENTARY * scale;
    let error = distance(&values, truth);
    assert!(
        error <= allowed,
        "{what}: error {error:e}, allowed {allowed:e} (largest value {scale:e})"
    );
    assert!(
        got[live..].iter().all(|&word| word == POISON),
        "{what}: rows beyond the live count were written"
    );
}

fn to_f64<R: Real>(data: &[R]) -> Vec<f64> {
    data.iter().map(|x| x.to_f64()).collect()
}

/// Central differences of the reference's forward along single elements (a spread of at most 40 of each tensor).
fn check_finite_differences(case: &Case, recorded: &Recorded, truth: &Expected<f64>) {
    let tensors: Vec<Vec<f64>> = case.tensors.iter().map(|tensor| tensor.data.clone()).collect();
    let upstream = upstream(case, recorded);
    let objective = |tensors: &[Vec<f64>]| -> f64 {
        let expected = (case.truth)(
            &Given {
                tensors,
                step: case.step,
            },
            &upstream,
        );
        if upstream.is_empty() {
            return expected.outputs[0].iter().sum();
        }
        let takes = case.upstream.iter().zip(&expected.outputs).filter(|(takes, _)| **takes);
        takes
            .zip(&upstream)
            .map(|((_, y), dy)| y.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>())
            .sum()
    };
    for (index, gradient) in truth.gradients.iter().enumerate() {
        let scale = gradient.iter().fold(1.0f64, |most, x| most.max(x.abs()));
        let stride = gradient.len().div_ceil(40).max(1);
        for element in (0..gradient.len()).step_by(stride) {
            let h = 1e-5;
            let shifted = |by: f64| {
                let mut tensors = tensors.clone();
                tensors[index][element] += by;
                objective(&tensors)
            };
            let slope = (shifted(h) - shifted(-h)) / (2.0 * h);
            // Truncation h^2 f''' / 6 and cancellation eps |f| / h, with room for a third derivative of 100.
            let allowed = scale * 1e-7 + objective(&tensors).abs() * 1e-9;
            let error = (slope - gradient[element]).abs();
            assert!(
                error <= allowed,
                "{}: reference gradient of {} [{element}]",
                case.name,
                case.tensors[index].name
            );
        }
    }
}

fn check(case: &Case, variant: usize, backend: &Backend) -> BTreeSet<(&'static str, usize)> {
    let recorded = record(case, variant);
    let plan = &recorded.plan;
    if plan.launches.iter().any(|launch| !(backend.has)(launch.kernel)) {
        return BTreeSet::new();
    }
    let truth = expected(case, &recorded, &case.truth);
    let naive = expected(case, &recorded, &case.naive);
    let sizes = Sizes::of(recorded.params.words(), true, &[plan]);
    let mut device = backend.configurations[0](sizes);
    let Results {
        outputs,
        gradients,
        arena,
    } = run(case, &recorded, &mut *device, &sizes);
    for (index, output) in outputs.iter().enumerate() {
        let info = plan.value(recorded.outputs[index]);
        let live = live_words(info.rows, info.width, &case.step);
        let what = format!("{}, output {index} (variant {variant})", case.name);
        compare(
            &what,
            output,
            live,
            &truth.outputs[index],
            to_f64(&naive.outputs[index]),
            2.0,
        );
    }
    for (index, gradient) in gradients.iter().enumerate() {
        let Some(value) = recorded.gradients[index] else {
            continue;
        };
        let info = plan.value(value);
        let live = live_words(info.rows, info.width, &case.step);
        let what = format!(
            "{}, gradient of {} (variant {variant})",
            case.name, case.tensors[index].name
        );
        compare(
            &what,
            gradient,
            live,
            &truth.gradients[index],
            to_f64(&naive.gradients[index]),
            3.0,
        );
    }
    let mut owned = vec![false; arena.len()];
    for launch in &plan.launches {
        for &value in &launch.values {
            let place = plan.place(value);
            if place.space == Space::Arena {
                owned[place.offset..place.offset + place.words].fill(true);
            }
        }
    }
    let stray = arena
        .iter()
        .zip(&owned)
        .position(|(&word, owned)| !owned && word != POISON);
    assert_eq!(
        stray, None,
        "{}: a word of the arena that belongs to no value was written",
        case.name
    );
    let again = run(case, &recorded, &mut *device, &sizes);
    assert!(
        again.outputs == outputs && again.gradients == gradients,
        "{}: two runs differ",
        case.name
    );
    for (index, open) in backend.configurations.iter().enumerate().skip(1) {
        let other = run(case, &recorded, &mut *open(sizes), &sizes);
        assert!(
            other.outputs == outputs && other.gradients == gradients,
            "{}: configurations 0 and {index} differ",
            case.name
        );
    }
    if variant == 0 {
        check_finite_differences(case, &recorded, &truth);
    }
    plan.launches
        .iter()
        .map(|launch| (launch.kernel.name, launch.variant))
        .collect()
}
