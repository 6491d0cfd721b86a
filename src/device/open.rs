//! From the user's choice to an opened device, with the reason for the decision.

use super::choice::DeviceChoice;
use super::cpu::CpuDevice;
use super::null::NullDevice;
use super::wgpu::{Adapter, Choice, Variants, WgpuDevice};
use super::{Device, DeviceError, Sizes};

/// An opened device and one line that says what was chosen and why.
pub struct Opened {
    /// The device.
    pub device: Box<dyn Device>,
    /// For people.
    pub decision: String,
}

/// Opens the device of a choice. `auto` takes the CPU as long as neither GPU backend has every kernel of a training
/// step; a software adapter is only taken when its number is given.
///
/// # Errors
/// [`DeviceError`] with what is missing.
pub fn open(choice: DeviceChoice, sizes: Sizes) -> Result<Opened, DeviceError> {
    let cpu = |sizes| CpuDevice::new(sizes, rayon::current_num_threads());
    let (device, why): (Box<dyn Device>, &str) = match choice {
        DeviceChoice::Auto => {
            let why = "chosen by `auto`: the GPU backends do not have every kernel of a training step yet";
            (Box::new(cpu(sizes)?), why)
        }
        DeviceChoice::Cpu => (Box::new(cpu(sizes)?), "as asked"),
        DeviceChoice::Null => (Box::new(NullDevice::new(sizes)), "as asked"),
        DeviceChoice::Wgpu(number) => {
            let choice = number.map_or(Choice::Hardware, Choice::Index);
            let adapter = Adapter::open(choice, false)?;
            (Box::new(WgpuDevice::new(&adapter, sizes, Variants::First)?), "as asked")
        }
        DeviceChoice::Cuda(_) => {
            return Err(DeviceError::Backend {
                backend: "cuda",
                what: "this version compiles CUDA kernels but cannot launch them; use --device cpu".to_string(),
            });
        }
    };
    let decision = format!("{} ({why})", device.describe());
    Ok(Opened { device, decision })
}
