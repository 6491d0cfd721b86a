//! From the user's choice to an opened device, with the reason for the decision.

use std::path::PathBuf;

use super::choice::DeviceChoice;
use super::cpu::CpuDevice;
use super::null::NullDevice;
use super::wgpu::{Adapter, Choice, Variants, WgpuDevice};
use super::{Device, DeviceError, Sizes};

/// Environment variable that chooses kernel variants: `measured` (also without it), `first`, or pins `KERNEL=VARIANT,...`.
pub const VARIANTS: &str = "TLM_VARIANTS";
/// Environment variable that names the directory where measurements are kept, instead of the user's cache directory.
pub const CACHE: &str = "TLM_CACHE";

/// An opened device and one line that says what was chosen and why.
pub struct Opened {
    /// The device.
    pub device: Box<dyn Device>,
    /// Why this one.
    why: String,
}

impl Opened {
    /// The device, why it was chosen, and what the plans loaded so far decided: one line for people.
    pub fn decision(&self) -> String {
        let mut decision = format!("{} ({})", self.device.describe(), self.why);
        if let Some(remark) = self.device.remark() {
            decision += "; ";
            decision += &remark;
        }
        decision
    }
}

/// Opens the device of a choice. `auto` takes a hardware GPU through WebGPU where there is one, else the CPU; a software
/// adapter is only taken when its number is given.
///
/// # Errors
/// [`DeviceError`] with what is missing.
pub fn open(choice: DeviceChoice, sizes: Sizes) -> Result<Opened, DeviceError> {
    let cpu = |sizes| CpuDevice::new(sizes, rayon::current_num_threads());
    let wgpu = |choice, sizes| -> Result<Box<dyn Device>, DeviceError> {
        let variants = variants()?;
        Ok(Box::new(WgpuDevice::new(
            &Adapter::open(choice, false)?,
            sizes,
            &variants,
        )?))
    };
    let (device, why): (Box<dyn Device>, String) = match choice {
        DeviceChoice::Auto => match wgpu(Choice::Hardware, sizes) {
            Ok(device) => (device, "chosen by `auto`: the first GPU".to_string()),
            Err(DeviceError::NoAdapter { .. }) => {
                let why = "chosen by `auto`: no GPU that WebGPU can use";
                (Box::new(cpu(sizes)?), why.to_string())
            }
            Err(error) => {
                let why = format!("chosen by `auto`: the GPU cannot be used: {error}");
                (Box::new(cpu(sizes)?), why)
            }
        },
        DeviceChoice::Cpu => (Box::new(cpu(sizes)?), "as asked".to_string()),
        DeviceChoice::Null => (Box::new(NullDevice::new(sizes)), "as asked".to_string()),
        DeviceChoice::Wgpu(number) => {
            let choice = number.map_or(Choice::Hardware, Choice::Index);
            (wgpu(choice, sizes)?, "as asked".to_string())
        }
        DeviceChoice::Cuda(_) => {
            return Err(DeviceError::Backend {
                backend: "cuda",
                what: "this version compiles CUDA kernels but cannot launch them; use --device cpu or wgpu".to_string(),
            });
        }
    };
    Ok(Opened { device, why })
}

/// The variants that the environment asks for.
fn variants() -> Result<Variants, DeviceError> {
    let text = std::env::var(VARIANTS).unwrap_or_default();
    let directory = match std::env::var_os(CACHE) {
        Some(directory) => Some(PathBuf::from(directory)),
        None => dirs::cache_dir().map(|directory| directory.join("tlm")),
    };
    let file = directory.map(|directory| directory.join("wgpu-variants.json"));
    Variants::parse(&text, file).map_err(|what| DeviceError::Backend {
        backend: "wgpu",
        what: format!("{VARIANTS}: {what}"),
    })
}
