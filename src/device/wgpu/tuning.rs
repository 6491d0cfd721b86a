//! Which variant of a kernel a launch takes: the fastest one on this adapter at this shape, measured once and kept.
//!
//! A measurement runs the launch on scratch buffers of zeros, so it touches nothing of the device's. Kernels whose work
//! follows from the contents of a tensor must therefore have one variant. Rows that are counted per step are rounded up to
//! a power of two for the key: plans of similar size share their measurements. All variants give the same bits; what is
//! kept here decides about time alone.
//!
//! The file is JSON, adapter -> launch -> variant and what was measured, and may be edited: what it says is taken.
//!
//! ```text
//! { "NVIDIA ..., Vulkan, 550.54": { "gemm.forward rows=4096 n=384 k=128 #1a2b3c4d":
//!     { "variant": "128x64", "microseconds": { "64x64": 51.2, "128x64": 40.9, ... } } } }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::adapter::{Shared, backend};
use super::dispatch;
use super::pipeline::{Pipeline, pipeline, source};
use super::program::{Bound, LoadedLaunch, Tensor, bind, constants, uniform};
use crate::atomic;
use crate::device::DeviceError;
use crate::kernel::{Count, Extent, Grid, Kernel, Source, StepParams, Variant};
use crate::plan::{ALIGN, Launch, Plan};

/// What a measurement of one variant is to take; a variant that needs longer runs once.
const LONG_ENOUGH: Duration = Duration::from_millis(4);
/// Tells one text of a shader from another.
static CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
/// Most dispatches of one measurement.
const MOST_DISPATCHES: u32 = 64;

/// Which variant of each kernel a device launches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Variants {
    /// The first, which every adapter can run.
    #[default]
    First,
    /// The one with this number, or the last: tests walk through them with it.
    Nth(usize),
    /// The pinned one, else the fastest.
    Measured {
        /// Where measurements are kept; nowhere: they are made for each device anew.
        file: Option<PathBuf>,
        /// Names of kernels, or of all kernels of an op, and of their variants.
        pins: Vec<(String, String)>,
    },
}

/// What was measured on an adapter, by launch.
type Measurements = BTreeMap<String, Entry>;

/// One launch's entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    variant: String,
    microseconds: BTreeMap<String, f64>,
}

/// A device's choice of variants.
pub(super) struct Tuning {
    variants: Variants,
    /// By adapter.
    table: BTreeMap<String, Measurements>,
    /// Launches measured for this device.
    measured: BTreeSet<String>,
    /// Launches whose variant was known before.
    known: usize,
    unsaved: Option<String>,
}

impl Variants {
    /// The choice that a user writes: `first`, `measured`, or pins such as `gemm=64x64,gemm.forward=128x128`, of which the
    /// last that fits counts. Measurements are kept in `file`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, file: Option<PathBuf>) -> Result<Variants, String> {
        let pin = |part: &str| match part.split_once('=') {
            Some((kernel, variant)) if !kernel.is_empty() && !variant.is_empty() => {
                Ok((kernel.to_owned(), variant.to_owned()))
            }
            _ => Err(format!(
                "\"{part}\" is not first, measured or KERNEL=VARIANT (docs/ops.md has their names)"
            )),
        };
        match text {
            "first" => Ok(Variants::First),
            "" | "measured" => Ok(Variants::Measured { file, pins: Vec::new() }),
            pins => Ok(Variants::Measured {
                file,
                pins: pins.split(',').map(|part| pin(part.trim())).collect::<Result<_, _>>()?,
            }),
        }
    }
}

impl Tuning {
    /// Reads what is known.
    ///
    /// # Errors
    /// [`DeviceError::Backend`] for a file that cannot be read or understood.
    pub fn new(variants: &Variants) -> Result<Tuning, DeviceError> {
        let table = match variants {
            Variants::Measured { file: Some(file), .. } => read(file)?,
            _ => BTreeMap::new(),
        };
        Ok(Tuning {
            variants: variants.clone(),
            table,
            measured: BTreeSet::new(),
            known: 0,
            unsaved: None,
        })
    }

    /// The variant of each launch of a plan; measures those that nobody knows.
    ///
    /// # Errors
    /// [`DeviceError::Backend`] for a pinned variant that a kernel does not have; failures of the measurement.
    pub fn choose(&mut self, shared: &Shared, plan: &Plan) -> Result<Vec<usize>, DeviceError> {
        let before = self.measured.len();
        let mut chosen = Vec::with_capacity(plan.launches.len());
        for launch in &plan.launches {
            let source = source(launch.kernel)?;
            chosen.push(match &self.variants {
                _ if source.variants.len() == 1 => 0,
                Variants::First => 0,
                Variants::Nth(index) => (*index).min(source.variants.len() - 1),
                Variants::Measured { pins, .. } => match pinned(pins, launch.kernel, source)? {
                    Some(index) => index,
                    None => self.known_or_measured(shared, plan, launch, source)?,
                },
            });
        }
        if self.measured.len() > before {
            self.keep();
        }
        Ok(chosen)
    }

    /// What was decided, for people; `None` where nothing was.
    pub fn remark(&self) -> Option<String> {
        let Variants::Measured { file, .. } = &self.variants else {
            return None;
        };
        let place = file
            .as_ref()
            .map_or("nowhere".to_owned(), |file| file.display().to_string());
        let mut remark = match (self.measured.len(), self.known) {
            (0, 0) => return None,
            (0, known) => format!("kernel variants: {known} launches as measured before ({place})"),
            (measured, known) => {
                format!("kernel variants: {measured} launches measured now, {known} as measured before ({place})")
            }
        };
        if let Some(unsaved) = &self.unsaved {
            remark += &format!("; not kept: {unsaved}");
        }
        Some(remark)
    }

    fn known_or_measured(
        &mut self,
        shared: &Shared,
        plan: &Plan,
        launch: &Launch,
        source: &'static Source,
    ) -> Result<usize, DeviceError> {
        let adapter = format!("{}, {}, {}", shared.info.name, shared.info.api, shared.info.driver);
        let key = key(launch, source);
        let of_adapter = self.table.entry(adapter).or_default();
        let position = |name: &str| source.variants.iter().position(|variant| variant.name == name);
        if let Some(index) = of_adapter.get(&key).and_then(|entry| position(&entry.variant)) {
            self.known += usize::from(!self.measured.contains(&key));
            return Ok(index);
        }
        let (index, entry) = measure(shared, plan, launch, source)?;
        of_adapter.insert(key.clone(), entry);
        self.measured.insert(key);
        Ok(index)
    }

    /// Writes the file. A disk that takes none costs the next run a measurement and nothing else, so it is only remarked.
    fn keep(&mut self) {
        let Variants::Measured { file: Some(file), .. } = &self.variants else {
            return;
        };
        let written = file.parent().map_or(Ok(()), atomic::make_directory).and_then(|()| {
            atomic::write_with(file, |out| {
                serde_json::to_writer_pretty(&mut *out, &self.table)?;
                out.write_all(b"\n")
            })
        });
        self.unsaved = written.err().map(|error| error.to_string());
    }
}

fn read(file: &Path) -> Result<BTreeMap<String, Measurements>, DeviceError> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text.map_err(|error| backend(format!("cannot read {}: {error}", file.display())))?,
    };
    serde_json::from_str(&text).map_err(|error| {
        backend(format!(
            "{}: {error}; correct the measured variants there, or delete the file",
            file.display()
        ))
    })
}

/// The variant that the last fitting pin names.
fn pinned(
    pins: &[(String, String)],
    kernel: &'static Kernel,
    source: &'static Source,
) -> Result<Option<usize>, DeviceError> {
    let fits = |name: &str| {
        let rest = kernel.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let Some((_, name)) = pins.iter().rev().find(|(kernel, _)| fits(kernel)) else {
        return Ok(None);
    };
    let index = source.variants.iter().position(|variant| variant.name == name);
    index.map(Some).ok_or_else(|| {
        let names: Vec<_> = source.variants.iter().map(|variant| variant.name).collect();
        backend(format!(
            "{} has no variant {name}; it has {}",
            kernel.name,
            names.join(", ")
        ))
    })
}

/// The launch's kernel, sizes and text: an entry made with another text is not found.
fn key(launch: &Launch, source: &Source) -> String {
    let sizes: Vec<String> = launch.dims.extents().iter().map(size).collect();
    let text = CHECKSUM.checksum(source.file.text.as_bytes());
    format!("{} {} #{text:08x}", launch.kernel.name, sizes.join(" "))
}

fn size(&(symbol, extent): &(&'static str, Extent)) -> String {
    let size = match extent.count {
        Count::Fixed => extent.capacity,
        _ => extent.capacity.next_power_of_two(),
    };
    format!("{symbol}={size}")
}

/// The fastest variant of a launch, and what all of them took.
fn measure(
    shared: &Shared,
    plan: &Plan,
    launch: &Launch,
    source: &'static Source,
) -> Result<(usize, Entry), DeviceError> {
    let words: Vec<usize> = launch.values.iter().map(|&value| plan.place(value).words).collect();
    let scratch = Scratch::new(shared, words)?;
    let mut microseconds = BTreeMap::new();
    let mut best = (0, Duration::MAX);
    for (index, variant) in source.variants.iter().enumerate() {
        if index > 0 && !fits(shared, variant) {
            continue;
        }
        let pipeline = pipeline(shared, launch.kernel, index, &launch.dims)?;
        let grid = source.workgroups(launch.kernel, &launch.dims, variant);
        let time = time(shared, &scratch.bind(shared, launch, &pipeline, grid)?)?;
        microseconds.insert(variant.name.to_owned(), (time.as_nanos() as f64 / 100.0).round() / 10.0);
        if time < best.1 {
            best = (index, time);
        }
    }
    let variant = source.variants[best.0].name.to_owned();
    Ok((best.0, Entry { variant, microseconds }))
}

fn fits(shared: &Shared, variant: &Variant) -> bool {
    variant.threads <= shared.limits.max_compute_invocations_per_workgroup
}

/// Buffers of zeros for a launch's tensors, and scalars that say that all rows are live.
struct Scratch {
    tensors: Vec<(wgpu::Buffer, usize)>,
    step: wgpu::Buffer,
}

impl Scratch {
    fn new(shared: &Shared, words: Vec<usize>) -> Result<Scratch, DeviceError> {
        let mut tensors = Vec::with_capacity(words.len());
        for words in words {
            let buffer = shared.watched("scratch for measuring", || {
                shared.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("scratch"),
                    size: 4 * words.next_multiple_of(ALIGN).max(ALIGN) as u64,
                    usage: wgpu::BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            })?;
            tensors.push((buffer, words.max(1)));
        }
        let all = StepParams {
            tokens: u32::MAX,
            sequences: u32::MAX,
            masked: u32::MAX,
            buckets: u32::MAX,
            ..StepParams::default()
        };
        let step = uniform(shared, "scalars for measuring", all.words())?;
        Ok(Scratch { tensors, step })
    }

    fn bind(
        &self,
        shared: &Shared,
        launch: &Launch,
        pipeline: &Pipeline,
        grid: Grid,
    ) -> Result<LoadedLaunch, DeviceError> {
        let block = uniform(shared, "constants for measuring", &constants(launch, pipeline))?;
        let tensors: Vec<Tensor> = self
            .tensors
            .iter()
            .map(|(buffer, words)| Tensor {
                buffer,
                offset: 0,
                words: *words,
            })
            .collect();
        let bound = Bound {
            step: &self.step,
            constants: (&block, 0),
            tensors: &tensors,
            empty: &self.step,
        };
        bind(shared, launch, pipeline, &bound, grid)
    }
}

/// Time of one dispatch: the better of two measurements after a first run that the driver may use to finish compiling.
fn time(shared: &Shared, loaded: &LoadedLaunch) -> Result<Duration, DeviceError> {
    let run = |dispatches: u32| -> Result<Duration, DeviceError> {
        let mut encoder = shared.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..dispatches {
            dispatch(&mut pass, loaded);
        }
        drop(pass);
        let start = Instant::now();
        let submission = shared.queue.submit([encoder.finish()]);
        shared.wait(Some(submission))?;
        Ok(start.elapsed())
    };
    run(1)?;
    let once = run(1)?;
    let dispatches = (LONG_ENOUGH.as_nanos() / once.as_nanos().max(1)).min(u128::from(MOST_DISPATCHES)) as u32;
    if dispatches < 2 {
        return Ok(once);
    }
    Ok(run(dispatches)?.min(run(dispatches)?) / dispatches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gemm::{BACKWARD_WEIGHT, FORWARD};

    #[test]
    fn the_last_fitting_pin_counts_and_a_name_that_no_variant_has_is_an_error() {
        let choice = Variants::parse("gemm=64x64, gemm.forward=128x128", None).unwrap();
        let Variants::Measured { pins, .. } = choice else {
            panic!("pins leave the rest measured")
        };
        let of = |kernel: &'static Kernel| pinned(&pins, kernel, kernel.wgsl.as_ref().unwrap()).unwrap().unwrap();
        let name = |kernel: &'static Kernel| kernel.wgsl.unwrap().variants[of(kernel)].name;
        assert_eq!((name(&FORWARD), name(&BACKWARD_WEIGHT)), ("128x128", "64x64"));
        let wrong = [("gemm.forward".to_owned(), "9x9".to_owned())];
        let error = pinned(&wrong, &FORWARD, FORWARD.wgsl.as_ref().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("no variant 9x9; it has 64x64, 128x64"),
            "{error}"
        );
        let other = [("gem".to_owned(), "9x9".to_owned())];
        assert_eq!(pinned(&other, &FORWARD, FORWARD.wgsl.as_ref().unwrap()).unwrap(), None);
        assert!(
            Variants::parse("fastest", None)
                .unwrap_err()
                .contains("\"fastest\" is not first")
        );
    }
}
