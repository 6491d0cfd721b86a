//! A plan loaded on a GPU: functions, parameters and, as a rule, one graph that replays all launches with one call.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{CUfunction_attribute, CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaFunction, CudaGraph, CudaStream, DriverError, result};

use super::BACKEND;
use super::cublaslt::Matmul;
use super::gpu::{Shared, failed};
use super::memory::Memory;
use super::module::{Wanted, functions, prepare, source};
use super::vendor::Vendor;
use crate::device::DeviceError;
use crate::kernel::{Arg, Grid, VENDOR};
use crate::plan::{ALIGN, Launch, Plan, Space, Value};

/// Parameters of one kernel at most: tensors, the step's scalars, constants.
const MOST_PARAMETERS: usize = 48;
/// Shared memory that every block may have.
const SHARED_MEMORY: u32 = 48 * 1024;
/// Blocks in y and z at most, on every GPU.
const MOST_BLOCKS: u32 = 65_535;

/// See the module.
pub(super) struct Loaded {
    pub launches: Vec<LoadedLaunch>,
    /// Variant of each launch.
    pub variants: Vec<&'static str>,
    graph: Option<Graph>,
}

/// A captured graph.
struct Graph(CudaGraph);

// SAFETY: a graph may be used from any thread, by one at a time; the device that owns it is borrowed mutably for it.
unsafe impl Send for Graph {}

/// A launch of a plan: one call for each of the kernel's entry points, or a product of the vendor's library.
pub(super) struct LoadedLaunch {
    /// Scope and kernel, for messages and profilers.
    pub what: String,
    parts: Vec<Part>,
}

/// What is put on the stream at once.
pub(super) enum Part {
    Kernel(Call),
    Product(Matmul),
}

/// One entry point with everything that it takes.
pub(super) struct Call {
    pub function: CudaFunction,
    pub grid: Grid,
    pub threads: u32,
    pub shared_bytes: u32,
    /// Addresses, and words in the lower halves.
    pub parameters: Vec<u64>,
}

impl Loaded {
    /// Prepares a plan whose places have been checked; `chosen` is the variant of each launch, and the vendor is there if one
    /// of them is its. With `graph` the launches are captured.
    pub fn new(
        shared: &Shared,
        stream: &Arc<CudaStream>,
        memory: &[Memory; Space::ALL.len()],
        chosen: &[usize],
        vendor: Option<&Vendor>,
        plan: &Plan,
        graph: bool,
    ) -> Result<Loaded, DeviceError> {
        let mut wanted = Vec::with_capacity(plan.launches.len());
        let mut variants = Vec::with_capacity(plan.launches.len());
        for (launch, &index) in plan.launches.iter().zip(chosen) {
            let source = source(launch.kernel, &launch.dims)?;
            variants.extend(source.names().nth(index));
            wanted.push(Wanted::new(source, index, &launch.dims));
        }
        prepare(shared, &wanted)?;
        let base = |space: Space| &memory[space.index()];
        let mut launches = Vec::with_capacity(plan.launches.len());
        for ((launch, wanted), &variant) in plan.launches.iter().zip(&wanted).zip(&variants) {
            let mut tensors = Vec::with_capacity(launch.values.len());
            for (arg, &value) in launch.kernel.args.iter().zip(&launch.values) {
                tensors.push(base(plan.place(value).space).at(offset(plan, launch, arg, value)?));
            }
            let step = base(Space::Inputs).address;
            let product = source(launch.kernel, &launch.dims)?.product;
            launches.push(match (product, vendor) {
                (Some(product), Some(vendor)) if variant == VENDOR => LoadedLaunch {
                    what: what(launch),
                    parts: vendor.parts(shared, launch, product, wanted, &tensors, step)?,
                },
                _ => LoadedLaunch::new(shared, launch, wanted, &tensors, step)?,
            });
        }
        let graph = match graph {
            true => Some(Graph(captured(stream, &launches)?)),
            false => None,
        };
        Ok(Loaded {
            launches,
            variants,
            graph,
        })
    }

    /// Puts the launches on the stream.
    pub fn run(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        match &self.graph {
            Some(Graph(graph)) => graph.launch().map_err(|error| failed("replaying a step", error)),
            None => self.launches.iter().try_for_each(|launch| launch.launch(stream)),
        }
    }
}

/// The first word of a launch's tensor.
fn offset(plan: &Plan, launch: &Launch, arg: &Arg, value: Value) -> Result<usize, DeviceError> {
    let place = plan.place(value);
    if place.offset.is_multiple_of(ALIGN) {
        return Ok(place.offset);
    }
    Err(DeviceError::Misaligned {
        backend: BACKEND,
        scope: launch.scope.clone(),
        kernel: launch.kernel.name,
        arg: arg.name,
        space: place.space,
        offset: place.offset,
        align: ALIGN,
    })
}

/// A graph of the launches, each behind the one before it.
fn captured(stream: &Arc<CudaStream>, launches: &[LoadedLaunch]) -> Result<CudaGraph, DeviceError> {
    let capturing = |error| failed("capturing a plan", error);
    stream
        .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        .map_err(capturing)?;
    let launched = launches.iter().try_for_each(|launch| launch.launch(stream));
    // A capture is ended also where a launch failed.
    let graph = stream.end_capture(CUgraphInstantiate_flags(0));
    launched?;
    graph.map_err(capturing)?.ok_or_else(|| DeviceError::Backend {
        backend: BACKEND,
        what: "the driver captured no graph; TLM_CUDA_GRAPH=off launches kernel by kernel".to_owned(),
    })
}

impl LoadedLaunch {
    /// Checks a launch against the GPU's limits. The module is loaded; `tensors` in the order of the kernel's table.
    pub fn new(
        shared: &Shared,
        launch: &Launch,
        wanted: &Wanted,
        tensors: &[u64],
        step: u64,
    ) -> Result<LoadedLaunch, DeviceError> {
        let (kernel, source, variant) = (launch.kernel, wanted.source, wanted.variant);
        let what = what(launch);
        let limit = |unit, needed: u32, available: u32| match needed <= available {
            true => Ok(()),
            false => Err(DeviceError::Limit {
                what: what.clone(),
                needed: u64::from(needed),
                available: u64::from(available),
                unit,
                device: shared.info.to_string(),
            }),
        };
        let grid = source.workgroups(kernel, &launch.dims, variant);
        limit("blocks in y", grid[1], MOST_BLOCKS)?;
        limit("blocks in z", grid[2], MOST_BLOCKS)?;
        let shared_bytes = source.shared_bytes(&launch.dims, variant);
        limit("bytes of shared memory", shared_bytes, shared.shared_memory)?;
        let stages = functions(shared, wanted)?;
        if shared_bytes > SHARED_MEMORY {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            for stage in &stages {
                // SAFETY: the function belongs to a loaded module.
                unsafe { result::function::set_function_attribute(stage.cu_function(), most, shared_bytes as i32) }
                    .map_err(|error| failed(&format!("{what}: asking for {shared_bytes} bytes"), error))?;
            }
        }
        let words = kernel.constants.iter().map(|name| {
            let word = launch.dims.device_word(name);
            u64::from(word.expect("the recorder found every constant of the table"))
        });
        let parameters: Vec<u64> = tensors.iter().copied().chain([step]).chain(words).collect();
        assert!(
            parameters.len() <= MOST_PARAMETERS,
            "{} has too many parameters",
            kernel.name
        );
        let call = |function| {
            Part::Kernel(Call {
                function,
                grid,
                threads: variant.threads,
                shared_bytes,
                parameters: parameters.clone(),
            })
        };
        Ok(LoadedLaunch {
            what,
            parts: stages.into_iter().map(call).collect(),
        })
    }

    /// Puts the launch on the stream.
    pub fn launch(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        self.parts.iter().try_for_each(|part| match part {
            Part::Kernel(call) => call.launch(stream).map_err(|error| failed(&self.what, error)),
            Part::Product(product) => product.launch(stream.cu_stream(), &self.what),
        })
    }
}

impl Call {
    fn launch(&self, stream: &CudaStream) -> Result<(), DriverError> {
        let [x, y, z] = self.grid;
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST_PARAMETERS];
        for (pointer, parameter) in pointers.iter_mut().zip(&self.parameters) {
            *pointer = std::ptr::from_ref(parameter).cast_mut().cast();
        }
        // SAFETY: the tests compare the function's parameters with the kernel's table, from which these were made: an
        // address for each tensor and the step's scalars, and a word in the lower half for each constant; those of the
        // passes around a product are what `Product` says. The driver copies them before it returns. All addresses lie in
        // memory of the device that owns this launch.
        unsafe {
            result::launch_kernel(
                self.function.cu_function(),
                (x, y, z),
                (self.threads, 1, 1),
                self.shared_bytes,
                stream.cu_stream(),
                &mut pointers[..self.parameters.len()],
            )
        }
    }
}

/// Scope and kernel, for messages and profilers.
fn what(launch: &Launch) -> String {
    format!("{}: {}", launch.scope, launch.kernel.name)
}
