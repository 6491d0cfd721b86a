//! Instructions as they are executed: operands are numbers of registers, and constants are registers that are filled
//! once.

use super::op::Op;

/// Number of a register, or of a predicate.
pub type Register = u16;

/// One instruction.
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// The predicate that lets it.
    pub guard: Option<Guard>,
    /// Index of its place in the sources, in [`Module::locations`](super::Kernel::locations).
    pub place: u32,
    /// What it counts as.
    pub class: Class,
}

/// `@p` or `@!p`.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// Predicate.
    pub predicate: Register,
    /// Whether it must be false.
    pub negated: bool,
}

/// A predicate as an operand.
pub type PredicateOperand = Guard;

/// A place in the sources.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// File as the compiler was told its name.
    pub file: String,
    /// Line.
    pub line: u32,
    /// Where the function that the line belongs to was inlined.
    pub inlined_at: Option<(String, u32)>,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        match &self.inlined_at {
            Some((file, line)) => write!(f, " (inlined at {file}:{line})"),
            None => Ok(()),
        }
    }
}

/// Kinds of instructions, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// f32, f64 and half precision arithmetic.
    Float,
    /// Integer arithmetic, comparisons, moves, conversions.
    Integer,
    /// Loads, stores, atomics and copies.
    Memory,
    /// Branches, barriers and exits.
    Control,
    /// Exchanges within a warp.
    Warp,
    /// Matrix instructions.
    Matrix,
}

impl Class {
    /// All of them, in the order of their numbers.
    pub const ALL: [(Class, &'static str); 6] = [
        (Class::Float, "float"),
        (Class::Integer, "integer"),
        (Class::Memory, "memory"),
        (Class::Control, "control"),
        (Class::Warp, "warp"),
        (Class::Matrix, "matrix"),
    ];
}

/// Where memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Device memory.
    Global,
    /// The block's memory.
    Shared,
    /// The thread's memory.
    Local,
    /// Any of them, as the address says.
    Generic,
}

/// `[register + offset]`
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// Register of the base.
    pub base: Register,
    /// Bytes added to it.
    pub offset: i64,
}

/// Special registers.
#[derive(Clone, Copy, Debug)]
pub enum Special {
    /// `%tid`, by dimension.
    Thread(usize),
    /// `%ntid`
    BlockSize(usize),
    /// `%ctaid`
    Block(usize),
    /// `%nctaid`
    GridSize(usize),
    /// `%laneid`
    Lane,
    /// `%warpid`
    Warp,
    /// `%nwarpid`
    Warps,
    /// `%lanemask_eq`, `_le`, `_lt`, `_ge`, `_gt`: the function of a lane.
    LaneMask(fn(u32) -> u32),
    /// `%clock`, `%clock64`, `%globaltimer`: instructions that the warp has executed.
    Clock,
    /// `%smid`
    Multiprocessor,
    /// `%nsmid`
    Multiprocessors,
    /// `%dynamic_smem_size`
    DynamicShared,
    /// `%total_smem_size`
    TotalShared,
}

/// Operations on predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    /// Both.
    And,
    /// Either.
    Or,
    /// One of them.
    Xor,
}

impl Logic {
    /// Of two masks.
    pub fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Logic::And => a & b,
            Logic::Or => a | b,
            Logic::Xor => a ^ b,
        }
    }
}

/// What an atomic operation does with the old value and its operand.
pub type Arithmetic = fn(u64, u64) -> u64;

/// An atomic operation.
#[derive(Clone, Copy)]
pub enum AtomicKind {
    /// A function of old value and operand, which is the new value.
    Update(Arithmetic),
    /// Compare and swap: the operand is what is compared.
    CompareAndSwap,
}

/// Kinds of shuffles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuffleKind {
    /// From a lane further down.
    Up,
    /// From a lane further up.
    Down,
    /// From the lane with some bits flipped.
    Butterfly,
    /// From a lane.
    Index,
}

/// Kinds of votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteKind {
    /// True in all lanes.
    All,
    /// True in one of them.
    Any,
    /// The same in all lanes.
    Uniform,
    /// A bit per lane.
    Ballot,
}

/// What `redux.sync` and `bar.red` do with the values of the lanes.
#[derive(Clone, Copy)]
pub enum Reduction {
    /// Number of threads whose predicate is true.
    Count,
    /// All predicates are true.
    All,
    /// One predicate is true.
    Any,
}

/// What a barrier does.
#[derive(Clone, Copy)]
pub enum BarrierKind {
    /// Waits.
    Sync,
    /// Counts, and goes on.
    Arrive,
    /// Waits, and brings a reduction of the predicates, to a predicate or a register.
    Reduce {
        /// Which.
        reduction: Reduction,
        /// What is reduced.
        source: PredicateOperand,
        /// Where the result goes.
        destination: Register,
    },
}

/// Shapes and types of the matrix instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixKind {
    /// f16 operands, `depth` 8 or 16.
    F16 {
        /// Depth.
        depth: usize,
        /// Whether sums are f16 as well.
        half_sums: bool,
    },
    /// bf16 operands, `depth` 8 or 16.
    Bf16 {
        /// Depth.
        depth: usize,
    },
    /// tf32 operands, `depth` 4 or 8.
    Tf32 {
        /// Depth.
        depth: usize,
    },
}
