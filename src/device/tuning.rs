//! Which variant of a kernel a launch takes: the fastest one on this adapter at this shape, measured once and kept.
//!
//! Both GPU backends choose in this way; each has its own file and its own way to time a launch ([`Trial`]).
//!
//! A measurement runs the launch on scratch buffers of zeros, so it touches nothing of the device's. Kernels whose work
//! follows from the contents of a tensor must therefore have one variant. Rows that are counted per step are rounded up to
//! a power of two for the key: plans of similar size share their measurements. All variants that are measured give the same
//! bits; what is kept here decides about time alone. The product of a vendor's library gives others, so only a pin takes it.
//!
//! The file is JSON, adapter -> launch -> variant and what was measured, and may be edited: what it says is taken.
//!
//! ```text
//! { "NVIDIA ..., Vulkan, 550.54": { "gemm.forward rows=4096 n=384 k=128 #1a2b3c4d":
//!     { "variant": "128x64", "microseconds": { "64x64": 51.2, "128x64": 40.9, ... } } } }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::DeviceError;
use crate::atomic;
use crate::kernel::{Count, Extent, Kernel, Source, Variant};
use crate::plan::{Launch, Plan};

/// What a measurement of one variant is to take; a variant that needs longer runs once.
const LONG_ENOUGH: Duration = Duration::from_millis(4);
/// Tells one text of a kernel from another.
static CHECKSUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
/// Most launches of one measurement.
const MOST_LAUNCHES: u32 = 64;

/// Which variant of each kernel a device launches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Variants {
    /// The first, which every adapter can run.
    #[default]
    First,
    /// The last up to this number that the adapter can run: tests walk through them with it.
    Nth(usize),
    /// The vendor's library for kernels that are products, where the backend has one; the first of all others.
    Vendor,
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

/// A device on which launches can be tried.
pub(super) trait Trial {
    /// Name and driver: what is measured on one is not known of another.
    fn hardware(&self) -> String;

    /// What runs for a launch.
    ///
    /// # Errors
    /// [`DeviceError::Missing`].
    fn source(&self, launch: &Launch) -> Result<&'static Source, DeviceError>;

    /// Whether the device has what a variant of the launch's kernel needs.
    fn runs(&self, launch: &Launch, source: &Source, variant: &Variant) -> bool;

    /// The time of a launch in each of these variants, on buffers of zeros (`words[i]` for its i-th tensor) and with all
    /// rows live.
    ///
    /// # Errors
    /// Failures of the device.
    fn times(&self, launch: &Launch, words: &[usize], variants: &[usize]) -> Result<Vec<Duration>, DeviceError>;
}

/// A device's choice of variants.
pub(super) struct Tuning {
    backend: &'static str,
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
    pub fn new(variants: &Variants, backend: &'static str) -> Result<Tuning, DeviceError> {
        let table = match variants {
            Variants::Measured { file: Some(file), .. } => {
                read(file).map_err(|what| DeviceError::Backend { backend, what })?
            }
            _ => BTreeMap::new(),
        };
        Ok(Tuning {
            backend,
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
    pub fn choose(&mut self, trial: &dyn Trial, plan: &Plan) -> Result<Vec<usize>, DeviceError> {
        let before = self.measured.len();
        let mut chosen = Vec::with_capacity(plan.launches.len());
        for launch in &plan.launches {
            let source = trial.source(launch)?;
            chosen.push(match &self.variants {
                Variants::Measured { .. } if source.names().nth(1).is_none() => 0,
                Variants::First => 0,
                Variants::Vendor => source.product.map_or(0, |_| source.vendor()),
                Variants::Nth(index) => {
                    let last = (*index).min(source.variants.len() - 1);
                    let runs = |index: &usize| trial.runs(launch, source, &source.variants[*index]);
                    (0..=last).rev().find(runs).unwrap_or(0)
                }
                Variants::Measured { pins, .. } => match self.pinned(pins, launch.kernel, source)? {
                    Some(index) => index,
                    None => self.known_or_measured(trial, plan, launch, source)?,
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
        trial: &dyn Trial,
        plan: &Plan,
        launch: &Launch,
        source: &'static Source,
    ) -> Result<usize, DeviceError> {
        let key = key(launch, source);
        let of_hardware = self.table.entry(trial.hardware()).or_default();
        let position = |name: &str| source.variants.iter().position(|variant| variant.name == name);
        if let Some(index) = of_hardware.get(&key).and_then(|entry| position(&entry.variant)) {
            self.known += usize::from(!self.measured.contains(&key));
            return Ok(index);
        }
        let (index, entry) = measure(trial, plan, launch, source)?;
        of_hardware.insert(key.clone(), entry);
        self.measured.insert(key);
        Ok(index)
    }

    fn pinned(
        &self,
        pins: &[(String, String)],
        kernel: &'static Kernel,
        source: &'static Source,
    ) -> Result<Option<usize>, DeviceError> {
        let backend = self.backend;
        pinned(pins, kernel, source).map_err(|what| DeviceError::Backend { backend, what })
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

fn read(file: &Path) -> Result<BTreeMap<String, Measurements>, String> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text.map_err(|error| format!("cannot read {}: {error}", file.display()))?,
    };
    serde_json::from_str(&text).map_err(|error| {
        format!(
            "{}: {error}; correct the measured variants there, or delete the file",
            file.display()
        )
    })
}

/// The variant that the last fitting pin names.
fn pinned(
    pins: &[(String, String)],
    kernel: &'static Kernel,
    source: &'static Source,
) -> Result<Option<usize>, String> {
    let fits = |name: &str| {
        let rest = kernel.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let Some((_, name)) = pins.iter().rev().find(|(kernel, _)| fits(kernel)) else {
        return Ok(None);
    };
    source.variant(name).map(Some).ok_or_else(|| {
        let names: Vec<_> = source.names().collect();
        format!("{} has no variant {name}; it has {}", kernel.name, names.join(", "))
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
    trial: &dyn Trial,
    plan: &Plan,
    launch: &Launch,
    source: &'static Source,
) -> Result<(usize, Entry), DeviceError> {
    let words: Vec<usize> = launch.values.iter().map(|&value| plan.place(value).words).collect();
    let runs = |index: &usize| *index == 0 || trial.runs(launch, source, &source.variants[*index]);
    let variants: Vec<usize> = (0..source.variants.len()).filter(runs).collect();
    let times = trial.times(launch, &words, &variants)?;
    let name = |index: usize| source.variants[index].name.to_owned();
    let microseconds = |time: &Duration| (time.as_nanos() as f64 / 100.0).round() / 10.0;
    let (best, _) = variants
        .iter()
        .zip(&times)
        .min_by_key(|(_, time)| **time)
        .expect("every kernel has a first variant");
    let measured = variants.iter().zip(&times);
    Ok((
        *best,
        Entry {
            variant: name(*best),
            microseconds: measured
                .map(|(&index, time)| (name(index), microseconds(time)))
                .collect(),
        },
    ))
}

/// The time of one launch: the better of two measurements of as many as take long enough to be measured. `run` makes so
/// many launches and returns when they are done; the first one may include what the driver leaves to it.
///
/// # Errors
/// As `run`.
pub(super) fn time_of_one(run: &mut dyn FnMut(u32) -> Result<Duration, DeviceError>) -> Result<Duration, DeviceError> {
    run(1)?;
    let once = run(1)?;
    let launches = (LONG_ENOUGH.as_nanos() / once.as_nanos().max(1)).min(u128::from(MOST_LAUNCHES)) as u32;
    if launches < 2 {
        return Ok(once);
    }
    Ok(run(launches)?.min(run(launches)?) / launches)
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
        let vendor = [("gemm".to_owned(), "cublaslt".to_owned())];
        let cuda = FORWARD.cuda.as_ref().unwrap();
        assert_eq!(pinned(&vendor, &FORWARD, cuda).unwrap(), Some(cuda.vendor()));
        let error = pinned(&vendor, &FORWARD, FORWARD.wgsl.as_ref().unwrap()).unwrap_err();
        assert!(error.contains("no variant cublaslt"), "{error}");
        let wrong = [("gemm.forward".to_owned(), "9x9".to_owned())];
        let error = pinned(&wrong, &FORWARD, FORWARD.wgsl.as_ref().unwrap()).unwrap_err();
        assert!(error.contains("no variant 9x9; it has 64x64, 128x64"), "{error}");
        let other = [("gem".to_owned(), "9x9".to_owned())];
        assert_eq!(pinned(&other, &FORWARD, FORWARD.wgsl.as_ref().unwrap()).unwrap(), None);
        assert!(
            Variants::parse("fastest", None)
                .unwrap_err()
                .contains("\"fastest\" is not first")
        );
    }
}
