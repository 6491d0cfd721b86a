//! Which device a user asks for: `auto`, `cpu`, `wgpu[:N]`, `cuda[:N]`, `null`; and in which precision.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::kernel::Precision;

/// Where to compute, as asked for on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA, else a hardware GPU through wgpu, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The N-th adapter of wgpu, or its best hardware adapter.
    Wgpu(Option<usize>),
    /// The N-th CUDA device, or the first.
    Cuda(Option<usize>),
    /// Nothing is allocated, nothing runs.
    Null,
}

/// How activations are to be stored, as asked for in a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// What the device computes fastest with: bf16 or f16 on CUDA's matrix units, f32 elsewhere.
    #[default]
    Auto,
    /// [`Precision::F32`].
    F32,
    /// [`Precision::F16`].
    F16,
    /// [`Precision::Bf16`].
    Bf16,
}

impl PrecisionChoice {
    /// The precision asked for; `fastest` where the choice is left to the device.
    #[must_use]
    pub fn or(self, fastest: Precision) -> Precision {
        match self {
            PrecisionChoice::Auto => fastest,
            PrecisionChoice::F32 => Precision::F32,
            PrecisionChoice::F16 => Precision::F16,
            PrecisionChoice::Bf16 => Precision::Bf16,
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let expected = || format!("unknown device \"{text}\": use auto, cpu, wgpu, wgpu:N, cuda, cuda:N or null");
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number.parse::<usize>().map_err(|_| expected())?)),
            None => (text, None),
        };
        match (name, number) {
            ("auto", None) => Ok(DeviceChoice::Auto),
            ("cpu", None) => Ok(DeviceChoice::Cpu),
            ("wgpu", number) => Ok(DeviceChoice::Wgpu(number)),
            ("cuda", number) => Ok(DeviceChoice::Cuda(number)),
            ("null", None) => Ok(DeviceChoice::Null),
            _ => Err(expected()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Wgpu(None) => f.write_str("wgpu"),
            DeviceChoice::Wgpu(Some(number)) => write!(f, "wgpu:{number}"),
            DeviceChoice::Cuda(None) => f.write_str("cuda"),
            DeviceChoice::Cuda(Some(number)) => write!(f, "cuda:{number}"),
            DeviceChoice::Null => f.write_str("null"),
        }
    }
}
