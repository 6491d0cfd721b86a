//! Every kernel of a training step, at the shapes of several models, in every variant.
//!
//! A shape class is a model: the plans of its joint step and of its update, full batches of 32 sequences of 128 tokens. All
//! launches run in their place in the step, on the data that they have there, caches as they are then; each is timed by the
//! device. Launches of one kernel at the same sizes are one measurement. On a GPU the step is replayed once for each
//! number of a variant, and once more for the products of the vendor's library where it is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::TlmError;
use super::config::Preset;
use super::sizes::capacity;
use crate::bert::plans::{self, Form, Kind, Optimizer};
use crate::bert::{self, initial_values};
use crate::cost::Ceilings;
use crate::cost::bench::{Bench, Measurement, median_and_notch};
use crate::data::{Batch, BatchSettings, BatchStream, Masking, Sequences, SpecialIds};
use crate::device::choice::{DeviceChoice, PrecisionChoice};
use crate::device::open::{Target, cache};
use crate::device::{Device, Program, Sizes, Variants, write_params};
use crate::hub::BertConfig;
use crate::kernel::{Cost, Count, Kernel, StepParams, VENDOR};
use crate::ops::REGISTRY;
use crate::plan::{Launch, Plan, Space};
use crate::rng::Stream;
use crate::train::inputs::{InputBlock, batch_capacity, counted};

const SEQUENCES: usize = 32;
const LENGTH: usize = 128;
const CLASSES: usize = 13;
const MASK_RATE: f64 = 0.15;
/// `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]` as a trained vocabulary has them.
const SPECIAL: SpecialIds = SpecialIds {
    pad: 0,
    unk: 1,
    cls: 2,
    sep: 3,
    mask: 4,
};

/// What is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchRequest {
    /// Ops or kernels; all if empty.
    pub ops: Vec<String>,
    /// Models.
    pub presets: Vec<Preset>,
    /// Word pieces of their vocabulary.
    pub vocab_size: usize,
    /// Runs of each launch.
    pub rounds: usize,
    /// Device.
    pub device: DeviceChoice,
    /// How activations are stored.
    pub precision: PrecisionChoice,
}

/// A model's plans with a batch.
struct Class {
    name: String,
    config: BertConfig,
    params: crate::plan::ParamTable,
    plans: [Plan; 2],
    inputs: Vec<u32>,
    step: StepParams,
}

/// A kernel at one shape in one variant, with the times of all its runs.
struct Timed {
    kernel: &'static Kernel,
    class: String,
    sizes: String,
    variant: String,
    launches: u64,
    cost: Cost,
    microseconds: Vec<f64>,
}

/// Measures; `progress` is told what is at work.
///
/// # Errors
/// [`TlmError::Refused`] for an op that nobody knows; failures of the device.
pub fn bench(request: &BenchRequest, progress: &mut dyn FnMut(&str)) -> Result<Bench, TlmError> {
    let names: Vec<&str> = REGISTRY
        .iter()
        .flat_map(|op| op.kernels)
        .map(|kernel| kernel.name)
        .collect();
    for op in &request.ops {
        if !names.iter().any(|name| is_of(name, op)) {
            let ops: Vec<&str> = REGISTRY.iter().map(|op| op.name).collect();
            let ops = ops.join(", ");
            return Err(TlmError::Refused(format!(
                "no op or kernel \"{op}\": the ops are {ops} (docs/ops.md)"
            )));
        }
    }
    let wanted = |name: &str| request.ops.is_empty() || request.ops.iter().any(|op| is_of(name, op));
    let target = Target::of(request.device)?;
    let has_vendor = target.has_vendor();
    progress("ceilings");
    let before = Ceilings::measure(&target, request.precision, request.rounds)?;
    let mut timed = Vec::new();
    let mut launched = BTreeSet::new();
    let mut device = String::new();
    for &preset in &request.presets {
        let class = Class::new(preset, &target, request)?;
        let launches = || class.plans.iter().flat_map(|plan| &plan.launches);
        launched.extend(launches().map(|launch| launch.kernel.name));
        let variants: Vec<usize> = launches()
            .map(|launch| match wanted(launch.kernel.name) {
                true => target.variants(launch.kernel, launch.dims.precision()),
                false => 0,
            })
            .collect();
        let most = variants.iter().copied().max().unwrap_or(0);
        let mut passes: Vec<(String, Variants, Vec<bool>)> = (0..most)
            .map(|variant| {
                let chosen = variants.iter().map(|&variants| variants > variant).collect();
                (format!("variant {variant}"), Variants::Nth(variant), chosen)
            })
            .collect();
        if has_vendor {
            let is_product = |launch: &Launch| launch.kernel.cuda.is_some_and(|source| source.product.is_some());
            let chosen = launches().map(|launch| wanted(launch.kernel.name) && is_product(launch));
            passes.push((VENDOR.to_owned(), Variants::Vendor, chosen.collect()));
        }
        for (name, variants, chosen) in passes {
            progress(&format!("{}, {name}", class.name));
            let mut opened = target.clone().with_variants(variants).open(class.sizes())?.device;
            device = opened.describe();
            timed.extend(class.measure(opened.as_mut(), &chosen, request.rounds)?);
        }
    }
    // The better of before and after: other work on the machine lowers a ceiling, nothing lifts it.
    progress("ceilings again");
    let ceilings = before.or_better(&Ceilings::measure(&target, request.precision, request.rounds)?);
    let mut kernels: Vec<Measurement> = timed.into_iter().map(|timed| timed.against(&ceilings)).collect();
    let missing = names.iter().filter(|name| wanted(name) && !launched.contains(*name));
    kernels
        .sort_by(|a, b| (&a.kernel, &a.class, &a.sizes, &a.variant).cmp(&(&b.kernel, &b.class, &b.sizes, &b.variant)));
    kernels.dedup_by(|a, b| (&a.kernel, &a.class, &a.sizes, &a.variant) == (&b.kernel, &b.class, &b.sizes, &b.variant));
    Ok(Bench {
        device,
        hardware: processor().unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        precision: target.precision(request.precision)?.name().to_owned(),
        rounds: request.rounds,
        ceilings,
        kernels,
        not_launched: missing.map(|name| (*name).to_owned()).collect(),
    })
}

/// Where the measurings of this machine's device are kept: of some ops apart from those of all.
pub fn kept(bench: &Bench, ops: &[String]) -> Option<PathBuf> {
    let ops = ops.join(" ");
    let name: String = format!("{} {} {} {ops}", bench.device, bench.hardware, bench.precision)
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
    Some(cache()?.join("bench").join(format!("{}.json", parts.join("-"))))
}

/// Whether a kernel is `name`, or of the op `name`.
fn is_of(kernel: &str, name: &str) -> bool {
    let rest = kernel.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The processor's name, where the system tells.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Class {
    fn new(preset: Preset, target: &Target, request: &BenchRequest) -> Result<Class, TlmError> {
        let (layers, hidden) = preset.layers_and_hidden();
        let config = BertConfig {
            vocab_size: request.vocab_size,
            hidden_size: hidden,
            num_hidden_layers: layers,
            num_attention_heads: (hidden / 64).max(1),
            intermediate_size: 4 * hidden,
            max_position_embeddings: 512,
            labels: (0..CLASSES).map(|class| class.to_string()).collect(),
            max_length: LENGTH,
            ..BertConfig::default()
        };
        let (limits, precision) = (target.limits(), target.precision(request.precision)?);
        let params = bert::parameters(&config);
        let capacity = capacity(SEQUENCES, LENGTH, Some(MASK_RATE))?;
        let form = Form {
            limits,
            precision,
            ..Form::default()
        };
        let joint = plans::batch(Kind::Joint, &config, &params, &capacity, form)?;
        let update = plans::update(&params, &Optimizer::BERT, limits, precision)?;
        let mut batch = Batch::new(batch_capacity(&capacity));
        let settings = BatchSettings {
            seed: 1,
            stream: 0,
            batch: SEQUENCES,
            masking: Some(Masking::new(MASK_RATE, SPECIAL, request.vocab_size)?),
            capacity: batch_capacity(&capacity),
        };
        BatchStream::new(Arc::new(sequences(request.vocab_size)?), settings)?
            .cursor()
            .fill(0, &mut batch)?;
        let step = StepParams {
            step: 1,
            bias_correction: 1.0,
            clip_norm: f32::INFINITY,
            ..StepParams::default()
        };
        let mut block = InputBlock::new(joint.input_words());
        block.fill(&joint, &batch, &step, 1.0, 1.0);
        let name = format!("{preset:?}").to_lowercase();
        Ok(Class {
            name,
            step: counted(&step, &batch),
            inputs: block.words().to_vec(),
            plans: [joint, update],
            config,
            params,
        })
    }

    fn sizes(&self) -> Sizes {
        Sizes::of(self.params.words(), true, &[&self.plans[0], &self.plans[1]])
    }

    /// Times of the chosen launches, by kernel and sizes.
    fn measure(&self, device: &mut dyn Device, chosen: &[bool], rounds: usize) -> Result<Vec<Timed>, TlmError> {
        let mut programs: Vec<Program> = Vec::with_capacity(2);
        for plan in &self.plans {
            programs.push(device.load(plan)?);
        }
        let mut values = vec![0.0f32; self.params.words()];
        initial_values(&self.config, &self.params, 1, &mut values, |_| true);
        write_params(device, self.plans[0].precision, &values)?;
        device.write(Space::Inputs, 0, &self.inputs)?;
        let mut samples: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); chosen.len()];
        for round in 0..=rounds {
            let mut first = 0;
            for (plan, &program) in self.plans.iter().zip(&programs) {
                let mut times = vec![Duration::ZERO; plan.launches.len()];
                device.run_timed(program, &mut times)?;
                // The first round may include what a driver leaves to it.
                for (samples, time) in samples[first..].iter_mut().zip(&times).filter(|_| round > 0) {
                    samples.push(1e6 * time.as_secs_f64());
                }
                first += plan.launches.len();
            }
        }
        let variants: Vec<&str> = programs
            .iter()
            .flat_map(|&program| device.variants(program))
            .copied()
            .collect();
        let launches = self.plans.iter().flat_map(|plan| &plan.launches);
        let mut shapes: BTreeMap<(&'static str, String, String), Timed> = BTreeMap::new();
        for (index, launch) in launches.enumerate().filter(|(index, _)| chosen[*index]) {
            let variant = variants.get(index).copied().unwrap_or("cpu");
            let key = (launch.kernel.name, sizes(launch), variant.to_owned());
            let shape = shapes.entry(key).or_insert_with(|| Timed {
                kernel: launch.kernel,
                class: self.name.clone(),
                sizes: sizes(launch),
                variant: variant.to_owned(),
                launches: 0,
                cost: launch.cost(Some(&self.step)),
                microseconds: Vec::new(),
            });
            shape.launches += 1;
            shape.microseconds.append(&mut samples[index]);
        }
        Ok(shapes.into_values().collect())
    }
}

impl Timed {
    /// Median, rates, share of the ceiling.
    fn against(mut self, ceilings: &Ceilings) -> Measurement {
        let (microseconds, notch) = median_and_notch(&mut self.microseconds);
        let (cost, seconds) = (self.cost, 1e-6 * microseconds);
        let bytes = cost.read + cost.written;
        Measurement {
            kernel: self.kernel.name.to_owned(),
            class: self.class,
            sizes: self.sizes,
            variant: self.variant,
            launches: self.launches,
            microseconds,
            notch,
            flops: cost.flops,
            bytes,
            gflops: 1e-9 * cost.flops as f64 / seconds,
            gbytes: 1e-9 * bytes as f64 / seconds,
            of_ceiling: ceilings.floor(self.kernel, &cost) / seconds,
            arithmetic: ceilings.is_bound_by_arithmetic(self.kernel, &cost),
        }
    }
}

/// The sizes that tell one shape of a kernel from another.
fn sizes(launch: &Launch) -> String {
    let sizes = launch.dims.extents().iter().map(|(symbol, extent)| match extent.count {
        Count::Fixed => format!("{symbol}={}", extent.capacity),
        _ => format!("{symbol}<={}", extent.capacity),
    });
    sizes.collect::<Vec<_>>().join(" ")
}

/// Full sequences of random word pieces.
fn sequences(vocab_size: usize) -> Result<Sequences, TlmError> {
    let mut stream = Stream::new(1, 0, 0);
    let mut sequences = Sequences::default();
    let words = vocab_size as u32 - (SPECIAL.mask + 1);
    for _ in 0..SEQUENCES {
        let mut ids: Vec<u32> = (0..LENGTH)
            .map(|_| SPECIAL.mask + 1 + stream.next_u32() % words)
            .collect();
        (ids[0], ids[LENGTH - 1]) = (SPECIAL.cls, SPECIAL.sep);
        sequences.push(&ids);
    }
    sequences.set_labels((0..SEQUENCES).map(|index| (index % CLASSES) as u32).collect())?;
    Ok(sequences)
}
