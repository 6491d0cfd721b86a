//! What this machine has to compute on, what each backend can do there, and what is missing for the others.
//!
//! Which backend has which kernel is read from the kernels' tables, and what a driver allows from the driver; nothing
//! here is a list that could go stale. Nothing is allocated and no kernel is built.

use std::fmt;

use serde::Serialize;

use super::cpu::instruction_set;
use super::cuda::{self, GpuInfo, Nvrtc};
use super::wgpu::{self, AdapterKind};
use crate::kernel::Kernel;

/// Backends and hardware of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Survey {
    /// What `--device auto` takes, and why.
    pub auto: String,
    /// The processor.
    pub cpu: CpuSurvey,
    /// WebGPU.
    pub wgpu: WgpuSurvey,
    /// CUDA.
    pub cuda: CudaSurvey,
    /// The device that does nothing.
    pub null: &'static str,
}

/// The CPU backend here.
#[derive(Clone, Debug, Serialize)]
pub struct CpuSurvey {
    /// Instructions that the kernels use.
    pub instruction_set: &'static str,
    /// Threads that a run would use.
    pub threads: usize,
    /// Kernels, all of which the CPU has.
    pub kernels: usize,
}

/// Kernels that a GPU backend has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelSupport {
    /// Kernels of the crate.
    pub all: usize,
    /// Kernels with a source for this backend.
    pub present: usize,
    /// Names of the others.
    pub missing: Vec<&'static str>,
}

/// The WebGPU backend here.
#[derive(Clone, Debug, Serialize)]
pub struct WgpuSurvey {
    /// Kernels in WGSL.
    pub kernels: KernelSupport,
    /// Adapters in the order of their numbers.
    pub adapters: Vec<AdapterSurvey>,
    /// What to install where there is no adapter.
    pub remedy: Option<&'static str>,
}

/// A WebGPU adapter with what its driver allows.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterSurvey {
    /// N of `--device wgpu:N`.
    pub index: usize,
    /// Name of the hardware.
    pub name: String,
    /// discrete, integrated, virtual, software or unknown.
    pub kind: String,
    /// Vulkan, Metal or Dx12.
    pub api: String,
    /// Driver and version.
    pub driver: String,
    /// The largest tensor, bytes.
    pub max_binding_bytes: u64,
    /// The largest buffer, bytes.
    pub max_buffer_bytes: u64,
    /// Tensors of one kernel.
    pub max_bindings: u32,
    /// Memory of a workgroup, bytes.
    pub workgroup_bytes: u32,
    /// Threads of a workgroup.
    pub workgroup_threads: u32,
    /// Optional features that matter here and that it has.
    pub features: Vec<&'static str>,
    /// What it would be used for.
    pub purpose: String,
}

/// The CUDA backend here.
#[derive(Clone, Debug, Serialize)]
pub struct CudaSurvey {
    /// Kernels in CUDA C++.
    pub kernels: KernelSupport,
    /// GPUs in the order of their numbers.
    pub gpus: Vec<GpuInfo>,
    /// Where there is none: why, and what to do.
    pub no_gpu: Option<String>,
    /// Version and file of the run-time compiler.
    pub nvrtc: Option<NvrtcSurvey>,
    /// Where there is none: where it was looked for, and what to do.
    pub no_nvrtc: Option<String>,
    /// What it would be used for.
    pub purpose: String,
}

/// NVIDIA's run-time compiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NvrtcSurvey {
    /// Its version.
    pub version: String,
    /// The library.
    pub path: String,
}

/// Looks at this machine. `kernels`: those of the crate's registry.
pub fn survey(kernels: &[&'static Kernel]) -> Survey {
    let wgsl = KernelSupport::of(kernels, |kernel| kernel.wgsl.is_some());
    let adapters = adapters(&wgsl);
    let threads = rayon::current_num_threads();
    let cuda = cuda(kernels);
    Survey {
        auto: auto(&cuda, &adapters),
        cpu: CpuSurvey {
            instruction_set: instruction_set(),
            threads,
            kernels: kernels.len(),
        },
        wgpu: WgpuSurvey {
            remedy: adapters.is_empty().then_some(
                "no adapter: install the GPU's Vulkan driver, or mesa-vulkan-drivers for Debian's software one",
            ),
            kernels: wgsl,
            adapters,
        },
        cuda,
        null: "allocates nothing, runs nothing: plans and dry runs",
    }
}

/// The CUDA backend: GPUs, compiler, and what they would do together.
fn cuda(kernels: &[&'static Kernel]) -> CudaSurvey {
    let kernels = KernelSupport::of(kernels, |kernel| kernel.cuda.is_some());
    let (gpus, no_gpu) = match cuda::list() {
        Ok(gpus) if gpus.is_empty() => (gpus, Some("NVIDIA driver found, but no GPU".to_owned())),
        Ok(gpus) => (gpus, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let (nvrtc, no_nvrtc) = match Nvrtc::find() {
        Ok(nvrtc) => (Some(NvrtcSurvey::of(&nvrtc)), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let purpose = match (gpus.is_empty(), &nvrtc, kernels.missing.len()) {
        (true, Some(_), _) => "compiling kernels in tests; training needs a GPU with its driver".to_owned(),
        (true, None, _) => "nothing here".to_owned(),
        (false, None, _) => "nothing until NVRTC is installed".to_owned(),
        (false, Some(_), 0) => "training".to_owned(),
        (false, Some(_), missing) => format!("tests of single kernels; training needs {missing} more"),
    };
    CudaSurvey {
        kernels,
        gpus,
        no_gpu,
        nvrtc,
        no_nvrtc,
        purpose,
    }
}

/// What `--device auto` takes.
fn auto(cuda: &CudaSurvey, adapters: &[AdapterSurvey]) -> String {
    match (cuda.gpus.first(), wgpu::preferred()) {
        (Some(gpu), _) if cuda.nvrtc.is_some() => format!("cuda, {gpu}"),
        (_, Some(index)) => format!("wgpu:{index}, {}", adapters[index].name),
        (_, None) => "cpu, because there is no GPU that CUDA or WebGPU can use".to_owned(),
    }
}

impl KernelSupport {
    /// Those of `kernels` for which `has` holds, and the others.
    pub fn of(kernels: &[&'static Kernel], has: impl Fn(&Kernel) -> bool) -> KernelSupport {
        let missing: Vec<_> = kernels
            .iter()
            .filter(|kernel| !has(kernel))
            .map(|kernel| kernel.name)
            .collect();
        KernelSupport {
            all: kernels.len(),
            present: kernels.len() - missing.len(),
            missing,
        }
    }
}

/// Every adapter with what its driver allows; `wgsl`: the kernels that any of them could run.
pub fn adapters(wgsl: &KernelSupport) -> Vec<AdapterSurvey> {
    let instance = ::wgpu::Instance::new(::wgpu::InstanceDescriptor::new_without_display_handle());
    let drivers = pollster::block_on(instance.enumerate_adapters(::wgpu::Backends::PRIMARY));
    let describe = |(info, driver): (wgpu::AdapterInfo, ::wgpu::Adapter)| {
        let limits = driver.limits();
        let has =
            |(feature, name): &(::wgpu::Features, &'static str)| driver.features().contains(*feature).then_some(*name);
        AdapterSurvey {
            purpose: purpose(&info, wgsl),
            index: info.index,
            name: info.name,
            kind: format!("{:?}", info.kind).to_lowercase(),
            api: info.api,
            driver: info.driver,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_bindings: limits.max_storage_buffers_per_shader_stage,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_threads: limits.max_compute_invocations_per_workgroup,
            features: FEATURES.iter().filter_map(has).collect(),
        }
    };
    // Both lists come from the same call to the same drivers, in the same order.
    wgpu::list().into_iter().zip(drivers).map(describe).collect()
}

const FEATURES: [(::wgpu::Features, &str); 3] = [
    (::wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
    (::wgpu::Features::SUBGROUP, "subgroups"),
    (::wgpu::Features::SHADER_F16, "f16"),
];

fn purpose(info: &wgpu::AdapterInfo, wgsl: &KernelSupport) -> String {
    let index = info.index;
    let work = match wgsl.missing.len() {
        0 => "training".to_owned(),
        missing => format!("tests of single kernels; training needs {missing} more"),
    };
    match info.kind {
        AdapterKind::Software => {
            format!("{work}; only on request (--device wgpu:{index}): it computes on the processor, slowly")
        }
        _ => format!("{work}; on request (--device wgpu:{index})"),
    }
}

impl fmt::Display for KernelSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} kernels", self.present, self.all)?;
        if self.missing.is_empty() {
            Ok(())
        } else {
            write!(f, "; not yet {}", self.missing.join(", "))
        }
    }
}

impl NvrtcSurvey {
    fn of(nvrtc: &Nvrtc) -> NvrtcSurvey {
        let (major, minor) = nvrtc.version();
        NvrtcSurvey {
            version: format!("{major}.{minor}"),
            path: nvrtc.path().to_owned(),
        }
    }
}

impl fmt::Display for AdapterSurvey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        writeln!(
            f,
            "  {}: {} ({}, {}, {})",
            self.index, self.name, self.kind, self.api, self.driver
        )?;
        writeln!(
            f,
            "     tensors to {} MiB, buffers to {} MiB; {} tensors, {} KiB, {} threads a workgroup; {}",
            self.max_binding_bytes / MIB,
            self.max_buffer_bytes / MIB,
            self.max_bindings,
            self.workgroup_bytes / 1024,
            self.workgroup_threads,
            if self.features.is_empty() {
                "no optional features".to_owned()
            } else {
                self.features.join(", ")
            }
        )?;
        writeln!(f, "     for {}", self.purpose)
    }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CpuSurvey {
            instruction_set,
            threads,
            kernels,
        } = &self.cpu;
        writeln!(
            f,
            "cpu    {instruction_set}, {threads} threads: all {kernels} kernels; for training"
        )?;
        writeln!(f, "wgpu   {}", self.wgpu.kernels)?;
        for adapter in &self.wgpu.adapters {
            write!(f, "{adapter}")?;
        }
        if let Some(remedy) = self.wgpu.remedy {
            writeln!(f, "  {remedy}")?;
        }
        writeln!(f, "cuda   {}", self.cuda.kernels)?;
        for gpu in &self.cuda.gpus {
            writeln!(f, "  {gpu}")?;
        }
        if let Some(NvrtcSurvey { version, path }) = &self.cuda.nvrtc {
            writeln!(f, "  NVRTC {version} from {path}")?;
        }
        for why in [&self.cuda.no_gpu, &self.cuda.no_nvrtc].into_iter().flatten() {
            writeln!(f, "  {}", why.replace('\n', "\n  "))?;
        }
        writeln!(f, "  for {}", self.cuda.purpose)?;
        writeln!(f, "null   {}", self.null)?;
        writeln!(f, "auto   {}", self.auto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(kind: AdapterKind) -> wgpu::AdapterInfo {
        wgpu::AdapterInfo {
            index: 3,
            name: String::new(),
            kind,
            api: String::new(),
            driver: String::new(),
        }
    }

    #[test]
    fn an_adapter_is_for_training_only_if_no_kernel_is_missing() {
        let whole = KernelSupport {
            all: 2,
            present: 2,
            missing: Vec::new(),
        };
        let part = KernelSupport {
            all: 2,
            present: 1,
            missing: vec!["attention.forward"],
        };
        assert!(purpose(&info(AdapterKind::Discrete), &whole).starts_with("training"));
        assert!(purpose(&info(AdapterKind::Discrete), &part).contains("training needs 1 more"));
        assert!(purpose(&info(AdapterKind::Software), &whole).contains("only on request (--device wgpu:3)"));
        assert_eq!(part.to_string(), "1 of 2 kernels; not yet attention.forward");
    }

    #[test]
    fn what_is_missing_is_said_where_it_is_missing_and_only_there() {
        let gpu = GpuInfo {
            index: 0,
            name: "a GPU".to_owned(),
            architecture: 90,
            memory: 80 << 30,
            driver: "CUDA 13.0".to_owned(),
        };
        let nvrtc = NvrtcSurvey {
            version: "13.0".to_owned(),
            path: "/a/library".to_owned(),
        };
        let found = survey(&[]);
        let cuda = &found.cuda;
        assert!(cuda.gpus.is_empty() == cuda.no_gpu.is_some(), "{cuda:?}");
        assert!(cuda.nvrtc.is_none() == cuda.no_nvrtc.is_some(), "{cuda:?}");
        let with = |gpus, no_gpu: Option<&str>, nvrtc, no_nvrtc: Option<&str>| Survey {
            cuda: CudaSurvey {
                gpus,
                no_gpu: no_gpu.map(str::to_owned),
                nvrtc,
                no_nvrtc: no_nvrtc.map(str::to_owned),
                ..found.cuda.clone()
            },
            ..found.clone()
        };
        let whole = with(vec![gpu], None, Some(nvrtc), None).to_string();
        assert!(whole.contains("  0: a GPU (sm_90, 80 GiB, driver for CUDA 13.0)\n  NVRTC 13.0 from /a/library\n"));
        let nothing = with(Vec::new(), Some("no driver"), None, Some("no compiler\nlook there"));
        assert!(
            nothing
                .to_string()
                .contains("  no driver\n  no compiler\n  look there\n")
        );
        let json = serde_json::to_value(&nothing).unwrap();
        assert!(json["cuda"]["gpus"].as_array().is_some_and(Vec::is_empty) && json["cuda"]["nvrtc"].is_null());
        assert_eq!(json["cuda"]["no_gpu"], "no driver");
    }

    #[test]
    fn a_survey_names_every_backend_and_every_adapter_with_its_number() {
        let found = survey(&[]);
        let text = found.to_string();
        for backend in ["cpu ", "wgpu ", "cuda ", "null ", "auto "] {
            assert!(text.lines().any(|line| line.starts_with(backend)), "{backend}: {text}");
        }
        let listed = wgpu::list();
        assert_eq!(found.wgpu.adapters.len(), listed.len());
        for (adapter, info) in found.wgpu.adapters.iter().zip(listed) {
            assert!(adapter.index == info.index && adapter.name == info.name, "{text}");
            assert!(text.contains(&format!("  {}: {}", info.index, info.name)), "{text}");
        }
    }
}
