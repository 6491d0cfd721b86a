//! The backend seam: memory, uploads, and the replay of loaded plans.
//!
//! A [`Device`] is opened with the sizes of all its buffers, loads plans, and then only ever runs them. One virtual call
//! per step crosses this seam; inside, each backend has its own types.

pub mod choice;
pub mod cpu;
pub mod cuda;
pub mod null;
pub mod open;
mod survey;
mod tuning;
mod turns;
pub mod wgpu;

use std::time::Duration;

use crate::kernel::{Access, Precision};
use crate::plan::{Plan, Space, Value};

pub use survey::{AdapterSurvey, CpuSurvey, CudaSurvey, KernelSupport, Survey, WgpuSurvey, adapters, survey};
pub use tuning::Variants;

/// Words of every buffer of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Parameters; gradients and moments have the same size.
    pub params: usize,
    /// Copies of the parameters in another precision.
    pub shadow: usize,
    /// Whether gradients and moments are needed.
    pub training: bool,
    /// The largest arena of the plans.
    pub arena: usize,
    /// The largest input block.
    pub inputs: usize,
    /// The largest readback block.
    pub readback: usize,
}

impl Sizes {
    /// What these plans need together: parameters once, the largest of everything else.
    pub fn of(params: usize, training: bool, plans: &[&Plan]) -> Sizes {
        let most = |words: fn(&Plan) -> usize| plans.iter().map(|plan| words(plan)).max().unwrap_or(0);
        Sizes {
            params,
            shadow: plans.iter().map(|plan| plan.shadow_words(params)).max().unwrap_or(0),
            training,
            arena: most(|plan| plan.arena_words),
            inputs: most(Plan::input_words),
            readback: most(Plan::readback_words),
        }
    }

    /// Words of one buffer.
    pub fn words(&self, space: Space) -> usize {
        match space {
            Space::Params => self.params,
            Space::Shadow => self.shadow,
            Space::Grads | Space::Moment1 | Space::Moment2 => usize::from(self.training) * self.params,
            Space::Arena => self.arena,
            Space::Inputs => self.inputs,
            Space::Readback => self.readback,
        }
    }

    /// Bytes of all buffers together.
    pub fn bytes(&self) -> u64 {
        Space::ALL.iter().map(|&space| 4 * self.words(space) as u64).sum()
    }
}

/// A plan loaded on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program(pub(crate) usize);

/// A backend with its buffers and loaded plans.
pub trait Device: Send {
    /// One line for people: backend, hardware, threads.
    fn describe(&self) -> String;

    /// What loading plans decided beyond what the plans say, for people.
    fn remark(&self) -> Option<String> {
        None
    }

    /// Prepares a plan for replay: checks it, resolves addresses, builds pipelines.
    ///
    /// # Errors
    /// [`DeviceError`] if the plan does not fit the device.
    fn load(&mut self, plan: &Plan) -> Result<Program, DeviceError>;

    /// The variant that each launch of a program runs; empty on a device whose kernels have one form.
    fn variants(&self, _program: Program) -> &[&'static str] {
        &[]
    }

    /// Copies words into a buffer.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] and backend failures.
    fn write(&mut self, space: Space, offset: usize, words: &[u32]) -> Result<(), DeviceError>;

    /// Copies words out of a buffer, after everything submitted has finished.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] and backend failures.
    fn read(&mut self, space: Space, offset: usize, words: &mut [u32]) -> Result<(), DeviceError>;

    /// Replays a program once.
    ///
    /// # Errors
    /// Backend failures.
    fn run(&mut self, program: Program) -> Result<(), DeviceError>;

    /// Submissions that may be on their way before [`Device::collect`] must have taken the first of them.
    fn ring(&self) -> usize {
        1
    }

    /// Uploads `inputs` to the beginning of [`Space::Inputs`], replays programs in order, and sends a copy of
    /// [`Space::Readback`] on its way to the host. A device with a queue returns before the work is done.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] and backend failures.
    fn submit(&mut self, inputs: &[u32], programs: &[Program]) -> Result<(), DeviceError> {
        self.write(Space::Inputs, 0, inputs)?;
        programs.iter().try_for_each(|&program| self.run(program))
    }

    /// Waits for the oldest submission not yet collected and copies the beginning of the [`Space::Readback`] that it left.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] and backend failures, also those of the submission's work.
    fn collect(&mut self, readback: &mut [u32]) -> Result<(), DeviceError> {
        self.read(Space::Readback, 0, readback)
    }

    /// Replays a program once and adds each launch's time to `times`.
    ///
    /// # Errors
    /// Backend failures.
    fn run_timed(&mut self, program: Program, times: &mut [Duration]) -> Result<(), DeviceError>;
}

/// What went wrong on a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A plan needs larger buffers than the device was opened with.
    #[error("plan `{plan}` needs {needed} words of {space:?}, the device was opened with {available}")]
    TooSmall {
        /// Plan.
        plan: String,
        /// Buffer.
        space: Space,
        /// Words the plan needs.
        needed: usize,
        /// Words there are.
        available: usize,
    },
    /// A plan that stores elements in a form that the device does not compute with.
    #[error("{what} asks for {precision}; {device} has {available}")]
    Precision {
        /// Plan or key of the configuration.
        what: String,
        /// What it stores.
        precision: &'static str,
        /// Device.
        device: String,
        /// What the device computes with.
        available: &'static str,
    },
    /// A launch writes memory that another argument of the same launch shows.
    #[error("{scope}: {kernel} writes `{written}`, which overlaps its argument `{other}`")]
    Overlap {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// Argument that is written.
        written: &'static str,
        /// Argument that overlaps it.
        other: &'static str,
    },
    /// A transfer outside a buffer.
    #[error("words {offset}..{end} are outside the {space:?} buffer of {available} words")]
    OutOfRange {
        /// Buffer.
        space: Space,
        /// First word.
        offset: usize,
        /// One past the last.
        end: usize,
        /// Words of the buffer.
        available: usize,
    },
    /// A kernel that this backend cannot run.
    #[error("{backend} has no implementation of {kernel}")]
    Missing {
        /// Backend.
        backend: &'static str,
        /// Kernel.
        kernel: &'static str,
    },
    /// A library that is loaded at run time was not found.
    #[error("{backend}: no {library}; tried:{tried}\n{remedy}")]
    Library {
        /// Backend.
        backend: &'static str,
        /// Library.
        library: &'static str,
        /// Files and names with the loader's words, a line each.
        tried: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No adapter of the kind asked for.
    #[error(
        "no adapter: asked for {asked}, found:{found}\n(an adapter that computes on the processor is used only when asked for by its number: --device wgpu:N)"
    )]
    NoAdapter {
        /// What was asked for.
        asked: String,
        /// All adapters, a line each.
        found: String,
    },
    /// A kernel source that its compiler refuses.
    #[error("{backend}: {file} does not compile: {log}")]
    Compile {
        /// Backend.
        backend: &'static str,
        /// Source file.
        file: &'static str,
        /// The compiler's words, with lines.
        log: String,
    },
    /// An entry point that is not what its kernel's table says.
    #[error("{file} disagrees with the table of {kernel}: {what}")]
    Interface {
        /// Kernel.
        kernel: &'static str,
        /// Source file.
        file: &'static str,
        /// The disagreement.
        what: String,
    },
    /// Something that needs more than the device can give.
    #[error("{what} needs {needed} {unit}; {device} allows {available}")]
    Limit {
        /// Scope and kernel, or buffer.
        what: String,
        /// Amount needed.
        needed: u64,
        /// Amount there is.
        available: u64,
        /// What is counted.
        unit: &'static str,
        /// Device.
        device: String,
    },
    /// A tensor that does not begin where the backend can bind it.
    #[error(
        "{scope}: {kernel} shows `{arg}` from word {offset} of {space:?} on; {backend} binds at multiples of {align}"
    )]
    Misaligned {
        /// Backend.
        backend: &'static str,
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// Argument.
        arg: &'static str,
        /// Buffer.
        space: Space,
        /// First word.
        offset: usize,
        /// Words.
        align: usize,
    },
    /// Not enough device memory.
    #[error("{backend}: out of memory for {what}; use smaller batches or a smaller model")]
    OutOfMemory {
        /// Backend.
        backend: &'static str,
        /// What was to be allocated, where.
        what: String,
    },
    /// The device disappeared: driver reset, unplugged, a launch that ran too long.
    #[error("{backend}: device lost: {what}; resume from the last checkpoint")]
    Lost {
        /// Backend.
        backend: &'static str,
        /// The driver's words.
        what: String,
    },
    /// A failure that the backend reported.
    #[error("{backend}: {what}")]
    Backend {
        /// Backend.
        backend: &'static str,
        /// The backend's words and what to do.
        what: String,
    },
}

/// Writes the flat parameters, and their copies for plans of another precision than f32.
///
/// # Errors
/// As [`Device::write`].
pub fn write_params(device: &mut dyn Device, precision: Precision, params: &[f32]) -> Result<(), DeviceError> {
    device.write(Space::Params, 0, bytemuck::cast_slice(params))?;
    match precision.has_shadow() {
        true => device.write(Space::Shadow, 0, &precision.pack(params)),
        false => Ok(()),
    }
}

/// Checks that a plan fits the buffers and that no launch writes what it also shows as another argument.
///
/// # Errors
/// [`DeviceError::TooSmall`], [`DeviceError::Overlap`].
pub fn check(plan: &Plan, sizes: &Sizes) -> Result<(), DeviceError> {
    for launch in &plan.launches {
        let places: Vec<_> = launch.values.iter().map(|&value: &Value| plan.place(value)).collect();
        for (slot, place) in places.iter().enumerate() {
            let (needed, available) = (place.offset + place.words, sizes.words(place.space));
            if needed > available {
                return Err(DeviceError::TooSmall {
                    plan: plan.name.clone(),
                    space: place.space,
                    needed,
                    available,
                });
            }
            if launch.kernel.args[slot].access == Access::In {
                continue;
            }
            let overlaps = |other: &usize| {
                let b = places[*other];
                let meet = place.offset < b.offset + b.words && b.offset < place.offset + place.words;
                *other != slot && b.space == place.space && meet
            };
            if let Some(other) = (0..places.len()).find(overlaps) {
                return Err(DeviceError::Overlap {
                    scope: launch.scope.clone(),
                    kernel: launch.kernel.name,
                    written: launch.kernel.args[slot].name,
                    other: launch.kernel.args[other].name,
                });
            }
        }
    }
    Ok(())
}

fn range_check(sizes: &Sizes, space: Space, offset: usize, words: usize) -> Result<(), DeviceError> {
    let (end, available) = (offset.saturating_add(words), sizes.words(space));
    if end > available {
        return Err(DeviceError::OutOfRange {
            space,
            offset,
            end,
            available,
        });
    }
    Ok(())
}
