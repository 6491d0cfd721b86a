//! From the user's choice to an opened device, with the reason for the decision.

use std::path::PathBuf;

use super::choice::{DeviceChoice, PrecisionChoice};
use super::cpu::CpuDevice;
use super::cuda::{CudaDevice, DRIVER, Gpu};
use super::null::NullDevice;
use super::wgpu::{Adapter, Choice, WgpuDevice};
use super::{Device, DeviceError, Sizes, Variants};
use crate::kernel::{Kernel, Precision};
use crate::plan::Limits;

/// Environment variable that chooses kernel variants: `measured` (also without it), `first`, or pins `KERNEL=VARIANT,...`.
pub const VARIANTS: &str = "TLM_VARIANTS";
/// Environment variable that names the directory where measurements are kept, instead of the user's cache directory.
pub const CACHE: &str = "TLM_CACHE";

/// Environment variable: `off` launches CUDA's kernels one by one instead of replaying a captured graph, to find out which
/// kernel a failure belongs to.
pub const CUDA_GRAPH: &str = "TLM_CUDA_GRAPH";

/// A chosen device before its buffers are allocated: plans are recorded for its limits, and their sizes open it, as often as
/// one likes. Driver, compiler and compiled kernels are shared by what it opens.
#[derive(Clone)]
pub struct Target {
    hardware: Hardware,
    why: String,
}

#[derive(Clone)]
enum Hardware {
    Cpu,
    Null,
    Wgpu(Adapter, Variants),
    Cuda(Gpu, Variants),
}

/// An opened device and why it was chosen.
pub struct Opened {
    /// The device.
    pub device: Box<dyn Device>,
    why: String,
}

impl Target {
    /// The device of a choice. `auto` takes an NVIDIA GPU through CUDA, else a hardware GPU through WebGPU, else the CPU,
    /// and says what kept it from each; a software adapter is only taken when its number is given.
    ///
    /// # Errors
    /// [`DeviceError`] with what is missing.
    pub fn of(choice: DeviceChoice) -> Result<Target, DeviceError> {
        let hardware = match choice {
            DeviceChoice::Auto => return Target::automatic(),
            DeviceChoice::Cpu => Hardware::Cpu,
            DeviceChoice::Null => Hardware::Null,
            DeviceChoice::Wgpu(number) => {
                let choice = number.map_or(Choice::Hardware, Choice::Index);
                Hardware::Wgpu(Adapter::open(choice, false)?, variants("wgpu")?)
            }
            DeviceChoice::Cuda(number) => {
                let gpu = Gpu::open(number.unwrap_or(0), cache().map(|directory| directory.join("cuda")))?;
                Hardware::Cuda(gpu, variants("cuda")?)
            }
        };
        let why = "as asked".to_owned();
        Ok(Target { hardware, why })
    }

    fn automatic() -> Result<Target, DeviceError> {
        let mut because = Vec::new();
        match Target::of(DeviceChoice::Cuda(None)) {
            Ok(target) => {
                return Ok(Target {
                    why: "chosen by `auto`: the first NVIDIA GPU".to_owned(),
                    ..target
                });
            }
            // The usual machine has none: nothing to explain.
            Err(DeviceError::Library { library: DRIVER, .. }) => (),
            Err(error) => because.push(format!("CUDA cannot be used: {error}")),
        }
        match Target::of(DeviceChoice::Wgpu(None)) {
            Ok(target) => {
                because.insert(0, "the first GPU".to_owned());
                return Ok(Target {
                    why: format!("chosen by `auto`: {}", because.join("; ")),
                    ..target
                });
            }
            Err(DeviceError::NoAdapter { .. }) => because.push("no GPU that WebGPU can use".to_owned()),
            Err(error) => because.push(format!("the GPU cannot be used: {error}")),
        }
        Ok(Target {
            hardware: Hardware::Cpu,
            why: format!("chosen by `auto`: {}", because.join("; ")),
        })
    }

    /// Whether it is the device that runs nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.hardware, Hardware::Null)
    }

    /// Whether it is this machine's processor.
    pub fn is_cpu(&self) -> bool {
        matches!(self.hardware, Hardware::Cpu)
    }

    /// The same with other kernel variants than the environment asks for.
    pub fn with_variants(mut self, chosen: Variants) -> Target {
        if let Hardware::Wgpu(_, variants) | Hardware::Cuda(_, variants) = &mut self.hardware {
            *variants = chosen;
        }
        self
    }

    /// How many variants a kernel has where its elements are stored like this; one on the CPU.
    pub fn variants(&self, kernel: &'static Kernel, precision: Precision) -> usize {
        let source = match &self.hardware {
            Hardware::Cpu | Hardware::Null => None,
            Hardware::Wgpu(..) => kernel.wgsl.as_ref(),
            Hardware::Cuda(..) => kernel.cuda.as_ref(),
        };
        source.map_or(1, |source| source.storing(precision).variants.len())
    }

    /// Whether [`Variants::Vendor`] means another program than the kernels' own on it.
    pub fn has_vendor(&self) -> bool {
        matches!(&self.hardware, Hardware::Cuda(gpu, _) if gpu.has_cublaslt())
    }

    /// What it can hold in one piece.
    pub fn limits(&self) -> Limits {
        match &self.hardware {
            Hardware::Cpu | Hardware::Null | Hardware::Cuda(..) => Limits::default(),
            Hardware::Wgpu(adapter, _) => adapter.limits(),
        }
    }

    /// The precision of plans for it.
    ///
    /// # Errors
    /// [`DeviceError::Precision`] for one that it does not compute with.
    pub fn precision(&self, choice: PrecisionChoice) -> Result<Precision, DeviceError> {
        let precision = choice.or(match &self.hardware {
            Hardware::Cuda(gpu, _) => gpu.info().fastest(),
            _ => Precision::F32,
        });
        let (has, device, available) = match &self.hardware {
            Hardware::Cpu => (precision == Precision::F32, "the CPU".to_owned(), "f32"),
            Hardware::Null => (true, "null".to_owned(), "everything"),
            Hardware::Wgpu(adapter, _) => (
                adapter.stores(precision),
                adapter.info().to_string(),
                adapter.precisions(),
            ),
            Hardware::Cuda(gpu, _) => (
                gpu.info().stores(precision),
                gpu.info().to_string(),
                gpu.info().precisions(),
            ),
        };
        match has {
            true => Ok(precision),
            false => Err(DeviceError::Precision {
                what: "model.precision".to_owned(),
                precision: precision.name(),
                device,
                available,
            }),
        }
    }

    /// Allocates the buffers.
    ///
    /// # Errors
    /// [`DeviceError`] for a device that is too small or cannot be used.
    pub fn open(&self, sizes: Sizes) -> Result<Opened, DeviceError> {
        let device: Box<dyn Device> = match &self.hardware {
            Hardware::Cpu => Box::new(CpuDevice::new(sizes, rayon::current_num_threads())?),
            Hardware::Null => Box::new(NullDevice::new(sizes)),
            Hardware::Wgpu(adapter, variants) => Box::new(WgpuDevice::new(adapter, sizes, variants)?),
            Hardware::Cuda(gpu, variants) => Box::new(CudaDevice::new(gpu, sizes, variants, graphs()?)?),
        };
        Ok(Opened {
            device,
            why: self.why.clone(),
        })
    }
}

impl Opened {
    /// The device, how its plans store activations, why it was chosen, and what the plans loaded so far decided: one line
    /// for people.
    pub fn decision(&self, precision: Precision) -> String {
        let mut decision = format!("{}, {} ({})", self.device.describe(), precision.name(), self.why);
        if let Some(remark) = self.device.remark() {
            decision += "; ";
            decision += &remark;
        }
        decision
    }
}

/// Where measurements and compiled kernels are kept.
pub fn cache() -> Option<PathBuf> {
    match std::env::var_os(CACHE) {
        Some(directory) => Some(PathBuf::from(directory)),
        None => dirs::cache_dir().map(|directory| directory.join("tlm")),
    }
}

/// The variants that the environment asks for.
fn variants(backend: &'static str) -> Result<Variants, DeviceError> {
    let text = std::env::var(VARIANTS).unwrap_or_default();
    let file = cache().map(|directory| directory.join(format!("{backend}-variants.json")));
    Variants::parse(&text, file).map_err(|what| DeviceError::Backend {
        backend,
        what: format!("{VARIANTS}: {what}"),
    })
}

/// Whether the environment leaves CUDA's graphs on.
fn graphs() -> Result<bool, DeviceError> {
    match std::env::var(CUDA_GRAPH).as_deref() {
        Ok("off") => Ok(false),
        Ok("on" | "") | Err(_) => Ok(true),
        Ok(other) => Err(DeviceError::Backend {
            backend: "cuda",
            what: format!("{CUDA_GRAPH} is \"{other}\"; it may be on or off"),
        }),
    }
}
