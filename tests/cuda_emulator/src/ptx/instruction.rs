//! Instructions as they are executed: operands are numbers of registers, and constants are registers that are filled
//! once.

use crate::rows::{CarryFunction, MaskFunction, RowFunction};

/// Number of a register, or of a predicate.
pub type Register = u16;

/// One instruction.
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// The predicate that lets it.
    pub guard: Option<Guard>,
    /// Index of its place in the sources, in [`Module::locations`](super::Module::locations).
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

/// What an instruction does. Register fields are destinations first.
pub enum Op {
    /// A function of up to three registers.
    Compute {
        /// The function.
        function: RowFunction,
        /// Where the result goes.
        to: Register,
        /// Operands.
        from: [Register; 3],
    },
    /// Arithmetic with the carry bit.
    Carry {
        /// The function.
        function: CarryFunction,
        /// Whether the carry bit is added.
        reads: bool,
        /// Whether the carry bit is written.
        writes: bool,
        /// Where the result goes.
        to: Register,
        /// Operands.
        from: [Register; 3],
    },
    /// A special register.
    Special {
        /// Which.
        special: Special,
        /// Where it goes.
        to: Register,
    },
    /// A comparison, perhaps combined with a predicate.
    Compare {
        /// The comparison.
        function: MaskFunction,
        /// Predicate of the result.
        to: Option<Register>,
        /// Predicate of the comparison's opposite, combined likewise.
        opposite: Option<Register>,
        /// Operands.
        from: [Register; 2],
        /// What it is combined with.
        combine: Option<(Logic, PredicateOperand)>,
    },
    /// One of two registers.
    Select {
        /// Where it goes.
        to: Register,
        /// Where the predicate is true, where it is false.
        from: [Register; 2],
        /// The predicate.
        predicate: PredicateOperand,
    },
    /// An operation on predicates.
    Predicate {
        /// Which.
        logic: Logic,
        /// Whether the result is negated.
        negated: bool,
        /// Where it goes.
        to: Register,
        /// Operands.
        from: [PredicateOperand; 2],
    },
    /// A register made from parts, lowest first.
    Pack {
        /// Where it goes.
        to: Register,
        /// The parts.
        parts: Vec<Register>,
        /// Bits of a part.
        bits: u32,
    },
    /// The parts of a register.
    Unpack {
        /// Where they go; none where one is dropped.
        parts: Vec<Option<Register>>,
        /// Bits of a part.
        bits: u32,
        /// The register.
        from: Register,
    },
    /// A kernel's parameter.
    Parameter {
        /// Where it goes.
        to: Register,
        /// Where it stands among the parameters.
        offset: u32,
        /// Bytes.
        bytes: u32,
        /// Bits that a negative value is extended to; 0 if it isn't.
        sign_bits: u32,
    },
    /// `ld`
    Load {
        /// Space.
        space: Space,
        /// Address.
        address: Address,
        /// Bytes of an element.
        bytes: u32,
        /// Bits that negative elements are extended to; 0 if they aren't.
        sign_bits: u32,
        /// Where the elements go.
        to: Vec<Option<Register>>,
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `st`
    Store {
        /// Space.
        space: Space,
        /// Address.
        address: Address,
        /// Bytes of an element.
        bytes: u32,
        /// The elements.
        from: Vec<Register>,
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `atom` and `red`
    Atomic {
        /// Space.
        space: Space,
        /// Address.
        address: Address,
        /// Bytes.
        bytes: u32,
        /// What is done.
        kind: AtomicKind,
        /// Where the old value goes.
        to: Option<Register>,
        /// Operands.
        from: [Register; 2],
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `cp.async`
    CopyAsync {
        /// Address in shared memory.
        to: Address,
        /// Address in global memory.
        from: Address,
        /// Bytes written.
        bytes: u32,
        /// Bytes read, the rest being zero.
        source_bytes: Option<Register>,
        /// Predicate that, when true, has nothing read.
        ignore: Option<PredicateOperand>,
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `cp.async.commit_group`
    CopyCommit,
    /// `cp.async.wait_group`: at most this many groups may be under way.
    CopyWait {
        /// The groups; none is `wait_all`, which also waits for copies that belong to no group.
        groups: Option<u32>,
    },
    /// `ldmatrix`
    LoadMatrix {
        /// Address of a row, by lane.
        address: Address,
        /// Whether the matrices are transposed.
        transposed: bool,
        /// One register per matrix.
        to: Vec<Register>,
        /// Number among the kernel's memory instructions.
        site: u16,
    },
    /// `mma.sync`
    Multiply {
        /// Shape and types.
        kind: MatrixKind,
        /// Result.
        d: Vec<Register>,
        /// Left operand.
        a: Vec<Register>,
        /// Right operand.
        b: Vec<Register>,
        /// What the product is added to.
        c: Vec<Register>,
    },
    /// `bar`
    Barrier {
        /// What it does.
        kind: BarrierKind,
        /// Register with the barrier's number.
        number: Register,
        /// Register with the number of threads; none means all of the block.
        threads: Option<Register>,
        /// Whether `destination` of a reduction is a register and not a predicate.
        count: bool,
    },
    /// `bar.warp.sync`
    WarpSync {
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `shfl.sync`
    Shuffle {
        /// Which.
        kind: ShuffleKind,
        /// Where the value goes.
        to: Register,
        /// Predicate: whether it came from a lane in range.
        found: Option<Register>,
        /// Value, lane or distance, clamp and segment.
        from: [Register; 3],
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `vote.sync`
    Vote {
        /// Which.
        kind: VoteKind,
        /// Predicate, or register for a ballot.
        to: Register,
        /// The vote.
        from: PredicateOperand,
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `match.sync`
    Match {
        /// Whether all lanes must have the same value.
        all: bool,
        /// Where the mask goes.
        to: Register,
        /// Predicate: whether all lanes have the same value.
        same: Option<Register>,
        /// The value.
        from: Register,
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `redux.sync`
    Reduce {
        /// Which.
        function: Arithmetic,
        /// Where the result goes.
        to: Register,
        /// The values.
        from: Register,
        /// Register with the mask of lanes.
        members: Register,
    },
    /// `activemask`
    ActiveMask {
        /// Where it goes.
        to: Register,
    },
    /// `bra`
    Branch {
        /// Index of the instruction.
        target: u32,
    },
    /// `brx.idx`
    BranchIndexed {
        /// Register with the index.
        index: Register,
        /// Indices of instructions.
        targets: Vec<u32>,
    },
    /// `exit`, and `ret` of a kernel.
    Exit,
    /// `trap`
    Trap,
    /// Fences, prefetches and hints.
    Nothing,
}
