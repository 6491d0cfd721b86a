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
mod explain;
mod params;
mod recorder;

use crate::kernel::{Access, DType, Dims, Extent, Kernel, StepParams};

pub use explain::MemoryReport;
pub use params::{Init, ParamSpec, ParamTable};
pub use recorder::{Gradient, Recorder};

/// Words to which every tensor is aligned: 256 bytes, the most that a WebGPU adapter may ask of a binding.
pub const ALIGN: usize = 64;

/// Rounds a number of words up to [`ALIGN`].
pub const fn aligned(words: usize) -> usize {
    words.div_ceil(ALIGN) * ALIGN
}

/// The buffers of a run. Each is one allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// f32 master parameters, flat.
    Params,
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
    needs_gradient: bool,
    has_backward: bool,
    written: bool,
    keep: bool,
}

impl ValueInfo {
    /// Words at capacity.
    pub fn words(&self) -> usize {
        self.rows.capacity as usize * self.width as usize
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
    /// Index into the kernel's variants.
    pub variant: usize,
    /// Scope, for messages and profiles: `joint/layer3/attention`.
    pub scope: String,
    /// Values bound to the kernel's arguments, in order.
    pub values: Vec<Value>,
    /// Resolved sizes and constants.
    pub dims: Dims,
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

/// Why a recording was refused. Every message begins with the scope.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PlanError {
    /// Sizes that do not fit together.
    #[error("{scope}: {kernel} expects {symbol} = {expected} for `{arg}`, got {found} ({label})")]
    Shape {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// Argument name.
        arg: &'static str,
        /// Shape symbol.
        symbol: &'static str,
        /// Size bound earlier in the same launch.
        expected: String,
        /// Size of this value.
        found: String,
        /// The value.
        label: String,
    },
    /// Wrong element type.
    #[error("{scope}: {kernel} expects {expected:?} for `{arg}`, got {found:?} ({label})")]
    Type {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// Argument name.
        arg: &'static str,
        /// Declared type.
        expected: DType,
        /// Type of the value.
        found: DType,
        /// The value.
        label: String,
    },
    /// Wrong number of tensors or constants.
    #[error("{scope}: {kernel} takes {expected} {what}, got {found}")]
    Count {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// `arguments` or `constants`.
        what: &'static str,
        /// By the kernel's table.
        expected: usize,
        /// By the call.
        found: usize,
    },
    /// A constant of the kernel's table that the call did not give.
    #[error("{scope}: {kernel} needs the constant `{constant}`")]
    Constant {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// Name in the kernel's table.
        constant: &'static str,
    },
    /// A value is read before any launch wrote it.
    #[error("{scope}: {kernel} reads `{label}` before it is written")]
    Unwritten {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// The value.
        label: String,
    },
    /// A read-only value (parameter, input) is bound to a written argument.
    #[error("{scope}: {kernel} would overwrite `{label}`, which is read-only in a plan that computes gradients")]
    ReadOnly {
        /// Scope.
        scope: String,
        /// Kernel.
        kernel: &'static str,
        /// The value.
        label: String,
    },
    /// The gradient must pass through an op that has no backward.
    #[error("{scope}: `{label}` lies on a path to a parameter, but the op that made it has no backward")]
    NoBackward {
        /// Scope.
        scope: String,
        /// The value.
        label: String,
    },
    /// A parameter that nothing differentiated and nobody declared frozen.
    #[error("{plan}: parameter `{name}` gets no gradient; use it, or declare it frozen for this plan")]
    NoGradient {
        /// Plan.
        plan: String,
        /// Parameter.
        name: String,
    },
    /// A parameter name that the table does not hold.
    #[error("{scope}: no parameter `{name}`; the table has {known} parameters, nearest `{nearest}`")]
    UnknownParameter {
        /// Scope.
        scope: String,
        /// Name asked for.
        name: String,
        /// Parameters in the table.
        known: usize,
        /// Most similar name.
        nearest: String,
    },
    /// Parameters that should form one matrix do not lie side by side.
    #[error("{scope}: parameters {names} are not adjacent in the parameter buffer and cannot be used as one matrix")]
    NotAdjacent {
        /// Scope.
        scope: String,
        /// Names asked for.
        names: String,
    },
    /// A size the op does not support.
    #[error("{scope}: {what}")]
    Unsupported {
        /// Scope.
        scope: String,
        /// What, and what is supported.
        what: String,
    },
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
