//! What a kernel is, said once: arguments with shapes, sources per backend, launch size, cost, CPU function.
//!
//! Everything above reads the same description: the recorder checks shapes against it, the backends launch from it, the
//! profiler takes its FLOPs and bytes, the tests compare WGSL bindings and CUDA signatures with it. A kernel never
//! sees a pointer that is not in its argument table, and never a number that changes per step except in
//! [`StepParams`].
//!
//! Shapes are `rows x width`. Both are *symbols*, strings such as `"rows"` or `"width"`; the recorder resolves them from
//! the bound values to an [`Extent`]: a capacity that is fixed when the plan is recorded and, for row symbols, a
//! count that [`StepParams`] carries and that the kernel reads on the device.

mod call;
mod element;
mod product;
mod source;
mod step;

pub use call::{Call, RawArg};
pub use element::{DType, Element, Precision};
pub use product::{Factor, Finish, Product};
pub use source::{
    CUDA_COMMON, File, Grid, PLAIN, REDUCING, Source, THREADS, VENDOR, Variant, WGSL_COMMON, WGSL_LANES, cover,
    workgroups,
};
pub use step::StepParams;

/// How a kernel touches an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    In,
    /// Every live element is written, nothing is read.
    Out,
    /// Read and written (accumulation, in-place operation).
    InOut,
}

/// One tensor argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Name, the same in Rust, WGSL and CUDA.
    pub name: &'static str,
    /// How it is touched.
    pub access: Access,
    /// Element type.
    pub element: Element,
    /// Symbols of rows and width; `"1"` is the number one, `"*"` is not checked.
    pub shape: [&'static str; 2],
}

impl Arg {
    /// A read-only tensor of the plan's precision.
    pub const fn input(name: &'static str, shape: [&'static str; 2]) -> Arg {
        Arg {
            name,
            access: Access::In,
            element: Element::Stored,
            shape,
        }
    }

    /// A read-only u32 tensor.
    pub const fn index(name: &'static str, shape: [&'static str; 2]) -> Arg {
        Arg {
            element: Element::U32,
            ..Arg::input(name, shape)
        }
    }

    /// A tensor of the plan's precision that is written whole.
    pub const fn output(name: &'static str, shape: [&'static str; 2]) -> Arg {
        Arg {
            access: Access::Out,
            ..Arg::input(name, shape)
        }
    }

    /// A tensor of the plan's precision that is read and written. With a constant `accumulate_<name>` of 0 it is only
    /// written.
    pub const fn inout(name: &'static str, shape: [&'static str; 2]) -> Arg {
        Arg {
            access: Access::InOut,
            ..Arg::input(name, shape)
        }
    }

    /// The same of unsigned integers.
    pub const fn u32(self) -> Arg {
        Arg {
            element: Element::U32,
            ..self
        }
    }

    /// The same as f32 in plans of every precision: parameters and their gradients, statistics, losses.
    pub const fn f32(self) -> Arg {
        Arg {
            element: Element::F32,
            ..self
        }
    }
}

/// Which word of [`StepParams`] says how many rows are live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// The capacity itself: weights, reductions.
    Fixed,
    /// Tokens of the packed batch.
    Tokens,
    /// Sequences of the batch.
    Sequences,
    /// Masked rows of the batch.
    Masked,
    /// Distinct token ids of the batch.
    Buckets,
}

/// Size of one side of a tensor: `capacity` elements are reserved, `clamp(count - start, 0, capacity)` are live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the live count comes from.
    pub count: Count,
    /// First row that this (view of a) tensor shows.
    pub start: u32,
    /// Rows reserved.
    pub capacity: u32,
}

impl Extent {
    /// A size known when the plan is recorded.
    pub const fn fixed(capacity: u32) -> Extent {
        Extent {
            count: Count::Fixed,
            start: 0,
            capacity,
        }
    }

    /// At most `capacity` rows, counted per step.
    pub const fn counted(count: Count, capacity: u32) -> Extent {
        Extent {
            count,
            start: 0,
            capacity,
        }
    }

    /// Live rows in this step.
    pub fn live(&self, step: &StepParams) -> usize {
        match self.count {
            Count::Fixed => self.capacity as usize,
            count => step.count(count).saturating_sub(self.start).min(self.capacity) as usize,
        }
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            Count::Fixed => write!(f, "{}", self.capacity),
            count if self.start == 0 => write!(f, "{count:?}<={}", self.capacity),
            count => write!(f, "{count:?}[{}..{}]", self.start, self.start + self.capacity),
        }
    }
}

/// Resolved symbols and constants of one launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dims {
    extents: Vec<(&'static str, Extent)>,
    constants: Vec<(&'static str, u32)>,
    precision: Precision,
}

impl Dims {
    /// Binds a shape symbol. The recorder has checked that it is new.
    pub fn bind(&mut self, symbol: &'static str, extent: Extent) {
        self.extents.push((symbol, extent));
    }

    /// Adds a launch constant.
    pub fn constant(&mut self, name: &'static str, word: u32) {
        self.constants.push((name, word));
    }

    /// Says how the launch's [`Element::Stored`] tensors are stored.
    pub fn store_as(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// How the launch's [`Element::Stored`] tensors are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The extent of a symbol, if bound.
    pub fn find(&self, symbol: &str) -> Option<Extent> {
        self.extents
            .iter()
            .find(|(name, _)| *name == symbol)
            .map(|(_, extent)| *extent)
    }

    /// The extent of a symbol that the kernel's argument table names.
    pub fn extent(&self, symbol: &str) -> Extent {
        self.find(symbol)
            .expect("symbols of the argument table are bound at record time")
    }

    /// Capacity of a symbol.
    pub fn size(&self, symbol: &str) -> usize {
        self.extent(symbol).capacity as usize
    }

    /// A launch constant as an integer.
    pub fn word(&self, name: &str) -> u32 {
        let found = self.constants.iter().find(|(constant, _)| *constant == name);
        found.expect("constants of the kernel table are given at record time").1
    }

    /// A launch constant that was recorded as the bits of an f32.
    pub fn float(&self, name: &str) -> f32 {
        f32::from_bits(self.word(name))
    }

    /// A launch constant that is a flag.
    pub fn flag(&self, name: &str) -> bool {
        self.word(name) != 0
    }

    /// The word that a device reads for `name` in its constant block: a constant, or for a symbol `s` one of `s` (the
    /// capacity), `s.count` (index of the live count in [`StepParams`], `u32::MAX` when fixed), `s.start`.
    pub fn device_word(&self, name: &str) -> Option<u32> {
        if let Some((_, word)) = self.constants.iter().find(|(constant, _)| *constant == name) {
            return Some(*word);
        }
        let (symbol, field) = name.split_once('.').unwrap_or((name, "capacity"));
        let extent = self.find(symbol)?;
        match field {
            "capacity" => Some(extent.capacity),
            "start" => Some(extent.start),
            "count" => Some(StepParams::count_word(extent.count)),
            _ => None,
        }
    }

    /// All symbols with their extents, in the order of the argument table.
    pub fn extents(&self) -> &[(&'static str, Extent)] {
        &self.extents
    }
}

/// Work of one launch at given sizes; every tensor is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            flops: self.flops + other.flops,
            read: self.read + other.read,
            written: self.written + other.written,
        }
    }
}

/// Live sizes for cost functions: capacities of a plan, or the real counts of a step.
pub struct Sizes<'a> {
    dims: &'a Dims,
    step: Option<&'a StepParams>,
}

impl<'a> Sizes<'a> {
    /// Sizes at the plan's capacities (`step` absent) or at a step's live counts.
    pub fn new(dims: &'a Dims, step: Option<&'a StepParams>) -> Sizes<'a> {
        Sizes { dims, step }
    }

    /// Elements along a symbol.
    pub fn get(&self, symbol: &str) -> u64 {
        let extent = self.dims.extent(symbol);
        self.step
            .map_or(u64::from(extent.capacity), |step| extent.live(step) as u64)
    }

    /// Bytes of a stored element.
    pub fn stored_bytes(&self) -> u64 {
        self.dims.precision.dtype().bytes() as u64
    }

    /// A launch constant.
    pub fn word(&self, name: &str) -> u64 {
        u64::from(self.dims.word(name))
    }

    /// Sum over the sequences of the batch of the square of their lengths; at capacity, as many sequences of
    /// `max_length` as the tokens allow.
    pub fn squared_lengths(&self, max_length: u64) -> u64 {
        self.step
            .map_or_else(|| self.get("tokens") * max_length, |step| step.squared_lengths())
    }
}

/// A kernel: everything that any part of the crate has to know about it.
pub struct Kernel {
    /// `op.kernel`, for example `layer_norm.forward`.
    pub name: &'static str,
    /// Tensor arguments in binding order.
    pub args: &'static [Arg],
    /// Launch constants, see [`Dims::device_word`]: the last parameters of the CUDA function in this order, members of the
    /// WGSL block `constants` by name. The WGSL reads each of them, and no other.
    pub constants: &'static [&'static str],
    /// CUDA C++ source, compiled by NVRTC.
    pub cuda: Option<Source>,
    /// WGSL source.
    pub wgsl: Option<Source>,
    /// CPU function; parallel over fixed partitions.
    pub cpu: fn(&Call),
    /// Takes the calling thread's working memory for these sizes, if the CPU function uses any. Every worker does so when
    /// a plan is loaded, because which of them gets which task is known too late.
    pub reserve: Option<fn(&Dims)>,
    /// Workgroups of a GPU variant for the plan's capacities.
    pub grid: fn(&Dims, &Variant) -> Grid,
    /// Work.
    pub cost: fn(&Sizes) -> Cost,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
