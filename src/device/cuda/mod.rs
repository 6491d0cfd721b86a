//! The CUDA backend: kernels compiled at run time by NVRTC, launched through NVIDIA's driver. Both libraries are found when
//! they are needed; the crate builds and starts without them. NVRTC needs neither a GPU nor a toolkit.
//!
//! ```text
//! open    driver, context, compiler; modules are compiled once per file, defines and precision, and kept on disk
//! new     one allocation per Space, one stream, the ring of pinned memory
//! load    functions and parameters of each launch, products of cuBLASLt where they are pinned to it; all launches captured
//!         as one graph
//! submit  inputs up, one graph launch per program, Readback down: all asynchronous, the host a few steps ahead
//! ```
//!
//! A graph holds the addresses it was captured with. They are those of the Spaces, which live as long as the device, and
//! what changes per step is read from memory. `TLM_CUDA_GRAPH=off` launches kernel by kernel: same work, same bits.
//!
//! # How a kernel is called
//!
//! An entry point of `kernels/*.cu` is an `extern "C" __global__` function whose parameters follow its kernel's table:
//!
//! ```text
//! extern "C" __global__ void __launch_bounds__(threads) entry(
//!     const T* name, ...              In arguments, in the order of Kernel::args; T is Stored, float or u32
//!     T* name, ...                    Out and InOut arguments, in the same sequence
//!     const StepParams* step_params,  the device's copy, for every kernel
//!     u32 name, ...                   Kernel::constants, in order, `_` for `.`; float where the bits are those of an f32
//! )
//! ```
//!
//! Written tensors overlap nothing else of the launch ([`check`]), so every pointer may be `__restrict__`.
//! `Stored` is the type of elements of the plan's precision: the macro `STORED` is `f32`, `f16` or `bf16`
//! (`kernels/common/stored.cuh`). A launch takes the program of [`Source::storing`](crate::kernel::Source::storing) its own
//! precision, with the variant's and the compiled-in defines, the grid of `Source::workgroups` and `Source::shared` bytes of
//! dynamic shared memory; above 48 KiB the function must be told first
//! (`CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`). Blocks are one-dimensional, `Variant::threads` long. The tests compare
//! every signature and the parameters in the compiled PTX with the tables.
//!
//! Tensors begin at multiples of 256 bytes ([`ALIGN`](crate::plan::ALIGN)); copies of parameters at multiples of 128.
//!
//! Inline PTX stands in small `__device__` functions of `kernels/common/` only.

mod compile;
mod cublaslt;
mod gpu;
mod library;
mod memory;
mod module;
mod nvrtc;
mod nvtx;
mod program;
mod ring;
mod trial;
mod vendor;

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{CudaStream, result, sys};

use super::tuning::{Trial, Tuning, Variants};
use super::turns::SLOTS;
use super::{Device, DeviceError, Program, Sizes, check, range_check};
use crate::plan::{Plan, Space};
use gpu::failed;
use memory::Memory;
use nvtx::Nvtx;
use program::Loaded;
use ring::Ring;
use trial::Tried;
use vendor::Vendor;

pub use compile::Compiled;
pub use gpu::{DRIVER, Gpu, GpuInfo, list};
pub use nvrtc::Nvrtc;

/// Name of the backend in messages.
const BACKEND: &str = "cuda";

/// A GPU with memory and loaded plans.
pub struct CudaDevice {
    gpu: Gpu,
    sizes: Sizes,
    tuning: Tuning,
    graphs: bool,
    // Graphs, then all memory they point to, then the stream: dropped in this order.
    programs: Vec<Loaded>,
    vendor: Option<Vendor>,
    ring: Ring,
    memory: [Memory; Space::ALL.len()],
    stream: Arc<CudaStream>,
}

impl CudaDevice {
    /// Allocates the memory, zeroed. With `graphs` each plan is captured and replayed as a whole.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]; [`DeviceError::Backend`] for failures of the driver and measurements that cannot be
    /// read.
    pub fn new(gpu: &Gpu, sizes: Sizes, variants: &Variants, graphs: bool) -> Result<CudaDevice, DeviceError> {
        let shared = &gpu.shared;
        let stream = shared.context.new_stream();
        let stream = stream.map_err(|error| failed("making a stream", error))?;
        let mut memory = Vec::with_capacity(Space::ALL.len());
        for space in Space::ALL {
            memory.push(Memory::zeros(
                shared,
                &stream,
                &format!("{space:?}"),
                sizes.words(space),
            )?);
        }
        stream
            .synchronize()
            .map_err(|error| failed("clearing the memory", error))?;
        Ok(CudaDevice {
            gpu: gpu.clone(),
            sizes,
            tuning: Tuning::new(variants, BACKEND)?,
            graphs,
            programs: Vec::new(),
            vendor: None,
            ring: Ring::new(shared, sizes.inputs, sizes.readback)?,
            memory: memory.try_into().ok().expect("one allocation per space"),
            stream,
        })
    }

    fn memory(&self, space: Space) -> &Memory {
        &self.memory[space.index()]
    }

    fn bind(&self) -> Result<(), DeviceError> {
        let bound = self.gpu.shared.context.bind_to_thread();
        bound.map_err(|error| failed("binding the GPU", error))
    }

    /// Waits for everything on the stream.
    fn wait(&self, what: &str) -> Result<(), DeviceError> {
        self.stream.synchronize().map_err(|error| failed(what, error))
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // Work on its way still uses the memory; its failure was reported where its result was asked for, or nobody did.
        let _ = self.stream.synchronize();
    }
}

impl Device for CudaDevice {
    fn describe(&self) -> String {
        format!("cuda, GPU {}", self.gpu.info())
    }

    fn remark(&self) -> Option<String> {
        let vendor = self.vendor.as_ref();
        let vendor = vendor.map(|vendor| format!("products by {}", vendor.describe()));
        let remarks: Vec<String> = self.tuning.remark().into_iter().chain(vendor).collect();
        (!remarks.is_empty()).then(|| remarks.join("; "))
    }

    fn load(&mut self, plan: &Plan) -> Result<Program, DeviceError> {
        check(plan, &self.sizes)?;
        if !self.gpu.info().stores(plan.precision) {
            return Err(DeviceError::Precision {
                what: format!("plan `{}`", plan.name),
                precision: plan.precision.name(),
                device: self.gpu.info().to_string(),
                available: self.gpu.info().precisions(),
            });
        }
        self.bind()?;
        let (shared, stream) = (&self.gpu.shared, &self.stream);
        let tried = Tried { shared, stream };
        let chosen = self.tuning.choose(&tried, plan)?;
        let mut by_vendor = false;
        for (launch, &index) in plan.launches.iter().zip(&chosen) {
            by_vendor |= index == tried.source(launch)?.vendor();
        }
        if by_vendor && self.vendor.is_none() {
            self.vendor = Some(Vendor::open(shared, stream)?);
        }
        let vendor = self.vendor.as_ref();
        let loaded = Loaded::new(shared, stream, &self.memory, &chosen, vendor, plan, self.graphs)?;
        self.programs.push(loaded);
        Ok(Program(self.programs.len() - 1))
    }

    fn variants(&self, program: Program) -> &[&'static str] {
        &self.programs[program.0].variants
    }

    fn write(&mut self, space: Space, offset: usize, words: &[u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, space, offset, words.len())?;
        self.bind()?;
        let (address, stream) = (self.memory(space).at(offset), self.stream.cu_stream());
        // SAFETY: the range was checked; the words live until the stream has been waited for.
        unsafe { result::memcpy_htod_async(address, words, stream) }.map_err(|error| failed("writing", error))?;
        self.wait("writing")
    }

    fn read(&mut self, space: Space, offset: usize, words: &mut [u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, space, offset, words.len())?;
        self.bind()?;
        let (address, stream) = (self.memory(space).at(offset), self.stream.cu_stream());
        // SAFETY: the range was checked; the words live until the stream has been waited for.
        unsafe { result::memcpy_dtoh_async(words, address, stream) }.map_err(|error| failed("reading", error))?;
        self.wait("reading")
    }

    fn run(&mut self, program: Program) -> Result<(), DeviceError> {
        self.bind()?;
        self.programs[program.0].run(&self.stream)
    }

    fn ring(&self) -> usize {
        SLOTS
    }

    fn submit(&mut self, inputs: &[u32], programs: &[Program]) -> Result<(), DeviceError> {
        range_check(&self.sizes, Space::Inputs, 0, inputs.len())?;
        self.bind()?;
        let [up, down] = [Space::Inputs, Space::Readback].map(|space| &self.memory[space.index()]);
        self.ring.upload(&self.stream, up, inputs)?;
        for &program in programs {
            self.programs[program.0].run(&self.stream)?;
        }
        self.ring.download(&self.stream, down)
    }

    fn collect(&mut self, readback: &mut [u32]) -> Result<(), DeviceError> {
        range_check(&self.sizes, Space::Readback, 0, readback.len())?;
        self.bind()?;
        self.ring.collect(readback)
    }

    fn run_timed(&mut self, program: Program, times: &mut [Duration]) -> Result<(), DeviceError> {
        self.bind()?;
        let context = &self.gpu.shared.context;
        let launches = &self.programs[program.0].launches;
        let timing = |error| failed("timing launches", error);
        let mut events = Vec::with_capacity(launches.len() + 1);
        for _ in 0..=launches.len() {
            let event = context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
            events.push(event.map_err(timing)?);
        }
        let names = Nvtx::find();
        events[0].record(&self.stream).map_err(timing)?;
        for (launch, event) in launches.iter().zip(&events[1..]) {
            nvtx::range(names, &launch.what, || launch.launch(&self.stream))?;
            event.record(&self.stream).map_err(timing)?;
        }
        self.wait("timing launches")?;
        for (time, pair) in times.iter_mut().zip(events.windows(2)) {
            let ms = pair[0].elapsed_ms(&pair[1]).map_err(timing)?;
            *time += Duration::from_secs_f64(f64::from(ms) / 1e3);
        }
        Ok(())
    }
}
