//! What a device would say to the plans of a run. No buffer is allocated: the plans go through the checks that every
//! device makes when it loads them, then their kernels and sizes are held against what the backend has and allows.

use super::{Verdict, mib};
use crate::device::choice::DeviceChoice;
use crate::device::cuda::{self, Nvrtc};
use crate::device::wgpu::{Adapter, Choice};
use crate::device::{self, AdapterSurvey, KernelSupport, Sizes};
use crate::kernel::Kernel;
use crate::plan::{ParamTable, Plan, Space};

/// The answer of the device that a choice stands for.
pub(super) fn verdict(choice: DeviceChoice, plans: &[&Plan], sizes: &Sizes, params: &ParamTable) -> Verdict {
    let said = plans
        .iter()
        .try_for_each(|plan| device::check(plan, sizes).map_err(|error| error.to_string()))
        .and_then(|()| match choice {
            DeviceChoice::Cpu => cpu(sizes),
            DeviceChoice::Wgpu(number) => wgpu(number, plans, sizes, params),
            DeviceChoice::Cuda(number) => cuda(number.unwrap_or(0), plans, sizes),
            // In the order of `auto`.
            DeviceChoice::Auto => cuda(0, plans, sizes)
                .or_else(|_| wgpu(None, plans, sizes, params))
                .or_else(|_| cpu(sizes)),
            DeviceChoice::Null => Ok("allocates nothing, runs nothing".to_owned()),
        });
    let (runs, message) = match said {
        Ok(message) => (true, message),
        Err(message) => (false, message),
    };
    Verdict {
        asked: choice.to_string(),
        runs,
        message,
    }
}

fn cpu(sizes: &Sizes) -> Result<String, String> {
    let (needed, threads) = (mib(sizes.bytes()), rayon::current_num_threads());
    let cpu = format!("cpu, {}, {threads} threads", device::cpu::instruction_set());
    match available_memory() {
        Some(bytes) if bytes < sizes.bytes() => Err(format!(
            "{cpu}: needs {needed} MiB, and {} MiB are free; use smaller batches (accumulate) or a smaller model",
            mib(bytes)
        )),
        Some(bytes) => Ok(format!("{cpu}: {needed} MiB of {} MiB free", mib(bytes))),
        None => Ok(format!(
            "{cpu}: {needed} MiB; how much is free, this system does not say"
        )),
    }
}

/// Bytes that Linux would give without swapping; none where it cannot be asked.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kib)
}

fn cuda(number: usize, plans: &[&Plan], sizes: &Sizes) -> Result<String, String> {
    let gpus = cuda::list().map_err(|error| error.to_string())?;
    let gpu = gpus.get(number).ok_or(format!("the driver has no GPU {number}"))?;
    Nvrtc::find().map_err(|error| error.to_string())?;
    let support = KernelSupport::of(&kernels(plans), |kernel| kernel.cuda.is_some());
    if !support.missing.is_empty() {
        let missing = support.missing.join(", ");
        return Err(format!(
            "{gpu} cannot run these plans: no CUDA kernel yet for {missing}"
        ));
    }
    let (needed, there) = (mib(sizes.bytes()), mib(gpu.memory as u64));
    match sizes.bytes() <= gpu.memory as u64 {
        true => Ok(format!("{gpu}: {needed} MiB of {there} MiB")),
        false => Err(format!(
            "{gpu}: needs {needed} MiB, and there are {there} MiB; use smaller batches (accumulate) or a smaller model"
        )),
    }
}

/// The kernels that plans launch, each once.
fn kernels(plans: &[&Plan]) -> Vec<&'static Kernel> {
    let mut kernels: Vec<&'static Kernel> = plans.iter().flat_map(|plan| &plan.launches).map(|l| l.kernel).collect();
    kernels.sort_by_key(|kernel| kernel.name);
    kernels.dedup_by_key(|kernel| kernel.name);
    kernels
}

fn wgpu(number: Option<usize>, plans: &[&Plan], sizes: &Sizes, params: &ParamTable) -> Result<String, String> {
    let choice = number.map_or(Choice::Hardware, Choice::Index);
    let adapter = Adapter::open(choice, false).map_err(|error| error.to_string())?;
    let support = KernelSupport::of(&kernels(plans), |kernel| kernel.wgsl.is_some());
    if !support.missing.is_empty() {
        let missing = support.missing.join(", ");
        return Err(format!(
            "{} cannot run these plans: no WGSL yet for {missing}",
            adapter.info()
        ));
    }
    let adapters = device::adapters(&support);
    let limits = adapters
        .get(adapter.info().index)
        .ok_or("the adapter went away while it was looked at")?;
    fits(limits, plans, sizes, params).map(|()| format!("{}: all buffers fit its limits", adapter.info()))
}

/// Checks the buffers and the bound tensors against what a driver allows.
fn fits(limits: &AdapterSurvey, plans: &[&Plan], sizes: &Sizes, params: &ParamTable) -> Result<(), String> {
    for space in Space::ALL {
        let bytes = 4 * sizes.words(space) as u64;
        if bytes > limits.max_buffer_bytes {
            let (needed, allowed) = (mib(bytes), mib(limits.max_buffer_bytes));
            return Err(format!(
                "{}: {space:?} needs {needed} MiB, a buffer may have {allowed} MiB",
                limits.name
            ));
        }
    }
    for launch in plans
        .iter()
        .flat_map(|plan| plan.launches.iter().map(move |launch| (plan, launch)))
    {
        let (plan, launch) = launch;
        for &value in &launch.values {
            let place = plan.place(value);
            let bytes = 4 * place.words as u64;
            if bytes > limits.max_binding_bytes {
                let name = match place.space {
                    Space::Params => params
                        .at(place.offset)
                        .map_or("parameters", |(spec, _)| spec.name.as_str()),
                    _ => plan.value(value).label.as_str(),
                };
                let (needed, allowed) = (mib(bytes), mib(limits.max_binding_bytes));
                return Err(format!(
                    "{}: {name} needs {needed} MiB, a tensor may have {allowed} MiB",
                    limits.name
                ));
            }
        }
    }
    Ok(())
}
