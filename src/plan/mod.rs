//! Plans: a model function recorded once, replayed every step.
//!
//! ```text
//! model function --> Recorder --> flat list of launches --> arena offsets --> Plan --> Device::load --> replay
//! ```
//!
//! [`Recorder`] turns calls of ops into [`Launch`]es and runs each op's explicit backward, also once. [`arena`] places
//! every intermediate value in one buffer by its lifetime. What remains, [`Plan`], is plain data: no tape, no graph, no
//! tensor object exists at run time. This room knows no op and no backend.

pub mod arena;
mod error;
mod explain;
mod params;
mod recorder;

use crate::kernel::{Access, DType, Dims, Extent, Kernel, Precision, StepParams};

pub use error::PlanError;
pub use explain::MemoryReport;
pub use params::{Init, ParamSpec, ParamTable};
pub use recorder::{Gradient, Recorder};

/// Words to which every tensor is aligned: 256 bytes, the most that a WebGPU adapter may ask of a binding.
pub const ALIGN: usize = 64;

/// Rounds a number of words up to [`ALIGN`].
pub const fn aligned(words: usize) -> usize {
    words.div_ceil(ALIGN) * ALIGN
}

/// What a device can hold in one piece, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// One tensor of a launch.
    pub tensor: usize,
    /// One buffer, a multiple of [`ALIGN`]; a larger arena is several.
    pub buffer: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            tensor: usize::MAX,
            buffer: usize::MAX,
        }
    }
}

/// The buffers of a run. Each is one allocation, the arena several where the device's are too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// f32 master parameters, flat.
    Params,
    /// The same in the plan's precision, where that is not f32: the weights that products read. Two elements to a word.
    Shadow,
    /// Gradients, laid out as the parameters.
    Grads,
    /// AdamW's first moment.
    Moment1,
    /// AdamW's second moment.
    Moment2,
    /// Intermediate values of the running plan.
    Arena,
    /// [`StepParams`] followed by the plan's inputs: one upload per step.
    Inputs,
    /// Losses, counts and norms that the host reads.
    Readback,
}

impl Space {
    /// All of them, in the order of [`index`](Space::index).
    pub const ALL: [Space; 8] = [
        Space::Params,
        Space::Shadow,
        Space::Grads,
        Space::Moment1,
        Space::Moment2,
        Space::Arena,
        Space::Inputs,
        Space::Readback,
    ];

    /// Its place in [`ALL`](Space::ALL), and in lists with an entry for each space.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A tensor of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

/// Where a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Buffer.
    pub space: Space,
    /// First word.
    pub offset: usize,
    /// Words at capacity.
    pub words: usize,
}

/// What is known of a value.
#[derive(Clone, Debug)]
pub struct ValueInfo {
    /// Scope and name, for messages: `joint/layer3/attention/qkv`.
    pub label: String,
    /// Rows.
    pub rows: Extent,
    /// Elements per row.
    pub width: u32,
    /// Element type.
    pub dtype: DType,
    home: Home,
    /// Whether a parameter (or a differentiable input) goes into it.
    needs_gradient: bool,
    /// Whether the op that made it can be differentiated.
    has_backward: bool,
    /// Whether it is the gradient of another value.
    gradient: bool,
    /// Whether any launch wrote it, or it is there from the start.
    written: bool,
    /// How many launches the plan had after the forward's last write to it; 0: no launch of the forward wrote it.
    last_write: usize,
    /// Whether its memory is its own to the end of the plan.
    keep: bool,
}

impl ValueInfo {
    /// A value that nothing has written and nothing depends on yet.
    fn new(label: String, rows: Extent, width: u32, dtype: DType, home: Home) -> ValueInfo {
        ValueInfo {
            label,
            rows,
            width,
            dtype,
            home,
            needs_gradient: false,
            has_backward: false,
            gradient: false,
            written: false,
            last_write: 0,
            keep: false,
        }
    }

    /// Words at capacity.
    pub fn words(&self) -> usize {
        self.dtype.words(self.rows.capacity as usize * self.width as usize)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// Placed by the arena planner.
    Arena,
    /// A fixed range.
    At(Space, usize),
    /// Rows of another value, from this word on.
    View(Value, usize),
}

/// One kernel launch with its tensors bound.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Kernel.
    pub kernel: &'static Kernel,
    /// Scope, for messages and profiles: `joint/layer3/attention`.
    pub scope: String,
    /// Values bound to the kernel's arguments, in order.
    pub values: Vec<Value>,
    /// Resolved sizes and constants.
    pub dims: Dims,
    /// Whether it repeats a launch of the forward, see [`Recorder::recomputed`].
    pub recomputed: bool,
}

/// A named range of [`Space::Inputs`] or [`Space::Readback`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name that the data side and the recording side share.
    pub name: &'static str,
    /// First word in its space.
    pub offset: usize,
    /// Words at capacity.
    pub words: usize,
}

/// A recorded program.
#[derive(Debug)]
pub struct Plan {
    /// Name: `external`, `joint`, `finetune`, `evaluate`, `update`.
    pub name: String,
    /// Launches in order.
    pub launches: Vec<Launch>,
    /// Inputs by name, behind [`StepParams`].
    pub inputs: Vec<Port>,
    /// Outputs by name.
    pub outputs: Vec<Port>,
    /// Words of the arena.
    pub arena_words: usize,
    /// Largest number of words that are live at the same time: no arena can be smaller.
    pub arena_lower_bound: usize,
    /// How activations are stored.
    pub precision: Precision,
    values: Vec<ValueInfo>,
    places: Vec<Place>,
}

impl Plan {
    /// Where a value lives.
    pub fn place(&self, value: Value) -> Place {
        self.places[value.0 as usize]
    }

    /// What a value is.
    pub fn value(&self, value: Value) -> &ValueInfo {
        &self.values[value.0 as usize]
    }

    /// Words of [`Space::Shadow`] for a flat buffer of so many parameters.
    pub fn shadow_words(&self, params: usize) -> usize {
        match self.precision.has_shadow() {
            true => self.precision.dtype().words(params),
            false => 0,
        }
    }

    /// Words of the input buffer, step parameters included.
    pub fn input_words(&self) -> usize {
        self.inputs
            .iter()
            .map(|port| aligned(port.offset + port.words))
            .max()
            .unwrap_or(aligned(StepParams::WORDS))
    }

    /// Words of the readback buffer.
    pub fn readback_words(&self) -> usize {
        self.outputs
            .iter()
            .map(|port| aligned(port.offset + port.words))
            .max()
            .unwrap_or(0)
    }

    /// An input by name.
    pub fn input(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|port| port.name == name)
    }

    /// An output by name.
    pub fn output(&self, name: &str) -> Option<&Port> {
        self.outputs.iter().find(|port| port.name == name)
    }
}

/// Whether a launch reads the old contents of an argument: an `InOut` whose constant `accumulate_<name>` is 0 is a write.
pub fn reads(kernel: &Kernel, dims: &Dims, arg: usize) -> bool {
    let arg = &kernel.args[arg];
    match arg.access {
        Access::In => true,
        Access::Out => false,
        Access::InOut => {
            let name = kernel
                .constants
                .iter()
                .find(|name| name.strip_prefix("accumulate_") == Some(arg.name));
            name.is_none_or(|name| dims.flag(name))
        }
    }
}
