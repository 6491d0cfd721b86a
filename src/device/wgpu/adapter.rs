//! Adapters: what WebGPU finds on this machine, which one to use, and an opened one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lanes::lanes;
use super::pipeline::Pipelines;
use super::shader::BACKEND;
use crate::device::DeviceError;
use crate::kernel::{Precision, Variant};
use crate::plan::{ALIGN, Limits};

/// What an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU lent by a hypervisor.
    Virtual,
    /// A driver that computes on the processor (lavapipe, SwiftShader, WARP): for tests, slower than the CPU backend.
    Software,
    /// The driver does not say.
    Unknown,
}

/// One adapter, for people and for the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Position in [`list`].
    pub index: usize,
    /// Name of the hardware.
    pub name: String,
    /// What it is.
    pub kind: AdapterKind,
    /// `Vulkan`, `Metal` or `Dx12`.
    pub api: String,
    /// Driver and its version.
    pub driver: String,
}

impl std::fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AdapterInfo {
            index,
            name,
            kind,
            api,
            driver,
        } = self;
        write!(f, "{index}: {name} ({kind:?}, {api}, {driver})")
    }
}

/// Which adapter to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first discrete GPU, else integrated, virtual, unknown; never a software adapter.
    Hardware,
    /// The first software adapter.
    Software,
    /// The adapter with this number, whatever it is.
    Index(usize),
}

/// All adapters of this machine.
#[must_use]
pub fn list() -> Vec<AdapterInfo> {
    found().iter().map(|(info, _)| info.clone()).collect()
}

/// The adapter that [`Choice::Hardware`] takes.
#[must_use]
pub fn preferred() -> Option<usize> {
    let infos = list();
    choose(&infos.iter().collect::<Vec<_>>(), Choice::Hardware)
}

fn found() -> Vec<(AdapterInfo, wgpu::Adapter)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let describe = |(index, adapter): (usize, wgpu::Adapter)| {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Unknown,
        };
        let info = AdapterInfo {
            index,
            name: info.name,
            kind,
            api: format!("{:?}", info.backend),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        };
        (info, adapter)
    };
    adapters.into_iter().enumerate().map(describe).collect()
}

fn choose(infos: &[&AdapterInfo], choice: Choice) -> Option<usize> {
    let first = |kind: AdapterKind| infos.iter().position(|info| info.kind == kind);
    match choice {
        Choice::Hardware => [
            AdapterKind::Discrete,
            AdapterKind::Integrated,
            AdapterKind::Virtual,
            AdapterKind::Unknown,
        ]
        .into_iter()
        .find_map(first),
        Choice::Software => first(AdapterKind::Software),
        Choice::Index(index) => (index < infos.len()).then_some(index),
    }
}

/// An opened adapter: the connection that devices share, with the pipelines compiled so far.
#[derive(Clone)]
pub struct Adapter {
    pub(super) shared: Arc<Shared>,
    limits: Limits,
}

/// Numbers of the driver's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objects {
    /// Buffers, wgpu's own among them.
    pub buffers: isize,
    /// Bind groups.
    pub bind_groups: isize,
    /// Compute pipelines.
    pub pipelines: isize,
    /// Shader modules.
    pub shader_modules: isize,
    /// Allocations of device memory.
    pub allocations: isize,
}

/// What all devices of an adapter share.
pub(super) struct Shared {
    pub info: AdapterInfo,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    pub timestamps: bool,
    /// Whether shaders can hold 16-bit floats.
    pub half: bool,
    /// Threads that follow each other and surely exchange values inside a subgroup; 1 where none do.
    pub lanes: u32,
    pub checked: bool,
    pub pipelines: Mutex<Pipelines>,
    failures: Arc<Mutex<Failures>>,
}

/// What the driver complained about outside of [`Shared::watched`].
#[derive(Default)]
struct Failures {
    /// The device is gone, for good.
    lost: Option<String>,
    /// The first complaint since the last look; later ones follow from it.
    first: Option<String>,
}

/// What is used where an adapter has it.
const FEATURES: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP);
const NOTING: &str = "nobody panics while noting a failure";

impl Adapter {
    /// Opens an adapter with all its limits. `checked` compiles the shaders with bounds checks, which cost time; results
    /// do not depend on it.
    ///
    /// # Errors
    /// [`DeviceError::NoAdapter`] where the choice finds none, [`DeviceError::Backend`] if the driver refuses.
    pub fn open(choice: Choice, checked: bool) -> Result<Adapter, DeviceError> {
        let mut found = found();
        let infos: Vec<&AdapterInfo> = found.iter().map(|(info, _)| info).collect();
        let index = choose(&infos, choice).ok_or_else(|| DeviceError::NoAdapter {
            asked: match choice {
                Choice::Hardware => "a GPU".to_string(),
                Choice::Software => "a software adapter".to_string(),
                Choice::Index(index) => format!("adapter {index}"),
            },
            found: infos.iter().map(|info| format!("\n  {info}")).collect(),
        })?;
        let (info, adapter) = found.swap_remove(index);
        let timestamps = adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let half = adapter.features().contains(wgpu::Features::SHADER_F16);
        let subgroup = adapter
            .features()
            .contains(wgpu::Features::SUBGROUP)
            .then(|| adapter.get_info().subgroup_min_size);
        let limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("tlm"),
            required_features: adapter.features() & FEATURES,
            required_limits: limits.clone(),
            ..Default::default()
        };
        let opened = pollster::block_on(adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|error| DeviceError::Backend {
            backend: BACKEND,
            what: format!("cannot open {info}: {error}"),
        })?;
        let failures = Arc::new(Mutex::new(Failures::default()));
        let (uncaptured, lost) = (failures.clone(), failures.clone());
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let mut failures = uncaptured.lock().expect(NOTING);
            failures.first.get_or_insert_with(|| error.to_string());
        }));
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.lock().expect(NOTING).lost = Some(message);
            }
        });
        let mut shared = Shared {
            info,
            device,
            queue,
            limits: limits.clone(),
            timestamps,
            half,
            lanes: 1,
            checked,
            pipelines: Mutex::new(HashMap::new()),
            failures,
        };
        if let Some(smallest) = subgroup {
            shared.lanes = lanes(&shared, smallest)?;
        }
        let words = |bytes: u64| usize::try_from(bytes / 4).unwrap_or(usize::MAX) / ALIGN * ALIGN;
        Ok(Adapter {
            limits: Limits {
                tensor: words(limits.max_storage_buffer_binding_size),
                buffer: words(limits.max_buffer_size),
            },
            shared: Arc::new(shared),
        })
    }

    /// What was opened.
    #[must_use]
    pub fn info(&self) -> &AdapterInfo {
        &self.shared.info
    }

    /// What it can hold in one piece.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether it can store in this precision.
    #[must_use]
    pub fn stores(&self, precision: Precision) -> bool {
        match precision {
            Precision::F32 => true,
            Precision::F16 => self.shared.half,
            Precision::Bf16 => false,
        }
    }

    /// Whether it has what a kernel's variant needs.
    #[must_use]
    pub fn runs(&self, variant: &Variant) -> bool {
        self.shared.has(variant)
    }

    /// Threads that follow each other and exchange values without workgroup memory; 1 where none do.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.shared.lanes
    }

    /// Names of the precisions that it can store in.
    #[must_use]
    pub fn precisions(&self) -> &'static str {
        if self.shared.half { "f32 and f16" } else { "f32" }
    }

    /// The same adapter as one that can hold no more than this in one piece: tests of small adapters.
    #[must_use]
    pub fn limited(&self, limits: Limits) -> Adapter {
        Adapter {
            shared: Arc::clone(&self.shared),
            limits: Limits {
                tensor: self.limits.tensor.min(limits.tensor),
                buffer: self.limits.buffer.min(limits.buffer) / ALIGN * ALIGN,
            },
        }
    }

    /// Objects of the driver that exist now; a loop that makes none leaves the numbers alone.
    #[must_use]
    pub fn objects(&self) -> Objects {
        let counters = self.shared.device.get_internal_counters().hal;
        Objects {
            buffers: counters.buffers.read(),
            bind_groups: counters.bind_groups.read(),
            pipelines: counters.compute_pipelines.read(),
            shader_modules: counters.shader_modules.read(),
            allocations: counters.memory_allocations.read(),
        }
    }
}

impl Shared {
    /// Whether the adapter has what a variant needs.
    pub fn has(&self, variant: &Variant) -> bool {
        let threads = variant.threads <= self.limits.max_compute_invocations_per_workgroup;
        threads && (self.lanes > 1 || !variant.subgroups)
    }

    /// Waits until a submission, or everything submitted, has finished.
    pub fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<(), DeviceError> {
        let waited = self.device.poll(wgpu::PollType::Wait {
            submission_index: submission,
            timeout: None,
        });
        self.check()?;
        let waited = waited.map(|_| ());
        waited.map_err(|error| backend(format!("waiting for {}: {error}", self.info)))
    }

    /// An error if more is needed than the adapter allows.
    pub fn limit(&self, what: &str, unit: &'static str, needed: u64, available: u64) -> Result<(), DeviceError> {
        if needed <= available {
            return Ok(());
        }
        Err(DeviceError::Limit {
            what: what.to_string(),
            needed,
            available,
            unit,
            device: self.info.to_string(),
        })
    }

    /// Reports what the driver complained about since the last call.
    pub fn check(&self) -> Result<(), DeviceError> {
        let mut failures = self.failures.lock().expect(NOTING);
        if let Some(what) = &failures.lost {
            return Err(DeviceError::Lost {
                backend: BACKEND,
                what: format!("{}: {what}", self.info),
            });
        }
        failures.first.take().map_or(Ok(()), |what| Err(backend(what)))
    }

    /// Runs `body`, which makes `what`; the driver's complaint about it is the error.
    pub fn watched<T>(&self, what: &str, body: impl FnOnce() -> T) -> Result<T, DeviceError> {
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let result = body();
        if pollster::block_on(memory.pop()).is_some() {
            return Err(DeviceError::OutOfMemory {
                backend: BACKEND,
                what: format!("{what} on {}", self.info),
            });
        }
        for scope in [internal, validation] {
            if let Some(error) = pollster::block_on(scope.pop()) {
                return Err(backend(format!("{what}: {error}")));
            }
        }
        Ok(result)
    }
}

pub(super) fn backend(what: String) -> DeviceError {
    DeviceError::Backend { backend: BACKEND, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(index: usize, kind: AdapterKind) -> AdapterInfo {
        AdapterInfo {
            index,
            name: String::new(),
            kind,
            api: String::new(),
            driver: String::new(),
        }
    }

    #[test]
    fn software_adapters_are_used_only_when_asked_for() {
        let (software, integrated) = (info(0, AdapterKind::Software), info(1, AdapterKind::Integrated));
        let discrete = info(2, AdapterKind::Discrete);
        assert_eq!(choose(&[&software], Choice::Hardware), None);
        assert_eq!(choose(&[&software], Choice::Software), Some(0));
        assert_eq!(choose(&[&software], Choice::Index(0)), Some(0));
        assert_eq!(choose(&[&software, &integrated, &discrete], Choice::Hardware), Some(2));
        assert_eq!(choose(&[&software, &integrated], Choice::Hardware), Some(1));
        assert_eq!(choose(&[&integrated], Choice::Software), None);
        assert_eq!(choose(&[&integrated], Choice::Index(1)), None);
    }
}
