//! NVIDIA's driver and its GPUs, found at run time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError, result, sys};
use serde::Serialize;

use super::cublaslt::CublasLt;
use super::module::Modules;
use super::{BACKEND, Nvrtc};
use crate::device::DeviceError;
use crate::kernel::Precision;

/// The oldest architecture with the kernels' instructions: Turing.
const OLDEST: u32 = 75;
/// The oldest architecture that multiplies bf16: Ampere.
const BF16: u32 = 80;

/// The library that comes with a GPU, in [`DeviceError::Library`].
pub const DRIVER: &str = "NVIDIA driver";

/// One GPU, for people and for the choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuInfo {
    /// Number that the driver gives it.
    pub index: usize,
    /// Name of the hardware.
    pub name: String,
    /// Compute capability as one number: 80 for 8.0.
    pub architecture: u32,
    /// Bytes of memory.
    pub memory: usize,
    /// The driver's version, as that of CUDA up to which it goes: `CUDA 12.4`.
    pub driver: String,
}

impl GpuInfo {
    /// Whether it can store in this precision.
    #[must_use]
    pub fn stores(&self, precision: Precision) -> bool {
        precision != Precision::Bf16 || self.architecture >= BF16
    }

    /// Names of the precisions that it can store in.
    #[must_use]
    pub fn precisions(&self) -> &'static str {
        if self.stores(Precision::Bf16) {
            "f32, f16 and bf16"
        } else {
            "f32 and f16"
        }
    }

    /// The precision in which its matrix units are fast and training is simplest.
    #[must_use]
    pub fn fastest(&self) -> Precision {
        if self.stores(Precision::Bf16) {
            Precision::Bf16
        } else {
            Precision::F16
        }
    }
}

impl std::fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (gib, architecture) = (self.memory as f64 / f64::from(1 << 30), self.architecture);
        let (index, name, driver) = (self.index, &self.name, &self.driver);
        write!(
            f,
            "{index}: {name} (sm_{architecture}, {gib:.0} GiB, driver for {driver})"
        )
    }
}

/// All GPUs that the driver knows.
///
/// # Errors
/// [`DeviceError::Library`] without a driver, [`DeviceError::Backend`] if it fails.
pub fn list() -> Result<Vec<GpuInfo>, DeviceError> {
    start()?;
    let count = result::device::get_count().map_err(|error| failed("counting GPUs", error))?;
    (0..count).map(|index| info(index as usize)).collect()
}

/// Loads and initialises the driver.
fn start() -> Result<(), DeviceError> {
    // SAFETY: loading the driver's library runs the initialisers of NVIDIA's driver and nothing else.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::Library {
            backend: BACKEND,
            library: DRIVER,
            tried: " libcuda.so.1 (nvcuda.dll) on the loader's path".to_owned(),
            remedy: "it comes with the GPU's driver package, not with a toolkit; without an NVIDIA GPU use --device wgpu or cpu",
        });
    }
    result::init().map_err(|error| failed("the NVIDIA driver is there, but its start", error))
}

fn info(index: usize) -> Result<GpuInfo, DeviceError> {
    let read = || -> Result<GpuInfo, DriverError> {
        let device = result::device::get(index as i32)?;
        let mut driver = 0;
        // SAFETY: the driver is loaded, and writes one number.
        unsafe { sys::cuDriverGetVersion(&mut driver) }.result()?;
        // SAFETY: the driver has just given the handle.
        let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(GpuInfo {
            index,
            name: result::device::get_name(device)?,
            architecture: (10 * major + minor) as u32,
            // SAFETY: the driver has just given the handle.
            memory: unsafe { result::device::total_mem(device) }?,
            driver: format!("CUDA {}.{}", driver / 1000, driver % 1000 / 10),
        })
    };
    read().map_err(|error| failed(&format!("asking for GPU {index}"), error))
}

/// An opened GPU: what its devices share.
#[derive(Clone)]
pub struct Gpu {
    pub(super) shared: Arc<Shared>,
}

/// What all devices of a GPU share.
pub(super) struct Shared {
    pub info: GpuInfo,
    pub context: Arc<CudaContext>,
    pub nvrtc: Nvrtc,
    /// Bytes of shared memory that a block may ask for.
    pub shared_memory: u32,
    /// Where compiled kernels are kept.
    pub cache: Option<PathBuf>,
    /// Whether the driver takes PTX alone, as one that emulates a GPU does.
    pub wants_ptx: AtomicBool,
    pub modules: Mutex<Modules>,
    /// The file of the vendor's library of products, if it is not to be looked for.
    pub cublaslt: Option<PathBuf>,
}

impl Gpu {
    /// Opens a GPU and the compiler. Compiled kernels are kept in `cache`.
    ///
    /// # Errors
    /// [`DeviceError::Library`] without driver or compiler, [`DeviceError::Limit`] for a GPU that is too old,
    /// [`DeviceError::Backend`] for a number that no GPU has and failures of the driver.
    pub fn open(index: usize, cache: Option<PathBuf>) -> Result<Gpu, DeviceError> {
        let gpus = list()?;
        let Some(info) = gpus.get(index).cloned() else {
            let found: String = gpus.iter().map(|gpu| format!("\n  {gpu}")).collect();
            let found = if gpus.is_empty() { " none".to_owned() } else { found };
            return Err(DeviceError::Backend {
                backend: BACKEND,
                what: format!("there is no GPU {index}; the driver has:{found}"),
            });
        };
        if info.architecture < OLDEST {
            return Err(DeviceError::Backend {
                backend: BACKEND,
                what: format!("{info} is too old: sm_{OLDEST} (Turing) or newer is needed; use --device wgpu"),
            });
        }
        let context = CudaContext::new(index).map_err(|error| failed(&format!("opening {info}"), error))?;
        let most = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        Ok(Gpu {
            shared: Arc::new(Shared {
                shared_memory: most.map_err(|error| failed("asking for shared memory", error))? as u32,
                info,
                context,
                nvrtc: Nvrtc::find()?,
                cache,
                wants_ptx: AtomicBool::new(false),
                modules: Mutex::new(HashMap::new()),
                cublaslt: None,
            }),
        })
    }

    /// The same with the vendor's library of products in a file, in place of the one that is found.
    ///
    /// # Panics
    /// If a device was made of it before.
    #[must_use]
    pub fn with_cublaslt(mut self, file: PathBuf) -> Gpu {
        let shared = Arc::get_mut(&mut self.shared).expect("no device uses it yet");
        shared.cublaslt = Some(file);
        self
    }

    /// Whether the vendor's library of products is there and starts.
    #[must_use]
    pub fn has_cublaslt(&self) -> bool {
        let bound = self.shared.context.bind_to_thread();
        bound.is_ok() && CublasLt::open(self.shared.cublaslt.as_deref()).is_ok()
    }

    /// What was opened.
    #[must_use]
    pub fn info(&self) -> &GpuInfo {
        &self.shared.info
    }
}

/// What the driver said to a call.
pub(super) fn failed(call: &str, error: DriverError) -> DeviceError {
    let words = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| format!("{:?}", error.0), |text| text.to_string_lossy().into_owned())
    };
    let what = format!("{call}: {}: {}", words(error.error_name()), words(error.error_string()));
    match error.0 {
        sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | sys::CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | sys::CUresult::CUDA_ERROR_LAUNCH_FAILED
        | sys::CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | sys::CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION => DeviceError::Lost {
            backend: BACKEND,
            what: format!("{what} (which kernel: run with TLM_CUDA_GRAPH=off and CUDA_LAUNCH_BLOCKING=1)"),
        },
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => DeviceError::OutOfMemory { backend: BACKEND, what },
        _ => DeviceError::Backend { backend: BACKEND, what },
    }
}
