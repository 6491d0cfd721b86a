//! A case as a plan, and its run on a device.

use tlm::device::{Device, Sizes};
use tlm::kernel::{DType, Precision};
use tlm::ops::case::{Case, Role, Tensor};
use tlm::ops::copy;
use tlm::plan::{Init, ParamSpec, ParamTable, Plan, PlanError, Recorder, Space, Value};

/// A quiet NaN that no arithmetic produces; each half of it is one as f16 and as bf16.
pub const POISON: u32 = 0x7fc0_ffde;
const UPSTREAM: [&str; 4] = ["upstream 0", "upstream 1", "upstream 2", "upstream 3"];

/// A case as a plan.
pub struct Recorded {
    pub plan: Plan,
    /// In the order of the case.
    pub outputs: Vec<Value>,
    /// Of the case's tensors, in order.
    pub gradients: Vec<Option<Value>>,
    pub params: ParamTable,
    /// What the gradients begin with; empty: nothing.
    pub starts: Vec<Option<Start>>,
}

/// What a tensor's gradient begins with.
pub struct Start {
    /// Name of the plan's input for it.
    pub input: &'static str,
    pub data: Vec<f64>,
}

/// Records a case. The gradients of tensors that have a start in `starts` (none: empty) are added to it.
pub fn record(case: &Case, starts: Vec<Option<Start>>, precision: Precision) -> Result<Recorded, PlanError> {
    let spec = |tensor: &Tensor| ParamSpec {
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
    let mut r = Recorder::new("case", &params).storing(precision);
    let values: Vec<Value> = case
        .tensors
        .iter()
        .map(|tensor| match tensor.role {
            Role::Param => r.param(tensor.name).unwrap(),
            Role::Input => r.differentiable_input(tensor.name, tensor.rows, tensor.width),
            Role::Stored | Role::Constant | Role::Index => {
                r.input(tensor.name, tensor.rows, tensor.width, tensor.dtype(precision))
            }
        })
        .collect();
    for ((tensor, start), &value) in case.tensors.iter().zip(&starts).zip(&values) {
        match (tensor.role, start) {
            (Role::Param, Some(_)) => r.accumulate_gradients(),
            (_, Some(start)) => {
                let begin = r.input(start.input, tensor.rows, tensor.width, precision.dtype());
                let gradient = r.value("gradient", tensor.rows, tensor.width);
                r.launch(&copy::COPY, &[begin, gradient], &[("accumulate_y", 0)])?;
                r.seed_gradient(value, gradient);
            }
            (_, None) => {}
        }
    }
    let outputs = (case.record)(&mut r, &values)?;
    for (index, (&output, _)) in outputs
        .iter()
        .zip(&case.upstream)
        .filter(|(_, takes)| **takes)
        .enumerate()
    {
        let info = r.info(output).clone();
        let upstream = r.input(UPSTREAM[index], info.rows, info.width, info.dtype);
        r.seed_gradient(output, upstream);
    }
    r.differentiate()?;
    let differentiable = |tensor: &Tensor| matches!(tensor.role, Role::Param | Role::Input);
    let gradients: Vec<Option<Value>> = case
        .tensors
        .iter()
        .zip(&values)
        .map(|(tensor, &value)| differentiable(tensor).then(|| r.incoming(value)).flatten())
        .collect();
    r.keep_everything();
    let plan = r.finish();
    Ok(Recorded {
        plan,
        outputs,
        gradients,
        params,
        starts,
    })
}

/// Upstream gradients at capacity, by output.
pub fn upstream(case: &Case, recorded: &Recorded) -> Vec<Vec<f64>> {
    let mut all = Vec::new();
    for (&output, _) in recorded.outputs.iter().zip(&case.upstream).filter(|(_, takes)| **takes) {
        let info = recorded.plan.value(output);
        let name = UPSTREAM[all.len()];
        let mut tensor = Tensor::random(name, Role::Constant, info.rows, info.width);
        if info.dtype != DType::F32 {
            round(&mut tensor.data, recorded.plan.precision);
        }
        all.push(tensor.data);
    }
    all
}

/// Numbers as a tensor of this precision holds them.
pub fn round(data: &mut [f64], precision: Precision) {
    for x in data {
        *x = f64::from(precision.round(*x as f32));
    }
}

/// A case whose tensors hold numbers of this precision: what the plan stores, and parameters, of which it stores copies.
pub fn rounded(mut case: Case, precision: Precision) -> Case {
    for tensor in &mut case.tensors {
        if matches!(tensor.role, Role::Input | Role::Stored | Role::Param) {
            round(&mut tensor.data, precision);
        }
    }
    case
}

/// What a run left behind.
pub struct Results {
    pub outputs: Vec<Vec<u32>>,
    pub gradients: Vec<Vec<u32>>,
    pub arena: Vec<u32>,
}

fn words(data: &[f64], dtype: DType) -> Vec<u32> {
    let numbers = || data.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    match dtype {
        DType::U32 => data.iter().map(|&x| x as u32).collect(),
        DType::F32 => Precision::F32.pack(&numbers()),
        DType::F16 => Precision::F16.pack(&numbers()),
        DType::Bf16 => Precision::Bf16.pack(&numbers()),
    }
}

/// Runs a case on a device whose arena, gradients and readback are poisoned first.
pub fn run(case: &Case, recorded: &Recorded, device: &mut dyn Device, sizes: &Sizes) -> Results {
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
        let precision = plan.precision;
        device
            .write(space, offset, &words(&tensor.data, tensor.dtype(precision)))
            .unwrap();
        if tensor.role == Role::Param && precision.has_shadow() {
            let copy = words(&tensor.data, precision.dtype());
            device.write(Space::Shadow, offset / 2, &copy).unwrap();
        }
    }
    for (tensor, start) in case.tensors.iter().zip(&recorded.starts) {
        let Some(start) = start else { continue };
        let (space, offset, dtype) = match tensor.role {
            Role::Param => (Space::Grads, recorded.params.find(tensor.name).unwrap().1, DType::F32),
            _ => (
                Space::Inputs,
                plan.input(start.input).unwrap().offset,
                plan.precision.dtype(),
            ),
        };
        device.write(space, offset, &words(&start.data, dtype)).unwrap();
    }
    let takes = recorded.outputs.iter().zip(&case.upstream).filter(|(_, takes)| **takes);
    for (index, (data, (&output, _))) in upstream(case, recorded).iter().zip(takes).enumerate() {
        let port = plan.input(UPSTREAM[index]).unwrap();
        let dtype = plan.value(output).dtype;
        device.write(Space::Inputs, port.offset, &words(data, dtype)).unwrap();
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
